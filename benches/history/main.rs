//! What a history of five million decisions costs, and how long its searches take: `cargo bench --bench history`.
//!
//! Half of the decisions are those of a spoof flood, each of another domain; half are of some thousand partners. They are
//! spread over 13 days. Processor time of the writer, octets, memory, and then each kind of search for many values, as `rmxd
//! history` does it: with a connection of its own, whose opening counts. `HISTORY_DECISIONS` says how many decisions.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program for the terminal")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use compact_str::{CompactString, format_compact};
use rmxd::config::{DRAIN, Flags, load};
use rmxd::decision::{Actions, DecisionRecord, End, Id, Scope};
use rmxd::evidence::{Answer, Evidence, Freshness, Question, QuestionName, RecordType};
use rmxd::gate::hindsight::Candidate;
use rmxd::policy::decide::{Cause, Verdict};
use rmxd::policy::door::DoorName;
use rmxd::policy::finding::{Finding, RuleResult};
use rmxd::policy::identity::Identity;
use rmxd::policy::outcome::Outcome;
use rmxd::policy::reason::Reason;
use rmxd::policy::rule::{Action, Mode, Rule, Rung};
use rmxd::reverse_mx::FcrdnsResult;
use rmxd::stats::hindsight::Hindsight;
use rmxd::store::history::{Archive, Filter, History, Settings};
use tokio::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DAY: u64 = 86_400;
/// Decisions between two turns of the writer.
const BATCH: u64 = 5_000;
/// Values of each kind that are searched for.
const VALUES: u64 = 40;

fn main() {
    let count = std::env::var("HISTORY_DECISIONS").map_or(5_000_000, |text| text.parse().expect("a number"));
    let folder = tempfile::tempdir_in(".").expect("a folder");
    let path = folder.path().join("history");
    let settings = Settings { path, keep: Duration::from_secs(14 * DAY), size: 64 << 30 };
    let make = Maker { count, start: SystemTime::now() - Duration::from_secs(13 * DAY) };
    fill(&settings, &make);
    search(&settings, &make);
}

