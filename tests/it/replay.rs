//! `rmxd replay`, the real binary, asking a real name server: what it reports of logs of all kinds, its exit codes, and how
//! it bears a long one.

mod real;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use rmxd::zone::{Server, Zone, generated};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::process::{self, Run, rmxd_asking};

/// For a run that ends; far more than it takes.
const PATIENCE: Duration = Duration::from_secs(180);

/// What Postfix took and what it refused: by the names of the sample zones.
const LOG: &str = "\
Nov 23 12:00:00 mx postfix/smtpd[1]: connect from mail.good.test[127.0.0.10]
Nov 23 12:00:01 mx postfix/smtpd[1]: 4F2A1B3C01: client=mail.good.test[127.0.0.10]
Nov 23 12:00:01 mx postfix/cleanup[2]: 4F2A1B3C01: message-id=<1@good.test>
Nov 23 12:00:01 mx postfix/qmgr[3]: 4F2A1B3C01: from=<ann@good.test>, size=1, nrcpt=1 (queue active)
2026-11-23T12:00:02.123456+01:00 mx postfix/smtpd[1]: 3yQbzy4fPSzbkw: client=unknown[127.0.0.12]
2026-11-23T12:00:02.123456+01:00 mx postfix/qmgr[3]: 3yQbzy4fPSzbkw: from=<a@nomx.test>, size=1, nrcpt=1 (queue active)
2026-11-23T12:00:03Z mx postfix/smtpd[1]: 4F2A1B3C02: client=unknown[127.0.0.12]
2026-11-23T12:00:03Z mx postfix/qmgr[3]: 4F2A1B3C02: from=<b@NoMX.test>, size=1, nrcpt=1 (queue active)
2026-11-23T12:00:03Z mx postfix/smtpd[1]: 4F2A1B3C03: client=unknown[::1]
2026-11-23T12:00:03Z mx postfix/qmgr[3]: 4F2A1B3C03: from=<b@v6-mx.test>, size=1, nrcpt=1 (queue active)
Nov 23 12:00:04 mx postfix/smtpd[4]: NOQUEUE: reject: RCPT from unknown[127.0.0.11]: 450 4.1.8 <x@nowhere.test>: Sender address \
rejected: Domain not found; from=<x@nowhere.test> to=<u@here.test> proto=ESMTP helo=<host11.test>
Nov 23 12:00:05 mx postfix/postscreen[5]: NOQUEUE: reject: RCPT from [127.0.0.12]:4711: 550 5.7.1 Service unavailable; client \
[127.0.0.12] blocked; from=<y@nomx.test>, to=<u@here.test>, proto=ESMTP, helo=<nomx.test>
Nov 23 12:00:06 mx postfix/smtpd[1]: 4F2A1B3C04: client=unknown[127.0.0.22]
Nov 23 12:00:06 mx postfix/qmgr[3]: 4F2A1B3C04: from=<b@broken.test>, size=1, nrcpt=1 (queue active)
Nov 23 12:00:07 mx postfix/submission/smtpd[6]: 4F2A1B3C05: client=x[127.0.0.9], sasl_method=PLAIN, sasl_username=u
Nov 23 12:00:07 mx postfix/qmgr[3]: 4F2A1B3C05: from=<b@nowhere.test>, size=1, nrcpt=1 (queue active)
Nov 23 12:00:08 mx postfix/smtpd[1]: 4F2A1B3C06: client=unknown[127.0.0.13]
Nov 23 12:00:08 mx postfix/qmgr[3]: 4F2A1B3C06: from=<b@good.test>, size=1, nrcpt=1 (queue active)
Nov 23 12:00:08 mx postfix/smtpd[1]: 4F2A1B3C07: client=mail.good.test[127.0.0.10]
Nov 23 12:00:08 mx postfix/qmgr[3]: 4F2A1B3C07: from=<>, size=1, nrcpt=1 (queue active)
Nov 23 12:00:09 mx sshd[7]: Accepted publickey for root
what \x1b[2J is this
";

/// A name server and a folder for logs.
struct Site {
    server: Server,
    folder: TempDir,
}

impl Site {
    async fn new(zone: Zone) -> Self {
        let server = Server::start("127.0.0.1:0".parse().unwrap(), zone).await.unwrap();
        Self { server, folder: tempfile::tempdir().unwrap() }
    }

    async fn sample() -> Self {
        Self::new(Zone::sample()).await
    }

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// `rmxd replay` of this build, or of another.
    fn command(&self, arguments: &str, logs: &[&Path]) -> Command {
        let mut command = rmxd_asking("replay", self.server.address());
        command.args(arguments.split_whitespace()).args(logs);
        command
    }

    async fn run(&self, arguments: &str, logs: &[&Path]) -> Run {
        run(&mut self.command(arguments, logs), b"").await
    }
}

async fn run(command: &mut Command, input: &[u8]) -> Run {
    process::run(command, input.to_vec(), PATIENCE).await.into()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A list of objects as lines of these fields.
fn lines(list: &Value, fields: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let line = |row: &Value| fields.split(' ').map(|field| text(&row[field])).collect::<Vec<_>>().join(" ");
    list.as_array().unwrap().iter().map(line).collect()
}

#[tokio::test]
async fn the_report_says_what_would_be_refused_of_what_postfix_took_and_refused() {
    let site = Site::sample().await;
    let log = site.file("mail.log", LOG.as_bytes());
    let run =
        site.run("--json --set policy.mail_from.matches=reject --set policy.matches_by=mx", &[&log]).await;
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""));
    let json = run.json();
    assert_eq!(
        lines(
            &json["senders"],
            "identity rule reason action domain taken refused client more_clients exempt"
        ),
        [
            "mail_from exists no_mx reject nomx.test 2 1 127.0.0.12 false clients = [\"127.0.0.12\"]",
            "mail_from matches not_an_exchanger reject good.test 1 0 127.0.0.13 false clients = [\"127.0.0.13\"]",
            "mail_from exists no_such_domain reject nowhere.test 0 1 127.0.0.11 false clients = [\"127.0.0.11\"]",
        ]
    );
    assert_eq!(
        lines(&json["in_dns_trouble"], "reason action domain taken refused exempt"),
        ["dns_error defer broken.test 1 0 null"]
    );
    assert_eq!(
        lines(&json["kinds"], "identity reason taken refused"),
        ["mail_from no_mx 2 1", "mail_from not_an_exchanger 1 0", "mail_from no_such_domain 0 1"]
    );
    let entries = [
        "# all mail from these clients passes, whatever sender it names",
        "clients = [\"127.0.0.12\", \"127.0.0.13\"]",
    ];
    assert_eq!(json["exempt"], serde_json::json!(entries), "only what Postfix took");
    let volumes = [("would_be_refused", 3, 2), ("passes", 3, 0), ("dns_trouble", 1, 0), ("no_address", 0, 0)];
    for (name, taken, refused) in volumes {
        assert_eq!(json[name], serde_json::json!({"taken": taken, "refused": refused}), "{name}");
    }
    let counts = &json["counts"];
    for (name, number) in
        [("lines", 22), ("postfix", 20), ("foreign", 1), ("unreadable", 1), ("authenticated", 1)]
    {
        assert_eq!(counts[name], number, "{name}");
    }
    assert_eq!(counts["unreadable_samples"][0], "what \\x1b[2J is this");
    assert_eq!(json["not_judged"], serde_json::json!(["from", "reply_to"]));
}

