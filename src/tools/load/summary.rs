//! The result of a run as one value, which the text, the JSON and the page show.
//!
//! It also decides whether the run failed: each problem is a line of text, and a run without problems is a success.

use std::time::Duration;

use serde::Serialize;

use crate::metrics::process::cpu;
use crate::policy::door::DoorName;
use crate::tools::load::class::{Class, Expected, PerClass};
use crate::tools::load::client::Target;
use crate::tools::load::job::Job;
use crate::tools::load::ledger::Balance;
use crate::tools::load::own::Outcomes;
use crate::tools::load::process;
use crate::tools::load::stats::{Counts, Latencies, LoadStats};

/// Points of the distribution plot.
const QUANTILES: [f64; 16] =
    [0.0, 0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0];

#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) target: String,
    #[serde(serialize_with = "named")]
    pub(super) door: DoorName,
    pub(super) own: bool,
    pub(super) seed: u64,
    pub(super) connections: usize,
    pub(super) rate: Option<u32>,
    pub(super) seconds: f64,
    pub(super) sessions: u64,
    pub(super) sessions_per_second: f64,
    pub(super) slow_sessions: u64,
    pub(super) total: Counts,
    pub(super) latency: Option<Latency>,
    pub(super) classes: Vec<ClassSummary>,
    pub(super) replies: Vec<Reply>,
    pub(super) other_replies: u64,
    pub(super) failures: Vec<FailureCount>,
    /// Of --self, where a sink is behind the daemon.
    pub(super) delivery: Option<Balance>,
    /// Of --self, where none is.
    pub(super) outcomes: Option<Outcomes>,
    pub(super) daemon: Option<DaemonSummary>,
    pub(super) interrupted: bool,
    /// Why the run failed.
    pub(super) problems: Vec<String>,
    pub(super) over_time: Vec<SliceSummary>,
}

#[derive(Debug, Serialize)]
pub(super) struct ClassSummary {
    pub(super) class: &'static str,
    pub(super) expected: String,
    #[serde(flatten)]
    pub(super) counts: Counts,
    pub(super) wrong: u64,
    pub(super) latency: Option<Latency>,
    /// Pairs of quantile and microseconds.
    pub(super) distribution: Vec<(f64, u64)>,
}