fn fill(settings: &Settings, make: &Maker) {
    let history = History::open(settings).expect("a history");
    let (began, mut spent, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    for first in (0..make.count).step_by(usize::try_from(BATCH).expect("a small number")) {
        let records: Vec<_> =
            (first..make.count.min(first + BATCH)).map(|number| make.record(number)).collect();
        let (before, began) = (processor(), Instant::now());
        records.into_iter().for_each(|record| history.record(record));
        history.flush();
        spent += processor() - before;
        slowest = slowest.max(began.elapsed());
    }
    println!(
        "{} decisions: {} ns of processor each, {:?} in all; the slowest write of {BATCH} took {slowest:?}",
        make.count,
        spent / make.count,
        began.elapsed()
    );
    assert_eq!(history.count().dropped, 0);
    let octets = history.count().octets;
    println!("{} MiB, {} octets each; {} MiB of memory", octets >> 20, octets / make.count, resident());
    let weak = history.downgrade();
    drop(history);
    weak.wait_until_written();
}

fn search(settings: &Settings, make: &Maker) {
    let values = |of: fn(&DecisionRecord) -> CompactString| {
        (0..VALUES).map(|at| of(&make.record(at * make.count / VALUES + at))).collect::<Vec<_>>()
    };
    let domains =
        values(|record| record.mail_from.trim_end_matches('>').rsplit('@').next().unwrap_or("").into());
    let kinds: [(&str, Vec<CompactString>); 9] = [
        ("rcpt", values(|record| record.rcpt.clone())),
        (
            "queue",
            values(|record| record.queue.clone()).into_iter().filter(|queue| !queue.is_empty()).collect(),
        ),
        ("client", values(|record| format_compact!("{}", record.client))),
        ("client", values(|record| format_compact!("{}/24", record.client))),
        ("domain", domains),
        ("rcpt", vec!["nobody@here.test".into()]),
        ("queue", vec!["NONE".into()]),
        ("client", vec!["2001:db8::1".into()]),
        ("domain", vec!["nowhere.example".into()]),
    ];
    for (key, values) in kinds {
        let first = values.first().cloned().unwrap_or_default();
        let times = values.iter().map(|value| {
            let mut filter = Filter::default();
            filter.set(key, value, SystemTime::now()).expect("a filter");
            timed(|| open(settings).search(&filter, None, 100).expect("a page").records.len())
        });
        print(&format!("{key} such as {first}"), times.collect());
    }
    let ids = (0..VALUES).map(|at| Id::nth(at * make.count / VALUES));
    print("id", ids.map(|id| timed(|| open(settings).find(id).expect("decisions").len())).collect());
    let none = Id::nth(make.count + 1);
    print("id of none", vec![timed(|| open(settings).find(none).expect("decisions").len())]);
    let hours = (0..VALUES).map(|at| {
        let since = make.at(at * make.count / VALUES);
        let until = since + Duration::from_secs(3600);
        let filter = Filter { since: Some(since), until: Some(until), ..Filter::default() };
        timed(|| open(settings).search(&filter, None, 100).expect("a page").records.len())
    });
    print("an hour", hours.collect());
    hindsight(settings, make.count);
    println!("{} MiB of memory at the end", resident());
}

/// `rmxd history --would --config` over all of it.
fn hindsight(settings: &Settings, count: u64) {
    let set =
        [("hostname", "gate.test"), ("relay.domains", "here.test"), ("policy.mail_from.matches", "reject")];
    let set = set.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let loaded = load(None, [], &Flags { set, drain: DRAIN }).expect("a configuration").settings;
    let candidate = Candidate::new(&loaded.gate, &loaded.reverse_mx);
    let (began, mut hindsight) = (Instant::now(), Hindsight::default());
    let each = |record: &DecisionRecord| hindsight.add(record, &candidate.decides(record));
    open(settings).all(&Filter::default(), each).expect("all decisions");
    assert_eq!(hindsight.decisions(), count);
    let (took, changed, unknown) = (began.elapsed(), hindsight.changed(), hindsight.unknown());
    println!("another configuration, of {count} decisions: {took:?}; {changed} changed, {unknown} unknown");
}

fn open(settings: &Settings) -> Archive {
    Archive::open(settings.clone()).expect("a history").expect("a file")
}

fn timed(work: impl FnOnce() -> usize) -> (Duration, usize) {
    let began = Instant::now();
    let found = work();
    (began.elapsed(), found)
}

fn print(what: &str, mut times: Vec<(Duration, usize)>) {
    times.sort_unstable();
    let found: usize = times.iter().map(|(_, found)| found).sum();
    let (median, longest) = (times.get(times.len() / 2), times.last());
    if let Some(((median, _), (longest, _))) = median.zip(longest) {
        println!("{what}: median {median:?}, longest {longest:?}, {found} found in {} searches", times.len());
    }
}

struct Maker {
    count: u64,
    start: SystemTime,
}

impl Maker {
    fn at(&self, number: u64) -> SystemTime {
        self.start + Duration::from_secs(13 * DAY).mul_f64(number as f64 / self.count as f64)
    }

    fn record(&self, number: u64) -> DecisionRecord {
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let spoofed = number.is_multiple_of(2);
        let domain = if spoofed {
            format_compact!("{spread:08x}.spoof.test")
        } else {
            format_compact!("mail.partner{}.test", spread % 5_000)
        };
        let sender = format_compact!("user{}@{domain}", spread % 100);
        let answer = if spoofed { Answer::NoSuchDomain } else { Answer::NoData };
        let name = QuestionName::parse(domain.as_bytes()).expect("a name");
        let evidence = Evidence {
            question: Question { name, rtype: RecordType::Mx },
            answer: Arc::new(answer),
            freshness: Freshness::Fresh,
            ttl_left: Duration::from_secs(300),
            age: Duration::ZERO,
            took: Duration::from_micros(800),
            server: None,
        };
        let outcome =
            if spoofed { RuleResult::Fail(Reason::NoSuchDomain) } else { RuleResult::Pass(Rung::Mx) };
        let finding = |identity| Finding {
            action: Action::Reject,
            evidence: vec![evidence.clone()],
            ..Finding::new(identity, Rule::Exists, &domain, &sender, outcome)
        };
        let cause = Cause {
            reason: Reason::NoSuchDomain,
            action: Action::Reject,
            wait: None,
            finding: Some(0),
            subject: sender.clone(),
        };
        let findings = if spoofed {
            vec![finding(Identity::MailFrom)]
        } else {
            vec![finding(Identity::MailFrom), finding(Identity::From)]
        };
        let client = u32::try_from(spread % 30_000).unwrap_or(0);
        let end = if spoofed { Outcome::Refused } else { Outcome::Delivered };
        DecisionRecord {
            id: Some(Id::nth(number)),
            at: self.at(number),
            client: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + client)),
            door: DoorName::Milter,
            tls: CompactString::default(),
            queue: if spoofed { CompactString::default() } else { format_compact!("4{spread:x}z{number:x}") },
            names: Some(FcrdnsResult::NoPtr),
            extent: Scope::Envelope,
            mode: Mode::Enforce,
            actions: Actions::from_all([Action::Reject; 10]),
            verdict: if spoofed { Verdict::Reject } else { Verdict::Accept },
            cause: spoofed.then_some(cause),
            end: Some(End::of(end)),
            help_url: Arc::from(""),
            helo: format_compact!("host{client}.sending.test"),
            mail_from: format_compact!("<{sender}>"),
            rcpt: format_compact!("user{}@here.test", spread % 20_000),
            rcpts: usize::from(!spoofed),
            recipients: Vec::new(),
            from: if spoofed { CompactString::default() } else { sender },
            reply_to: CompactString::default(),
            duration: Duration::from_micros(900),
            permit: None,
            findings: Arc::new(findings),
            whole: true,
        }
    }
}

/// Nanoseconds of processor time of all threads.
fn processor() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let of = |task: &Path| {
        let text = std::fs::read_to_string(task.join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    tasks.filter_map(Result::ok).map(|task| of(&task.path())).sum()
}

/// Resident memory, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.split_whitespace().next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0) / 1024
}