#[tokio::test]
async fn the_table_has_the_facts_of_the_json_and_lines_that_the_configuration_takes() {
    let site = Site::sample().await;
    let log = site.file("mail.log", LOG.as_bytes());
    let run = site.run("--set policy.mail_from.matches=reject --set policy.matches_by=mx", &[&log]).await;
    assert_eq!((run.code, run.err.as_str()), (Some(0), ""), "{}", run.out);
    let squeezed: Vec<_> =
        run.out.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for part in [
        "would be refused 3 2",
        "DNS errors 1 0",
        "mail_from exists no_mx reject 2 1",
        "nomx.test mail_from no_mx reject 2 1 127.0.0.12",
        "broken.test mail_from dns_error defer 1 0 127.0.0.22",
        "Unreadable: what \\x1b[2J is this",
    ] {
        assert!(squeezed.iter().any(|line| line == part), "no {part:?} in\n{}", run.out);
    }
    assert!(run.out.contains("From: and Reply-To: are not in a log"), "{}", run.out);
    let (_, lines) = run.out.split_once("\n[exempt]\n").expect("lines for the configuration");
    let section = format!("[exempt]\n{}\n", lines.split_once("\n\n").unwrap().0);

    let config = site.file(
        "rmxd.toml",
        format!("[policy]\nmatches_by = [\"mx\"]\n[policy.mail_from]\nmatches = \"reject\"\n{section}")
            .as_bytes(),
    );
    let again = site.run(&format!("--json --config {}", config.display()), &[&log]).await.json();
    assert_eq!(again["would_be_refused"], serde_json::json!({"taken": 0, "refused": 1}), "{section}");
}

