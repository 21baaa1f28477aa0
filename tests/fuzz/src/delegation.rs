//! A policy connection: requests, and what is answered to them.
//!
//! Input: an octet for the cuts, then what Postfix sends.

use rmxd::delegation::{Answer, Malformed, Reader, Request};
use rmxd::smtp::reply::{Enhanced, Reply};

use super::wire::splits;

pub fn check(input: &[u8]) {
    let Some((seed, octets)) = input.split_first() else { return };
    let [whole, bytewise, cut] = splits(octets, *seed).map(|pieces| read(&pieces));
    assert_eq!(whole, bytewise, "octet by octet");
    assert_eq!(whole, cut, "cut");
    assert_answer(octets);
}

/// The requests as texts, and the error or the octets that are left.
#[derive(Debug, PartialEq, Eq, Default)]
struct Read {
    requests: Vec<String>,
    wrong: Option<Malformed>,
    left: Vec<u8>,
}

fn read(pieces: &[&[u8]]) -> Read {
    let (mut reader, mut read) = (Reader::default(), Read::default());
    for piece in pieces {
        read.left.extend_from_slice(piece);
        loop {
            match reader.next(&read.left) {
                Ok(Some((request, taken))) => {
                    assert_request(&request, &read.left[..taken]);
                    read.requests.push(format!("{request:?}"));
                    read.left.drain(..taken);
                }
                Ok(None) => break,
                Err(wrong) => {
                    let text = wrong.to_string();
                    assert!(!text.contains(char::is_control) && text.len() < 400, "{text:?}");
                    return Read { wrong: Some(wrong), left: Vec::new(), ..read };
                }
            }
        }
        assert!(read.left.len() < 64 * 1024);
    }
    read
}

/// A second reading of a request that was found valid.
fn assert_request(request: &Request<'_>, octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let lines: Vec<&str> = text.strip_suffix("\n\n").unwrap().split('\n').collect();
    assert!(lines.len() <= 200 && lines.contains(&"request=smtpd_access_policy"), "{text:?}");
    assert!(lines.iter().all(|line| line.contains('=')), "{text:?}");
    let value = |name: &str| {
        let mut all = lines.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let first = all.next();
        assert_eq!(all.next(), None, "{name} twice in {text:?}");
        first.unwrap_or_default()
    };
    assert_eq!(request.protocol_name, value("protocol_name"));
    assert_eq!(request.helo_name, value("helo_name"));
    assert_eq!(request.sender, value("sender"));
    assert_eq!(request.recipient, value("recipient"));
    assert_eq!(request.sasl_username, value("sasl_username"));
    assert_eq!(request.instance, value("instance"));
    assert_eq!(request.queue_id, value("queue_id"));
    assert_eq!(request.encryption_protocol, value("encryption_protocol"));
    assert!(request.client_address.is_none_or(|address| address == address.to_canonical()));
    if let Ok(path) = request.reverse_path() {
        assert!(!path.to_string().contains(|character: char| character.is_ascii_control()), "{path}");
    }
    if let Ok(path) = request.forward_path() {
        assert!(!path.to_string().contains(|character: char| character.is_ascii_control()), "{path}");
    }
}

/// Whatever the text of a reply is, the answer is one line and an empty one.
fn assert_answer(text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    let code = [450, 451, 550, 554, 250][text.len() % 5];
    let reply = Reply::new(code, Enhanced(4, 7, 1), text.into_owned());
    let mut out = Vec::new();
    Answer::Refuse(&reply).write_to(&mut out);
    let line = out.strip_prefix(b"action=").and_then(|rest| rest.strip_suffix(b"\n\n")).unwrap();
    assert!(
        line.len() < 540 && line.iter().all(|octet| matches!(octet, b' '..=b'~')),
        "{}",
        line.escape_ascii()
    );
    let start = if code < 500 { "DEFER_IF_PERMIT 4.".to_owned() } else { format!("{code} 5.") };
    assert!(line.starts_with(start.as_bytes()), "{}", line.escape_ascii());
}
