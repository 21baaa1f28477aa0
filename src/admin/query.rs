//! The parameters of a request. Each is known by name, is there once unless it may be repeated, and is read by the one
//! who knows what is allowed; whatever else comes is refused, since a filter with a slip would show too much.

use axum::extract::Query as UrlQuery;
use axum::http::Uri;

use crate::admin::problem::Problem;

/// Longest value; the request line has a bound of its own.
const LONGEST: usize = 1024;

/// The parameters behind the `?`.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Those of a request where these are known. One whose name ends in `[]` in `known` may be repeated (without `[]`).
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
                return Err(Problem::parameter(name, "is there twice; once is allowed"));
            }
            if value.len() > LONGEST {
                return Err(Problem::parameter(name, format!("is longer than {LONGEST} octets")));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter; an empty one is none, as a form sends it.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of a parameter that may be repeated.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.as_str())
    }

    /// The same, read; `read` says what is allowed where it can't.
    pub(super) fn value<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let refused = |text: &str, what: String| Problem::parameter(name, format!("{} {what}", quoted(text)));
        self.text(name).map(|text| read(text).map_err(|what| refused(text, what))).transpose()
    }
}

fn unknown(known: &[&str]) -> String {
    let names: Vec<&str> = known.iter().map(|name| name.trim_end_matches("[]")).collect();
    match names.as_slice() {
        [] => "is not a parameter; none is allowed here".to_owned(),
        names => format!("is not a parameter; allowed are {}", names.join(", ")),
    }
}

/// As an answer shows it: quoted, escaped and not for ever.
pub(super) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let short: String = text.chars().take(SHOWN).collect();
    let dots = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{dots}")
}