#[tokio::test]
async fn logs_are_read_packed_in_parts_and_from_standard_input_alike() {
    let site = Site::sample().await;
    let (first, second) = LOG.split_at(LOG.find("Nov 23 12:00:06").unwrap());
    let whole = site.file("mail.log", LOG.as_bytes());
    let old = site.file("mail.log.2.gz", &gzip(first));
    let new = site.file("mail.log.1", second.as_bytes());
    let both = site.file("both.gz", &[gzip(first), gzip(second)].concat());
    let facts = |run: &Run| {
        let mut json = run.json();
        json["seconds"] = Value::Null;
        json["dns_questions"] = Value::Null;
        (run.code, json)
    };
    let expected = facts(&site.run("--json", &[&whole]).await);
    assert_eq!(expected.0, Some(0));
    assert_eq!(facts(&site.run("--json", &[&old, &new]).await), expected);
    assert_eq!(facts(&site.run("--json", &[&both]).await), expected);
    for input in [LOG.as_bytes(), &gzip(LOG)] {
        assert_eq!(facts(&run(&mut site.command("--json -", &[]), input).await), expected);
    }
}

/// The parts of a line of [`LOG`]: host, program, process id, text; `None` for the one that has none.
fn parts(line: &str) -> Option<(&str, &str, &str, &str)> {
    let rest = if line.starts_with("Nov") { line.get(16..)? } else { line.split_once(' ')?.1 };
    let (host, rest) = rest.split_once(' ')?;
    let (process, text) = rest.split_once(": ")?;
    let (program, pid) = process.strip_suffix(']')?.split_once('[')?;
    Some((host, program, pid, text))
}

/// The lines of [`LOG`] that have parts, in another form.
fn in_form(form: impl Fn((&str, &str, &str, &str)) -> String) -> String {
    LOG.lines().filter_map(parts).map(form).collect()
}

/// A field of the export format; text with a line end or other octets would have its length before it, and so may any other.
fn binary(name: &str, data: &str) -> String {
    let length = u64::try_from(data.len()).unwrap().to_le_bytes();
    format!("{name}\n{}{data}\n", String::from_utf8(length.to_vec()).unwrap())
}

