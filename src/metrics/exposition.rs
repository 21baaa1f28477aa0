//! The counters as text: OpenMetrics, or by default the older text format of Prometheus.
//!
//! The encoder of the crate prometheus-client writes OpenMetrics; the older format has other names for counters in its
//! comments. Where there are hundreds of combinations of labels, those that never happened are left out.

mod cluster;
mod process;

use std::fmt::{Error, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::metrics::findings::NONE;
use crate::metrics::histogram::{Histogram, Reading};
use crate::metrics::process::Process;
use crate::metrics::{Label, LabelCounts, Metrics, VerdictCount};
use crate::policy::door::DoorName;
use crate::policy::identity::Identity;

/// The current state.
#[derive(Debug, Clone, PartialEq)]
pub struct Gauges {
    pub connections_open: usize,
    /// `limits.connections`.
    pub connections_limit: usize,
    pub cache_entries: u64,
    pub cache_bytes: u64,
    /// `dns.cache.memory`.
    pub cache_limit_bytes: u64,
    pub dns_answering: bool,
    /// Of the last probe or transaction.
    pub relay_reachable: bool,
    /// `relay.max_connections`.
    pub relay_connections_limit: usize,
    /// Whether Redis answers; `None` without a fleet.
    pub cluster_up: Option<bool>,
    /// `None` where the history is off.
    pub history: Option<HistoryGauges>,
    /// Temporary permits that are in effect.
    pub permits: usize,
    pub started: SystemTime,
    /// When the configuration in effect was taken on.
    pub configured: SystemTime,
    /// Of the last reload; true while there was none.
    pub reload_succeeded: bool,
    /// `None` where there is none, or one that can't be read.
    pub certificate: Option<CertificateGauges>,
    /// `None` where the system doesn't say.
    pub process: Option<Process>,
}

#[cfg(test)]
impl Gauges {
    /// For tests of counters alone.
    pub(crate) fn of_nothing() -> Self {
        Self {
            connections_open: 0,
            connections_limit: 0,
            cache_entries: 0,
            cache_bytes: 0,
            cache_limit_bytes: 0,
            dns_answering: true,
            relay_reachable: true,
            relay_connections_limit: 0,
            cluster_up: None,
            history: None,
            permits: 0,
            started: UNIX_EPOCH,
            configured: UNIX_EPOCH,
            reload_succeeded: true,
            certificate: None,
            process: None,
        }
    }
}

/// The time in which the certificate of `tls.certificate` is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateGauges {
    pub not_before: SystemTime,
    pub not_after: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryGauges {
    /// On disk.
    pub bytes: u64,
    /// Decisions since the start that were not kept because the disk was too slow.
    pub dropped: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format of Prometheus, 0.0.4.
    Prometheus,
}

impl Format {
    /// For `Content-Type:`.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

pub(super) fn exposition(metrics: &Metrics, gauges: &Gauges, format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Snapshot { metrics: metrics.clone(), gauges: gauges.clone() }));
    let mut written = String::new();
    // Writing to a String can't fail.
    text::encode(&mut written, &registry).ok();
    match format {
        Format::OpenMetrics => written,
        Format::Prometheus => older(&written),
    }
}

/// In the older format a counter has the name of its sample, and there are neither units nor an end mark.
fn older(open: &str) -> String {
    let mut text = String::with_capacity(open.len());
    let mut lines = open.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let of_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        let named = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        let is_counters = of_counter(line)
            || line.starts_with("# HELP ") && lines.peek().is_some_and(|next| of_counter(next));
        // Writing to a String can't fail.
        match named.filter(|_| is_counters).and_then(|rest| rest.split_once(' ')) {
            Some((name, rest)) => {
                let kind = line.get(..6).unwrap_or_default();
                writeln!(text, "{kind} {name}_total {rest}").ok();
            }
            None => {
                writeln!(text, "{line}").ok();
            }
        }
    }
    text
}

#[derive(Debug)]
struct Snapshot {
    metrics: Metrics,
    gauges: Gauges,
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families = Families(encoder);
        self.daemon(&mut families)?;
        self.clients(&mut families)?;
        self.tls(&mut families)?;
        self.dns(&mut families)?;
        self.relay(&mut families)?;
        self.cluster(&mut families)?;
        self.history(&mut families)?;
        self.process(&mut families)
    }
}

