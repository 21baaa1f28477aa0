//! Local time for people; programs and the log have UTC.

use std::time::SystemTime;

use jiff::ZonedDateTime;
use jiff::tz::TimeZone;

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
        let mut names: Vec<String> = self.0.iana_name().map(str::to_owned).into_iter().collect();
        if let Some(zoned) = self.at(at) {
            names.push(zoned.strftime("%Z").to_string());
            names.push(zoned.strftime("UTC%:z").to_string());
        }
        if names.first().is_none_or(|name| name == "UTC") { "UTC".to_owned() } else { names.join(", ") }
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
    }
}
