//! A header block: who claims to have written the message, forged results taken out, trace fields put above.
//!
//! Input: an octet of settings, then the block. What a client says of itself is taken from the block's first line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, UNIX_EPOCH};

use rmxd::message::authentication_results::{Iprev, IprevResult, authentication_results};
use rmxd::message::forged_results::without_own_results;
use rmxd::message::header::{self, Author, Field, Header};
use rmxd::message::trace::{Protocol, Received, return_path};
use rmxd::policy::finding::{Absence, Finding, RuleResult};
use rmxd::policy::identity::Identity;
use rmxd::policy::reason::Reason;
use rmxd::policy::rule::{Rule, Rung};
use rmxd::smtp::address::{DomainName, ForwardPath, ReversePath};
use rmxd::smtp::framing::{BareNewline, DataEvent, DataReader};
use rmxd::smtp::transparency::stuffed;

use super::wire::{assert_fields, assert_message};

const OURS: &str = "gate.relay.test";

pub fn check(input: &[u8]) {
    let Some((settings, block)) = input.split_first() else { return };
    let header = header::read(block);
    assert_header(&header, block);
    let kept = without_own_results(block, OURS);
    assert_eq!(without_own_results(&kept, OURS), kept, "taking out once is enough");
    assert!(is_part_of(&kept, block));
    let trace = trace(*settings, block, &header);
    if !is_strict(block) {
        return;
    }
    assert_eq!(claims_of_ours(&kept), 0, "{}", kept.escape_ascii());
    let judged_again = header::read(&kept);
    assert_eq!(
        (&judged_again.from, &judged_again.reply_to),
        (&header.from, &header.reply_to),
        "what is judged is delivered"
    );
    let delivered = [&trace, &*stuffed(&kept), b"\r\nbody\r\n"].concat();
    assert_message(&delivered);
    let framed = [delivered.as_slice(), b".\r\n"].concat();
    let step = DataReader::new(BareNewline::Reject).next(&framed);
    assert_eq!((step.event, step.content), (DataEvent::End, delivered.len()));
}

fn assert_header(header: &Header, block: &[u8]) {
    assert_ne!(header.from, Field::Absent);
    assert!(header.received <= block.len() / b"Received:\r\n".len());
    for field in [&header.from, &header.reply_to] {
        let Field::Authors(authors) = field else { continue };
        assert!((1..=5).contains(&authors.len()), "{authors:?}");
        for (at, Author { address, domain }) in authors.iter().enumerate() {
            assert!(address.len() <= 256 && !address.chars().any(char::is_control), "{address:?}");
            assert!(address.len() > 250 || address.contains('@'), "{address:?}");
            let twice = authors[..at].iter().any(|other| domain.is_some() && other.domain == *domain);
            assert!(!twice, "{authors:?}");
        }
    }
}

/// Whether `part` can be had by striking octets out of `whole`.
fn is_part_of(part: &[u8], whole: &[u8]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|octet| whole.any(|other| other == octet))
}

/// What framing lets through as a header block: whole lines, none of them empty.
fn is_strict(block: &[u8]) -> bool {
    let text = block.strip_suffix(b"\r\n").unwrap_or(b"\0");
    block.is_empty()
        || text.split(|octet| *octet == b'\n').all(|line| {
            let inner = line.strip_suffix(b"\r").unwrap_or(line);
            !inner.is_empty() && !inner.iter().any(|octet| matches!(octet, b'\r' | 0))
        }) && block.windows(2).all(|pair| (pair[0] == b'\r') == (pair[1] == b'\n'))
}

/// Fields that plainly bear our name, as the simplest of readers finds them.
fn claims_of_ours(block: &[u8]) -> usize {
    let text: String = block.iter().map(|octet| char::from(octet.to_ascii_lowercase())).collect();
    let unfolded = text.replace("\r\n ", " ").replace("\r\n\t", " ");
    let is_claim = |line: &&str| {
        let value = line
            .strip_prefix("authentication-results")
            .and_then(|rest| rest.trim_start_matches([' ', '\t']).strip_prefix(':'));
        value.is_some_and(|value| {
            let id = value.trim_start_matches([' ', '\t']).strip_prefix(OURS);
            id.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', ';']))
        })
    };
    // a block that begins with a continuation is no field at all
    unfolded.split("\r\n").filter(is_claim).count()
}

/// All that rmxd writes above the message, checked.
fn trace(settings: u8, block: &[u8], header: &Header) -> Vec<u8> {
    let words = String::from_utf8_lossy(block.split(|octet| *octet == b'\n').next().unwrap_or_default());
    let (first, second) = words.split_once(' ').unwrap_or((&words, ""));
    let (ours, second) = (DomainName::parse(OURS).unwrap(), second.trim_end());
    let ptr = DomainName::parse_unicode(second).ok();
    let recipient = ForwardPath::parse(second).ok();
    let client = if settings & 1 == 0 {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, settings))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(u128::MAX / 3))
    };
    let received = Received {
        helo: first,
        ptr: ptr.as_ref(),
        client,
        by: &ours,
        protocol: if settings & 2 == 0 { Protocol::Esmtp } else { Protocol::Utf8Smtps },
        tls: (settings & 4 != 0).then_some("TLSv1.3 with cipher TLS13_AES_256_GCM_SHA384"),
        id: second,
        recipient: recipient.as_ref(),
        at: UNIX_EPOCH + Duration::from_secs(u64::from(settings) << 24),
    };
    let text = String::from_utf8(received.to_bytes()).unwrap();
    assert_fields(text.as_bytes(), &["Received"]);
    let comments = 1 + usize::from(received.tls.is_some());
    assert_eq!(["(", ")", ";"].map(|mark| text.matches(mark).count()), [comments, comments, 1], "{text:?}");

    let outcome = match settings >> 2 & 3 {
        0 => RuleResult::Pass(Rung::Mx),
        1 => RuleResult::Fail(Reason::NoMx),
        2 => RuleResult::None(Absence::NotGiven),
        _ => RuleResult::Fail(Reason::NotAnExchanger),
    };
    let mut findings =
        vec![finding(Identity::Helo, first, outcome), finding(Identity::MailFrom, second, outcome)];
    for (identity, field) in [(Identity::From, &header.from), (Identity::ReplyTo, &header.reply_to)] {
        if let Field::Authors(authors) = field {
            findings.extend(authors.iter().map(|author| finding(identity, &author.address, outcome)));
        }
    }
    let iprev = (settings & 64 == 0).then_some(Iprev { result: IprevResult::Fail, client });
    let results = authentication_results(&ours, iprev, &findings);
    for field in &results {
        assert_fields(field, &["Authentication-Results"]);
    }
    let results = results.concat();
    assert_eq!(without_own_results(&results, OURS), b"".as_slice(), "{}", results.escape_ascii());

    let mut trace = [text.into_bytes(), results].concat();
    if let Ok(path) = ReversePath::parse(second) {
        let field = return_path(&path);
        assert_message(&field);
        assert_eq!(field.split(|octet| *octet == b'\n').count(), 2, "{}", field.escape_ascii());
        trace = [field, trace].concat();
    }
    trace
}

fn finding(identity: Identity, domain: &str, outcome: RuleResult) -> Finding {
    Finding::new(identity, Rule::Matches, domain, domain, outcome)
}
