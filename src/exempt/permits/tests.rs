//! Which permit lets in what.

use std::time::UNIX_EPOCH;

use super::*;
use crate::exempt::entry;

const NOW: SystemTime = UNIX_EPOCH;

/// `client=192.0.2.0/24 domain=a.test recipient=u@here.test`, each of them or not.
fn conditions(text: &str) -> Conditions {
    let mut conditions = Conditions::default();
    for part in text.split_whitespace() {
        let (name, value) = part.split_once('=').unwrap();
        match name {
            "client" => conditions.client = Some(entry::network(value).unwrap()),
            "domain" => conditions.domain = Some(entry::pattern(value).unwrap()),
            "identity" => conditions.identity = Identity::ALL.into_iter().find(|it| it.name() == value),
            "recipient" => conditions.recipient = Some(entry::recipient(value).unwrap()),
            other => panic!("{other}"),
        }
    }
    conditions
}

fn permit(number: u64, text: &str) -> TemporaryPermit {
    let (note, created) = (String::new(), NOW);
    let (uid, until, decision) = (None, None, None);
    TemporaryPermit { number, uid, conditions: conditions(text), note, created, until, decision }
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn numbers(permits: &Permits) -> Vec<u64> {
    permits.iter().map(|permit| permit.number).collect()
}

/// What a set lets in of a message: `m` all of it, `e` the envelope, `v` From: of the domain, `y` Reply-To:, `r` the recipient.
fn lets_in(permits: &Permits, client: &str, domain: &str, recipient: &str, now: SystemTime) -> String {
    let client: IpAddr = client.parse().unwrap();
    let domain = (!domain.is_empty()).then(|| name(domain));
    let sender = Sender { client, domain: domain.as_ref() };
    let path = ForwardPath::parse(recipient).unwrap();
    let found = [
        ('m', permits.message(sender, now).is_some()),
        ('e', domain.as_ref().is_some_and(|domain| permits.envelope(domain, now).is_some())),
        (
            'v',
            domain
                .as_ref()
                .is_some_and(|domain| permits.visible(client, Identity::From, domain, now).is_some()),
        ),
        (
            'y',
            domain
                .as_ref()
                .is_some_and(|domain| permits.visible(client, Identity::ReplyTo, domain, now).is_some()),
        ),
        ('r', permits.recipient(sender, &path, now).is_some()),
    ];
    found.into_iter().filter(|(_, found)| *found).map(|(letter, _)| letter).collect()
}

#[test]
fn a_permit_lets_in_what_its_conditions_say() {
    let rows = [
        ("client=192.0.2.0/24", "192.0.2.7", "a.test", "u@here.test", "m"),
        ("client=192.0.2.0/24", "192.0.2.7", "", "u@here.test", "m"),
        ("client=192.0.2.0/24", "192.0.3.7", "a.test", "u@here.test", ""),
        ("client=::ffff:192.0.2.0/120", "192.0.2.7", "a.test", "u@here.test", "m"),
        ("client=192.0.2.7", "192.0.2.7", "a.test", "u@here.test", "m"),
        ("client=192.0.2.7", "192.0.2.8", "a.test", "u@here.test", ""),
        ("client=0.0.0.0/0", "198.51.100.1", "a.test", "u@here.test", "m"),
        ("client=0.0.0.0/0", "2001:db8::1", "a.test", "u@here.test", ""),
        ("client=2001:db8::/64", "2001:db8::ff:1", "a.test", "u@here.test", "m"),
        ("client=2001:db8::/64", "2001:db8:0:1::1", "a.test", "u@here.test", ""),
        ("client=192.0.2.0/24 domain=a.test", "192.0.2.7", "a.test", "u@here.test", "mvy"),
        ("client=192.0.2.0/24 domain=a.test", "192.0.3.7", "a.test", "u@here.test", ""),
        ("client=192.0.2.0/24 domain=a.test", "192.0.2.7", "b.test", "u@here.test", ""),
        ("client=192.0.2.0/24 domain=a.test", "192.0.2.7", "x.a.test", "u@here.test", ""),
        ("client=192.0.2.0/24 domain=a.test", "192.0.2.7", "", "u@here.test", ""),
        ("client=192.0.2.0/24 domain=.a.test", "192.0.2.7", "y.x.a.test", "u@here.test", "mvy"),
        ("client=192.0.2.0/24 domain=a.test identity=mail_from", "192.0.2.7", "a.test", "u@here.test", "mvy"),
        ("client=192.0.2.0/24 domain=a.test identity=helo", "192.0.2.7", "a.test", "u@here.test", "mvy"),
        ("client=192.0.2.0/24 domain=a.test identity=ptr", "192.0.2.7", "a.test", "u@here.test", "mvy"),
        ("client=192.0.2.0/24 domain=a.test identity=from", "192.0.2.7", "a.test", "u@here.test", "v"),
        ("client=192.0.2.0/24 domain=a.test identity=from", "192.0.3.7", "a.test", "u@here.test", ""),
        ("client=192.0.2.0/24 domain=a.test identity=from", "192.0.2.7", "b.test", "u@here.test", ""),
        ("client=192.0.2.0/24 domain=a.test identity=reply_to", "192.0.2.7", "a.test", "u@here.test", "y"),
        ("domain=a.test", "192.0.2.7", "a.test", "u@here.test", "evy"),
        ("domain=a.test", "192.0.2.7", "x.a.test", "u@here.test", ""),
        ("domain=.a.test", "192.0.2.7", "a.test", "u@here.test", "evy"),
        ("domain=.a.test", "192.0.2.7", "x.a.test", "u@here.test", "evy"),
        ("domain=.a.test", "192.0.2.7", "xa.test", "u@here.test", ""),
        ("domain=.test", "192.0.2.7", "x.a.test", "u@here.test", "evy"),
        ("recipient=u@here.test", "192.0.2.7", "a.test", "U@Here.test", "r"),
        ("recipient=u@here.test", "192.0.2.7", "a.test", "u@there.test", ""),
        ("recipient=U", "192.0.2.7", "", "u@there.test", "r"),
        ("recipient=u", "192.0.2.7", "", "u2@there.test", ""),
        ("client=192.0.2.0/24 recipient=u", "192.0.2.7", "", "u@here.test", "r"),
        ("client=192.0.2.0/24 recipient=u", "192.0.3.7", "", "u@here.test", ""),
        ("domain=a.test recipient=u", "192.0.3.7", "a.test", "u@here.test", "r"),
        ("domain=a.test recipient=u", "192.0.3.7", "b.test", "u@here.test", ""),
        (
            "client=192.0.2.0/24 domain=.a.test recipient=u@here.test",
            "192.0.2.9",
            "x.a.test",
            "u@here.test",
            "r",
        ),
        (
            "client=192.0.2.0/24 domain=.a.test recipient=u@here.test",
            "192.0.2.9",
            "x.a.test",
            "v@here.test",
            "",
        ),
        (
            "client=192.0.2.0/24 domain=.a.test recipient=u@here.test",
            "192.0.3.9",
            "x.a.test",
            "u@here.test",
            "",
        ),
    ];
    for (text, client, domain, recipient, expected) in rows {
        let permits: Permits = [permit(1, text)].into_iter().collect();
        let found = lets_in(&permits, client, domain, recipient, NOW);
        assert_eq!(found, expected, "{text}: {client} {domain} {recipient}");
        assert!(!conditions(text).is_empty());
    }
    assert!(Conditions::default().is_empty());
}

#[test]
fn a_permit_ends_at_its_time_and_another_of_the_same_conditions_goes_on() {
    let second = Duration::from_secs(1);
    let mut permits = Permits::default();
    permits.insert(TemporaryPermit { until: Some(NOW + 5 * second), ..permit(1, "client=192.0.2.0/24") });
    permits.insert(TemporaryPermit { until: Some(NOW + 9 * second), ..permit(2, "client=192.0.2.0/24") });
    permits.insert(permit(3, "domain=a.test"));
    assert_eq!(permits.next_end(), Some(NOW + 5 * second));
    for (after, over, number) in
        [(0, 0, Some(1)), (4, 0, Some(1)), (5, 1, Some(2)), (8, 1, Some(2)), (9, 2, None), (100, 2, None)]
    {
        let now = NOW + after * second;
        let sender = Sender { client: "192.0.2.1".parse().unwrap(), domain: None };
        assert_eq!(permits.message(sender, now).map(|permit| permit.number), number, "{after}");
        assert_eq!(permits.over(now).count(), over, "{after}");
        assert!(permits.envelope(&name("a.test"), now).is_some());
    }
}

#[test]
fn a_set_is_merged_by_number() {
    let mut permits: Permits =
        [permit(1, "client=192.0.2.0/24"), permit(2, "domain=.a.test")].into_iter().collect();
    permits.insert(permit(1, "client=198.51.100.0/24 recipient=u"));
    assert_eq!(numbers(&permits), [1, 2]);
    assert_eq!(lets_in(&permits, "192.0.2.1", "", "u@here.test", NOW), "");
    assert_eq!(lets_in(&permits, "198.51.100.1", "b.a.test", "u@here.test", NOW), "evyr");
    assert_eq!(permits.remove(2).map(|permit| permit.number), Some(2));
    assert_eq!((permits.remove(2), permits.get(2)), (None, None));
    assert_eq!(lets_in(&permits, "198.51.100.1", "b.a.test", "u@here.test", NOW), "r");
    permits.remove(1);
    assert!(permits.is_empty() && permits.index.is_empty() && permits.ends.is_empty());
    let forms =
        (permits.prefixes_v4.len(), permits.wide_domains.len(), permits.exact_domains, permits.recipients);
    assert_eq!(forms, (0, 0, 0, 0), "nothing is looked up for permits that are gone");
}

#[test]
fn conditions_are_shown_as_they_are_written() {
    for (text, shown) in [
        ("client=192.0.2.0/24", "client 192.0.2.0/24"),
        ("domain=.a.test recipient=u", "domain .a.test, recipient u"),
        ("client=2001:db8::/64 domain=a.test", "client 2001:db8::/64, domain a.test"),
        ("client=2001:db8::/64 domain=a.test identity=helo", "client 2001:db8::/64, domain a.test"),
        ("domain=a.test identity=from", "domain a.test, only in from"),
    ] {
        assert_eq!(conditions(text).to_string(), shown);
    }
}

/// The test has no clock: it counts what is looked at.
#[test]
fn ten_thousand_permits_are_found_each_and_looked_up_as_fast_as_ten() {
    let text = |number: usize| match number % 4 {
        0 => format!("client=10.{}.{}.0/24", number / 256, number % 256),
        1 => format!("domain=d{number}.test"),
        2 => format!("client=10.{}.{}.0/24 domain=d{number}.test", number / 256, number % 256),
        _ => format!("recipient=u{number}@here.test"),
    };
    let permits: Permits = (0..MOST).map(|number| permit(number as u64, &text(number))).collect();
    assert_eq!(permits.len(), MOST);
    for number in 0..MOST {
        let client = format!("10.{}.{}.9", number / 256, number % 256);
        let (domain, recipient) = (format!("d{number}.test"), format!("u{number}@here.test"));
        let expected = ["m", "evy", "mvy", "r"][number % 4];
        assert_eq!(lets_in(&permits, &client, &domain, &recipient, NOW), expected, "{number}");
    }
    let longest = permits.index.values().map(SmallVec::len).max();
    assert_eq!((longest, permits.prefixes_v4.len(), permits.wide_domains.len()), (Some(1), 1, 0));
}
