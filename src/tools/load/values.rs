//! Parsers for the option values of `rmxd load`; each error says what is allowed.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::Ipv4Net;

use crate::policy::decide::Verdict;
use crate::smtp::decimal::push_decimal;
use crate::tools::load::class::Class;

/// Maximum size of a body.
const LARGEST: u64 = 1 << 30;

/// Maximum sum of the shares: after at most this many sessions the proportions are exact.
const MOST_SHARES: u32 = 10_000;

/// The share of the sessions for each class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mix(pub(super) Vec<(Class, u32)>);

pub(super) fn mix(text: &str) -> Result<Mix, String> {
    let mut shares: Vec<(Class, u32)> = Vec::new();
    for part in text.split(',') {
        let (class, share) =
            part.split_once('=').ok_or_else(|| format!("{part:?} is not CLASS=SHARE, such as spoofed=90"))?;
        let class = Class::parse(class.trim())?;
        let share = share
            .trim()
            .parse()
            .map_err(|_number| format!("{share:?} is not a share; allowed are 0 to 10000"))?;
        if shares.iter().any(|(known, _)| *known == class) {
            return Err(format!("{} occurs twice", class.name()));
        }
        shares.push((class, share));
    }
    shares.retain(|(_, share)| *share > 0);
    let sum = shares.iter().fold(0, |sum: u32, (_, share)| sum.saturating_add(*share));
    if !(1..=MOST_SHARES).contains(&sum) {
        return Err(format!("the sum of the shares is {sum}; allowed are 1 to {MOST_SHARES}"));
    }
    // 90 and 10 become 9 and 1, which are exact after 10 sessions.
    let divisor = shares.iter().fold(0, |divisor, (_, share)| common_divisor(divisor, u64::from(*share)));
    let divisor = u32::try_from(divisor).unwrap_or(1).max(1);
    Ok(Mix(shares.into_iter().map(|(class, share)| (class, share / divisor)).collect()))
}

/// Sessions per second.
pub(super) fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let rate = number.parse().ok().filter(|rate| (1..=1_000_000).contains(rate));
    rate.ok_or_else(|| {
        format!("{text:?} is not a rate; allowed are 1 to 1000000 sessions per second, such as 500 or 500/s")
    })
}

/// Range of body sizes in octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) least: u64,
    pub(super) most: u64,
}

pub(super) fn sizes(text: &str) -> Result<Sizes, String> {
    let size = |text: &str| {
        let size = text.trim().parse::<ByteSize>().map(|size| size.as_u64()).ok();
        size.filter(|size| *size <= LARGEST).ok_or_else(|| {
            format!(
                "{text:?} is not a size; allowed are octets, or a number with KiB or MiB such as 4KiB, up to {}",
                ByteSize(LARGEST)
            )
        })
    };
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    let sizes = Sizes { least: size(least)?, most: size(most)? };
    if sizes.least <= sizes.most { Ok(sizes) } else { Err(format!("{least} is more than {most}")) }
}

pub(super) fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| !time.is_zero());
    time.filter(|time| *time <= Duration::from_secs(30 * 24 * 3600)).ok_or_else(|| {
        format!(
            "{text:?} is not a duration; allowed are times above zero and up to 30d, such as 500ms, 30s or 5m"
        )
    })
}

pub(super) fn source(text: &str) -> Result<Ipv4Net, String> {
    let wrong = || format!("{text:?} is not a network on loopback, such as 127.200.0.0/16");
    let net: Ipv4Net = if text.contains('/') {
        text.parse().map_err(|_syntax| wrong())?
    } else {
        text.parse::<Ipv4Addr>().map(Ipv4Net::from).map_err(|_syntax| wrong())?
    };
    (net.network().is_loopback() && net.prefix_len() >= 8).then_some(net).ok_or_else(wrong)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expectation {
    pub(super) class: Class,
    pub(super) verdict: Verdict,
}

pub(super) fn expectation(text: &str) -> Result<Expectation, String> {
    let (class, verdict) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is not CLASS=VERDICT, such as foreign=reject"))?;
    let verdicts = [Verdict::Accept, Verdict::Defer, Verdict::Reject];
    let found = verdicts.into_iter().find(|known| known.name() == verdict);
    let verdict =
        found.ok_or_else(|| format!("{verdict:?} is not a verdict; allowed are accept, defer, reject"))?;
    Ok(Expectation { class: Class::parse(class)?, verdict })
}

/// A sender domain of a class, with the client address if the option has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SenderDomain {
    pub(super) class: Class,
    pub(super) domain: Pattern,
    pub(super) address: Option<IpAddr>,
}