#[tokio::test]
async fn every_form_of_a_log_has_the_same_report() {
    let site = Site::sample().await;
    let facts = |run: &Run| {
        let mut json = run.json();
        for name in ["seconds", "dns_questions"] {
            json[name] = Value::Null;
        }
        for name in ["first", "last", "lines", "unreadable", "unreadable_samples"] {
            json["counts"][name] = Value::Null;
        }
        (run.code, json)
    };
    let log = site.file("mail.log", LOG.as_bytes());
    let expected = facts(&site.run("--json", &[&log]).await);
    assert_eq!(expected.0, Some(0));
    assert_eq!(expected.1["counts"]["postfix"], 20);
    type Form = fn((&str, &str, &str, &str)) -> String;
    let forms: [(&str, Form); 13] = [
        ("short", |(host, program, pid, text)| format!("Nov  3 12:00:00 {host} {program}[{pid}]: {text}\n")),
        ("short-precise", |(host, program, pid, text)| {
            format!("Nov 23 12:00:00.123456 {host} {program}[{pid}]: {text}\n")
        }),
        ("no hostname", |(_, program, pid, text)| format!("Nov 23 12:00:00 {program}[{pid}]: {text}\n")),
        ("short-iso", |(host, program, pid, text)| {
            format!("2026-11-23T12:00:00+0100 {host} {program}[{pid}]: {text}\r\n")
        }),
        ("rsyslog", |(host, program, pid, text)| {
            format!("2026-11-23T12:00:00.123456+01:00 {host} {program}[{pid}]: {text}\n")
        }),
        ("short-full", |(host, program, pid, text)| {
            format!("Mon 2026-11-23 12:00:00 CET {host} {program}[{pid}]: {text}\n")
        }),
        ("short-unix", |(host, program, pid, text)| {
            format!("1793876400.123456 {host} {program}[{pid}]: {text}\n")
        }),
        ("FreeBSD", |(host, program, pid, text)| {
            format!("Nov 23 12:00:00 <mail.info> {host} {program}[{pid}]: {text}\n")
        }),
        ("RFC 5424", |(host, program, pid, text)| {
            format!("<22>1 2026-11-23T12:00:00.123456+01:00 {host} {program} {pid} - - {text}\n")
        }),
        ("RSYSLOG_SyslogProtocol23Format", |(host, program, pid, text)| {
            format!("<22>1 2026-11-23T12:00:00.123456+01:00 {host} {program} {pid} - -  {text}\n")
        }),
        ("busybox", |(host, program, pid, text)| {
            format!("Nov 23 12:00:00 {host} mail.info {program}[{pid}]: {text}\n")
        }),
        ("json", |(host, program, pid, text)| {
            let entry = serde_json::json!({"__CURSOR": "s=1", "__REALTIME_TIMESTAMP": "1795431600000000", "_HOSTNAME": host,
                "SYSLOG_IDENTIFIER": program, "_PID": pid, "MESSAGE": text});
            format!("{entry}\n")
        }),
        ("export", |(host, program, pid, text)| {
            let cursor = "__CURSOR=s=1\n__REALTIME_TIMESTAMP=1795431600000000\n";
            let dump = binary("COREDUMP", "ten octets");
            format!(
                "{cursor}{dump}_HOSTNAME={host}\nSYSLOG_IDENTIFIER={program}\n_PID={pid}\nMESSAGE={text}\n\n"
            )
        }),
    ];
    for (name, form) in forms {
        let text = in_form(form);
        for content in [text.clone().into_bytes(), gzip(&text)] {
            let file = site.file("other.log", &content);
            let run = site.run("--json", &[&file]).await;
            assert_eq!(run.json()["counts"]["unreadable"], 0, "{name}: {run:?}");
            assert_eq!(facts(&run), expected, "{name}");
        }
    }
}

#[tokio::test]
async fn texts_alone_have_the_same_senders() {
    let site = Site::sample().await;
    let log = site.file("mail.log", LOG.as_bytes());
    let expected = site.run("--json", &[&log]).await.json();
    let file = site.file("cat.log", in_form(|(.., text)| format!("{text}\n")).as_bytes());
    let run = site.run("--json", &[&file]).await;
    let json = run.json();
    for part in ["senders", "would_be_refused", "passes", "dns_trouble", "in_dns_trouble"] {
        assert_eq!(json[part], expected[part], "{part}: {json:#}");
    }
    // "connect from ..." is the first line, before it is known that there are texts alone
    assert_eq!(json["counts"]["unreadable"], 1);
}