/// In microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Latency {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) p99_9: u64,
    pub(super) max: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Reply {
    pub(super) class: &'static str,
    pub(super) reply: String,
    pub(super) count: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct FailureCount {
    pub(super) failure: String,
    pub(super) count: u64,
}

/// The daemon of --self; memory in octets.
#[derive(Debug, Clone, Serialize)]
pub(super) struct DaemonSummary {
    pub(super) memory_before: Option<u64>,
    pub(super) memory_half: Option<u64>,
    pub(super) memory_end: Option<u64>,
    pub(super) memory_peak: Option<u64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) cpu_microseconds_per_session: Option<f64>,
    pub(super) dns_questions: u64,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct SliceSummary {
    /// Seconds after the start.
    pub(super) at: f64,
    /// Length.
    pub(super) seconds: f64,
    #[serde(flatten)]
    pub(super) counts: Counts,
    pub(super) p50: Option<u64>,
    pub(super) p99: Option<u64>,
    pub(super) max: Option<u64>,
    pub(super) memory: Option<u64>,
}

/// The part of the summary that is known before the run.
pub(super) struct Frame {
    target: Target,
    own: bool,
    seed: u64,
    connections: usize,
    rate: Option<u32>,
    mix: Vec<Class>,
    expected: PerClass<Expected>,
    tolerate_defer: bool,
    tolerate_failure: bool,
}

pub(super) struct Ended {
    pub(super) elapsed: Duration,
    pub(super) interrupted: bool,
    pub(super) unreachable: bool,
    pub(super) problems: Vec<String>,
}

/// Facts that only --self has.
pub(super) struct OwnFacts {
    pub(super) balance: Option<Balance>,
    pub(super) outcomes: Option<Outcomes>,
    pub(super) questions: u64,
    pub(super) usage: Usage,
}

/// Resources of the daemon between two samples.
pub(super) struct Usage {
    before: Option<process::ResidentMemory>,
    after: Option<process::ResidentMemory>,
    cpu: Option<Duration>,
}

impl Usage {
    pub(super) fn of(pid: Option<u32>) -> Self {
        Self { before: pid.and_then(process::memory), after: None, cpu: pid.and_then(cpu) }
    }

    pub(super) fn until(self, pid: Option<u32>) -> Self {
        let spent = pid.and_then(cpu).zip(self.cpu).map(|(now, then)| now.saturating_sub(then));
        Self { before: self.before, after: pid.and_then(process::memory), cpu: spent }
    }
}

impl Frame {
    pub(super) fn new(job: &Job, target: Target) -> Self {
        Self {
            target,
            own: job.target.is_none(),
            seed: job.plan.seed,
            connections: job.pace.connections,
            rate: job.pace.rate,
            mix: job.plan.mix.0.iter().map(|(class, _)| *class).collect(),
            expected: job.expected.clone(),
            tolerate_defer: job.tolerate_defer,
            tolerate_failure: job.tolerate_failure,
        }
    }

    pub(super) fn summary(&self, stats: &LoadStats, ended: Ended, own: Option<OwnFacts>) -> Summary {
        let seconds = ended.elapsed.as_secs_f64();
        let mut all: Option<Latencies> = None;
        for (_, (_, latencies)) in stats.classes.iter() {
            match &mut all {
                None => all = Some(latencies.clone()),
                Some(all) => all.merge(latencies),
            }
        }
        let over_time = slices(stats);
        Summary {
            target: self.target.to_string(),
            door: self.target.door(),
            own: self.own,
            seed: self.seed,
            connections: self.connections,
            rate: self.rate,
            seconds,
            sessions: stats.sessions,
            sessions_per_second: stats.sessions as f64 / seconds.max(0.001),
            slow_sessions: stats.slow,
            total: stats.total(),
            latency: all.as_ref().and_then(latency),
            classes: self.classes(stats),
            replies: replies(stats),
            other_replies: stats.replies.others,
            failures: failures(stats),
            problems: self.problems(stats, &ended, own.as_ref()),
            delivery: own.as_ref().and_then(|own| own.balance),
            outcomes: own.as_ref().and_then(|own| own.outcomes),
            daemon: own.map(|own| daemon(&own, &over_time, stats.sessions)),
            interrupted: ended.interrupted,
            over_time,
        }
    }

    fn classes(&self, stats: &LoadStats) -> Vec<ClassSummary> {
        let row = |class: &Class| {
            let (counts, latencies) = stats.classes.of(*class);
            let distribution = if latencies.is_empty() {
                Vec::new()
            } else {
                QUANTILES.iter().map(|quantile| (*quantile, latencies.at(*quantile))).collect()
            };
            ClassSummary {
                class: class.name(),
                expected: self.expected.of(*class).to_string(),
                counts: *counts,
                wrong: counts.wrong(),
                latency: latency(latencies),
                distribution,
            }
        };
        Class::ALL.iter().filter(|class| self.mix.contains(class)).map(row).collect()
    }

    fn problems(&self, stats: &LoadStats, ended: &Ended, own: Option<&OwnFacts>) -> Vec<String> {
        let mut problems = ended.problems.clone();
        let mut add = |count: u64, what: String| {
            if count > 0 {
                problems.push(format!("{count} {what}"));
            }
        };
        for (class, (counts, _)) in stats.classes.iter() {
            let (name, expected) = (class.name(), self.expected.of(class));
            let of = |what: &str| format!("{what} of class {name} (expected {expected})");
            add(counts.false_accepts, of("false accepts"));
            add(counts.false_rejects, of("false rejects"));
            add(counts.other_replies, of("refused by another reply,"));
            if !self.tolerate_defer {
                add(counts.wrongly_deferred, of("deferred"));
            }
        }
        if !self.tolerate_failure {
            add(stats.total().failed, "sessions without a verdict".to_owned());
        }
        if let Some(OwnFacts { balance: Some(balance), .. }) = own {
            add(balance.lost, "messages lost: accepted, and not in the sink".to_owned());
            add(balance.doubled, "messages twice in the sink".to_owned());
            add(balance.received_though_refused, "messages in the sink that were refused".to_owned());
            add(balance.damaged, "messages damaged on the way".to_owned());
            add(balance.foreign, "messages in the sink that this run did not send".to_owned());
        }
        if let Some(OwnFacts { outcomes: Some(outcomes), .. }) = own {
            let total = stats.total();
            for (counted, answered, what, counted_as) in [
                (outcomes.passed, total.accepted, "accepted", "passed"),
                (outcomes.refused, total.rejected + total.deferred, "refused", "refused"),
            ] {
                // A session without a verdict may have been counted or not.
                let (least, most) = (answered, answered + total.failed);
                add(
                    least.saturating_sub(counted),
                    format!("messages {what}, and not counted as {counted_as} by the daemon"),
                );
                add(
                    counted.saturating_sub(most),
                    format!("messages counted as {counted_as} by the daemon, and not {what}"),
                );
            }
        }
        if ended.unreachable {
            problems.push("the target is unreachable, so the run was ended".to_owned());
        }
        if stats.sessions == 0 && !ended.interrupted {
            problems.push("no session was played".to_owned());
        }
        problems
    }
}

fn named<S: serde::Serializer>(door: &DoorName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(door.name())
}

fn latency(latencies: &Latencies) -> Option<Latency> {
    let at = |quantile| latencies.at(quantile);
    (!latencies.is_empty()).then(|| Latency {
        p50: at(0.5),
        p99: at(0.99),
        p99_9: at(0.999),
        max: latencies.max(),
    })
}

fn replies(stats: &LoadStats) -> Vec<Reply> {
    let reply = |(kind, count): (&(Class, _), &u64)| {
        let (class, answer): &(Class, crate::tools::load::outcome::Decided) = kind;
        Reply { class: class.name(), reply: answer.to_string(), count: *count }
    };
    let mut replies: Vec<_> = stats.replies.known.iter().map(reply).collect();
    replies.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (a.class, &a.reply).cmp(&(b.class, &b.reply))));
    replies
}

