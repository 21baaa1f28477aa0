//! What Prometheus makes of us: its own tool reads the metrics, the alert rules and every expression of the dashboard.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rmxd::evidence::{DnsFailure, RecordType};
use rmxd::metrics::process::Process;
use rmxd::metrics::{
    CacheResult, CertificateGauges, Connection, Exemption, Format, Gauges, GreylistResult, HistoryGauges,
    Metrics, QueryOutcome, RelayOutcome, RelayStage, TlsVersion, Wait,
};
use rmxd::policy::decide::Verdict;
use rmxd::policy::door::DoorName;
use rmxd::policy::finding::{Absence, Finding, RuleResult};
use rmxd::policy::identity::Identity;
use rmxd::policy::outcome::Outcome;
use rmxd::policy::reason::Reason;
use rmxd::policy::rule::{Action, Mode, Rule, Rung};
use serde_json::Value;

use crate::support::process::{self, SOON};
use crate::support::readme;

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

async fn promtool(arguments: &[&str], input: &str) -> Option<(bool, String)> {
    let program = process::program("promtool")?;
    let mut command = Command::new(program);
    let output = process::run(command.args(arguments), input.as_bytes().to_vec(), SOON).await;
    let said = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
}

/// Of each rule with each result and action.
fn findings() -> Vec<Finding> {
    let actions = [Action::Tag, Action::Greylist, Action::Defer, Action::Reject, Action::Dmarc];
    let fails = Reason::ALL.into_iter().map(RuleResult::Fail);
    let others = [
        RuleResult::Pass(Rung::Mx),
        RuleResult::TempError(DnsFailure::Timeout),
        RuleResult::None(Absence::NotGiven),
    ];
    let outcomes: Vec<RuleResult> = fails.chain(others).collect();
    let rules = Identity::ALL.into_iter().flat_map(|identity| Rule::ALL.map(|rule| (identity, rule)));
    let found = rules.flat_map(|(identity, rule)| {
        let outcomes = outcomes.iter();
        outcomes.map(move |outcome| Finding::new(identity, rule, "", "", *outcome))
    });
    found.flat_map(|finding| actions.map(|action| Finding { action, ..finding.clone() })).collect()
}

/// Everything counted at least once.
fn touched() -> Metrics {
    use CacheResult::{Coalesced, Hit, Miss, Negative, Stale};
    let metrics = Metrics::default();
    let took = Duration::from_millis(3);
    for outcome in [
        Connection::Served,
        Connection::Limit,
        Connection::ClientLimit,
        Connection::Stopping,
        Connection::NotAnnounced,
    ] {
        metrics.connection(outcome);
    }
    metrics.panic();
    for rtype in
        [RecordType::Mx, RecordType::A, RecordType::Aaaa, RecordType::Ptr, RecordType::Txt, RecordType::Cname]
    {
        use QueryOutcome::{
            Broken, Busy, Down, Found, NoData, NoSuchDomain, Refused, ServerFailure, Timeout,
        };
        for outcome in [Found, NoData, NoSuchDomain, ServerFailure, Refused, Timeout, Broken, Busy, Down] {
            metrics.query(rtype, outcome, took);
        }
    }
    for result in [Hit, Negative, Miss, Coalesced, Stale] {
        metrics.cache_lookup(result);
    }
    {
        use RelayOutcome::{Abandoned, Busy, Deferred, Delivered, Lost, Rejected, Unreachable};
        for outcome in [Delivered, Deferred, Rejected, Unreachable, Lost, Busy, Abandoned] {
            metrics.relay_transaction(outcome);
        }
    }
    for stage in [RelayStage::Connect, RelayStage::Envelope, RelayStage::Message] {
        metrics.relay_stage(stage, took);
    }
    use Wait::{Banner, Body, Connection as Free, Header, Mail, Name, Rcpt};
    for door in DoorName::ALL {
        for wait in [Banner, Mail, Rcpt, Free, Name, Header, Body] {
            metrics.waited(door, wait, took);
        }
    }
    for by in [Exemption::Client, Exemption::Domain, Exemption::Recipient] {
        metrics.exemption(by);
    }
    for result in [GreylistResult::Passed, GreylistResult::Waits] {
        metrics.greylist(result);
    }
    metrics.findings(&findings());
    for version in [TlsVersion::V1_2, TlsVersion::V1_3] {
        metrics.tls_session(version);
    }
    for mode in [Mode::Enforce, Mode::Monitor] {
        metrics.verdict(DoorName::Smtp, Verdict::Accept, None, mode, took);
        for verdict in [Verdict::Reject, Verdict::Defer] {
            for identity in Identity::ALL.into_iter().map(Some).chain([None]) {
                for reason in Reason::ALL {
                    metrics.verdict(DoorName::Smtp, verdict, Some((identity, reason)), mode, took);
                }
            }
        }
    }
    for door in DoorName::ALL {
        Outcome::ALL.into_iter().for_each(|outcome| metrics.outcome(door, outcome));
    }
    Reason::ALL.into_iter().for_each(|reason| metrics.refusal(reason));
    metrics
}

