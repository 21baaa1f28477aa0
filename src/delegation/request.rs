//! One request, typed: what rmxd judges by. Other names are passed over, those of the client among them: rmxd asks DNS.

use std::borrow::Cow;
use std::net::IpAddr;

use crate::smtp::address::{AddressError, ForwardPath, ReversePath};

/// The command at which Postfix asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum State {
    Connect,
    /// HELO or EHLO.
    Helo,
    Mail,
    Rcpt,
    Data,
    EndOfMessage,
    /// VRFY, ETRN, and what later versions may add.
    #[default]
    Other,
}

/// One question. Text that isn't given is empty, as Postfix sends what it doesn't know. An octet that isn't UTF-8 is U+FFFD,
/// which a local part may have and a domain may not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request<'a> {
    pub state: State,
    /// `ESMTP` behind EHLO, else `SMTP`.
    pub protocol_name: Cow<'a, str>,
    pub helo_name: Cow<'a, str>,
    /// MAIL FROM in Postfix's internal form; empty for `<>` and before MAIL. See [`Request::reverse_path`].
    pub sender: Cow<'a, str>,
    /// RCPT TO in the same form. See [`Request::forward_path`].
    pub recipient: Cow<'a, str>,
    /// `None` where Postfix knows none; an IPv4-mapped address is the IPv4 address.
    pub client_address: Option<IpAddr>,
    /// Zero where it isn't known.
    pub client_port: u16,
    /// The user who logged in, if one did.
    pub sasl_username: Cow<'a, str>,
    /// The same for all questions about one message; empty before the first recipient.
    pub instance: Cow<'a, str>,
    /// Empty before the first recipient is accepted.
    pub queue_id: Cow<'a, str>,
    /// The TLS version, such as `TLSv1.3`; empty without TLS.
    pub encryption_protocol: Cow<'a, str>,
    /// A bit for each name that was given.
    given: u16,
}

impl<'a> Request<'a> {
    /// # Errors
    /// The name, where it was given before.
    pub(super) fn set(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), &'static str> {
        let value = String::from_utf8_lossy(value);
        let (bit, known) = match name {
            b"protocol_state" => {
                self.state = state(&value);
                (0, "protocol_state")
            }
            b"protocol_name" => put(&mut self.protocol_name, value, 1, "protocol_name"),
            b"helo_name" => put(&mut self.helo_name, value, 2, "helo_name"),
            b"sender" => put(&mut self.sender, value, 3, "sender"),
            b"recipient" => put(&mut self.recipient, value, 4, "recipient"),
            b"client_address" => {
                self.client_address = value.parse().ok().map(|address: IpAddr| address.to_canonical());
                (5, "client_address")
            }
            b"client_port" => {
                self.client_port = value.parse().unwrap_or_default();
                (6, "client_port")
            }
            b"sasl_username" => put(&mut self.sasl_username, value, 7, "sasl_username"),
            b"instance" => put(&mut self.instance, value, 8, "instance"),
            b"queue_id" => put(&mut self.queue_id, value, 9, "queue_id"),
            b"encryption_protocol" => put(&mut self.encryption_protocol, value, 10, "encryption_protocol"),
            _ => return Ok(()),
        };
        let bit = 1 << bit;
        if self.given & bit != 0 {
            return Err(known);
        }
        self.given |= bit;
        Ok(())
    }

    /// The sender as a path; null for an empty one.
    ///
    /// # Errors
    /// The part that isn't valid.
    pub fn reverse_path(&self) -> Result<ReversePath, AddressError> {
        ReversePath::parse(&external(&self.sender))
    }

    /// The recipient as a path.
    ///
    /// # Errors
    /// The part that isn't valid.
    pub fn forward_path(&self) -> Result<ForwardPath, AddressError> {
        ForwardPath::parse(&external(&self.recipient))
    }
}

fn put<'a>(
    field: &mut Cow<'a, str>,
    value: Cow<'a, str>,
    bit: u16,
    name: &'static str,
) -> (u16, &'static str) {
    *field = value;
    (bit, name)
}

fn state(value: &str) -> State {
    match value {
        "CONNECT" => State::Connect,
        "HELO" | "EHLO" => State::Helo,
        "MAIL" => State::Mail,
        "RCPT" => State::Rcpt,
        "DATA" => State::Data,
        "END-OF-MESSAGE" => State::EndOfMessage,
        _ => State::Other,
    }
}