#[tokio::test]
async fn stamps_without_a_year_show_its_turn() {
    let site = Site::sample().await;
    let line = |stamp: &str| format!("{stamp} mx postfix/smtpd[1]: connect from a.test[192.0.2.1]\n");
    let rows: [(&[&str], &str); 5] = [
        (&["Nov 23 12:00:00", "Dec 31 23:59:59"], "From Nov 23 12:00:00 to Dec 31 23:59:59."),
        (
            &["Dec 31 23:59:59", "Jan  1 00:00:00"],
            "From Dec 31 23:59:59 to Jan  1 00:00:00 of the next year.",
        ),
        (
            &["Dec 31 23:59:58", "Jan  1 00:00:00", "Dec 31 23:59:59", "Jan  1 00:00:01"],
            "From Dec 31 23:59:58 to Jan  1 00:00:01 of the next year.",
        ),
        (
            &["Dec 31 23:59:59", "Jan  2 00:00:00", "Jun  2 00:00:00", "Dec 30 00:00:00", "Feb  1 00:00:00"],
            "From Dec 31 23:59:59 to Feb  1 00:00:00 2 years later.",
        ),
        (
            &["Jan  1 00:00:00", "Dec 31 23:59:59"],
            "an earlier year: logs have to be named in the order of their age",
        ),
    ];
    for (stamps, expected) in rows {
        let log =
            site.file("mail.log", stamps.iter().map(|stamp| line(stamp)).collect::<String>().as_bytes());
        let run = site.run("", &[&log]).await;
        assert!(run.out.contains(expected), "{expected}: {}", run.out);
    }
}

#[tokio::test]
async fn a_log_without_mail_names_the_forms_that_are_read() {
    let site = Site::sample().await;
    let log = site.file("mail.log", LOG.as_bytes());
    let other =
        site.file("other.log", b"127.0.0.1 - - [23/Nov/2026:12:00:00 +0100] \"GET / HTTP/1.1\" 200 1\n");
    let empty = site.file("empty.log", b"");
    let run = site.run("", &[&log, &other, &empty]).await;
    let expected = format!("rmxd replay: {}: no line of Postfix. Read are lines of syslog", other.display());
    assert!(run.code == Some(0) && run.err.starts_with(&expected), "{run:?}");
    assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    assert!(run.out.contains("Unreadable: 127.0.0.1 - - [23/Nov/2026"), "{}", run.out);
    let run = site.run("", &[&other]).await;
    assert!(run.out.contains("is this a mail log? Read are lines of syslog"), "{}", run.out);
}

#[tokio::test]
async fn what_is_wrong_has_its_exit_code_and_what_was_read_is_reported() {
    let site = Site::sample().await;
    let log = site.file("mail.log", LOG.as_bytes());
    let packed = gzip(&LOG.repeat(50));
    let cut = site.file("cut.gz", packed.split_at(packed.len() - 9).0);
    let run = site.run("--json", &[&cut, &log]).await;
    assert_eq!(run.code, Some(75));
    assert!(run.err.contains("cut.gz: the gzip file ends too early"), "{}", run.err);
    let json = run.json();
    assert!(json["counts"]["lines"].as_u64() > Some(22 * 10), "both were read: {json:#}");
    assert!(json["problems"][0].as_str().unwrap().contains("cut.gz"));

    let missing = site.folder.path().join("missing.log");
    let rows: [(&str, &[&Path], i32, &str); 5] = [
        ("", &[], 64, "MAILLOG"),
        ("", &[&log, &missing], 64, "missing.log"),
        ("", &[site.folder.path()], 64, "is a directory"),
        ("--rate 0", &[&log], 64, "--rate"),
        ("--set policy.mode=off", &[&log], 78, "policy.mode"),
    ];
    for (arguments, logs, code, part) in rows {
        let run = site.run(arguments, logs).await;
        assert_eq!((run.code, run.out.as_str()), (Some(code), ""), "{arguments}");
        assert!(run.err.contains(part), "{arguments}: {}", run.err);
    }
    let none = site.file("other.log", b"Nov 23 12:00:09 mx sshd[7]: hello\n");
    let run = site.run("", &[&none]).await;
    assert!(run.code == Some(0) && run.out.contains("is this a mail log?"), "{}", run.out);
}

