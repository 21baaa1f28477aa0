//! rmxd, the gate in front of a mail server: reverse MX lookup for inbound SMTP.
//!
//! The modules in reading order, lowest first; a module imports only from those above it in this list
//! (`tests/it/layers.rs` reads the list and keeps it so).
//!
//! | module | is about |
//! | --- | --- |
//! | [`smtp`] | the words of the wire: commands, replies, addresses, line ends, dot-stuffing; pure |
//! | [`milter`] | the words of the milter protocol: packets, events, answers; pure |
//! | [`delegation`] | the words of Postfix's policy delegation: requests, answers; pure |
//! | [`evidence`] | what DNS was asked and answered, as plain data |
//! | [`policy`] | identities, rules, findings, the decision and its reason; pure |
//! | [`message`] | from a header block to the sender domains; our trace fields |
//! | [`session`] | the SMTP dialogue; pure |
//! | [`metrics`] | counters, and their text for Prometheus |
//! | [`dns`] | questions over our sockets, cache, budgets, quotas of clients, health of the servers |
//! | [`spf`] | SPF (RFC 7208) over our DNS |
//! | [`dkim`] | DKIM signatures (RFC 6376), verified while the message streams |
//! | [`dmarc`] | what the owner of a From: domain asks for (RFC 9989): the record, the tree walk |
//! | [`reverse_mx`] | from a domain to its mail exchangers: does it exist, does the client match |
//! | [`decision`] | one decision as a record: its id, its evidence, its text and JSON |
//! | [`exempt`] | sets of exempt networks, domains and recipients; temporary permits |
//! | [`store`] | what outlives a connection: the greylist, the permits, the history, and what gates share |
//! | [`stats`] | what was refused, or would have been, summed up by kind and sender |
//! | [`gate`] | clients and transactions: who is exempt, what is looked up, the verdict, the permit |
//! | [`audit`] | whether one's own mail would pass, and which records are missing |
//! | [`net`] | sockets of doors and admin: endpoints, listeners, permits, PROXY header |
//! | [`tls`] | certificates, STARTTLS on both sides |
//! | [`relay`] | next hops: SMTP relays with their pool, a Maildir |
//! | [`door`] | how mail is presented; each door drives a transaction of the gate |
//! | [`server`] | doors over their listeners: limits, reload, drain |
//! | [`admin`] | metrics, API and dashboard over HTTP |
//! | [`zone`] | a name server with zones for demo and tests |
//! | [`log`] | the log: its writer, text and JSON |
//! | [`config`] | files, environment and flags to settings |
//! | [`daemon`] | settings to a running daemon |
//! | [`console`] | what the commands share: exit codes, colours, where the configuration comes from |
//! | [`tools`] | what no mail goes through: demo, load test, replay of logs |
//! | [`cli`] | the command line, one file for each command |
//!
//! Decisions, and why:
//! - DNS in trouble is a 4xx: a wrong 5xx loses mail, a 4xx only delays it. A circle of aliases is trouble too.
//! - The verdict is given at RCPT by default: the time for DNS hides behind the client's next round trip, and the log has
//!   the recipient. RCPT waits only for rules that can refuse; rules that only tag are waited for at the end of the header.
//! - There is no queue: the relay has one. The relay's reply to a recipient is the client's reply.
//! - A reply of the relay about rmxd itself (out of step, TLS or a password wanted) is the operator's trouble and stays a 4xx.
//! - One `gate::Transaction` has the order of a transaction, writes the log and makes the permits. A next hop takes a
//!   recipient, and the end of a message, only with such a permit, so that no door can forget a step.
//! - Questions to DNS go by sockets of our own: hickory-resolver makes a socket and a task for each question over UDP and
//!   copies it several times, which was a quarter of the cost of a spoofed sender with a new name; over TCP it goes on with a
//!   connection that has died. Its parser stays.
//! - NXDOMAIN answers the question that was asked, name and type: some servers send it for AAAA, or for an empty
//!   non-terminal. It denies more only where DNSSEC proves it (RFC 8020), by the AD bit of a server on loopback (RFC 4035
//!   4.9.3). `trust-ad` of resolv.conf is not read, as it speaks for a path that rmxd can't see.
//! - A made-up name costs three questions without DNSSEC: MX, then A and AAAA together. To ask all three at once would
//!   triple the questions about good domains, which need the first only.
//! - TCP to a resolver: at most eight connections (unbound takes ten by default), many questions on each. One question on
//!   each connection would be simpler, but slow questions of one client could take all connections that the resolver has.
//! - At the end the listeners are closed before the sessions are: a client that is turned away can't connect again.
//! - There is no trait for DNS: a zone server on loopback tests the real resolver.
//! - A relay that knows the client by XCLIENT gives a verdict on that client, and its reply goes to the client.
//! - No client holds more of the relay's connections than are free, so that slow clients leave room for a new one.
//! - A connection to the relay is taken back from its slowest holder while others wait, but only while rmxd waits for that
//!   client: never with a command or the final dot on its way, so that no message is cut off that may have arrived.
//! - The log is written by a thread of its own: mail doesn't wait for a slow reader of the log. Lines that a stuck reader
//!   loses are counted.
//! - A panic unwinds and is counted: one bad peer must not cut off the others.
//! - A listed MAIL FROM domain exempts the envelope only; From: and Reply-To: each exempt themselves, so that a forged
//!   envelope doesn't exempt the visible sender.
//! - A header that begins with a continuation line is refused for every client: behind our trace fields it would become a
//!   result in our name.
//! - A domain with white space, comments or folds inside is malformed, though RFC 5322 4.4 permits them: readers end it at
//!   different places. The same for a header that the relay would break or cut, as it delivers another header than was judged.
//! - A bounce whose From: names no domain is only tagged: its loss would be noticed by no sender. If any reader could find
//!   an address in that field, it is ambiguous and refused.
//! - Forged results are removed by every reading of the field that is known, not by the grammar: the programs behind rmxd
//!   don't follow it.
//! - DNS servers show whether DNS is down, never the domains that are asked for: those are the senders' choice.
//! - A file of exemptions with one bad line is refused as a whole: half a list would refuse a sender that the operator trusts.
//! - A permit made from a refusal is for the pair of client network and sender domain, and then for the whole message: the
//!   operator knows this sender, and the next finding of the same message would be the next telephone call. Made from a refusal
//!   of From: or Reply-To: it is for this field alone, since all of the network can write its domain into MAIL FROM. A domain
//!   alone can be forged, so it reaches no further than one of `[exempt]`.
//! - A permit is on disk before the command is answered, and is found by the hash of its conditions; sessions read memory, and
//!   while there are none one counter. Making one needs `admin.token` everywhere, since on loopback any page of a browser and any
//!   local account could ask.
//! - The greylist works by the envelope's sender, whichever identity failed: one delay for a message, not one for each.
//! - What several gates share is in Redis, which such sites run already. Nothing that is read from it can become a refusal, by
//!   types: it only shortens a wait. No session connects or tries again; the answer of a question is waited for
//!   `cluster.timeout` at most, and all of them of one connection three times that: a session may have many recipients.
//! - Permits of a fleet are entries that merge by an order: of two under one number the lower counts, and a removal is lower than
//!   its permit. So nodes need no master and no order of messages, Redis can lose or show old ones, and what it lacks is written
//!   back. Each node has all of them in its file: Redis is only the way.
//! - Nodes say who and where they are under seal: somebody who can write into Redis would get `admin.token` otherwise, by naming
//!   an address of their own.
//! - The number of an id has the node in it, so that two gates never give one twice and a reader knows whom to ask.
//! - A node that is asked for its decisions asks nobody, so that no question goes round. What it answers is checked field by field, as
//!   a page has to show it. The next page of a merged list has a position at each node: what a node that was away has comes later.
//! - DNS answers aren't shared: a hit in Redis spares as little as a miss costs, and denials must not come from it.
//! - The greylist answers from memory and is written behind: a disk may cost what a restart remembers, never a session's
//!   time.
//! - SPF is evaluated over our own DNS: it shares answers and bounds, and two records are the error of RFC 7208. A void
//!   lookup is counted once for its term, so that hosts without IPv6 are no error of the domain.
//! - At the null sender SPF is about postmaster at the HELO name (RFC 7208 2.4), by which identity `helo` is judged;
//!   `mail_from` stays without a result.
//! - DKIM decides before the final dot, not before the body: the relay has the octets by then, never the dot. The trace
//!   fields before the message say that the result was open; to hold the body back would break the bound on memory.
//! - DMARC is asked last, by what costs least: rungs that need no owner, then the record, then SPF of an aligned envelope, and
//!   the body only where a signature could still count. A domain that asks for nothing costs no SPF and no hash, so there is no
//!   `dmarc=` result for it.
//! - Every finding has its own action, since what follows from a failure may be another for each domain: by
//!   `policy.senders`, and by what the owner of the From: domain asks for.
//! - SPF and signatures of the From: organisation count with the action `dmarc` whatever `matches_by` lists: rmxd is never
//!   stricter than the owner asks. SPF of the From: domain itself does not: another customer of its provider has that too.
//! - A top-level domain is no organisation, though its record may apply: some have had records since before the tag `psd`, and
//!   all domains below would be aligned with each other. A failed lookup of its record counts as no record, since its broken
//!   server would hold up the mail of all these domains.
//! - Mail counts as indirect only if its own envelope holds: anyone can write a `List-Id:`.
//! - Refusals are counted by kind and domain, within bounds: a flood of invented names pushes out rare ones of its own kind,
//!   and no total.
//! - A replay of logs judges by the gate's own code, so that it predicts what the daemon does; it doesn't look up rules that
//!   only tag.
//! - A decision is kept as data, and put into words when an operator asks: a record costs a session little, and
//!   the log, `check`, `explain` and the API show the same.
//! - What another configuration would have done is judged by the rules' own code over the answers that were kept, without DNS: a second
//!   set of rules would drift from the first. An answer that isn't there makes the result unknown, unless a rung passes without it.
//! - The history is an SQLite database: its readers need neither socket nor daemon, and a question that no command answers is one
//!   of SQL. Rows are appended, and indexed when a segment of them is complete, since an index that each row changes costs five
//!   times the row; the rest is read without one. A folder of own files was smaller, but only rmxd could read it.
//! - A session encodes the row of its decision itself: its parts are in the processor's cache then, and free again at once. Kept as
//!   a record for the writer, a decision cost more in memory that is far away than in SQLite. The keys of a segment are packed into
//!   blocks: with a row for each they took a third of the writer's time, and of the octets.
//! - Zone files have a parser of our own. hickory-proto 0.26 has one, and it was tried on the lines of the tests in
//!   `zone/master.rs`: its errors name no line; it refuses `MX 10 @`, `MX 10 mail_1.test.` and a comment within
//!   parentheses before a quoted text; it keeps the quotes and loses the blanks of a TXT record in parentheses, reads
//!   `\DDD` as octal in names and as another character in texts (RFC 1035 5.1: decimal, one octet), and drops the second
//!   word of `A 127.0.0.1 127.0.0.2`. To hand it one entry at a time, words would still be cut here, names and texts
//!   would be written anew in its spelling, which has none for octets above 127, and each check with its message stays.
//!   Only its parser for times is used.
//! - A refusal has its event and its record at once, since its reply contains the id; everything else has one event
//!   at the end of the transaction, with the outcome. A message that is delivered costs one line, not two.
//! - A decision that no rule made has a reason and a subject, but no finding: it knows no exemption.
//! - Every question to DNS is on an account: a client's, whose network has its share of the places, and a budget, since the
//!   sender's zone decides how many questions follow. No name of the sender's choice can spend the budget that the check of
//!   another name needs: a temperror is a pass where the operator wants it.
//! - `exists` is asked before `matches`, and rules that can refuse before rules that only tag: a second round trip that
//!   mostly ends in the cache, for questions that need not be asked twice and an order that doesn't depend on chance.
//! - Where `exists_by` lets a domain be its own exchanger, the same holds for `matches`.
//! - The rung `organization` needs a name that exists: anyone can make up names below another's organisation.
//! - An exemption is proposed for names that were confirmed or seen on the wire, never for what a sender merely wrote.
//! - The defaults greylist; where rmxd may not write, the greylist stays in memory with a warning, since that is no reason to
//!   take no mail.
//! - A message that the policy service let pass has the outcome `passed`: Postfix never tells what became of it, and to call it
//!   delivered or not completed would be a guess.
//! - At the policy service a transaction begins under the settings in effect, though its connection may be older: Postfix holds
//!   one for many sessions, and monitor mode is to end refusals at once.
//! - At the end an idle connection of a policy client is closed with the listeners. Postfix waits a second and connects again; held
//!   to the end of the drain time it would delay every restart by that time.
//! - The mail server's side of milter and policy delegation, which load test and demo speak, is written beside recorded
//!   streams of a Postfix, and not with the codecs of the doors: a fault that both ends shared would be seen by neither.
//! - `rmxd status` asks the API, since only the daemon knows its connections and its last reload; `rmxd tail` asks again and
//!   again, as the dashboard does: a stream would need a queue for each slow reader.
//! - `missing_docs` is off: the crate isn't published, and a comment that repeats a name is noise.

// A test spawns a door whose future is nested deeper than the limit for `Send`.
#![cfg_attr(test, recursion_limit = "256")]

pub mod smtp;

pub mod milter;

pub mod delegation;

pub mod evidence;

pub mod policy;

pub mod message;

pub mod session;

pub mod metrics;

pub mod dns;

pub mod spf;

pub mod dkim;

pub mod dmarc;

pub mod reverse_mx;

pub mod decision;

pub mod exempt;

pub mod store;

pub mod stats;

pub mod gate;

pub mod audit;

pub mod net;

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
