//! The forms in which programs write a line of the log: where its time, host, program and text are.
//!
//! | form | written by |
//! | --- | --- |
//! | `Nov  3 12:00:00 mx postfix/smtpd[1]: ...` | syslogd, rsyslog, `journalctl`, all as in RFC 3164 4.1 |
//! | the same with `.123456` behind the time | `journalctl -o short-precise` |
//! | the same with `<mail.info>` behind the time | FreeBSD's `syslogd -vv` |
//! | the same with `mail.info` behind the host | busybox |
//! | `2026-11-03T12:00:00.123456+01:00 mx postfix/smtpd[1]: ...` | rsyslog, `journalctl -o short-iso` and `short-iso-precise` |
//! | `Tue 2026-11-03 12:00:00 CET mx postfix/smtpd[1]: ...` | `journalctl -o short-full` |
//! | `1793876400.123456 mx postfix/smtpd[1]: ...` | `journalctl -o short-unix` |
//! | `[ 1234.567890] mx postfix/smtpd[1]: ...` | `journalctl -o short-monotonic` |
//! | `<22>1 2026-11-03T12:00:00+01:00 mx postfix/smtpd 1 - - ...` | RFC 5424 6: FreeBSD's `-O rfc5424`, rsyslog's `RSYSLOG_SyslogProtocol23Format` |
//!
//! `<22>` may stand before each of them, and the host may be missing (`journalctl --no-hostname`). Others are in `journal`.

/// For the operator, where nothing was found.
pub(super) const FORMS: &str = "Read are lines of syslog (\"Nov  3 12:00:00 mx postfix/smtpd[1]: ...\"), with RFC 3339 time stamps, \
     in RFC 5424, and of journalctl -o short, short-precise, short-iso, short-full, short-unix, json, export or cat";

/// The parts of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head<'a> {
    /// As written.
    pub(super) stamp: &'a str,
    /// Empty where the form has none.
    pub(super) host: &'a str,
    /// `postfix/smtpd`
    pub(super) program: &'a str,
    /// Empty if there is none.
    pub(super) pid: &'a str,
    pub(super) text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form<'a> {
    Known(Head<'a>),
    /// A line of a log that no program with a name has written.
    Nameless,
    Unknown,
}

/// `line` is without its line end.
pub(super) fn form(line: &str) -> Form<'_> {
    // Of journalctl: "-- Boot 0f2c... --", "-- Journal begins at ..."
    if line.starts_with("-- ") {
        return Form::Nameless;
    }
    let after_priority = priority(line);
    if let Some(rest) = after_priority.and_then(|rest| version(rest)) {
        return protocol(rest).map_or(Form::Unknown, Form::Known);
    }
    let Some((stamp, rest)) = stamp(after_priority.unwrap_or(line)) else { return Form::Unknown };
    // FreeBSD: <mail.info> or <2.6>
    let rest = rest.strip_prefix('<').and_then(|rest| rest.split_once("> ")).map_or(rest, |(_, rest)| rest);
    let Some((host, rest)) = rest.split_once(' ').filter(|(host, _)| !host.is_empty()) else {
        return Form::Unknown;
    };
    if let Some(process) = host.strip_suffix(':').filter(|process| process.contains('/')) {
        let (program, pid) = program(process);
        return Form::Known(Head { stamp, host: "", program, pid, text: rest });
    }
    let Some((process, text)) = rest.split_once(": ") else { return Form::Nameless };
    let (program, pid) = program(without_severity(process));
    Form::Known(Head { stamp, host, program, pid, text })
}

/// The text behind `<22>`.
fn priority(line: &str) -> Option<&str> {
    let (priority, rest) = line.strip_prefix('<')?.split_once('>')?;
    ((1..=3).contains(&priority.len()) && is_digits(priority)).then_some(rest)
}

/// The text behind `1 `, the VERSION of RFC 5424.
fn version(rest: &str) -> Option<&str> {
    let (version, rest) = rest.split_once(' ')?;
    ((1..=3).contains(&version.len()) && is_digits(version)).then_some(rest)
}

/// `TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG` (RFC 5424 6); `-` stands for what isn't known.
fn protocol(rest: &str) -> Option<Head<'_>> {
    let mut parts = rest.splitn(6, ' ');
    let mut part = || parts.next().filter(|part| !part.is_empty());
    let (stamp, host, program, pid, _id) = (part()?, part()?, part()?, part()?, part()?);
    let text = behind_data(part()?)?.trim_start_matches([' ', '\u{FEFF}']);
    let known = |text| if text == "-" { "" } else { text };
    (stamp == "-" || is_rfc3339(stamp)).then(|| Head {
        stamp,
        host: known(host),
        program: known(program),
        pid: known(pid),
        text,
    })
}

