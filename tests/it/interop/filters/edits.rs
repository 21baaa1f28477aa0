//! Edits of the header through Postfix: all but forged results stays as it came, to the octet.

use super::EXCHANGER;
use super::delivered::RECEIVED;
use super::site::{OURS, Site, names};

const FROM: &[u8] = b"From: a@good.test";

/// Our results of a message from good.test by its exchanger.
const RESULTS: &str = "Authentication-Results: gate.relay.test;\n\
    \tx-reverse-mx=pass (organization) policy.ptr=mail.good.test;\n\
    \tx-reverse-mx=pass (mx) smtp.mailfrom=good.test;\n\
    \tx-reverse-mx=pass (mx) smtp.mailfrom=good.test policy.rule=matches;\n\
    \tx-reverse-mx=pass (mx) header.from=good.test;\n\
    \tx-reverse-mx=pass (mx) header.from=good.test policy.rule=matches;\n\
    \tx-reverse-mx=none (not_given) header.reply-to=\"\";\n\
    \tiprev=pass policy.iprev=127.0.0.10";

fn forged(number: usize) -> Vec<u8> {
    let fold = "\r\n\t".to_owned() + &"x".repeat(900);
    match number % 6 {
        0 => format!("Authentication-Results: {OURS}; n={number}").into_bytes(),
        1 => format!("AUTHENTICATION-results:{OURS};n={number}").into_bytes(),
        2 => format!("authentication-results:\r\n {OURS};\r\n\tn={number}").into_bytes(),
        3 => format!("Authentication-Results : (c) {OURS} 1; n={number}").into_bytes(),
        4 => format!("Authentication-Results: \"{OURS}\"; n={number}{}", fold.repeat(5)).into_bytes(),
        _ => format!("Authentication-Results:\t{OURS}.;n={number} {}", "y".repeat(5000)).into_bytes(),
    }
}

fn foreign(number: usize) -> Vec<u8> {
    match number % 4 {
        0 => format!("Authentication-Results: mx{number}.other.test; spf=pass"),
        1 => format!("authentication-RESULTS:mx{number}.other.test;\r\n  spf=pass  "),
        2 => format!("Authentication-Results:\tmx{number}.other.test; {}", "z".repeat(3000)),
        _ => format!("Authentication-Results:\r\n\tmx{number}.{OURS}; spf=pass"),
    }
    .into_bytes()
}

/// Fields that Postfix alone delivers as they come.
fn odd() -> Vec<Vec<u8>> {
    let mut fields: Vec<Vec<u8>> = [
        &b"X-None:none"[..],
        b"X-Two:  two  blanks",
        b"X-Tab:\ttab\tand tab",
        b"X-Folded: a\r\n\tb\r\n  c\r\n \td",
        b"X-Folded-First:\r\n a",
        b"X-Empty-Fold: a\r\n \r\n\tb",
        b"X-Empty:",
        b"X-Blank: ",
        b"X-Blanks: \t  ",
        b"X-Trailing: a  \t",
        b"X-Eight: \xe4\xff\x80\xc3\xa4",
        b"X-Control: \x01\x0b\x0c\x1b\x7f",
        b"x-oDD-nAmE: v",
        b"X-Colons:: : :",
        b"X-Percent: %s%n%%",
        b"!#$%&'*+/=?^_`{|}~.: v",
        b"X-Dup: 1",
        b"X-Dup:2",
        b"x-dup:  3",
        b"X-Dup: 1",
        b"Subject: ",
        b"Subject:again",
        b"Received: from a.test by b.test; Mon, 01 Jan 2024 12:00:00 +0000",
        b"Received:from c.test by d.test;\r\n\tMon, 01 Jan 2024 12:00:00 +0000",
        b"DKIM-Signature: v=1; a=x;\r\n b=  c ;",
    ]
    .map(<[u8]>::to_vec)
    .into();
    fields.push([b"X-Long: ".to_vec(), b"l".repeat(20_000)].concat());
    fields.push(
        [b"X-Long-Folds: a".to_vec(), [b"\r\n ".to_vec(), b"m".repeat(2_047)].concat().repeat(4)].concat(),
    );
    fields.push([b"N".repeat(250), b": v".to_vec()].concat());
    fields
}

fn message(fields: &[Vec<u8>]) -> Vec<u8> {
    let mut message: Vec<u8> = fields.iter().flat_map(|field| [field, &b"\r\n"[..]].concat()).collect();
    message.extend(b"\r\nAuthentication-Results: gate.relay.test; in=body\r\n.dot\r\n\xe4\r\n");
    message
}