#[tokio::test]
async fn only_what_can_refuse_is_asked_each_question_once_and_at_the_given_pace() {
    let site = Site::sample().await;
    let mut log = String::new();
    for number in 0..400 {
        accepted(&mut log, number, "192.0.2.1", &format!("d{}.nowhere.test", number % 40));
    }
    let log = site.file("mail.log", log.as_bytes());
    let began = Instant::now();
    let json = site.run("--json --rate 50 --concurrency 2", &[&log]).await.json();
    assert_eq!(json["would_be_refused"]["taken"], 400);
    // a name that doesn't exist costs three questions: MX, A and AAAA
    assert_eq!((&json["different_senders"], &json["dns_questions"]), (&40.into(), &120.into()));
    assert_eq!(site.server.questions().total, 120, "neither PTR nor what only tags");
    assert!(began.elapsed() > Duration::from_millis(600), "{:?}", began.elapsed());
}

#[tokio::test]
async fn an_interrupted_run_reports_what_was_judged() {
    let site = Site::sample().await;
    let mut log = String::new();
    (0..200).for_each(|number| accepted(&mut log, number, "192.0.2.1", &format!("d{number}.nowhere.test")));
    let log = site.file("mail.log", log.as_bytes());
    let mut command = site.command("--json --rate 20 --concurrency 1", &[&log]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    process::eventually("a question", PATIENCE, || (site.server.questions().total > 15).then_some(())).await;
    process::signal(child.id(), "INT");
    let output = tokio::task::spawn_blocking(|| child.wait_with_output().unwrap()).await.unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &json["interrupted"]), (Some(75), &true.into()));
    let judged = json["would_be_refused"]["taken"].as_u64().unwrap();
    assert!((3..150).contains(&judged) && json["counts"]["messages"]["taken"] == 200, "{json:#}");
}

/// The lines of a message that Postfix took.
fn accepted(log: &mut String, number: u32, client: &str, domain: &str) {
    let (process, id) = (number % 100, number % 0xff_ffff);
    let postfix = "Nov 23 12:00:00 mx postfix";
    writeln!(
        log,
        "{postfix}/smtpd[{process}]: connect from host.test[{client}]\n\
         {postfix}/smtpd[{process}]: 4{id:09X}: client=host.test[{client}]\n\
         {postfix}/cleanup[7]: 4{id:09X}: message-id=<{number}@{domain}>\n\
         {postfix}/qmgr[8]: 4{id:09X}: from=<user{number}@{domain}>, size=4711, nrcpt=1 (queue active)\n\
         {postfix}/smtpd[{process}]: disconnect from host.test[{client}] ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5\n\
         {postfix}/lmtp[9]: 4{id:09X}: to=<u@here.test>, relay=here.test[127.0.0.1]:24, delay=0.1, dsn=2.0.0, status=sent (250 ok)\n\
         {postfix}/qmgr[8]: 4{id:09X}: removed"
    )
    .unwrap();
}

/// The lines of one that it refused.
fn refused(log: &mut String, number: u32, client: &str, domain: &str) {
    let process = number % 100 + 100;
    let postfix = "Nov 23 12:00:00 mx postfix";
    writeln!(
        log,
        "{postfix}/smtpd[{process}]: connect from unknown[{client}]\n\
         {postfix}/smtpd[{process}]: NOQUEUE: reject: RCPT from unknown[{client}]: 554 5.7.1 <u@here.test>: Relay access denied; \
         from=<user{number}@{domain}> to=<u@here.test> proto=ESMTP helo=<{domain}>\n\
         {postfix}/smtpd[{process}]: disconnect from unknown[{client}] ehlo=1 mail=1 rcpt=0/1 commands=2/3"
    )
    .unwrap();
}

