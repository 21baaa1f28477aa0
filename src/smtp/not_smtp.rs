//! Lines of HTTP, which no SMTP client sends.
//!
//! An attacker can make a browser or a proxy send a request to port 25 whose body contains SMTP commands. None of them
//! may be executed, so the session ends at the first such line.

/// Methods of HTTP (RFC 9110 9, RFC 5789), and the first word of HTTP/2 (RFC 9113 3.4).
const METHODS: [&[u8]; 10] =
    [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"];

/// Whether a line (without its end) is a request line or a header field, which no SMTP command looks like.
#[must_use]
pub fn is_foreign(line: &[u8]) -> bool {
    let word = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    METHODS.iter().any(|method| word.eq_ignore_ascii_case(method)) || is_field_name(word)
}

/// `Host:`, for example.
fn is_field_name(word: &[u8]) -> bool {
    word.strip_suffix(b":").is_some_and(|name| {
        !name.is_empty() && name.iter().all(|octet| octet.is_ascii_alphanumeric() || *octet == b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_recognised_by_its_first_word() {
        let rows = [
            ("GET / HTTP/1.1", true),
            ("get http://mx.test/ HTTP/1.0", true),
            ("POST /x HTTP/1.1", true),
            ("CONNECT mx.test:25 HTTP/1.1", true),
            ("HEAD", true),
            ("PUT /a", true),
            ("OPTIONS *", true),
            ("PRI * HTTP/2.0", true),
            ("Host: mx.test", true),
            ("X-Forwarded-For: 192.0.2.1", true),
            ("Content-Length:", true),
            ("", false),
            (":", false),
            ("EHLO good.test", false),
            ("GETTING", false),
            ("MAIL FROM:<a@good.test>", false),
            ("MAILFROM:<a@good.test>", false),
            ("RCPT TO:<a@good.test>", false),
            ("RCPT To: <a@good.test>", false),
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 25", false),
        ];
        for (line, expected) in rows {
            assert_eq!(is_foreign(line.as_bytes()), expected, "{line:?}");
        }
    }
}