async fn assert_delivered(site: &mut Site, sent: &[Vec<u8>], expected: &[Vec<u8>], what: &str) {
    let reply = site.send(EXCHANGER, "a@good.test", message(sent)).await;
    assert!(reply.starts_with("250 "), "{what}: {reply}");
    let delivered = site.arrived().await;
    delivered.assert_fields(expected, what);
    assert_eq!(delivered.body(), "Authentication-Results: gate.relay.test; in=body\n.dot\n\\xe4\n", "{what}");
}

fn below(above: &[&str], fields: &[Vec<u8>]) -> Vec<Vec<u8>> {
    above.iter().map(|field| field.as_bytes().to_vec()).chain(fields.to_vec()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_fields_stay_as_they_came() {
    let Some(mut site) = Site::start(names("").await, str::to_owned) else { return };
    let _rmxd = site.rmxd("").await;
    let mut fields = odd();
    fields.insert(3, FROM.to_vec());
    assert_delivered(&mut site, &fields, &below(&[RESULTS, RECEIVED], &fields), "nothing forged").await;

    // A forged one in front of each, and behind the last.
    let between: Vec<Vec<u8>> =
        fields.iter().enumerate().flat_map(|(at, field)| [forged(at), field.clone()]).collect();
    let between = [between, vec![forged(6)]].concat();
    assert_delivered(&mut site, &between, &below(&[RESULTS, RECEIVED], &fields), "forged ones between").await;

    // More than `limits.header_block`, and that much.
    let filler = |octets: usize| [b"X: ".to_vec(), b"f".repeat(octets - 5)].concat();
    let fill = |octets: usize| {
        [vec![FROM.to_vec()], vec![filler(4096); 63], vec![filler(octets - 63 * 4096 - FROM.len() - 2)]]
            .concat()
    };
    let most = fill(256 * 1024);
    assert_delivered(&mut site, &most, &below(&[RESULTS, RECEIVED], &most), "as large as may be").await;
    let reply = site.send(EXCHANGER, "a@good.test", message(&fill(256 * 1024 + 1))).await;
    assert_eq!(reply, "552 5.3.4 the header is larger than 262144 octets");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_thousand_fields_the_forged_ones_go_and_the_others_stay() {
    let Some(mut site) = Site::start(names("").await, str::to_owned) else { return };
    let _rmxd = site.rmxd("[limits]\nheader_block = \"4MiB\"\n").await;
    // Alone, in runs, at both ends: which of them are forged.
    let patterns: [(&str, fn(usize) -> bool); 5] = [
        ("every other", |at| at % 2 == 0),
        ("runs of different lengths", |at| (at * at / 7) % 3 == 1),
        ("all but the last", |at| at < 999),
        ("the last alone", |at| at == 999),
        ("60 among the foreign ones", |at| at % 17 == 3),
    ];
    for (what, is_forged) in patterns {
        let fields: Vec<(bool, Vec<u8>)> = (0..1000)
            .map(|at| if is_forged(at) { (true, forged(at)) } else { (false, foreign(at)) })
            .collect();
        let sent: Vec<Vec<u8>> =
            std::iter::once(FROM.to_vec()).chain(fields.iter().map(|(_, field)| field.clone())).collect();
        let left: Vec<Vec<u8>> =
            fields.into_iter().filter(|(forged, _)| !forged).map(|(_, field)| field).collect();
        let expected = [below(&[RESULTS, RECEIVED], &[FROM.to_vec()]), left].concat();
        assert_delivered(&mut site, &sent, &expected, what).await;
    }
    let many: Vec<Vec<u8>> = (0..1000).map(|at| format!("X-Many-{}:{at}", at % 10).into_bytes()).collect();
    let sent = [many, vec![FROM.to_vec(), forged(0)]].concat();
    let expected = below(&[RESULTS, RECEIVED], &sent[..1001]);
    assert_delivered(&mut site, &sent, &expected, "a thousand others").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_removed_only_or_kept_as_the_configuration_has_it() {
    let sent = [forged(0), FROM.to_vec(), foreign(1), forged(2)];
    for (results, left) in [("remove", &sent[1..3]), ("keep", &sent[..])] {
        let Some(mut site) = Site::start(names("").await, str::to_owned) else { return };
        let _rmxd = site.rmxd(&format!("[milter]\nresults = \"{results}\"\n")).await;
        assert_delivered(&mut site, &sent, &below(&[RECEIVED], left), results).await;
    }
}