/// The text behind STRUCTURED-DATA: `-`, or elements `[id name="value"]`, where `\` escapes `"`, `\` and `]`.
fn behind_data(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix('-') {
        return Some(rest);
    }
    let mut rest = text;
    while let Some(element) = rest.strip_prefix('[') {
        let (mut quoted, mut escaped) = (false, false);
        let end = element.char_indices().find(|(_, character)| {
            let ends = *character == ']' && !quoted;
            quoted ^= *character == '"' && !escaped;
            escaped = *character == '\\' && !escaped;
            ends
        });
        rest = element.get(end?.0 + 1..)?;
    }
    (rest.len() < text.len()).then_some(rest)
}

/// The time stamp, and the text after the following space.
fn stamp(line: &str) -> Option<(&str, &str)> {
    let first = line.chars().next()?;
    if first.is_ascii_digit() {
        return line.split_once(' ').filter(|(stamp, _)| is_rfc3339(stamp) || is_seconds(stamp));
    }
    if let Some(rest) = line.strip_prefix('[') {
        let (stamp, rest) = rest.split_once("] ")?;
        return is_seconds(stamp.trim_start()).then_some((stamp, rest));
    }
    let (start, rest) = line.split_at_checked(15)?;
    if is_syslog(start) {
        let fraction = rest.find(' ')?;
        let (fraction, after) = rest.split_at_checked(fraction)?;
        let is_fraction = fraction.is_empty() || fraction.strip_prefix('.').is_some_and(is_digits);
        let (stamp, _) = line.split_at_checked(start.len() + fraction.len())?;
        return is_fraction.then_some((stamp, after.strip_prefix(' ')?));
    }
    full(line)
}

/// `Tue 2026-11-03 12:00:00 CET`, with or without a fraction.
fn full(line: &str) -> Option<(&str, &str)> {
    let mut spaces = line.match_indices(' ').map(|(at, _)| at);
    let (day, date, time) = (spaces.next()?, spaces.next()?, spaces.next()?);
    let end = spaces.next()?;
    let zone = line.get(time + 1..end)?;
    let clock = line.get(date + 1..time)?;
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let fits_all = day == 3
        && fits(line.get(day + 1..date)?, "dddd-dd-dd")
        && fits(clock, "dd:dd:dd")
        && is_digits(fraction)
        && (1..=6).contains(&zone.len())
        && zone.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"+-:".contains(&octet));
    fits_all.then_some((line.get(..end)?, line.get(end + 1..)?))
}

/// `2026-11-23T12:00:00`, with or without fraction and zone.
fn is_rfc3339(stamp: &str) -> bool {
    let Some((date_time, rest)) = stamp.split_at_checked(19) else { return false };
    fits(date_time, "dddd-dd-ddTdd:dd:dd")
        && rest.bytes().all(|byte| byte.is_ascii_digit() || b".,:+-Z".contains(&byte))
}

/// `1793876400.123456`
fn is_seconds(stamp: &str) -> bool {
    stamp.split_once('.').is_some_and(|(seconds, fraction)| is_digits(seconds) && is_digits(fraction))
}