fn text(format: Format) -> String {
    let gauges = Gauges {
        permits: 3,
        cluster_up: Some(true),
        connections_open: 1,
        connections_limit: 2,
        cache_entries: 3,
        cache_bytes: 4,
        cache_limit_bytes: 5,
        dns_answering: true,
        relay_reachable: true,
        relay_connections_limit: 6,
        history: Some(HistoryGauges { bytes: 7, dropped: 8 }),
        started: SystemTime::now(),
        configured: SystemTime::now(),
        reload_succeeded: true,
        certificate: Some(CertificateGauges {
            not_before: SystemTime::now(),
            not_after: SystemTime::now() + Duration::from_secs(90 * 24 * 60 * 60),
        }),
        process: Some(Process {
            cpu: Duration::from_secs(9),
            started: SystemTime::now(),
            threads: 10,
            resident: 11,
            size: 12,
            descriptors: Some(13),
            most_descriptors: Some(14),
        }),
    };
    touched().text(&gauges, format)
}

/// The names of all samples.
fn names() -> BTreeSet<String> {
    let text = text(Format::Prometheus);
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
}

/// Our metrics that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'));
    words.filter(|word| word.starts_with("rmxd_") || word.starts_with("process_")).collect()
}

#[tokio::test]
async fn promtool_takes_the_metrics_with_every_series_there_can_be() {
    let text = text(Format::Prometheus);
    assert!(text.lines().count() > 450, "{text}");
    let Some((good, said)) = promtool(&["check", "metrics"], &text).await else { return };
    assert!(good && said.is_empty(), "{said}");
    // the tool does find fault where there is one
    let wrong = text.replace("rmxd_panics_total", "rmxd_panics");
    let (good, said) = promtool(&["check", "metrics"], &wrong).await.unwrap();
    assert!(!good && said.contains("rmxd_panics"), "{said}");
}

#[test]
fn the_contract_of_names_and_labels_is_kept() {
    let text = text(Format::Prometheus);
    for (name, labels) in [
        ("rmxd_connections_total", vec!["outcome"]),
        ("rmxd_connections_open", vec![]),
        ("rmxd_verdicts_total", vec!["verdict", "identity", "reason", "mode"]),
        ("rmxd_outcomes_total", vec!["door", "outcome"]),
        ("rmxd_refusals_total", vec!["reason"]),
        ("rmxd_verdict_seconds_bucket", vec!["le"]),
        ("rmxd_dns_queries_total", vec!["type", "outcome"]),
        ("rmxd_dns_query_seconds_bucket", vec!["le"]),
        ("rmxd_cache_lookups_total", vec!["result"]),
        ("rmxd_cache_entries", vec![]),
        ("rmxd_cache_bytes", vec![]),
        ("rmxd_relay_transactions_total", vec!["outcome"]),
        ("rmxd_relay_connections_open", vec![]),
        ("rmxd_findings_total", vec!["identity", "rule", "result", "reason", "action"]),
        ("rmxd_exempt_total", vec!["by"]),
        ("rmxd_greylist_total", vec!["result"]),
        ("rmxd_tls_sessions_total", vec!["version"]),
        ("rmxd_tls_certificate_expiry_timestamp_seconds", vec![]),
        ("rmxd_config_reload_success", vec![]),
        ("rmxd_config_reload_timestamp_seconds", vec![]),
        ("rmxd_relay_seconds_count", vec!["stage"]),
        ("rmxd_relay_seconds_bucket", vec!["le", "stage"]),
        ("rmxd_wait_seconds_count", vec!["door", "stage"]),
        ("process_cpu_seconds_total", vec![]),
        ("process_start_time_seconds", vec![]),
        ("process_resident_memory_bytes", vec![]),
        ("process_virtual_memory_bytes", vec![]),
        ("process_threads", vec![]),
        ("process_open_fds", vec![]),
        ("process_max_fds", vec![]),
        ("rmxd_build_info", vec!["version"]),
    ] {
        let line = text.lines().find(|line| line.split(['{', ' ']).next() == Some(name));
        let line = line.unwrap_or_else(|| panic!("no {name}"));
        let inside = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
        let found: Vec<&str> =
            inside.split(',').filter_map(|label| label.split_once('=')).map(|(key, _)| key).collect();
        assert_eq!(found, labels, "{line}");
    }
    for result in ["hit", "miss", "negative", "stale", "coalesced"] {
        assert!(text.contains(&format!("rmxd_cache_lookups_total{{result=\"{result}\"}} 1\n")), "{result}");
    }
}

