//! Debian's opendkim and opendmarc in `smtpd_milters`, behind rmxd and in front of it: what is delivered, field by field,
//! and what opendmarc believes.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use super::STRANGER;
use super::delivered::RECEIVED;
use super::forged::{FORGED, forged};
use super::site::{OURS, Site, names, treasury};
use crate::interop::opendkim_and_opendmarc::{Milters, Programs, Settings};

/// opendmarc believes us, and itself.
const APART: Settings =
    Settings { opendkim: "dkim.relay.test", opendmarc: "dmarc.relay.test", trusted: OURS, own_spf: false };
/// One name for all, which is what all of them take where none is set.
const SAME: Settings = Settings { opendkim: OURS, opendmarc: OURS, trusted: OURS, own_spf: false };
/// Where treasury.test sends from by its SPF record.
const PROVIDER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 3, 2));
const HEADER: &str = "From: service@treasury.test\r\nTo: user@relay.test\r\nSubject: one  two\r\n\
    Message-ID: <1@treasury.test>\r\nDate: Sun, 01 Nov 2026 10:00:00 +0000\r\n";
const BODY: &str = "Hello\r\n";

/// Results of others, and what looks like ours and isn't.
const FOREIGN: [&[u8]; 16] = [
    b"Authentication-Results: mx.other.test; spf=pass smtp.mailfrom=other.test",
    b"authentication-results:mx.other.test;spf=pass",
    b"AUTHENTICATION-RESULTS:   mx.other.test;   spf=pass   ",
    b"Authentication-Results:\tmx.other.test;\tspf=pass\t",
    b"Authentication-Results:\r\n\tmx.other.test;\r\n  spf=pass",
    b"Authentication-Results: mx.other.test;\r\n \r\n spf=pass",
    b"Authentication-Results: gate.relay.test.evil.test; dkim=pass header.d=forged.test",
    b"Authentication-Results: xgate.relay.test; dkim=pass header.d=forged.test",
    b"Authentication-Results: mx.other.test (gate.relay.test); spf=pass",
    b"Authentication-Results: mx.other.test; spf=pass smtp.helo=gate.relay.test",
    b"Authentication-Results:",
    b"Authentication-Results: \xe4.test; spf=pass",
    b"X-Authentication-Results: gate.relay.test; dkim=pass header.d=forged.test",
    b"Comments: Authentication-Results: gate.relay.test; dkim=pass header.d=forged.test",
    b"Comments: x\r\n Authentication-Results: gate.relay.test; dkim=pass header.d=forged.test",
    b"ARC-Authentication-Results: i=1; mx.other.test; dkim=pass",
];

fn suffixes() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/interop/same_as_opendmarc/suffixes.list")
}

/// Each forged field between two of [`FOREIGN`], and the foreign ones alone.
fn interleaved() -> (Vec<u8>, Vec<Vec<u8>>) {
    let (mut block, mut left) = (Vec::new(), Vec::new());
    for (field, foreign) in forged().into_iter().zip(FOREIGN.iter().cycle()) {
        block.extend([&field, b"\r\n".as_slice(), foreign, b"\r\n"].concat());
        left.push(foreign.to_vec());
    }
    (block, left)
}

/// The fields of the signed message: its signature, then [`HEADER`].
fn own_fields(signed: &str) -> Vec<Vec<u8>> {
    let signature = signed.split_once("\r\nFrom: ").unwrap().0;
    std::iter::once(signature).chain(HEADER.lines()).map(|field| field.as_bytes().to_vec()).collect()
}

/// Our results of a message of [`STRANGER`] from good.test that treasury.test has signed.
fn ours_of_stranger() -> String {
    format!(
        "Authentication-Results: {OURS};\n\
         \tx-reverse-mx=pass (organization) policy.ptr=host12.dsl.provider.test;\n\
         \tx-reverse-mx=pass (mx) smtp.mailfrom=good.test;\n\
         \tx-reverse-mx=pass (network) smtp.mailfrom=good.test policy.rule=matches;\n\
         \tx-reverse-mx=pass (mx) header.from=treasury.test;\n\
         \tx-reverse-mx=pass (dkim) header.from=treasury.test policy.rule=matches;\n\
         \tx-reverse-mx=none (not_given) header.reply-to=\"\";\n\
         \tdkim=pass header.d=treasury.test header.s=sel;\n\
         \tdmarc=pass (reject) header.from=treasury.test;\n\
         \tiprev=pass policy.iprev=127.0.0.12"
    )
}

fn of_opendkim(name: &str, signed: &str) -> String {
    let signature = signed.split_once("\tb=").unwrap().1.get(..8).unwrap();
    format!(
        "Authentication-Results: {name};\n\tdkim=pass header.d=treasury.test header.i=@treasury.test \
         header.a=ed25519-sha256 header.s=sel header.b={signature};\n\tdkim-atps=neutral"
    )
}

fn of_opendmarc(name: &str) -> String {
    format!("Authentication-Results: {name}; dmarc=pass (p=reject dis=none) header.from=treasury.test")
}

