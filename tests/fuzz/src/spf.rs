//! The texts of a name: which of them is an SPF record, what can be done with it, and the names that its macros make.
//!
//! Input: an octet for the client, a line with the sender, then one text a line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rmxd::smtp::address::DomainName;
use rmxd::spf::{InsertionPoint, Policy, Published, Sender};

pub fn check(input: &[u8]) {
    let Some((client, lines)) = input.split_first() else { return };
    let mut lines = lines.split(|octet| *octet == b'\n');
    let words = String::from_utf8_lossy(lines.next().unwrap_or_default()).into_owned();
    let texts: Vec<Box<[u8]>> = lines.map(Box::from).collect();
    let records = texts.iter().filter(|text| is_record(text)).count();
    match Published::among(&texts) {
        Published::Nothing => assert_eq!(records, 0),
        Published::Policy(policy) => {
            assert_eq!(records, 1);
            assert_policy(&policy, *client, &words);
        }
        Published::Malformed(shown) => {
            assert_eq!(records, 1);
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
        }
        Published::Several(shown) => assert_eq!((records, shown.len()), (shown.len(), records)),
        Published::Unavailable(_) => panic!("no DNS was asked"),
    }
}

/// RFC 7208 4.5, as the simplest of readers has it.
fn is_record(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    text == b"v=spf1" || text.starts_with(b"v=spf1 ")
}

fn assert_policy(policy: &Policy, client: u8, words: &str) {
    assert!(policy.text().bytes().all(|octet| matches!(octet, b' '..=b'~')), "{:?}", policy.text());
    assert!(!policy.lets_exchangers() || policy.asks_exchangers(), "{}", policy.text());
    let added: [IpAddr; 2] = [Ipv4Addr::new(192, 0, 2, client).into(), Ipv6Addr::LOCALHOST.into()];
    for place in [InsertionPoint::BeforeRefusals, InsertionPoint::First] {
        let more = policy.with(&added, place);
        let again = Published::among(&[more.text().as_bytes().into()]);
        assert_eq!(again, Published::Policy(more.clone()), "a policy with more addresses is one");
        let terms = |policy: &Policy| policy.text().split(' ').filter(|term| !term.is_empty()).count();
        assert_eq!(terms(&more), terms(policy) + added.len(), "{} {}", policy.text(), more.text());
        assert_eq!(more.asks_exchangers(), policy.asks_exchangers());
    }
    let (local, helo) = words.split_once(' ').unwrap_or((words, ""));
    let domain = DomainName::parse_unicode(helo).unwrap_or_else(|_| DomainName::parse("good.test").unwrap());
    let sender = Sender { local, domain: &domain, helo };
    let client = if client & 1 == 0 { added[0] } else { added[1] };
    let names = policy.names(&sender, client);
    assert!(names.len() <= policy.text().len());
    for name in names {
        // presentation form: an octet takes four characters at most
        assert!(!name.is_empty() && name.len() <= 4 * 253, "{name:?}");
        assert!(!name.chars().any(char::is_control), "{name:?}");
    }
}
