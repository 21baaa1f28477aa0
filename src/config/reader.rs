//! Parses single values into the types of the settings, and collects the problems.
//!
//! For a value that can't be parsed, a method records a problem and returns `None`. The caller goes on, so that the
//! operator sees all problems at once. Every bound that a setting relies on is checked here.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::config::problem::{Origin, Problem, either};

/// Ten years: small enough to be added to a clock without overflow.
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Far above any useful size, far below an overflow.
pub(super) const MAX_OCTETS: u64 = 1 << 50;
/// Far above any useful count; a semaphore can still count to it.
pub(super) const MAX_COUNT: i64 = 1_000_000;

pub(super) struct Reader<'a> {
    origins: &'a BTreeMap<String, Origin>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(origins: &'a BTreeMap<String, Origin>) -> Self {
        Self { origins, problems: Vec::new() }
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// Records a problem of a key, at the origin of its value.
    pub(super) fn refuse(&mut self, key: &str, what: impl Into<String>) {
        let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
        self.problems.push(Problem { origin, key: key.to_owned(), what: what.into() });
    }

    /// Records a problem of a key at another origin, such as a file that the configuration names.
    pub(super) fn refuse_at(&mut self, origin: Origin, key: &str, what: String) {
        self.problems.push(Problem { origin, key: key.to_owned(), what });
    }

    /// The folder that relative paths of a key start from: that of the configuration file, if the value comes from
    /// it, else the working directory.
    pub(super) fn folder(&self, key: &str) -> &'a Path {
        match self.origins.get(key) {
            Some(Origin::File { path, .. }) => path.parent().unwrap_or(Path::new("")),
            Some(Origin::Default | Origin::Environment(_) | Origin::Flag(_)) | None => Path::new(""),
        }
    }

    /// Records an impossible combination, at the first of its keys that the operator wrote.
    pub(super) fn refuse_together(&mut self, keys: &[&str], what: impl Into<String>) {
        let written = |key: &&&str| self.origins.get(**key).is_some_and(|origin| *origin != Origin::Default);
        let key = keys.iter().find(written).or(keys.first()).copied().unwrap_or_default();
        self.refuse(key, what);
    }

    /// Records the error of a parser of its own.
    pub(super) fn parsed<T>(&mut self, key: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|what| self.refuse(key, what)).ok()
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, text: &str, words: &[(&str, T)]) -> Option<T> {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        self.refuse(key, format!("{text:?} is not allowed: {}", either(&allowed)));
        None
    }

    /// A list of different items; `None` if one can't be parsed or is there twice.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &str,
        items: &[String],
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let before = self.problems.len();
        let mut list: Vec<T> = Vec::with_capacity(items.len());
        for item in items {
            match parse(item) {
                Ok(value) if list.contains(&value) => self.refuse(key, format!("{item:?} is listed twice")),
                Ok(value) => list.push(value),
                Err(what) => self.refuse(key, format!("{item:?} {what}")),
            }
        }
        (self.problems.len() == before).then_some(list)
    }

    pub(super) fn count(&mut self, key: &str, number: i64, range: RangeInclusive<i64>) -> Option<usize> {
        if !range.contains(&number) {
            self.refuse(key, format!("{number} is not allowed: {} to {}", range.start(), range.end()));
            return None;
        }
        usize::try_from(number).ok()
    }

    /// A size in octets, at least one.
    pub(super) fn size(&mut self, key: &str, text: &str, max: u64) -> Option<u64> {
        let size = text.parse::<bytesize::ByteSize>().map_err(|_unit_or_number| {
            format!("{text:?} is not a size: octets, or a number with KiB, MiB or GiB such as \"50MiB\"")
        });
        let octets = self.parsed(key, size)?.as_u64();
        if octets == 0 || octets > max {
            let max = bytesize::ByteSize(max);
            self.refuse(key, format!("{text:?} is not allowed: 1 octet to {max}"));
            return None;
        }
        Some(octets)
    }

    /// A duration that may be zero.
    pub(super) fn duration(&mut self, key: &str, text: &str) -> Option<Duration> {
        let duration = humantime::parse_duration(text).map_err(|_grammar| {
            format!("{text:?} is not a duration: a number with ms, s, m, h or d such as \"30s\" or \"5m\"")
        });
        let duration = self.parsed(key, duration)?;
        if duration > MAX_DURATION {
            self.refuse(key, format!("{text:?} is not allowed: at most ten years"));
            return None;
        }
        Some(duration)
    }

    /// A duration above zero: a timeout of zero would end everything at once.
    pub(super) fn positive_duration(&mut self, key: &str, text: &str) -> Option<Duration> {
        let duration = self.duration(key, text)?;
        if duration.is_zero() {
            self.refuse(key, format!("{text:?} is not allowed: must be more than zero"));
            return None;
        }
        Some(duration)
    }
}
