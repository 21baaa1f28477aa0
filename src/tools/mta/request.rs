//! A request of policy delegation, with all attributes of Postfix 3.7 in its order.

use std::net::SocketAddr;

/// One question. Texts that Postfix doesn't know are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// `protocol_state`, such as `RCPT`.
    pub state: &'a str,
    /// `ESMTP` behind EHLO, else `SMTP`.
    pub protocol: &'a str,
    pub client: SocketAddr,
    /// The client's confirmed name; `unknown` without.
    pub client_name: &'a str,
    pub server: SocketAddr,
    pub helo: &'a str,
    /// In Postfix's internal form, without quotes; empty for `<>`.
    pub sender: &'a str,
    pub recipient: &'a str,
    pub queue_id: &'a str,
    /// The same for all questions about one message; empty before the first recipient.
    pub instance: &'a str,
    /// The user who logged in.
    pub login: &'a str,
}

impl Request<'_> {
    /// Appends the lines, and the empty one.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        let (client, server) = (self.client, self.server);
        let method = if self.login.is_empty() { "" } else { "PLAIN" };
        let (client_address, client_port) = (client.ip().to_string(), client.port().to_string());
        let (server_address, server_port) = (server.ip().to_string(), server.port().to_string());
        let attributes = [
            ("request", "smtpd_access_policy"),
            ("protocol_state", self.state),
            ("protocol_name", self.protocol),
            ("client_address", &client_address),
            ("client_name", self.client_name),
            ("client_port", &client_port),
            ("reverse_client_name", self.client_name),
            ("server_address", &server_address),
            ("server_port", &server_port),
            ("helo_name", self.helo),
            ("sender", self.sender),
            ("recipient", self.recipient),
            ("recipient_count", "0"),
            ("queue_id", self.queue_id),
            ("instance", self.instance),
            ("size", "0"),
            ("etrn_domain", ""),
            ("stress", ""),
            ("sasl_method", method),
            ("sasl_username", self.login),
            ("sasl_sender", ""),
            ("ccert_subject", ""),
            ("ccert_issuer", ""),
            ("ccert_fingerprint", ""),
            ("ccert_pubkey_fingerprint", ""),
            ("encryption_protocol", ""),
            ("encryption_cipher", ""),
            ("encryption_keysize", "0"),
            ("policy_context", ""),
        ];
        for (name, value) in attributes {
            out.extend_from_slice(name.as_bytes());
            out.push(b'=');
            out.extend_from_slice(value.as_bytes());
            out.push(b'\n');
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delegation::{Reader, State};

    #[test]
    fn rmxd_reads_what_is_written() {
        let request = Request {
            state: "RCPT",
            protocol: "ESMTP",
            client: "127.0.0.10:4711".parse().unwrap(),
            client_name: "mail.good.test",
            server: "127.0.0.1:25".parse().unwrap(),
            helo: "mail.good.test",
            sender: "ann@good.test",
            recipient: "user@here.test",
            queue_id: "4F1",
            instance: "1.2.3.0",
            login: "ann",
        };
        let mut out = Vec::new();
        request.write_to(&mut out);
        let (read, taken) = Reader::default().next(&out).unwrap().unwrap();
        assert_eq!(taken, out.len());
        assert_eq!(read.state, State::Rcpt);
        assert_eq!((read.client_address, read.client_port), (Some(request.client.ip()), 4711));
        let found = [
            read.protocol_name,
            read.helo_name,
            read.sender,
            read.recipient,
            read.queue_id,
            read.instance,
            read.sasl_username,
        ];
        assert_eq!(
            found,
            ["ESMTP", "mail.good.test", "ann@good.test", "user@here.test", "4F1", "1.2.3.0", "ann"]
        );
    }
}
