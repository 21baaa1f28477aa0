//! The examples of RFC 6376 (appendix A) and RFC 8463 (appendix A), whole and damaged.

use proptest::prelude::*;

use super::*;

/// RFC 6376 A.2.
const SIMPLE: &str = "DKIM-Signature: v=1; a=rsa-sha256; s=brisbane; d=example.com;\r\n      \
                      c=simple/simple; q=dns/txt; i=joe@football.example.com;\r\n      \
                      h=Received : From : To : Subject : Date : Message-ID;\r\n      \
                      bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n      \
                      b=AuUoFEfDxTDkHlLXSZEpZj79LICEps6eda7W3deTVFOk4yAUoqOB\r\n      \
                      4nujc7YopdG5dWLSdNg6xNAZpOPr+kHxt1IrE+NahM6L/LbvaHut\r\n      \
                      KVdkLLkpVaVVQPzeRDI009SO2Il5Lu7rDNH6mZckBdrIx0orEtZV\r\n      \
                      4bmp/YzhwvcubU4=;\r\n\
                      Received: from client1.football.example.com  [192.0.2.1]\r\n      \
                      by submitserver.example.com with SUBMISSION;\r\n      \
                      Fri, 11 Jul 2003 21:01:54 -0700 (PDT)\r\n";
/// RFC 6376 C.
const SIMPLE_KEY: &str = "v=DKIM1; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDwIRP/UC3SBsEmGqZ9ZJW3/DkM\
                          oGeLnQg1fWn7/zYtIxN2SnFCjxOCKG9v3b4jYfcTNh5ijSsq631uBItLa7od+v/R\
                          tdC2UzJ1lWT947qR+Rcac2gbto/NMqJ0fzfVjH4OuKhitdY9tf6mcwGjaNBcWToI\
                          MmPSPDdQPNUYckcQ2QIDAQAB";
const SIMPLE_BODY: &str = "Hi.\r\n\r\nWe lost the game. Are you hungry yet?\r\n\r\nJoe.\r\n";

/// RFC 8463 A.3, the two signatures.
const ED25519: &str = "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n \
                       d=football.example.com; i=@football.example.com;\r\n \
                       q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n \
                       subject : date : message-id : from : subject : date;\r\n \
                       bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
                       b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n \
                       Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n";
const RSA: &str = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed;\r\n \
                   d=football.example.com; i=@football.example.com;\r\n \
                   q=dns/txt; s=test; t=1528637909; h=from : to : subject :\r\n \
                   date : message-id : from : subject : date;\r\n \
                   bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n \
                   b=F45dVWDfMbQDGHJFlXUNB2HKfbCeLRyhDXgFpEL8GwpsRe0IeIixNTe3\r\n \
                   DhCVlUrSjV4BwcVcOF6+FF3Zo9Rpo1tFOeS9mPYQTnGdaSGsgeefOsk2Jz\r\n \
                   dA+L10TeYt9BgDfQNZtKdN1WO//KgIqXP7OdEFE4LjFYNcUxZQ4FADY+8=\r\n";
const ED25519_KEY: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
const RSA_KEY: &str = "v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWRiGs5V6NpP3id\
                       Y6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/byYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+P\
                       L6lHvqMKrM3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K4w3QIDAQAB";
const BODY: &str = "Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n";

const HEADER: &str = "From: Joe SixPack <joe@football.example.com>\r\n\
                      To: Suzie Q <suzie@shopping.example.net>\r\n\
                      Subject: Is dinner ready?\r\n\
                      Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n\
                      Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n";
const AUTHOR: &str = "football.example.com";

