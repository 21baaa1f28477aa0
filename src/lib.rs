//! rmxd, the gate in front of a mail server: reverse MX lookup for inbound SMTP.
//!
//! The modules in reading order, lowest first: a module imports only from those above it in this list
//! (`tests/it/layers.rs` reads the list and keeps it so).
//!
//! Decisions, and why:
//! - DNS in trouble is a 4xx, since a wrong 5xx loses mail and a 4xx only delays it. A circle of aliases is trouble too.
//! - The verdict is given at RCPT by default: the DNS time hides behind the client's next round trip, and the log learns
//!   the recipient. Only what can refuse is waited for there; what only tags is waited for at the end of the header.
//! - There is no queue: the relay has one. What it says to a recipient is what the client hears.
//! - What the relay says of us (out of step, TLS or a password wanted) is the operator's trouble and stays a 4xx.
//! - Questions to DNS go by sockets of our own: hickory-resolver makes a socket and a task for each over UDP and copies it
//!   several times, which was a quarter of what a spoofed sender with a new name cost, and over TCP it goes on with a
//!   connection that has died. Its parser stays.
//! - NXDOMAIN is an answer to the question that was asked, name and type: some servers send it for AAAA, or for an empty
//!   non-terminal. It denies more only where DNSSEC proves it (RFC 8020), by the AD bit of a server on loopback (RFC 4035
//!   4.9.3); `trust-ad` of resolv.conf is not read, as it speaks for a path that we can't see.
//! - A made-up name costs three questions without DNSSEC: MX, then A and AAAA side by side. All three at once would
//!   triple the questions about good domains, which need the first only.
//! - TCP to a resolver: at most eight connections (unbound takes ten by default), many questions on each. One question on
//!   each would be simpler, but then slow questions of one client could take all that the resolver has.
//! - At the end the listeners are closed before any session is told: who is turned away can't come back in by them.
//! - There is no trait for DNS: a zone server on loopback tests the real resolver.
//! - What the relay says to a client that it knows by XCLIENT is a verdict on that client, and the client hears it.
//! - No client holds more of the relay's connections than are free, so that slow ones leave room for a newcomer.
//! - A connection to the relay is taken back from its slowest holder while others wait, and only while its client is waited
//!   for: never while a command or the final dot is on its way, so that no message is cut off that may have arrived.
//! - The log is written by a thread of its own: mail doesn't wait for whoever reads it. What a stuck reader loses is counted.
//! - A panic unwinds and is counted: one bad peer must not cut the others.
//! - A listed MAIL FROM domain exempts the envelope only; From: and Reply-To: each exempt themselves, so that a forged
//!   envelope opens no way around the check of the visible sender.
//! - A header that begins with a continuation line is refused for everybody: behind our trace fields it would speak in
//!   our name.
//! - A domain with white space, comments or folds inside is malformed, though RFC 5322 4.4 permits them: readers end it at
//!   different places. So is what the relay would break or cut, since it delivers another header than the one judged.
//! - A bounce whose From: names no domain is only tagged: its loss would be noticed by nobody. If any reader could find an
//!   address in that field, it is ambiguous and refused.
//! - Forged results are taken out by every reading of the field that we know of, not by the grammar: the programs behind
//!   us don't follow it.
//! - Whether DNS is down is learned from its servers, never from the domains that are asked for: those are the senders'.
//! - A file of exemptions with one bad line is refused whole: half a list would refuse somebody whom the operator trusts.
//! - The greylist asks by the envelope's sender, whichever identity failed: one delay for a message, not one for each.
//! - The greylist answers from memory and is written behind: a disk may cost what a restart remembers, never a session's
//!   time.
//! - SPF is evaluated over our own DNS: it shares the answers and the bounds, and two records are the error that RFC 7208
//!   says they are. A void look-up is counted once for its term, so that hosts without IPv6 are no domain's error.
//! - At the null sender SPF speaks of postmaster at the HELO name (RFC 7208 2.4), which is what identity `helo` is judged
//!   by; `mail_from` stays without a result.
//! - DKIM decides before the final dot, not before the body: the relay has the octets by then, never the dot. What is written
//!   in front of the message says that the result was open; to hold the body back would break the bound on memory.
//! - What would be refused is counted by kind and domain, bounded: a flood of invented names pushes out seldom ones of its
//!   own kind, and no total.
//! - A replay of logs judges by the gate's own code, so that what it foretells is what happens; what only tags it does
//!   not ask for.
//! - A decision is kept as what it was made of, and put into words when somebody asks: a record costs a session little, and
//!   the log, `check`, `explain` and the API show the same.
//! - The history is files that are only appended to, not the B-tree that the greylist has: nothing in it ever changes, what is
//!   too old or too much goes as a whole file, readers beside the daemon need neither lock nor socket, a crash leaves
//!   nothing to repair, and damage costs what it hit.
//! - Zone files have a parser of our own. hickory-proto 0.26 has one, and it was tried on the lines of the tests in
//!   `zone/master.rs`: its errors name no line; it refuses `MX 10 @`, `MX 10 mail_1.test.` and a comment within
//!   parentheses before a quoted text; it keeps the quotes and loses the blanks of a TXT record in parentheses, reads
//!   `\DDD` as octal in names and as another character in texts (RFC 1035 5.1: decimal, one octet), and drops the second
//!   word of `A 127.0.0.1 127.0.0.2`. To hand it one entry at a time, words would still be cut here, names and texts
//!   would be written anew in its spelling, which has none for octets above 127, and each check with its message stays.
//!   Only its parser for times is used.
//! - What is refused has its event and its record at once, since its reply bears the id; whatever else becomes of a
//!   transaction has one event at its end, with the outcome. A message that is delivered costs one line, not two.
//! - A decision that no rule made has a reason and a subject, but no finding: nobody can be exempt from it.
//! - Every question to DNS is on an account: a client's, whose network has its share of the places, and a budget, since the
//!   sender's zone says how many questions follow. The budgets are cut so that no name of the sender's choice spends what the
//!   check of another needs: a temperror is a pass where the operator says so.
//! - `exists` is asked before `matches`, and what can refuse before what only tags: a second round trip that mostly ends in the
//!   cache, for questions that need not be asked twice and an order that doesn't depend on chance.
//! - Where `exists_by` lets a domain be its own exchanger, it is so for `matches` as well.
//! - The rung `organization` needs a name that exists: anybody can make up names below somebody else's organisation.
//! - An exemption is proposed for what was confirmed or seen on the wire, never for what a sender merely wrote.
//! - The defaults greylist; where rmxd may not write, the greylist stays in memory with a warning, since it is no reason to
//!   take no mail.

pub mod smtp;

pub mod evidence;

pub mod policy;

pub mod message;

pub mod session;

pub mod metrics;

pub mod dns;

pub mod spf;

pub mod dkim;

pub mod reverse_mx;

pub mod decision;

pub mod store;

pub mod exempt;

pub mod stats;

pub mod gate;

pub mod audit;

pub mod tls;

pub mod relay;

pub mod door;

pub mod server;

pub mod admin;

pub mod zone;

pub mod log;

pub mod config;

pub mod daemon;

pub mod console;

pub mod tools;

pub mod cli;
