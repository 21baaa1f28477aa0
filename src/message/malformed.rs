//! Why a header field has no reading, or more than one (`malformed_header`).

use crate::policy::identity::Identity;

/// What is wrong with From: or Reply-To:.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    /// There is no From: field (RFC 5322 3.6).
    Missing,
    /// The field occurs more than once, and readers differ in which one they show (RFC 5322 3.6).
    Repeated,
    /// The field has no address: it is empty or `<>`, or a group without members (RFC 6854 2.1).
    Empty,
    /// Not an address list, or one that can be read in two ways (RFC 5322 3.4).
    Syntax,
    /// An address without `@domain`; a system on the way would complete it with its own domain.
    NoDomain,
    /// Control characters.
    Control,
    /// Invisible characters in a local part, or those that turn its direction (Unicode Default_Ignorable_Code_Point).
    Invisible,
    /// More than five distinct domains, or more than a thousand addresses.
    TooMany,
    /// Two readers find different senders.
    Ambiguous,
    /// White space, a comment or a fold inside a domain, or between the `@` and the domain.
    BrokenDomain,
    /// More than 16 KiB, or a line that the next hop breaks inside an address.
    TooLong,
    /// A field name of more than 256 octets, where relays end the header.
    LongName,
    /// A line of the header is neither a field nor the continuation of one, so readers differ in where the header ends.
    NotAField,
}

impl Malformed {
    /// Whether the field names no domain and has no other fault: it is empty, or has a name without a domain. From: of
    /// a bounce isn't refused for that alone, since no sender would learn of the loss.
    #[must_use]
    pub fn names_no_domain(self) -> bool {
        matches!(self, Self::Empty | Self::NoDomain)
    }

    /// A sentence for the reply and the log; `identity` is [`Identity::From`] or [`Identity::ReplyTo`].
    #[must_use]
    pub fn text(self, identity: Identity) -> String {
        let field = if identity == Identity::ReplyTo { "Reply-To:" } else { "From:" };
        match self {
            Self::Missing => format!("there is no {field} field"),
            Self::Repeated => format!("the {field} field stands more than once"),
            Self::Empty => format!("the {field} field names no address"),
            Self::Syntax => format!("the {field} field is not a valid list of addresses"),
            Self::NoDomain => format!("the {field} field has an address without a domain"),
            Self::Control => format!("the {field} field holds control characters"),
            Self::Invisible => format!("the {field} field has invisible characters in an address"),
            Self::TooMany => format!("the {field} field has too many addresses or domains"),
            Self::Ambiguous => format!("the {field} field can be read in two ways"),
            Self::BrokenDomain => {
                format!("the {field} field has white space or a comment inside a domain")
            }
            Self::TooLong => format!("the {field} field is longer than mail servers keep whole"),
            Self::LongName => "a field name of the header is longer than 256 octets".to_owned(),
            Self::NotAField => {
                "a line of the header is neither a field nor the continuation of one".to_owned()
            }
        }
    }

    /// The word in logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::Empty => "empty",
            Self::Syntax => "syntax",
            Self::NoDomain => "no_domain",
            Self::Control => "control",
            Self::Invisible => "invisible",
            Self::TooMany => "too_many",
            Self::Ambiguous => "ambiguous",
            Self::BrokenDomain => "broken_domain",
            Self::TooLong => "too_long",
            Self::LongName => "long_name",
            Self::NotAField => "not_a_field",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_name_the_field() {
        let rows = [
            (Malformed::Repeated, Identity::From, "the From: field stands more than once"),
            (Malformed::Empty, Identity::ReplyTo, "the Reply-To: field names no address"),
            (
                Malformed::NotAField,
                Identity::From,
                "a line of the header is neither a field nor the continuation of one",
            ),
        ];
        for (malformed, identity, expected) in rows {
            assert_eq!(malformed.text(identity), expected);
        }
    }
}