/// The examples: signature, body, key.
fn examples() -> [(&'static str, &'static str, &'static str); 3] {
    [(SIMPLE, SIMPLE_BODY, SIMPLE_KEY), (ED25519, BODY, ED25519_KEY), (RSA, BODY, RSA_KEY)]
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

/// Whether any signature in the block is valid for the author with one of these keys.
fn valid(block: &str, body: &str, keys: &[&str], author: &str) -> bool {
    let author = name(author);
    let Some(signatures) =
        Signatures::read(block.as_bytes(), 1_600_000_000, |signer| are_aligned(signer, &author))
    else {
        return false;
    };
    let mut hasher = signatures.body_hasher();
    hasher.push(body.as_bytes());
    let hashes = hasher.finish();
    let texts = keys.iter().map(|key| key.as_bytes().into()).collect();
    let keys = keys_in(&Answer::Found(Records::Txt(texts)));
    let fields = Fields::new(block.as_bytes());
    let checked = signatures.list.iter().map(|(place, signature)| {
        let verified = verifies(signature, &keys, &fields, *place);
        let outcome = if verified { DkimResult::Pass } else { DkimResult::Fail };
        CheckedSignature {
            signature: signature.clone(),
            outcome,
            has_key: !keys.is_empty(),
            evidence: Vec::new(),
        }
    });
    let checked = Checked { list: checked.collect() };
    checked.outcome(&hashes, |signer| are_aligned(signer, &author)) == DkimResult::Pass
}

#[test]
fn the_examples_of_the_standards_are_valid() {
    for (signature, body, key) in examples() {
        assert!(valid(&format!("{signature}{HEADER}"), body, &[key], AUTHOR), "{signature}");
    }
    assert!(valid(&format!("{ED25519}{RSA}{HEADER}"), BODY, &[RSA_KEY], AUTHOR), "one of two is enough");
}

#[test]
fn of_several_records_any_of_the_first_may_be_the_key() {
    let block = format!("{RSA}{HEADER}");
    let rows: [(&[&str], bool); 6] = [
        (&["v=spf1 -all", "", "v=DKIM1; p=", RSA_KEY], true),
        (&[SIMPLE_KEY, RSA_KEY], true),
        (&[SIMPLE_KEY, SIMPLE_KEY, SIMPLE_KEY, RSA_KEY], false),
        (&[ED25519_KEY], false),
        (&["v=DKIM1; k=rsa; p="], false),
        (&[], false),
    ];
    for (keys, expected) in rows {
        assert_eq!(valid(&block, BODY, keys, AUTHOR), expected, "{keys:?}");
    }
}

#[test]
fn what_relaxed_forgives_is_forgiven_and_nothing_else() {
    let block = format!("{RSA}{HEADER}");
    let rows = [
        ("Subject: Is dinner ready?", "SUBJECT :\r\n\tIs  dinner\r\n ready? ", true),
        ("Subject: Is dinner ready?", "Subject: Is dinner ready", false),
        ("Subject: Is dinner ready?", "Subject: Is dinnerready?", false),
        ("From: Joe", "X-Other: field\r\nFrom: Joe", true),
        ("From: Joe", "Subject: another\r\nFrom: Joe", false),
        ("From: Joe", "From: <eve@football.example.com>\r\nFrom: Joe", false),
        ("b=F45", "b= F4\r\n\t5", true),
        ("b=F45", "b=F46", false),
        ("c=relaxed/relaxed", "c=relaxed/simple", false),
        ("t=1528637909", "t=1528637910", false),
        ("i=@football", "i=@evil.football", false),
    ];
    for (from, to, expected) in rows {
        let block = block.replacen(from, to, 1);
        assert_eq!(valid(&block, BODY, &[RSA_KEY], AUTHOR), expected, "{to:?}");
    }
    let bodies = [
        (format!("{BODY}\r\n\r\n"), true),
        (BODY.replace("Joe.", "Joe. \t"), true),
        (BODY.replace("game.  Are", "game. Are"), true),
        (BODY.replace("game.  Are", "game.Are"), false),
        (format!("{BODY}and more\r\n"), false),
        (String::new(), false),
    ];
    for (body, expected) in bodies {
        assert_eq!(valid(&block, &body, &[RSA_KEY], AUTHOR), expected, "{body:?}");
    }
}

#[test]
fn a_key_for_the_domain_alone_is_none_for_an_agent_below() {
    let strict = |key: &str| key.replace("v=DKIM1;", "v=DKIM1; t=s;");
    assert!(valid(&format!("{RSA}{HEADER}"), BODY, &[&strict(RSA_KEY)], AUTHOR));
    assert!(!valid(&format!("{SIMPLE}{HEADER}"), SIMPLE_BODY, &[&strict(SIMPLE_KEY)], AUTHOR));
}

#[test]
fn signers_and_authors_are_aligned_by_organisation() {
    let rows = [
        ("example.com", "football.example.com", true),
        ("news.example.com", "football.example.com", true),
        ("example.com", "example.net", false),
        ("example.co.uk", "other.co.uk", false),
        ("co.uk", "example.co.uk", false),
        ("co.uk", "co.uk", true),
        ("a.github.io", "b.github.io", false),
    ];
    for (signer, author, expected) in rows {
        assert_eq!(are_aligned(&name(signer), &name(author)), expected, "{signer} {author}");
    }
    assert!(!valid(&format!("{RSA}{HEADER}"), BODY, &[RSA_KEY], "example.net"));
}

#[test]
fn only_so_many_signatures_are_looked_at_and_strangers_do_not_count() {
    let read =
        |block: &str| Signatures::read(block.as_bytes(), 0, |signer| are_aligned(signer, &name(AUTHOR)));
    let others = RSA.replace("football.example.com", "list.example.net").repeat(50);
    assert!(read(&format!("{others}{HEADER}")).is_none());
    assert_eq!(read(&format!("{others}{RSA}{HEADER}")).unwrap().list.len(), 1);
    let many = RSA.repeat(MOST_SIGNATURES + 5);
    let places: Vec<_> = read(&format!("{many}{HEADER}")).unwrap().list.iter().map(|it| it.0).collect();
    assert_eq!(places, (0..MOST_SIGNATURES).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn one_changed_octet_of_anything_signed_spoils_a_simple_signature(
        at in any::<prop::sample::Index>(),
        to in 1_u8..=127,
    ) {
        let block = format!("{SIMPLE}{HEADER}");
        let mut octets = format!("{block}{SIMPLE_BODY}").into_bytes();
        let at = at.index(octets.len());
        let (before, after) = (octets[at], octets[at] ^ to);
        octets[at] = after;
        let value = SIMPLE.find("AuU").unwrap()..SIMPLE.find("4=;").unwrap() + 2;
        // What base64 skips, and the spare bits of its last digit, mean nothing.
        prop_assume!(!value.contains(&at) || !(before.is_ascii_whitespace() || value.end - at <= 2));
        prop_assume!(at < block.len() || !matches!((before, after), (b'\r' | b'\n', _) | (_, b'\r' | b'\n')));
        let changed = String::from_utf8(octets).unwrap();
        let (block, body) = changed.split_at(block.len());
        prop_assert!(!valid(block, body, &[SIMPLE_KEY], AUTHOR), "{}", changed.escape_debug());
    }

    #[test]
    fn reading_a_hostile_block_never_panics(block in "(DKIM-Signature: ?|[a-z]{1,2} ?=|[;:=@ ]|v=1|\r\n[\t ]?|h=from;|[!-~\u{e9}]){0,60}") {
        let block = format!("{block}\r\n{HEADER}");
        prop_assert!(!valid(&block, BODY, &[RSA_KEY], AUTHOR));
    }
}