/// Those that filters have added on top, Postfix's, and the others.
fn all(added: &[String], rest: impl IntoIterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let above = added.iter().map(|field| field.as_bytes().to_vec()).chain([RECEIVED.into()]);
    above.chain(rest).collect()
}

fn believed(milters: &Milters, domain: &str) -> usize {
    let history = milters.history();
    history.lines().filter(|line| line.starts_with(&format!("dkim {domain} "))).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filters_behind_rmxd_believe_its_results_and_no_forged_ones() {
    let Some(programs) = Programs::find() else { return };
    let dns = names("").await;
    let milters = Milters::start(&programs, &APART, dns.address(), &suffixes()).await;
    let [opendkim, opendmarc] = milters.addresses;
    let behind = |rmxd: &str| format!("{rmxd}, inet:{opendkim}, inet:{opendmarc}");
    let Some(mut site) = Site::start(dns, behind) else { return };
    let _rmxd = site.rmxd("").await;
    let signed = treasury().sign(HEADER, BODY);
    let added = [of_opendmarc(APART.opendmarc), of_opendkim(APART.opendkim, &signed), ours_of_stranger()];

    // Nothing forged. opendmarc, which doesn't believe opendkim here, has the signature from us.
    assert!(site.send(STRANGER, "a@good.test", &signed).await.starts_with("250 "));
    let message = site.arrived().await;
    message.assert_fields(&all(&added, own_fields(&signed)), "signed");
    assert_eq!(message.body(), "Hello\n");
    assert_eq!(believed(&milters, "treasury.test"), 1, "{}", milters.history());

    // All spellings in one message.
    let (block, foreign) = interleaved();
    let message = [&block, signed.as_bytes()].concat();
    assert!(site.send(STRANGER, "a@good.test", &message).await.starts_with("250 "));
    let message = site.arrived().await;
    let left = foreign.into_iter().chain(own_fields(&signed));
    message.assert_fields(&all(&added, left), "forged in our name");
    assert_eq!(message.body(), "Hello\n");

    // In the names of the two behind: that is for these to remove. rmxd leaves them in place, opendkim removes its own.
    let theirs =
        [APART.opendkim, APART.opendmarc].map(|name| format!("Authentication-Results: {name}{FORGED}"));
    let message = format!("{}\r\n{}\r\n{signed}", theirs[0], theirs[1]);
    assert!(site.send(STRANGER, "a@good.test", &message).await.starts_with("250 "));
    let left = std::iter::once(theirs[1].as_bytes().to_vec()).chain(own_fields(&signed));
    site.arrived().await.assert_fields(&all(&added, left), "forged in the name of others");

    // A name that is folded ends the header for Postfix, which puts an empty line in front of it.
    for line in
        ["Authentication-\r\n Results: gate.relay.test", "Authentication-Results\r\n : gate.relay.test"]
    {
        let message = format!("{HEADER}{line}{FORGED}\r\n\r\nx\r\n");
        let reply = site.send(PROVIDER, "b@treasury.test", &message).await;
        assert!(reply.starts_with("250 "), "{line:?}: {reply}");
        let message = site.arrived().await;
        assert_eq!(message.body(), format!("{}{FORGED}\n\nx\n", line.replace("\r\n", "\n")));
        let spf = message.field(&format!("Authentication-Results: {OURS}; ")).unwrap();
        assert!(spf.contains("; spf=pass smtp.mailfrom=treasury.test;"), "{spf}");
    }
    let history = milters.history();
    assert_eq!(believed(&milters, "treasury.test"), 3, "{history}");
    // The one in the name of opendmarc is the only one.
    assert_eq!(believed(&milters, "forged.test"), 1, "{history}");
    assert_eq!(history.matches("\nspf 0\n").count(), 2, "our results of SPF: {history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rmxd_opendmarc_believes_forged_results() {
    let Some(programs) = Programs::find() else { return };
    let dns = names("").await;
    let milters = Milters::start(&programs, &APART, dns.address(), &suffixes()).await;
    let [opendkim, opendmarc] = milters.addresses;
    let Some(mut site) = Site::start(dns, |_| format!("inet:{opendkim}, inet:{opendmarc}")) else { return };
    let message = [&interleaved().0, treasury().sign(HEADER, BODY).as_bytes()].concat();
    assert!(site.send(STRANGER, "a@good.test", &message).await.starts_with("250 "));
    site.arrived().await;
    assert!(believed(&milters, "forged.test") >= 20, "{}", milters.history());
    assert_eq!(believed(&milters, "treasury.test"), 0, "{}", milters.history());
}

/// Nothing is lost or doubled; but what stands in front of rmxd sees the forged ones, too.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_in_front_of_rmxd_adds_is_a_part_of_the_header() {
    let Some(programs) = Programs::find() else { return };
    let signed = treasury().sign(HEADER, BODY);
    let (block, foreign) = interleaved();
    let message = [&block, signed.as_bytes()].concat();
    let [dmarc, dkim, ours] =
        [of_opendmarc(APART.opendmarc), of_opendkim(APART.opendkim, &signed), ours_of_stranger()];
    // It takes no signature from opendkim here.
    let failed = dmarc.replace("dmarc=pass", "dmarc=fail");
    for (rmxd_last, added) in [(false, [&dmarc, &ours, &dkim]), (true, [&ours, &failed, &dkim])] {
        let dns = names("").await;
        let milters = Milters::start(&programs, &APART, dns.address(), &suffixes()).await;
        let [opendkim, opendmarc] = milters.addresses;
        let order = |rmxd: &str| match rmxd_last {
            false => format!("inet:{opendkim}, {rmxd}, inet:{opendmarc}"),
            true => format!("inet:{opendkim}, inet:{opendmarc}, {rmxd}"),
        };
        let Some(mut site) = Site::start(dns, order) else { return };
        let _rmxd = site.rmxd("").await;
        assert!(site.send(STRANGER, "a@good.test", &message).await.starts_with("250 "));
        let left = foreign.iter().cloned().chain(own_fields(&signed));
        let what = format!("rmxd last: {rmxd_last}");
        let delivered = site.arrived().await;
        let (signers, forged) = (believed(&milters, "treasury.test"), believed(&milters, "forged.test"));
        let is_as_expected =
            if rmxd_last { signers == 0 && forged >= 20 } else { signers == 1 && forged == 0 };
        assert!(is_as_expected, "{what}: {}", milters.history());
        delivered.assert_fields(&all(&added.map(String::clone), left), &what);
    }
}

/// RFC 8601 5: each removes what comes in under its name, and the name of all of them is the machine's if none is set.
#[tokio::test(flavor = "multi_thread")]
async fn under_one_name_rmxd_and_opendkim_remove_the_results_of_the_one_in_front() {
    let Some(programs) = Programs::find() else { return };
    let signed = treasury().sign(HEADER, BODY);
    let message = format!("Authentication-Results: {OURS}{FORGED}\r\n{signed}");
    for (rmxd_first, left) in [(true, of_opendkim(OURS, &signed)), (false, ours_of_stranger())] {
        let dns = names("").await;
        let milters = Milters::start(&programs, &SAME, dns.address(), &suffixes()).await;
        let [opendkim, opendmarc] = milters.addresses;
        let order = |rmxd: &str| match rmxd_first {
            true => format!("{rmxd}, inet:{opendkim}, inet:{opendmarc}"),
            false => format!("inet:{opendkim}, {rmxd}, inet:{opendmarc}"),
        };
        let Some(mut site) = Site::start(dns, order) else { return };
        let _rmxd = site.rmxd("").await;
        assert!(site.send(STRANGER, "a@good.test", &message).await.starts_with("250 "));
        let added = [of_opendmarc(OURS), left];
        let what = format!("rmxd first: {rmxd_first}");
        site.arrived().await.assert_fields(&all(&added, own_fields(&signed)), &what);
        assert_eq!(
            (believed(&milters, "treasury.test"), believed(&milters, "forged.test")),
            (1, 0),
            "{what}"
        );
    }
}

/// opendmarc takes no result from a field of more than a kilobyte, and would refuse for lack of it.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_results_there_are_opendmarc_has_the_one_that_it_needs() {
    let Some(programs) = Programs::find() else { return };
    let dns = names("").await;
    let milters = Milters::start(&programs, &APART, dns.address(), &suffixes()).await;
    let [_, opendmarc] = milters.addresses;
    let Some(mut site) = Site::start(dns, |rmxd| format!("{rmxd}, inet:{opendmarc}")) else { return };
    let rules = "exists = \"tag\"\nmatches = \"tag\"\n";
    let policy = format!("[policy.helo]\n{rules}[policy.ptr]\n{rules}[policy.reply_to]\n{rules}");
    let _rmxd = site.rmxd(&policy).await;
    let domains = ["good", "bank", "bulk", "treasury", "many-mx"];
    for count in 0..=domains.len() {
        let addresses: Vec<_> = domains.iter().take(count).map(|domain| format!("a@{domain}.test")).collect();
        let reply_to =
            if count == 0 { String::new() } else { format!("Reply-To: {}\r\n", addresses.join(", ")) };
        let signed = treasury().sign(&format!("{HEADER}{reply_to}"), BODY);
        assert!(site.send(STRANGER, "b@treasury.test", &signed).await.starts_with("250 "));
        let delivered = site.arrived().await;
        let dmarc = delivered.fields().first().unwrap();
        assert_eq!(*dmarc, of_opendmarc(APART.opendmarc), "{count}: {:#?}", delivered.fields());
        let ours = |field: &&String| field.starts_with(&format!("Authentication-Results: {OURS};\n"));
        let ours: Vec<_> = delivered.fields().iter().skip(1).take_while(ours).collect();
        let results: usize = ours.iter().map(|field| field.matches(';').count()).sum();
        assert_eq!((results, ours.len() > 1), (12 + 2 * count.max(1), true), "{count}: {ours:#?}");
        let ends =
            [ours.first().unwrap().contains(" smtp.helo="), ours.last().unwrap().contains("\tiprev=pass ")];
        assert_eq!(ends, [true, true], "{count}: {ours:#?}");
        assert_eq!(believed(&milters, "treasury.test"), count + 1, "{}", milters.history());
    }
}