#[tokio::test]
async fn the_alert_rules_are_sound_and_fire_when_they_should_and_only_then() {
    let rules = shipped("prometheus-rules.yml");
    let Some((good, said)) = promtool(&["check", "rules", rules.to_str().unwrap()], "").await else { return };
    assert!(good, "{said}");
    let test = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/admin/rules_test.yml");
    let (good, said) = promtool(&["test", "rules", test.to_str().unwrap()], "").await.unwrap();
    assert!(good, "{said}");
    let (rules, test) = (std::fs::read_to_string(rules).unwrap(), std::fs::read_to_string(test).unwrap());
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let fires = test.split("alertname: ").skip(1).any(|row| {
            let (name, rest) = row.split_once(['\n', ',']).unwrap();
            name == alert && !rest.trim_start().starts_with("exp_alerts: []")
        });
        assert!(fires, "no test has {alert} fire");
    }
    let (known, names) = (names(), named(&rules));
    assert!(names.iter().all(|name| known.contains(*name)), "{names:?}");
}

#[tokio::test]
async fn the_scrape_configuration_of_the_document_is_one() {
    let document = readme::text("src/admin/README.md");
    let snippet = document.split("```yaml\nrule_files").nth(1).unwrap().split("```").next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(shipped("prometheus-rules.yml"), folder.path().join("prometheus-rules.yml")).unwrap();
    let file = folder.path().join("prometheus.yml");
    std::fs::write(&file, format!("rule_files{snippet}")).unwrap();
    let Some((good, said)) = promtool(&["check", "config", file.to_str().unwrap()], "").await else { return };
    assert!(good && said.contains("20 rules found"), "{said}");
}

#[tokio::test]
async fn every_expression_of_the_dashboard_is_one_and_names_what_there_is() {
    let text = std::fs::read_to_string(shipped("grafana-dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut expressions = Vec::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        assert_eq!(targets.is_empty(), panel["type"] == "row", "{panel}");
        expressions.extend(targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        expressions.push(annotation["expr"].as_str().unwrap().to_owned());
    }
    assert!(expressions.len() > 30, "{expressions:?}");
    let known = names();
    let mut used = BTreeSet::new();
    for expression in &expressions {
        let names = named(expression);
        assert!(!names.is_empty() && names.iter().all(|name| known.contains(*name)), "{expression}");
        used.extend(names.into_iter().map(str::to_owned));
    }
    let unused: Vec<_> = known
        .iter()
        .filter(|name| !name.ends_with("_sum") && !name.ends_with("_count"))
        .filter(|name| !used.contains(*name))
        .collect();
    assert!(unused.is_empty(), "not on the dashboard: {unused:?}");

    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (at, expression) in expressions.iter().enumerate() {
        let filled = expression.replace("$__rate_interval", "5m").replace("$instance", ".*");
        let quoted = serde_json::to_string(&filled).unwrap();
        rules.push_str(&format!("      - record: expression_{at}\n        expr: {quoted}\n"));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let Some((good, said)) = promtool(&["check", "rules", file.to_str().unwrap()], "").await else { return };
    assert!(good, "{said}");
}
