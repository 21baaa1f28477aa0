//! Local time for people; programs and the log have UTC.

use std::time::{Duration, SystemTime};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

/// The time zone of the system, or of `TZ`.
#[derive(Debug, Clone)]
pub(crate) struct LocalZone(TimeZone);

impl LocalZone {
    /// UTC if the system has none.
    pub(crate) fn of_system() -> Self {
        let zone = TimeZone::system();
        Self(if zone.is_unknown() { TimeZone::UTC } else { zone })
    }

    /// The name at this time, such as `Europe/Berlin, CET, UTC+01:00`.
    pub(crate) fn name(&self, at: SystemTime) -> String {
        let abbreviation = self.format(at, "%Z");
        if matches!(abbreviation.as_str(), "UTC" | "") {
            return "UTC".to_owned();
        }
        let names = self.0.iana_name().into_iter().map(str::to_owned);
        names.chain([abbreviation, self.format(at, "UTC%:z")]).collect::<Vec<_>>().join(", ")
    }

    /// For the head of a column: `Europe/Berlin`, or `CET` where the zone has no such name.
    pub(crate) fn short(&self, at: SystemTime) -> String {
        let name = self.name(at);
        name.split_once(", ").map_or(name.clone(), |(first, _)| first.to_owned())
    }

    /// `2026-11-29`.
    pub(crate) fn date(&self, at: SystemTime) -> String {
        self.format(at, "%Y-%m-%d")
    }

    /// `14:03:22`.
    pub(crate) fn clock(&self, at: SystemTime) -> String {
        self.format(at, "%H:%M:%S")
    }

    /// `2026-11-29 14:03:22 CET`.
    pub(crate) fn full(&self, at: SystemTime) -> String {
        self.format(at, "%Y-%m-%d %H:%M:%S %Z")
    }

    /// `2026-11-29 14:03:22.250 CET`.
    pub(crate) fn exact(&self, at: SystemTime) -> String {
        self.format(at, "%Y-%m-%d %H:%M:%S%.3f %Z")
    }

    /// The time on a line of a list: `14:03:22` for today, `2026-11-28 14:03:22` for another day.
    pub(crate) fn of_row(&self, at: SystemTime, today: &str) -> String {
        let (date, clock) = (self.date(at), self.clock(at));
        if date == today { clock } else { format!("{date} {clock}") }
    }

    /// A time that a person wrote: an age such as `2h`, back from `now`; a time of this zone such as `2026-01-31` or
    /// `2026-01-31 12:00`; a time of any zone such as `2026-01-31T12:00:00Z` or with `+01:00`.
    ///
    /// # Errors
    /// What is allowed, to be put behind the name of the option.
    pub(crate) fn parse(&self, text: &str, now: SystemTime) -> Result<SystemTime, String> {
        let exact = || text.parse::<Timestamp>().ok();
        let local = || {
            let local = text.parse::<DateTime>().ok()?;
            local.to_zoned_datetime(self.0.clone()).ok().map(|zoned| zoned.timestamp())
        };
        let age = || humantime::parse_duration(text).ok().and_then(|age: Duration| now.checked_sub(age));
        exact().or_else(local).and_then(|time| SystemTime::try_from(time).ok()).or_else(age).ok_or_else(|| {
            let zone = self.name(now);
            format!(
                "{text:?} is neither an age such as \"2h\", nor a time in {zone} such as \"2026-01-31\" or \"2026-01-31 12:00\", nor one \
                 with its zone such as \"2026-01-31T12:00:00Z\" or \"2026-01-31T12:00:00+01:00\""
            )
        })
    }

    fn format(&self, at: SystemTime, form: &str) -> String {
        self.at(at).map(|zoned| zoned.strftime(form).to_string()).unwrap_or_default()
    }

    /// `None` for a year above 9999.
    fn at(&self, at: SystemTime) -> Option<ZonedDateTime> {
        jiff::Timestamp::try_from(at).ok().map(|time| time.to_zoned_datetime(self.0.clone()))
    }

    #[cfg(test)]
    pub(crate) fn posix(rule: &str) -> Self {
        Self(TimeZone::posix(rule).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_that_of_the_zone_with_its_summer() {
        let zone = LocalZone::posix("CET-1CEST,M3.5.0,M10.5.0/3");
        let rows = [
            ("2026-11-29T23:30:01Z", "2026-11-30", "00:30:01", "CET, UTC+01:00"),
            ("2026-07-01T10:00:00Z", "2026-07-01", "12:00:00", "CEST, UTC+02:00"),
        ];
        for (at, date, clock, name) in rows {
            let at = humantime::parse_rfc3339(at).unwrap();
            assert_eq!(
                (zone.date(at), zone.clock(at), zone.name(at)),
                (date.into(), clock.into(), name.into())
            );
        }
        let at = humantime::parse_rfc3339("2026-11-29T10:00:00Z").unwrap();
        assert_eq!(zone.full(at), "2026-11-29 11:00:00 CET");
        assert_eq!(LocalZone(TimeZone::UTC).name(at), "UTC");
        assert_eq!(
            (zone.short(at), LocalZone(TimeZone::UTC).short(at)),
            ("CET".to_owned(), "UTC".to_owned())
        );
    }

    #[test]
    fn a_row_has_its_date_unless_it_is_of_today() {
        let zone = LocalZone::posix("CET-1");
        let at = |text| humantime::parse_rfc3339(text).unwrap();
        let today = zone.date(at("2026-11-29T22:00:00Z"));
        assert_eq!(zone.of_row(at("2026-11-28T23:00:01.250Z"), &today), "00:00:01");
        assert_eq!(zone.of_row(at("2026-11-28T22:59:59Z"), &today), "2026-11-28 23:59:59");
        assert_eq!(zone.exact(at("2026-11-28T22:59:59.250Z")), "2026-11-28 23:59:59.250 CET");
    }

    #[test]
    fn a_time_without_a_zone_is_local_and_one_with_a_zone_is_exact() {
        let zone = LocalZone::posix("CET-1CEST,M3.5.0,M10.5.0/3");
        let at = |text| humantime::parse_rfc3339(text).unwrap();
        let now = at("2026-11-29T12:00:00Z");
        let rows = [
            ("2h", "2026-11-29T10:00:00Z"),
            ("1day 1h", "2026-11-28T11:00:00Z"),
            ("2026-01-31", "2026-01-30T23:00:00Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
            ("2026-07-01 12:00", "2026-07-01T10:00:00Z"),
            ("2026-07-01T12:00:30", "2026-07-01T10:00:30Z"),
            ("2026-07-01T12:00:00Z", "2026-07-01T12:00:00Z"),
            ("2026-07-01 12:00:00Z", "2026-07-01T12:00:00Z"),
            ("2026-07-01T12:00:00-05:00", "2026-07-01T17:00:00Z"),
            // an hour that the clock skips, and one that it shows twice
            ("2026-03-29 02:30", "2026-03-29T01:30:00Z"),
            ("2026-10-25 02:30", "2026-10-25T00:30:00Z"),
        ];
        for (text, expected) in rows {
            assert_eq!(zone.parse(text, now), Ok(at(expected)), "{text}");
        }
        for text in ["", "yesterday", "2026-13-01", "2026-02-30", "12:00", "2026-01-31T12:00:00+99:00"] {
            let error = zone.parse(text, now).unwrap_err();
            assert!(error.contains("a time in CET, UTC+01:00 such as"), "{text}: {error}");
        }
    }
}