impl Snapshot {
    fn daemon(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let mut family = families.gauge("rmxd_build_info", "The version that runs; always 1")?;
        family.encode_family(&version)?.encode_gauge(&1_u64)?;
        families.time("rmxd_start_time", "When it started, since 1970", self.gauges.started)?;
        let help = "Whether the last reload was applied; 1 while there was none";
        let succeeded = u64::from(self.gauges.reload_succeeded);
        families.gauge("rmxd_config_reload_success", help)?.encode_gauge(&succeeded)?;
        let help = "When the configuration in effect was taken on, since 1970";
        families.time("rmxd_config_reload_timestamp", help, self.gauges.configured)?;
        families.counter(
            "rmxd_panics",
            "Connections and requests that ended in a panic",
            self.metrics.panics(),
        )
    }

    fn clients(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let (counters, gauges) = (&self.metrics.0, &self.gauges);
        let help = "Connections that came in, by what became of them";
        families.by_label("rmxd_connections", help, "outcome", &counters.connections)?;
        let open = gauges.connections_open as u64;
        families.gauge("rmxd_connections_open", "Clients that are connected")?.encode_gauge(&open)?;
        let limit = gauges.connections_limit as u64;
        families.gauge("rmxd_connections_limit", "limits.connections")?.encode_gauge(&limit)?;
        let help = "Decisions; with mode monitor a refusal was not carried out";
        let mut family = families.counters("rmxd_verdicts", help)?;
        for VerdictCount { verdict, cause, mode, count } in counters.verdicts.each() {
            // Accepts are there from the start, so that a rate has a first value.
            if count > 0 || cause.is_none() && verdict.name() == "accept" {
                let reason = cause.map_or(NONE, |(_, why)| why.name());
                let identity = cause.and_then(|(identity, _)| identity).map_or(NONE, Identity::name);
                let labels = [
                    ("verdict", verdict.name()),
                    ("identity", identity),
                    ("reason", reason),
                    ("mode", mode.name()),
                ];
                count_of(&mut family, &labels, count)?;
            }
        }
        let help = "Transactions that had a MAIL, by what became of them";
        let mut family = families.counters("rmxd_outcomes", help)?;
        for (door, outcomes) in DoorName::ALL.into_iter().zip(&counters.outcomes) {
            for (outcome, count) in outcomes.each() {
                count_of(&mut family, &[("door", door.name()), ("outcome", outcome.name())], count)?;
            }
        }
        let help = "What was refused without a rule, or not taken by the next hop";
        let mut family = families.counters("rmxd_refusals", help)?;
        for (reason, count) in counters.refusals.each().filter(|(reason, _)| !reason.is_of_a_rule()) {
            count_of(&mut family, &[("reason", reason.name())], count)?;
        }
        self.rules(families)?;
        families.seconds(
            "rmxd_verdict",
            "From MAIL to the decision, with the time that the client takes for what is between them",
            &counters.verdict_seconds,
        )?;
        let mut family =
            families.histograms("rmxd_wait", "What rmxd made clients wait, beside the next hop")?;
        for (door, times) in DoorName::ALL.into_iter().zip(&counters.wait_seconds) {
            for (wait, reading) in times.each().filter(|(_, reading)| reading.count > 0) {
                times_of(&mut family, &[("door", door.name()), ("stage", wait.name())], &reading)?;
            }
        }
        Ok(())
    }

    fn rules(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let counters = &self.metrics.0;
        let help = "What the rules found in transactions, with the action that a failure leads to";
        let mut family = families.counters("rmxd_findings", help)?;
        for ([identity, rule, result, reason, action], count) in counters.findings.each() {
            let labels = [
                ("identity", identity),
                ("rule", rule),
                ("result", result),
                ("reason", reason),
                ("action", action),
            ];
            count_of(&mut family, &labels, count)?;
        }
        let help = "Transactions of which all or a part is exempt, by the list, or by a temporary permit";
        families.by_label("rmxd_exempt", help, "by", &counters.exemptions)?;
        let permits = self.gauges.permits as u64;
        families.gauge("rmxd_permits", "Temporary permits that are in effect")?.encode_gauge(&permits)?;
        let help = "Decisions that rest on the greylist";
        families.by_label("rmxd_greylist", help, "result", &counters.greylist)
    }