pub(super) fn sender_domain(text: &str) -> Result<SenderDomain, String> {
    let (class, rest) = text.split_once('=').ok_or_else(|| {
        format!("{text:?} is not CLASS=DOMAIN[@ADDRESS], such as clean=good.test@127.0.0.10")
    })?;
    let class = Class::parse(class)?;
    let (domain, address) = match rest.split_once('@') {
        None => (rest, None),
        Some((domain, address)) => {
            let address = address.parse().map_err(|_syntax| format!("{address:?} is not an IP address"))?;
            (domain, Some(address))
        }
    };
    Ok(SenderDomain { class, domain: pattern(domain)?, address })
}

/// A domain with an optional placeholder for a number: `s%n.spoof.test`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    before: String,
    /// What follows the number.
    after: Option<String>,
}

impl Pattern {
    /// Writes the domain with this number.
    pub(super) fn write(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.before.as_bytes());
        if let Some(after) = &self.after {
            push_decimal(out, number);
            out.extend_from_slice(after.as_bytes());
        }
    }
}

pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let (before, after) = match text.split_once("%n") {
        None => (text, None),
        Some((before, after)) => (before, Some(after)),
    };
    let whole = format!("{before}{}", after.unwrap_or_default());
    if whole.is_empty() || whole.len() > 200 || !whole.chars().all(fits) {
        return Err(format!(
            "{text:?} is not a domain; allowed are letters, digits, hyphens, underscores and dots, and once %n for a number"
        ));
    }
    Ok(Pattern { before: before.to_owned(), after: after.map(str::to_owned) })
}

/// The greatest common divisor.
pub(super) fn common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_the_value_and_what_is_allowed() {
        let rows = [
            (mix("spoofed").map(drop), "\"spoofed\" is not CLASS=SHARE"),
            (mix("spam=1").map(drop), "\"spam\" is not a class of senders; allowed are clean,"),
            (mix("clean=x").map(drop), "\"x\" is not a share"),
            (mix("clean=1,clean=2").map(drop), "clean occurs twice"),
            (mix("clean=0").map(drop), "the sum of the shares is 0; allowed are 1 to 10000"),
            (mix("clean=9999,spoofed=2").map(drop), "the sum of the shares is 10001"),
            (rate("0").map(drop), "\"0\" is not a rate; allowed are 1 to 1000000"),
            (rate("5/m").map(drop), "\"5/m\" is not a rate"),
            (sizes("4 apples").map(drop), "\"4 apples\" is not a size"),
            (sizes("2GiB").map(drop), "\"2GiB\" is not a size"),
            (sizes("2KiB-1KiB").map(drop), "2KiB is more than 1KiB"),
            (time("0s").map(drop), "\"0s\" is not a duration"),
            (time("soon").map(drop), "\"soon\" is not a duration"),
            (source("192.0.2.0/24").map(drop), "\"192.0.2.0/24\" is not a network on loopback"),
            (source("127.0.0.0/7").map(drop), "\"127.0.0.0/7\" is not a network on loopback"),
            (source("::1").map(drop), "\"::1\" is not a network on loopback"),
            (expectation("foreign").map(drop), "\"foreign\" is not CLASS=VERDICT"),
            (
                expectation("foreign=no").map(drop),
                "\"no\" is not a verdict; allowed are accept, defer, reject",
            ),
            (sender_domain("good.test").map(drop), "\"good.test\" is not CLASS=DOMAIN[@ADDRESS]"),
            (sender_domain("clean=a@b").map(drop), "\"b\" is not an IP address"),
            (sender_domain("clean=a b").map(drop), "\"a b\" is not a domain"),
            (sender_domain("clean=\r\n").map(drop), "\"\\r\\n\" is not a domain"),
        ];
        for (result, expected) in rows {
            let error = result.unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn valid_values_are_parsed() {
        assert_eq!(mix("spoofed=90, clean=20,nomx=0"), Ok(Mix(vec![(Class::Spoofed, 9), (Class::Clean, 2)])));
        assert_eq!((rate("500"), rate("500/s")), (Ok(500), Ok(500)));
        assert_eq!(sizes("4KiB"), Ok(Sizes { least: 4096, most: 4096 }));
        assert_eq!(sizes("1KiB-64KiB"), Ok(Sizes { least: 1024, most: 65_536 }));
        assert_eq!(time("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(source("127.0.0.9").unwrap().to_string(), "127.0.0.9/32");
        let given = sender_domain("clean=d%n.good.test@127.0.0.10").unwrap();
        assert_eq!((given.class, given.address), (Class::Clean, Some("127.0.0.10".parse().unwrap())));
        for (number, expected) in [(0, "d0.good.test"), (1_234_567_890, "d1234567890.good.test")] {
            let mut out = Vec::new();
            given.domain.write(number, &mut out);
            assert_eq!(out, expected.as_bytes());
        }
    }
}