/// A million lines where it is the release build that runs, and a twentieth of that else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_is_read_and_judged_in_less_than_a_minute() {
    const VALID: u32 = 20_000;
    let release = std::env::var_os("RMXD_BIN");
    let rounds = if release.is_some() { 100_000 } else { 5_000 };
    let site = Site::new(Zone::generated(VALID)).await;
    let mut log = String::new();
    for number in 0..rounds {
        let domain = number % VALID;
        let client = generated::address(domain).to_string();
        match number % 10 {
            0 => accepted(&mut log, number, &client, &format!("d{}.{}", number % 1000, generated::NO_MX)),
            _ => accepted(&mut log, number, &client, &format!("d{domain}.{}", generated::VALID)),
        }
        // half of the spoofed names come once and never again
        let spoofed = if number % 2 == 0 { number } else { number % 500 };
        refused(&mut log, number, "192.0.2.1", &format!("s{spoofed}.{}", generated::SPOOFED));
    }
    let lines = log.lines().count();
    let file = site.file("mail.log.gz", &gzip(&log));
    let mut command = site.command("--json", &[&file]);
    if let Some(program) = release {
        let mut other = Command::new(program);
        other.args(command.get_args()).env_clear();
        command = other;
    }
    let began = Instant::now();
    let run = run(&mut command, b"").await;
    let took = began.elapsed();
    let json = run.json();
    eprintln!(
        "{lines} lines in {took:.1?}: {} senders, {} questions to DNS",
        json["different_senders"], json["dns_questions"]
    );
    assert_eq!((run.code, &json["counts"]["lines"]), (Some(0), &lines.into()), "{}", run.err);
    assert_eq!(json["counts"]["unreadable"], 0);
    let (taken, no_mx) = (rounds, rounds / 10);
    assert_eq!(json["counts"]["messages"], serde_json::json!({"taken": taken, "refused": rounds}));
    assert_eq!(json["would_be_refused"], serde_json::json!({"taken": no_mx, "refused": rounds}));
    assert_eq!(json["passes"], serde_json::json!({"taken": taken - no_mx, "refused": 0}));
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// SPF that rests on the local part: only `ann` may send.
const LOCAL_PARTS: &str = "$ORIGIN test.
$TTL 60
one MX 10 mail.one
one TXT \"v=spf1 exists:%{l}.users.test -all\"
mail.one A 127.0.0.10
two MX 10 mail.two
two TXT \"v=spf1 exists:%{l}.users.test -all\"
mail.two A 127.0.0.10
ann.users A 127.0.0.2
postmaster.users A 127.0.0.2
";

#[tokio::test]
async fn the_address_of_a_line_is_judged_and_not_its_domains_postmaster() {
    let site = Site::new(Zone::parse(LOCAL_PARTS, None).unwrap()).await;
    let verp = format!("bounce-{}-user=here.test", "0".repeat(80));
    let mut log = String::new();
    for (number, sender) in ["ann@one.test", "bob@two.test", &format!("{verp}@two.test"), "a..b@two.test."]
        .into_iter()
        .enumerate()
    {
        write!(
            log,
            "Nov 23 12:00:00 mx postfix/smtpd[1]: 4F{number:08X}: client=unknown[127.0.0.13]\n\
             Nov 23 12:00:00 mx postfix/qmgr[2]: 4F{number:08X}: from=<{sender}>, size=1, nrcpt=1 (queue active)\n"
        )
        .unwrap();
    }
    let refused = "Nov 23 12:00:04 mx postfix/smtpd[4]: NOQUEUE: reject: RCPT from unknown[127.0.0.13]: 550 5.1.8 x; \
                   from=<MAILER-DAEMON> to=<u@here.test> proto=ESMTP helo=<x>\n";
    log.push_str(refused);
    let log = site.file("mail.log", log.as_bytes());
    let arguments = "--json --set policy.mail_from.matches=reject --set policy.matches_by=spf";
    let json = site.run(arguments, &[&log]).await.json();
    assert_eq!(
        lines(&json["senders"], "identity rule reason domain taken refused"),
        [
            "mail_from matches not_an_exchanger two.test 3 0",
            "mail_from exists invalid_domain MAILER-DAEMON 0 1"
        ],
        "{json:#}"
    );
    assert_eq!(json["passes"], serde_json::json!({"taken": 1, "refused": 0}));
    assert_eq!(json["no_address"], serde_json::json!({"taken": 0, "refused": 0}));
}
