//! The query parameters of a request. An unknown name, a second value where one is allowed, and a value that its handler
//! can't parse are refused: a filter with a typing error would otherwise match too much.

use std::net::IpAddr;

use axum::extract::Query as UrlQuery;
use axum::http::Uri;

use crate::admin::problem::Problem;

/// Octets of a value; the request line has a limit of its own.
const LONGEST: usize = 1024;
/// The same for a text of several lines: with its escapes the head of the request has room for it.
const LONGEST_TEXT: usize = 8 * 1024;
/// The parameters that are such texts.
const TEXTS: [&str; 1] = ["config"];

#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Accepts the parameters named in `known`; where a name in `known` ends in `[]`, the parameter may be repeated.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let pairs = UrlQuery::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::parameter("the query", error))?
            .0;
        for (at, (name, value)) in pairs.iter().enumerate() {
            let Some(known_as) = known.iter().find(|known| known.trim_end_matches("[]") == name) else {
                return Err(Problem::parameter(&quoted(name), unknown(known)));
            };
            let seen = pairs.iter().take(at).any(|(before, _)| before == name);
            if seen && !known_as.ends_with("[]") {
                return Err(Problem::parameter(name, "occurs more than once; allowed is one value"));
            }
            let longest = if TEXTS.contains(&name.as_str()) { LONGEST_TEXT } else { LONGEST };
            if value.len() > longest {
                return Err(Problem::parameter(name, format!("has more than {longest} octets, the limit")));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter. An empty value counts as absent, since HTML forms send empty fields.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// The parsed value of a parameter. The error of `read` continues the quoted value and ends with what is allowed.
    pub(super) fn value<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        self.text(name).map(|text| read(text).map_err(|what| refused(name, text, &what))).transpose()
    }

    pub(super) fn required<T>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, Problem> {
        let missing = || match read("") {
            Ok(_) => "is missing".to_owned(),
            Err(what) => format!("is missing; it {what}"),
        };
        self.value(name, &read)?.ok_or_else(|| Problem::parameter(name, missing()))
    }

    /// The parsed values of a parameter that may occur up to `most` times.
    pub(super) fn values<T>(
        &self,
        name: &'static str,
        most: usize,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, Problem> {
        if self.all(name).count() > most {
            return Err(Problem::parameter(
                name,
                format!("occurs too often; allowed are up to {most} values"),
            ));
        }
        self.all(name).map(|text| read(text).map_err(|what| refused(name, text, &what))).collect()
    }
}

fn refused(name: &str, text: &str, what: &str) -> Problem {
    Problem::parameter(name, format!("{} {what}", quoted(text)))
}

pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    let address = text.parse::<IpAddr>();
    address.map_err(|_syntax| "must be an IP address such as 192.0.2.7 or 2001:db8::7".to_owned())
}

fn unknown(known: &[&str]) -> String {
    let names: Vec<&str> = known.iter().map(|name| name.trim_end_matches("[]")).collect();
    match names.as_slice() {
        [] => "is not a parameter; this path has none".to_owned(),
        names => format!("is not a parameter; allowed are {}", names.join(", ")),
    }
}

/// For an error message: quoted, escaped and cut to a bounded length.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let short: String = text.chars().take(SHOWN).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{dots}")
}
