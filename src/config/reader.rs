//! Reads single values into what the layers need, and collects what is wrong with them.
//!
//! A value that can't be read is recorded and comes back as `None`; the caller goes on, so that the operator sees all
//! problems at once. Every bound that a layer relies on is checked here.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use crate::config::problem::{Origin, Problem, either};

/// Longest duration: far from what overflows when it is added to a clock.
const MAX_DURATION: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// Far above what is useful, far below what overflows.
pub(super) const MAX_OCTETS: u64 = 1 << 50;
/// The same for counts; it is also below what a semaphore can count to.
pub(super) const MAX_COUNT: i64 = 1_000_000;

/// Collects problems.
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

    /// Records what is wrong with a key.
    pub(super) fn refuse(&mut self, key: &str, what: impl Into<String>) {
        let origin = self.origins.get(key).cloned().unwrap_or(Origin::Default);
        self.problems.push(Problem { origin, key: key.to_owned(), what: what.into() });
    }

    /// The same for what is said elsewhere than in the configuration.
    pub(super) fn refuse_at(&mut self, origin: Origin, key: &str, what: String) {
        self.problems.push(Problem { origin, key: key.to_owned(), what });
    }

    /// Where relative paths of a key begin that name a part of the configuration: beside the file that says it, else in
    /// the working directory.
    pub(super) fn folder(&self, key: &str) -> &'a Path {
        match self.origins.get(key) {
            Some(Origin::File { path, .. }) => path.parent().unwrap_or(Path::new("")),
            Some(Origin::Default | Origin::Environment(_) | Origin::Flag(_)) | None => Path::new(""),
        }
    }

    /// Records a combination that can't be, at the first of its keys that the operator wrote.
    pub(super) fn refuse_together(&mut self, keys: &[&str], what: impl Into<String>) {
        let written = |key: &&&str| self.origins.get(**key).is_some_and(|origin| *origin != Origin::Default);
        let key = keys.iter().find(written).or(keys.first()).copied().unwrap_or_default();
        self.refuse(key, what);
    }

    /// A value of which the reader itself says what is allowed.
    pub(super) fn parsed<T>(&mut self, key: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|what| self.refuse(key, what)).ok()
    }

    /// One of several words.
    pub(super) fn choice<T: Copy>(&mut self, key: &str, text: &str, words: &[(&str, T)]) -> Option<T> {
        self.choice_with_later(key, text, words, &[])
    }

    /// One of several words, where others are known but not built yet.
    pub(super) fn choice_with_later<T: Copy>(
        &mut self,
        key: &str,
        text: &str,
        words: &[(&str, T)],
        later: &[&str],
    ) -> Option<T> {
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let allowed: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let why = if later.contains(&text) { "not available in this version" } else { "not allowed" };
        self.refuse(key, format!("{text:?} is {why}: {}", either(&allowed)));
        None
    }

    /// A list of items that differ; `None` when one can't be read.
    pub(super) fn list<T: PartialEq>(
        &mut self,
        key: &str,
        items: &[String],
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let before = self.problems.len();
        let mut list: Vec<T> = Vec::with_capacity(items.len());
        for item in items {
            match read(item) {
                Ok(value) if list.contains(&value) => self.refuse(key, format!("{item:?} is there twice")),
                Ok(value) => list.push(value),
                Err(what) => self.refuse(key, format!("{item:?} {what}")),
            }
        }
        (self.problems.len() == before).then_some(list)
    }

    /// A number within bounds.
    pub(super) fn count(&mut self, key: &str, number: i64, range: RangeInclusive<i64>) -> Option<usize> {
        if !range.contains(&number) {
            self.refuse(key, format!("{number} is not allowed: {} to {}", range.start(), range.end()));
            return None;
        }
        usize::try_from(number).ok()
    }

    /// A size in octets, at least one.
    pub(super) fn size(&mut self, key: &str, text: &str, most: u64) -> Option<u64> {
        let size = text.parse::<bytesize::ByteSize>().map_err(|_unit_or_number| {
            format!("{text:?} is not a size: octets, or a number with KiB, MiB or GiB such as \"50MiB\"")
        });
        let octets = self.parsed(key, size)?.as_u64();
        if octets == 0 || octets > most {
            let most = bytesize::ByteSize(most);
            self.refuse(key, format!("{text:?} is not allowed: 1 octet to {most}"));
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

    /// A duration above zero: a time-out of nothing would end everything at once.
    pub(super) fn time(&mut self, key: &str, text: &str) -> Option<Duration> {
        let duration = self.duration(key, text)?;
        if duration.is_zero() {
            self.refuse(key, format!("{text:?} is not allowed: must be more than zero"));
            return None;
        }
        Some(duration)
    }
}
