//! A delivered message, field by field.

/// With LF at the ends of lines, as in a Maildir.
#[derive(Debug)]
pub(super) struct Delivered {
    /// All fields but those of the delivery itself (Return-Path and so on), each with its folds, without its last LF.
    /// Received: of the mail server is `RECEIVED`.
    fields: Vec<String>,
    body: String,
}

/// In place of the Received: of the mail server, which has a time and an id.
pub(super) const RECEIVED: &str = "RECEIVED";

impl Delivered {
    /// Octets outside of ASCII become `\xNN`.
    pub(super) fn read(octets: &[u8]) -> Self {
        let text = shown(octets);
        let (header, body) = text.split_once("\n\n").map_or((text.as_str(), ""), |parts| parts);
        let mut fields: Vec<String> = Vec::new();
        for line in header.split('\n') {
            match fields.last_mut().filter(|_| line.starts_with([' ', '\t'])) {
                Some(field) => field.push_str(&format!("\n{line}")),
                None => fields.push(line.to_owned()),
            }
        }
        let of_delivery = |field: &String| {
            ["Return-Path: ", "X-Original-To: ", "Delivered-To: "].iter().any(|name| field.starts_with(name))
        };
        fields.retain(|field| !of_delivery(field));
        for field in &mut fields {
            if field.starts_with("Received: ") && field.contains("\tby mail.relay.test (") {
                *field = RECEIVED.to_owned();
            }
        }
        Self { fields, body: body.to_owned() }
    }

    pub(super) fn fields(&self) -> &[String] {
        &self.fields
    }

    pub(super) fn body(&self) -> &str {
        &self.body
    }

    /// The first field that begins so, unfolded.
    pub(super) fn field(&self, begin: &str) -> Option<String> {
        self.fields
            .iter()
            .map(|field| field.replace("\n\t", " ").replace('\n', ""))
            .find(|field| field.starts_with(begin))
    }

    /// Panics unless these are all fields, in this order, to the octet. CRLF in `expected` is LF here.
    pub(super) fn assert_fields<T: AsRef<[u8]>>(&self, expected: &[T], what: &str) {
        let expected: Vec<String> =
            expected.iter().map(|field| shown(field.as_ref()).replace("\\r\n", "\n")).collect();
        for at in 0..expected.len().max(self.fields.len()) {
            let (wanted, found) = (expected.get(at), self.fields.get(at));
            assert_eq!(found, wanted, "{what}: field {at} of {}", self.fields.len());
        }
    }
}

/// As text in which each octet outside of printable ASCII, LF and tab is `\xNN` or `\r`.
fn shown(octets: &[u8]) -> String {
    let each = octets.iter().map(|&octet| match octet {
        b'\n' | b'\t' | b' '..=b'~' => char::from(octet).to_string(),
        other => other.escape_ascii().to_string(),
    });
    each.collect()
}