    fn tls(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let help = "Handshakes with clients that succeeded";
        families.by_label("rmxd_tls_sessions", help, "version", &self.metrics.0.tls_sessions)?;
        let Some(CertificateGauges { not_before, not_after }) = self.gauges.certificate else {
            return Ok(());
        };
        let help = "When the certificate in use became valid, since 1970";
        families.time("rmxd_tls_certificate_start_timestamp", help, not_before)?;
        let help = "When the certificate in use expires, since 1970";
        families.time("rmxd_tls_certificate_expiry_timestamp", help, not_after)
    }

    fn dns(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let (counters, gauges) = (&self.metrics.0, &self.gauges);
        let mut family =
            families.counters("rmxd_dns_queries", "Questions that the cache had no answer to")?;
        for (rtype, outcome, count) in counters.queries.each().filter(|(_, _, count)| *count > 0) {
            count_of(&mut family, &[("type", rtype.name()), ("outcome", outcome.name())], count)?;
        }
        families.seconds("rmxd_dns_query", "For the answer to a question", &counters.query_seconds)?;
        let help = "Whether some DNS server answers";
        families.gauge("rmxd_dns_answering", help)?.encode_gauge(&u64::from(gauges.dns_answering))?;
        let help = "Look-ups, by what the cache held";
        families.by_label("rmxd_cache_lookups", help, "result", &counters.cache_lookups)?;
        families.gauge("rmxd_cache_entries", "Answers that are held")?.encode_gauge(&gauges.cache_entries)?;
        families.bytes("rmxd_cache", "What the answers take that are held", gauges.cache_bytes)?;
        families.bytes("rmxd_cache_limit", "dns.cache.memory", gauges.cache_limit_bytes)
    }

    fn relay(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let (counters, gauges) = (&self.metrics.0, &self.gauges);
        let help = "Transactions with the next hop, by how they ended";
        families.by_label("rmxd_relay_transactions", help, "outcome", &counters.relay_transactions)?;
        let mut family =
            families.histograms("rmxd_relay", "What the next hop took, without waits for the client")?;
        for (stage, reading) in counters.relay_seconds.each() {
            times_of(&mut family, &[("stage", stage.name())], &reading)?;
        }
        let help = "Connections to the relay, in use or waiting for it";
        let open = self.metrics.relay_connections();
        families.gauge("rmxd_relay_connections_open", help)?.encode_gauge(&open)?;
        let limit = gauges.relay_connections_limit as u64;
        families.gauge("rmxd_relay_connections_limit", "relay.max_connections")?.encode_gauge(&limit)?;
        let help = "Whether the next hop could be used when that was last tried";
        families.gauge("rmxd_relay_reachable", help)?.encode_gauge(&u64::from(gauges.relay_reachable))
    }

    fn history(&self, families: &mut Families<'_>) -> Result<(), Error> {
        let Some(HistoryGauges { bytes, dropped }) = self.gauges.history else { return Ok(()) };
        families.bytes("rmxd_history", "What the history of decisions takes on disk", bytes)?;
        let help =
            "Decisions that are missing from the history, as they came faster than they could be written";
        families.counter("rmxd_history_dropped", help, dropped)
    }
}

struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn open<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn gauge<'s>(&'s mut self, name: &'s str, help: &str) -> Result<MetricEncoder<'s>, Error> {
        self.open(name, help, None, MetricType::Gauge)
    }

    fn bytes(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.open(name, help, Some(&Unit::Bytes), MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A point in time; `_seconds` comes behind the name.
    fn time(&mut self, name: &str, help: &str, at: SystemTime) -> Result<(), Error> {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.open(name, help, Some(&Unit::Seconds), MetricType::Gauge)?.encode_gauge(&since.as_secs_f64())
    }

    /// Several; `_total` comes behind the name.
    fn counters<'s>(&'s mut self, name: &'s str, help: &str) -> Result<MetricEncoder<'s>, Error> {
        self.open(name, help, None, MetricType::Counter)
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.counters(name, help)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    /// `_seconds_total` comes behind the name.
    fn seconds_spent(&mut self, name: &str, help: &str, value: Duration) -> Result<(), Error> {
        let mut counter = self.open(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        counter.encode_counter::<NoLabelSet, _, f64>(&value.as_secs_f64(), None)
    }

    fn by_label<L: Label>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        of: &LabelCounts<L>,
    ) -> Result<(), Error> {
        let mut family = self.counters(name, help)?;
        for (value, count) in of.each() {
            count_of(&mut family, &[(label, value.name())], count)?;
        }
        Ok(())
    }

    /// Several histograms; `_seconds` comes behind the name.
    fn histograms<'s>(&'s mut self, name: &'s str, help: &str) -> Result<MetricEncoder<'s>, Error> {
        self.open(name, help, Some(&Unit::Seconds), MetricType::Histogram)
    }

    /// A histogram; `_seconds` comes behind the name.
    fn seconds(&mut self, name: &str, help: &str, of: &Histogram) -> Result<(), Error> {
        let Reading { sum, count, buckets } = of.read();
        let mut family = self.histograms(name, help)?;
        family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }
}

fn count_of(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, count: u64) -> Result<(), Error> {
    family.encode_family(labels)?.encode_counter::<NoLabelSet, _, f64>(&count, None)
}

fn times_of(family: &mut MetricEncoder<'_>, labels: &impl EncodeLabelSet, of: &Reading) -> Result<(), Error> {
    let Reading { sum, count, buckets } = of;
    family.encode_family(labels)?.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{CacheResult, Connection, RelayStage, Wait};
    use crate::policy::decide::Verdict;
    use crate::policy::door::DoorName;
    use crate::policy::outcome::Outcome;
    use crate::policy::reason::Reason;
    use crate::policy::rule::Mode;

    fn gauges() -> Gauges {
        Gauges {
            connections_open: 2,
            connections_limit: 10,
            cache_entries: 3,
            cache_bytes: 4,
            cache_limit_bytes: 5,
            dns_answering: true,
            relay_reachable: false,
            relay_connections_limit: 6,
            cluster_up: None,
            history: None,
            permits: 7,
            started: UNIX_EPOCH + Duration::from_millis(1_500),
            configured: UNIX_EPOCH + Duration::from_millis(2_500),
            reload_succeeded: false,
            certificate: Some(CertificateGauges {
                not_before: UNIX_EPOCH + Duration::from_secs(3),
                not_after: UNIX_EPOCH + Duration::from_secs(4_000_000_000),
            }),
            process: Some(Process {
                cpu: Duration::from_millis(1_250),
                started: UNIX_EPOCH + Duration::from_millis(500),
                threads: 9,
                resident: 10,
                size: 11,
                descriptors: Some(12),
                most_descriptors: Some(13),
            }),
        }
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let metrics = Metrics::default();
        metrics.connection(Connection::Served);
        metrics.cache_lookup(CacheResult::Stale);
        metrics.verdict(DoorName::Smtp, Verdict::Accept, None, Mode::Enforce, Duration::from_millis(3));
        metrics.outcome(DoorName::Smtp, Outcome::RelayFailed);
        metrics.refusal(Reason::MailLoop);
        metrics.relay_stage(RelayStage::Message, Duration::from_millis(30));
        metrics.waited(DoorName::Policy, Wait::Rcpt, Duration::from_millis(200));
        let open = exposition(&metrics, &gauges(), Format::OpenMetrics);
        let older = exposition(&metrics, &gauges(), Format::Prometheus);
        for line in [
            "rmxd_connections_total{outcome=\"served\"} 1",
            "rmxd_cache_lookups_total{result=\"stale\"} 1",
            "rmxd_verdicts_total{verdict=\"accept\",identity=\"none\",reason=\"none\",mode=\"enforce\"} 1",
            "rmxd_outcomes_total{door=\"smtp\",outcome=\"relay_failed\"} 1",
            "rmxd_outcomes_total{door=\"smtp\",outcome=\"delivered\"} 0",
            "rmxd_refusals_total{reason=\"mail_loop\"} 1",
            "rmxd_refusals_total{reason=\"bad_address\"} 0",
            "rmxd_verdict_seconds_sum 0.003",
            "rmxd_verdict_seconds_bucket{le=\"0.0025\"} 0",
            "rmxd_verdict_seconds_bucket{le=\"+Inf\"} 1",
            "rmxd_connections_open 2",
            "rmxd_relay_reachable 0",
            "rmxd_permits 7",
            "rmxd_exempt_total{by=\"permit\"} 0",
            "rmxd_cache_bytes 4",
            "rmxd_start_time_seconds 1.5",
            "rmxd_config_reload_success 0",
            "rmxd_config_reload_timestamp_seconds 2.5",
            "rmxd_tls_certificate_start_timestamp_seconds 3.0",
            "rmxd_tls_certificate_expiry_timestamp_seconds 4000000000.0",
            "rmxd_tls_sessions_total{version=\"TLSv1.3\"} 0",
            "rmxd_relay_seconds_sum{stage=\"message\"} 0.03",
            "rmxd_relay_seconds_bucket{le=\"0.025\",stage=\"message\"} 0",
            "rmxd_relay_seconds_bucket{le=\"0.05\",stage=\"message\"} 1",
            "rmxd_relay_seconds_count{stage=\"connect\"} 0",
            "rmxd_wait_seconds_count{door=\"policy\",stage=\"rcpt\"} 1",
            "rmxd_wait_seconds_bucket{le=\"0.1\",door=\"policy\",stage=\"rcpt\"} 0",
            "rmxd_wait_seconds_bucket{le=\"0.25\",door=\"policy\",stage=\"rcpt\"} 1",
            "process_cpu_seconds_total 1.25",
            "process_start_time_seconds 0.5",
            "process_threads 9",
            "process_resident_memory_bytes 10",
            "process_virtual_memory_bytes 11",
            "process_open_fds 12",
            "process_max_fds 13",
        ] {
            assert!(open.lines().any(|found| found == line), "{line}: {open}");
            assert!(older.lines().any(|found| found == line), "{line}: {older}");
        }
        assert!(open.contains("# TYPE rmxd_connections counter\n") && open.ends_with("# EOF\n"), "{open}");
        assert!(older.contains("# TYPE rmxd_connections_total counter\n"), "{older}");
        assert!(older.contains("# HELP rmxd_connections_total Connections"), "{older}");
        assert!(!older.contains("# EOF") && !older.contains("# UNIT"), "{older}");
        assert_eq!(open.matches("rmxd_wait_seconds_count{").count(), 1, "{open}");
        let samples = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(samples(&open), samples(&older));
    }

    #[test]
    fn a_system_that_says_nothing_of_the_process_has_no_process_metrics() {
        let unknown = Gauges { process: None, ..gauges() };
        let text = exposition(&Metrics::default(), &unknown, Format::OpenMetrics);
        assert!(!text.contains("process_"), "{text}");
        let known = unknown_limits(gauges());
        let text = exposition(&Metrics::default(), &known, Format::OpenMetrics);
        assert!(text.contains("\nprocess_threads 9\n") && !text.contains("_fds"), "{text}");
    }

    fn unknown_limits(gauges: Gauges) -> Gauges {
        let process = gauges.process.map(|it| Process { descriptors: None, most_descriptors: None, ..it });
        Gauges { process, ..gauges }
    }

    #[test]
    fn the_history_is_there_where_it_is_on() {
        let metrics = Metrics::default();
        let on = Gauges { history: Some(HistoryGauges { bytes: 7, dropped: 8 }), ..gauges() };
        let text = exposition(&metrics, &on, Format::OpenMetrics);
        assert!(
            text.contains("\nrmxd_history_bytes 7\n") && text.contains("\nrmxd_history_dropped_total 8\n")
        );
        assert!(!exposition(&metrics, &gauges(), Format::OpenMetrics).contains("rmxd_history"));
    }
}