fn failures(stats: &LoadStats) -> Vec<FailureCount> {
    let known = stats.failures.known.iter();
    let mut failures: Vec<_> =
        known.map(|(failure, count)| FailureCount { failure: failure.to_string(), count: *count }).collect();
    failures.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.failure.cmp(&b.failure)));
    failures
}

fn slices(stats: &LoadStats) -> Vec<SliceSummary> {
    let seconds = stats.slice.as_secs_f64();
    let rows = stats.slices.iter().enumerate().map(|(at, slice)| {
        let timed = (!slice.latencies.is_empty()).then_some(&slice.latencies);
        SliceSummary {
            at: at as f64 * seconds,
            seconds,
            counts: slice.counts,
            p50: timed.map(|timed| timed.at(0.5)),
            p99: timed.map(|timed| timed.at(0.99)),
            max: timed.map(Latencies::max),
            memory: slice.memory,
        }
    });
    rows.collect()
}

fn daemon(own: &OwnFacts, over_time: &[SliceSummary], sessions: u64) -> DaemonSummary {
    let half = over_time.iter().skip(over_time.len() / 2).find_map(|slice| slice.memory);
    let last = over_time.iter().rev().find_map(|slice| slice.memory);
    let Usage { before, after, cpu } = &own.usage;
    let cpu = cpu.map(|cpu| cpu.as_secs_f64());
    DaemonSummary {
        memory_before: before.map(|memory| memory.now),
        memory_half: half,
        memory_end: after.map(|memory| memory.now).or(last),
        memory_peak: after.map(|memory| memory.peak),
        cpu_seconds: cpu,
        cpu_microseconds_per_session: cpu.map(|cpu| cpu * 1e6 / (sessions.max(1) as f64)),
        dns_questions: own.questions,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tools::load::stats::tests::{failure, outcome, stats};

    fn frame(own: bool) -> Frame {
        Frame {
            target: Target::Smtp("127.0.0.1:2525".parse().unwrap()),
            own,
            seed: 1,
            connections: 50,
            rate: None,
            mix: vec![Class::Clean, Class::Spoofed],
            expected: PerClass::new(Class::by_default),
            tolerate_defer: false,
            tolerate_failure: false,
        }
    }

    fn ended() -> Ended {
        let elapsed = Duration::from_secs(2);
        Ended { elapsed, interrupted: false, unreachable: false, problems: Vec::new() }
    }

    fn own(balance: Balance) -> OwnFacts {
        let usage = Usage::of(Some(std::process::id()));
        OwnFacts { balance: Some(balance), outcomes: None, questions: 4, usage }
    }

    /// The summary of a small run of --self.
    pub(in crate::tools::load) fn summary() -> Summary {
        let mut stats = stats();
        for millis in 1..=100 {
            let at = Duration::from_millis(20 * millis);
            stats.message(Class::Spoofed, false, &outcome(550, millis), at);
            stats.message(Class::Clean, false, &outcome(250, 2 * millis), at);
            stats.memory(millis << 20, at);
            stats.session(false);
            stats.session(false);
        }
        frame(true).summary(&stats, ended(), Some(own(Balance::default())))
    }

    #[test]
    fn a_run_in_which_all_is_as_expected_has_no_problems() {
        let summary = summary();
        assert_eq!(summary.problems, Vec::<String>::new());
        assert_eq!((summary.sessions, summary.total.accepted, summary.total.rejected), (200, 100, 100));
        assert!((summary.sessions_per_second - 100.0).abs() < 0.1);
        let latency = summary.latency.unwrap();
        assert!(
            (65_000..70_000).contains(&latency.p50) && (200_000..201_000).contains(&latency.max),
            "{latency:?}"
        );
        let daemon = summary.daemon.unwrap();
        assert!(daemon.memory_half.unwrap() > 40 << 20 && daemon.memory_before.is_some());
    }

    #[test]
    fn each_kind_of_error_is_a_problem_and_some_can_be_tolerated() {
        let of = |class, outcome| {
            let mut stats = stats();
            stats.message(class, false, &outcome, Duration::ZERO);
            stats.session(false);
            stats
        };
        let deferred = || of(Class::Clean, outcome(451, 1));
        let rows = [
            (of(Class::Spoofed, outcome(250, 1)), "1 false accepts of class spoofed (expected reject)"),
            (of(Class::Clean, outcome(550, 1)), "1 false rejects of class clean (expected accept)"),
            (deferred(), "1 deferred of class clean (expected accept)"),
            (of(Class::Clean, failure()), "1 sessions without a verdict"),
            (stats(), "no session was played"),
        ];
        for (stats, problem) in rows {
            assert_eq!(frame(false).summary(&stats, ended(), None).problems, [problem]);
        }
        let lenient = Frame { tolerate_defer: true, tolerate_failure: true, ..frame(false) };
        for stats in [deferred(), of(Class::Clean, failure())] {
            assert_eq!(lenient.summary(&stats, ended(), None).problems, Vec::<String>::new());
        }
        let balance = Balance { lost: 2, doubled: 1, unanswered: 5, ..Balance::default() };
        let fine = of(Class::Clean, outcome(250, 1));
        assert_eq!(
            lenient.summary(&fine, ended(), Some(own(balance))).problems,
            ["2 messages lost: accepted, and not in the sink", "1 messages twice in the sink"]
        );
    }

    #[test]
    fn what_the_daemon_counted_must_be_what_was_answered() {
        let mut stats = stats();
        for result in [outcome(250, 1), outcome(250, 1), failure()] {
            stats.message(Class::Clean, false, &result, Duration::ZERO);
        }
        stats.message(Class::Spoofed, false, &outcome(550, 1), Duration::ZERO);
        stats.session(false);
        let rows: [(u64, u64, &[&str]); 5] = [
            (2, 1, &[]),
            (3, 1, &[]),
            (1, 1, &["1 messages accepted, and not counted as passed by the daemon"]),
            (4, 1, &["1 messages counted as passed by the daemon, and not accepted"]),
            (2, 0, &["1 messages refused, and not counted as refused by the daemon"]),
        ];
        let lenient = Frame { tolerate_failure: true, ..frame(true) };
        for (passed, refused, problems) in rows {
            let outcomes = Some(Outcomes { passed, refused, others: 0 });
            let facts = OwnFacts { balance: None, outcomes, ..own(Balance::default()) };
            let summary = lenient.summary(&stats, ended(), Some(facts));
            assert_eq!(summary.problems, problems, "{passed} {refused}");
        }
    }
}
