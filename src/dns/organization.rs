//! The organisational domain: the label below the public suffix, and that (by the public suffix list).
//!
//! The list is compiled in, so it is as old as the release. It is looked at with A-labels in lower case, which is what
//! a [`DomainName`] holds, and never with the text of an IP address, of which it would make nonsense.

use crate::smtp::address::DomainName;

/// `good.test` for `host1.out.good.test`; `None` for a public suffix, a single label and the text of an IP address.
pub(crate) fn organization(domain: &DomainName) -> Option<DomainName> {
    if domain.is_ip_text() || domain.is_single_label() {
        return None;
    }
    psl::domain_str(domain.as_str()).and_then(|name| DomainName::parse(name).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_organisation_is_one_label_below_the_public_suffix() {
        let rows = [
            ("host1.out.good.test", Some("good.test")),
            ("good.test", Some("good.test")),
            ("Mail.Example.CO.UK", Some("example.co.uk")),
            ("xn--bcher-kva.example", Some("xn--bcher-kva.example")),
            ("a.b.github.io", Some("b.github.io")),
            ("co.uk", None),
            ("test", None),
            ("mail.192.0.2.1", None),
        ];
        for (name, expected) in rows {
            let found = organization(&DomainName::parse(name).unwrap());
            assert_eq!(found.as_ref().map(DomainName::as_str), expected, "{name}");
        }
    }
}