/// The form of RFC 5321 for Postfix's internal one, in which the local part has no quotes and ends at the last `@`:
/// `a b@good.test` is `"a b"@good.test`.
fn external(internal: &str) -> Cow<'_, str> {
    let (local, domain) = match internal.rfind('@').and_then(|at| internal.split_at_checked(at)) {
        Some((local, domain)) => (local, domain),
        None => (internal, ""),
    };
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&octet);
    if local.bytes().all(|octet| is_plain(octet) || octet >= 128) {
        return Cow::Borrowed(internal);
    }
    let mut quoted = String::from("\"");
    for character in local.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    Cow::Owned(quoted + domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(lines: &[(&str, &'a str)]) -> Request<'a> {
        let mut request = Request::default();
        for (name, value) in lines {
            request.set(name.as_bytes(), value.as_bytes()).unwrap();
        }
        request
    }

    #[test]
    fn each_name_has_its_place() {
        let lines = [
            ("protocol_state", "RCPT"),
            ("protocol_name", "ESMTP"),
            ("client_address", "192.0.2.7"),
            ("client_name", "mail.good.test"),
            ("reverse_client_name", "mail.good.test"),
            ("client_port", "42716"),
            ("helo_name", "mail.good.test"),
            ("sender", "ann@good.test"),
            ("recipient", "user@relay.test"),
            ("queue_id", "4jcGdf42j5z1Vc08"),
            ("instance", "6046.6b0b07ab.803ea.0"),
            ("sasl_username", "ann"),
            ("encryption_protocol", "TLSv1.3"),
            ("colour", "blue"),
            ("colour", "green"),
        ];
        let expected = Request {
            state: State::Rcpt,
            protocol_name: "ESMTP".into(),
            helo_name: "mail.good.test".into(),
            sender: "ann@good.test".into(),
            recipient: "user@relay.test".into(),
            client_address: Some([192, 0, 2, 7].into()),
            client_port: 42716,
            sasl_username: "ann".into(),
            instance: "6046.6b0b07ab.803ea.0".into(),
            queue_id: "4jcGdf42j5z1Vc08".into(),
            encryption_protocol: "TLSv1.3".into(),
            given: 0x7ff,
        };
        assert_eq!(request(&lines), expected);
        assert_eq!(request(&[]), Request { state: State::Other, ..Request::default() });
    }

    #[test]
    fn a_name_that_counts_is_given_once() {
        let names = "protocol_state protocol_name helo_name sender recipient client_address client_port sasl_username \
            instance queue_id encryption_protocol";
        for name in names.split_whitespace() {
            let mut request = request(&[(name, "")]);
            assert_eq!(request.set(name.as_bytes(), b""), Err(name));
            assert_eq!(request.set(b"size", b"1"), Ok(()));
            assert_eq!(request.set(b"size", b"1"), Ok(()));
        }
    }

    #[test]
    fn states_addresses_and_ports_are_read() {
        let rows = [
            ("CONNECT", State::Connect),
            ("HELO", State::Helo),
            ("EHLO", State::Helo),
            ("MAIL", State::Mail),
            ("RCPT", State::Rcpt),
            ("DATA", State::Data),
            ("END-OF-MESSAGE", State::EndOfMessage),
            ("VRFY", State::Other),
            ("ETRN", State::Other),
            ("rcpt", State::Other),
            ("", State::Other),
        ];
        for (value, expected) in rows {
            assert_eq!(request(&[("protocol_state", value)]).state, expected, "{value}");
        }
        let rows = [
            ("192.0.2.7", Some("192.0.2.7")),
            ("2001:db8::7", Some("2001:db8::7")),
            ("::ffff:192.0.2.7", Some("192.0.2.7")),
            ("unknown", None),
            ("", None),
            ("192.0.2.7 ", None),
        ];
        for (value, expected) in rows {
            let found = request(&[("client_address", value)]).client_address;
            assert_eq!(found, expected.map(|address| address.parse().unwrap()), "{value}");
        }
        for (value, expected) in [("25", 25), ("", 0), ("unknown", 0), ("65536", 0)] {
            assert_eq!(request(&[("client_port", value)]).client_port, expected, "{value}");
        }
    }

    #[test]
    fn addresses_in_the_internal_form_become_paths() {
        let rows: [(&str, Result<&str, AddressError>); 15] = [
            ("", Ok("")),
            ("ann@good.test", Ok("ann@good.test")),
            ("a b=c@good.test", Ok("\"a b=c\"@good.test")),
            ("MAILER-DAEMON", Ok("MAILER-DAEMON")),
            ("a b", Ok("\"a b\"")),
            ("a@b@good.test", Ok("\"a@b\"@good.test")),
            ("a\"b\\c@good.test", Ok("\"a\\\"b\\\\c\"@good.test")),
            ("<ann>,(x):y@good.test", Ok("\"<ann>,(x):y\"@good.test")),
            ("a..b@good.test", Ok("\"a..b\"@good.test")),
            ("@good.test", Ok("\"\"@good.test")),
            ("ann@[192.0.2.7]", Ok("ann@[192.0.2.7]")),
            ("\u{e4}nn@b\u{fc}cher.test", Ok("\u{e4}nn@xn--bcher-kva.test")),
            ("ann@", Err(AddressError::Domain)),
            ("ann@good test", Err(AddressError::Domain)),
            ("a\u{1}b@good.test", Err(AddressError::LocalPart)),
        ];
        for (text, expected) in rows {
            let request = request(&[("sender", text), ("recipient", text)]);
            let reverse = request.reverse_path().map(|path| path.to_string());
            assert_eq!(reverse, expected.map(str::to_owned), "{text}");
            let forward = request.forward_path().map(|path| path.to_string());
            let expected = if text.is_empty() { Err(AddressError::LocalPart) } else { expected };
            assert_eq!(forward, expected.map(str::to_owned), "{text}");
        }
    }
}