pub(super) const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Nov 23 12:00:00`, `Nov  3 12:00:00`.
fn is_syslog(stamp: &str) -> bool {
    let Some((month, rest)) = stamp.split_at_checked(3) else { return false };
    MONTHS.contains(&month) && (fits(rest, " dd dd:dd:dd") || fits(rest, "  d dd:dd:dd"))
}

/// `d` in the pattern matches a digit, any other character itself.
fn fits(text: &str, pattern: &str) -> bool {
    let octet =
        |(octet, wanted): (u8, u8)| if wanted == b'd' { octet.is_ascii_digit() } else { octet == wanted };
    text.len() == pattern.len() && text.bytes().zip(pattern.bytes()).all(octet)
}

pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// `postfix/smtpd[123]`: the name and the process id.
pub(super) fn program(process: &str) -> (&str, &str) {
    match process.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')) {
        Some((name, pid)) if is_digits(pid) => (name, pid),
        _ => (process, ""),
    }
}

/// Busybox: `mail.info postfix/smtpd[1]`.
fn without_severity(process: &str) -> &str {
    match process.split_once(' ') {
        Some((severity, name)) if severity.starts_with("mail.") && !name.contains(' ') => name,
        _ => process,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_parts() {
        let rows = [
            ("Nov 23 12:00:00 mx postfix/smtpd[12]: x: y", "Nov 23 12:00:00", "mx", "12"),
            ("Nov  3 02:00:00 mx postfix/smtpd[12]: x: y", "Nov  3 02:00:00", "mx", "12"),
            ("Nov  3 02:00:00 mx postfix/smtpd: x: y", "Nov  3 02:00:00", "mx", ""),
            ("<22>Nov 23 12:00:00 mx postfix/smtpd[12]: x: y", "Nov 23 12:00:00", "mx", "12"),
            ("Nov 23 12:00:00.123456 mx postfix/smtpd[12]: x: y", "Nov 23 12:00:00.123456", "mx", "12"),
            ("Nov 23 12:00:00 <mail.info> mx postfix/smtpd[12]: x: y", "Nov 23 12:00:00", "mx", "12"),
            ("Nov 23 12:00:00 <2.6> mx postfix/smtpd[12]: x: y", "Nov 23 12:00:00", "mx", "12"),
            ("Nov 23 12:00:00 mx mail.info postfix/smtpd[12]: x: y", "Nov 23 12:00:00", "mx", "12"),
            ("Nov 23 12:00:00 postfix/smtpd[12]: x: y", "Nov 23 12:00:00", "", "12"),
            (
                "2026-11-23T12:00:00.123456+01:00 mx postfix/smtpd[12]: x: y",
                "2026-11-23T12:00:00.123456+01:00",
                "mx",
                "12",
            ),
            ("2026-11-23T12:00:00+0100 mx postfix/smtpd[12]: x: y", "2026-11-23T12:00:00+0100", "mx", "12"),
            (
                "Mon 2026-11-23 12:00:00 CET mx postfix/smtpd[12]: x: y",
                "Mon 2026-11-23 12:00:00 CET",
                "mx",
                "12",
            ),
            (
                "Mon 2026-11-23 12:00:00 +03 mx postfix/smtpd[12]: x: y",
                "Mon 2026-11-23 12:00:00 +03",
                "mx",
                "12",
            ),
            (
                "Mon 2026-11-23 12:00:00.123456 UTC mx postfix/smtpd[12]: x: y",
                "Mon 2026-11-23 12:00:00.123456 UTC",
                "mx",
                "12",
            ),
            ("1793876400.123456 mx postfix/smtpd[12]: x: y", "1793876400.123456", "mx", "12"),
            ("[    4.123456] mx postfix/smtpd[12]: x: y", "    4.123456", "mx", "12"),
            ("[12345.123456] mx postfix/smtpd[12]: x: y", "12345.123456", "mx", "12"),
            // RFC 5424 6.5 has its own examples
            (
                "<22>1 2026-11-23T12:00:00.003Z mx postfix/smtpd 12 - - x: y",
                "2026-11-23T12:00:00.003Z",
                "mx",
                "12",
            ),
            ("<22>1 2026-11-23T12:00:00Z mx postfix/smtpd 12 - -  x: y", "2026-11-23T12:00:00Z", "mx", "12"),
            (
                "<22>1 2026-11-23T12:00:00Z mx postfix/smtpd 12 ID47 - \u{FEFF}x: y",
                "2026-11-23T12:00:00Z",
                "mx",
                "12",
            ),
            ("<22>1 - - postfix/smtpd - - - x: y", "-", "", ""),
            (
                "<22>1 2026-11-23T12:00:00Z mx postfix/smtpd 12 - [a@1 b=\"]\\\"\\]\" c=\"\\\\\"][d e=\"f g\"] x: y",
                "2026-11-23T12:00:00Z",
                "mx",
                "12",
            ),
        ];
        for (line, stamp, host, pid) in rows {
            let expected = Head { stamp, host, program: "postfix/smtpd", pid, text: "x: y" };
            assert_eq!(form(line), Form::Known(expected), "{line}");
        }
    }

    #[test]
    fn what_has_no_form_is_unknown() {
        for line in [
            "",
            "garbage",
            "<22>",
            "<22>1 ",
            "<22>1 2026-11-23 mx postfix/smtpd 12 - - x",
            "<22>1 2026-11-23T12:00:00Z mx postfix/smtpd 12 -",
            "<22>1 2026-11-23T12:00:00Z mx postfix/smtpd 12 - [a b=\"]",
            "<22>1 2026-11-23T12:00:00Z mx postfix/smtpd 12 - x",
            "Nov 23 12:00:00.x mx postfix/smtpd[1]: x",
            "Nov 23 12:00:00",
            "Mon 2026-11-23 12:00 CET mx postfix/smtpd[1]: x",
            "Mon 2026-11-23 12:00:00 mx",
            "1793876400 mx postfix/smtpd[1]: x",
            "[x] mx postfix/smtpd[1]: x",
        ] {
            assert_eq!(form(line), Form::Unknown, "{line}");
        }
        for line in ["-- Boot 5f --", "Nov 23 12:00:00 mx last message repeated 2 times"] {
            assert_eq!(form(line), Form::Nameless, "{line}");
        }
    }
}
