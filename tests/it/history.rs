//! `rmxd explain` and `rmxd history`: the real binary, beside a real daemon and after it, asked about real dialogues.

mod refusals;
mod sql;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rmxd::decision::Id;
use rmxd::zone;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::admin::http::Request;
use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, any_port, configuration};
use crate::support::process::{Run, SOON, eventually, free_address, rmxd};
use crate::support::zone::Zone;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12));
const USER: &str = "user@here.test";
/// The daemon writes what it decided once a second; twice that for a busy machine.
const WRITTEN: Duration = Duration::from_millis(2_000);

/// A daemon that keeps a history in its folder.
async fn start(zone: SocketAddr, address: SocketAddr, more: &str) -> Daemon {
    let text = configuration("gate.test", &[address], zone, &with_relay(more));
    Daemon::start(&text, &["--set", "history.path=decisions"]).await
}

fn with_relay(more: &str) -> String {
    format!("[relay]\ndomains = [\"here.test\"]\n{more}")
}

/// The same again, in the same place.
async fn again(home: Home) -> Daemon {
    let mut command = home.serve();
    command.args(["--set", "history.path=decisions"]);
    Daemon::spawn(command, home).await
}

/// A command with the daemon's configuration; the arguments are parted by blanks.
fn run(home: &Home, arguments: &str) -> Run {
    Run::of(&mut command_of(home, arguments))
}

fn command_of(home: &Home, arguments: &str) -> Command {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    let mut command = rmxd(&arguments);
    if arguments.contains(&"--would") {
        // --config would be the configuration that is tried
        command.env("RMXD_CONFIG", home.file());
    } else {
        command.arg("--config").arg(home.file());
    }
    if !arguments.iter().any(|argument| argument.starts_with("history.path=")) {
        command.args(["--set", "history.path=decisions"]);
    }
    command.current_dir(home.path());
    command
}

/// What a reply says behind `id`.
fn id(reply: &str) -> &str {
    let (_, id) = reply.split_once("(id ").unwrap_or_else(|| panic!("no id in {reply}"));
    id.split_once(')').unwrap().0
}

/// One message; the last reply.
async fn send(from: IpAddr, to: SocketAddr, sender: &str, author: &str) -> String {
    let message = format!("From: {author}\r\n\r\nHello\r\n");
    let mut client = Client::greeted(from, to, "mail.good.test").await;
    client.deliver(sender, USER, message.as_bytes()).await.text
}

/// The lines below one identity, without how each record is known.
fn below(tree: &str, identity: &str) -> Vec<String> {
    let begins =
        |line: &str| line.strip_prefix(['├', '└']).is_some_and(|rest| rest == format!("─ {identity}"));
    let after = tree.lines().skip_while(|line| !begins(line)).skip(1);
    let own = after.take_while(|line| line.starts_with(['│', ' ']));
    own.map(|line| line.split("  (").next().unwrap().trim_end().to_owned()).collect()
}

fn parse(text: &str) -> zone::Zone {
    zone::Zone::parse(text, None).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_explained_with_the_records_as_they_were_then() {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let ptr = "12.0.0.127.in-addr.arpa. 60 IN PTR host.late.test.\nhost.late.test. 60 IN A 127.0.0.12\n";
    let before = format!("{ptr}late.test. 60 IN TXT \"no MX yet\"\n");
    let after = format!("{ptr}late.test. 60 IN MX 10 mail.late.test.\nmail.late.test. 60 IN A 127.0.0.12\n");
    let zone = zone::Server::start(loopback, parse(&before)).await.unwrap();
    let address = free_address();
    let daemon = start(
        zone.address(),
        address,
        "[reply]\nhelp_url = \"https://mail.test/why\"\n[policy.mail_from]\nmatches = \"off\"",
    )
    .await;
    let reply = send(CLIENT, address, "ann@late.test", "ann@late.test").await;
    let refused = "550 5.1.8 <ann@late.test>: late.test has no MX record (id ";
    assert!(reply.starts_with(refused), "{reply}");
    let arguments = "check --client 127.0.0.12 --helo mail.good.test --mail-from ann@late.test";
    let check = run(daemon.home(), arguments);
    assert_eq!(check.code, Some(1), "{check:?}");
    let waited = Instant::now();

    zone.replace(parse(&after));
    let now = run(daemon.home(), arguments);
    assert_eq!(now.code, Some(0), "the domain is mended: {now:?}");

    let id = id(&reply);
    let first = run(daemon.home(), &format!("explain {id}"));
    assert!(waited.elapsed() < SOON);
    assert_eq!((first.code, first.err.as_str()), (Some(0), ""), "{first:?}");
    let mail_from = below(&first.out, "mail_from");
    assert!(mail_from.iter().any(|line| line.contains("─ MX late.test: no MX record")), "{}", first.out);
    assert_eq!(mail_from, below(&check.out, "mail_from"), "{}\n{}", first.out, check.out);
    for part in [
        &format!("id:        {id}, 20"),
        "\nverdict:   reject, because of mail_from: exists no_mx\n",
        &format!("\nreply:     {reply}\n"),
        "\nhelp:      The domain exists but takes no mail.",
        "\nclient:    127.0.0.12",
        "\nhelo:      mail.good.test\n",
        "\nmail_from: <ann@late.test>\n",
        "\nrcpt:      user@here.test\n",
        "─ helo: off, not looked up\n",
        "─ from: not looked at, the envelope decided\n",
        "  <-- decides\n",
    ] {
        assert!(first.out.contains(part), "no {part:?} in\n{}", first.out);
    }
    // it is what was written down: it doesn't age, and needs neither DNS nor daemon
    zone.stop().await;
    let home = daemon.terminate().await;
    assert!(!home.path().join("decisions-wal").exists(), "all is in the file");
    let later = run(&home, &format!("explain {}", id.to_lowercase()));
    assert_eq!((later.code, &later.out), (Some(0), &first.out));
    let json = run(&home, &format!("explain {id} --json")).json();
    assert_eq!((&json["id"], &json["reason"], &json["rcpt"]), (&id.into(), &"no_mx".into(), &USER.into()));
    assert_eq!((&json["reply"], &json["refused"]), (&reply.as_str().into(), &true.into()));
    assert_eq!(json["also"], Value::Array(vec![]));
    let record = &json["findings"][0]["evidence"][0];
    assert_eq!(
        (&record["question"], &record["answer"]),
        (&"MX late.test".into(), &"no record of this type".into())
    );
    assert!(record["ttl_left"].is_number() && record["age"].is_number(), "{record}");
}

#[tokio::test(flavor = "multi_thread")]
async fn accepted_mail_is_listed_beside_refused_mail_and_filters_part_them() {
    let (zone, address) = (Zone::start(), free_address());
    let daemon = start(zone.address(), address, "").await;
    let exchanger = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
    assert!(send(exchanger, address, "a@good.test", "a@good.test").await.starts_with("250"));
    let spoof = send(CLIENT, address, "a@nomx.test", "a@nomx.test").await;
    let author = send(exchanger, address, "a@good.test", "a@nowhere.test").await;
    let deferred = send(exchanger, address, "a@broken.test", "a@good.test").await;
    let ids = [&spoof, &author, &deferred].map(|reply| id(reply).to_owned());
    // explain waits for what is not written yet, so that all is written afterwards
    let explained = run(daemon.home(), &format!("explain {}", ids[2]));
    assert!(explained.out.contains("temperror (SERVFAIL) [defer]  <-- decides"), "{explained:?}");
    let [spoof, author, deferred] = ids;
    let rows: [(&str, &[&str]); 16] = [
        ("--rcpt User@HERE.test", &[&deferred, &author, &spoof, "-"]),
        ("--outcome delivered", &["-"]),
        ("--queue none", &[]),
        ("--tag not_an_exchanger", &[&author]),
        ("", &[&deferred, &author, &spoof, "-"]),
        ("--verdict reject", &[&author, &spoof]),
        ("--verdict defer", &[&deferred]),
        ("--verdict accept", &["-"]),
        ("--reason no_mx", &[&spoof]),
        ("--identity from", &[&author, "-"]),
        ("--domain nowhere.test", &[&author]),
        ("--domain test --client 127.0.0.12", &[&spoof]),
        ("--client 127.0.0.8/29", &[&deferred, &author, &spoof, "-"]),
        ("--since 1h --limit 2", &[&deferred, &author]),
        ("--until 1h", &[]),
        ("--since 2020-01-01 --until 2020-01-02T00:00:00Z", &[]),
    ];
    for (arguments, expected) in rows {
        let listed = run(daemon.home(), &format!("history --json {arguments}"));
        let code = if expected.is_empty() { 1 } else { 0 };
        assert_eq!((listed.code, listed.err.as_str()), (Some(code), ""), "{arguments}: {listed:?}");
        let json = listed.json();
        let found = json.as_array().unwrap().iter().map(|record| match record["verdict"].as_str() {
            Some("accept") => "-",
            _ => record["id"].as_str().unwrap(),
        });
        assert_eq!(found.collect::<Vec<_>>(), expected, "{arguments}");
        assert!(json.as_array().unwrap().iter().all(|record| record.get("findings").is_none()));
    }
    for arguments in [format!("--id {}", spoof.to_lowercase()), "--sender A@nomx.test".to_owned()] {
        let listed = run(daemon.home(), &format!("history --json {arguments}")).json();
        let found: Vec<_> = listed.as_array().unwrap().iter().map(|record| record["id"].as_str()).collect();
        assert_eq!(found, [Some(spoof.as_str())], "{arguments}");
    }
    let table = run(daemon.home(), "history --limit 3");
    let lines: Vec<_> = table.out.lines().collect();
    assert!(lines[0].starts_with("TIME (UTC) "), "{}", table.out);
    assert!(lines[2].contains(&author) && lines[2].contains(" nowhere.test "), "{}", table.out);
    assert_eq!(lines[4], "and older ones (--limit)", "{}", table.out);
    let accepted = run(daemon.home(), "history --json --verdict accept").json()[0].clone();
    let explained = run(daemon.home(), &format!("explain {}", accepted["id"].as_str().unwrap()));
    assert!(explained.out.contains("\nverdict:   accept\n"), "{}", explained.out);
    assert!(explained.out.contains("exists of a@good.test: pass (mx) [reject]"), "{}", explained.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_reads_and_writes_local_time_and_a_program_utc() {
    let (zone, address) = (Zone::start(), free_address());
    let daemon = start(zone.address(), address, "").await;
    let reply = send(CLIENT, address, "a@nomx.test", "a@nomx.test").await;
    let id = id(&reply);
    let local = |arguments: &str| {
        let mut command = command_of(daemon.home(), arguments);
        Run::of(command.env("TZ", "XYZ-5:45"))
    };
    let explained = local(&format!("explain {id}"));
    let json = local(&format!("explain {id} --json")).json();
    let at = humantime::parse_rfc3339(json["at"].as_str().unwrap()).unwrap();
    // a zone of 5 h 45 min before UTC has its clock that much later
    let there = humantime::format_rfc3339_millis(at + Duration::from_secs((5 * 60 + 45) * 60)).to_string();
    let there = there.trim_end_matches('Z').replace('T', " ");
    assert!(
        explained.out.starts_with(&format!("id:        {id}, {there} XYZ\n")),
        "{there}: {}",
        explained.out
    );
    let table = local("history");
    let (_, clock) = there.split_once(' ').unwrap();
    let row = table.out.lines().nth(1).unwrap();
    assert!(
        table.out.starts_with("TIME (XYZ) ") && row.contains(clock.split_once('.').unwrap().0),
        "{}",
        table.out
    );
    assert_eq!(local("history --json").json()[0]["at"], json["at"]);

    let minute =
        |at: SystemTime| humantime::format_rfc3339_seconds(at).to_string().trim_end_matches('Z').to_owned();
    let (before, hours) = (at - Duration::from_secs(60), Duration::from_secs((5 * 60 + 45) * 60));
    for (since, code) in [
        (minute(before + hours), 0),
        (format!("{}Z", minute(before)), 0),
        (format!("{}+05:45", minute(before + hours)), 0),
        (format!("{}Z", minute(before + hours)), 1),
        ("1h".to_owned(), 0),
    ] {
        let found = local(&format!("history --since {since}"));
        assert_eq!(found.code, Some(code), "{since}: {found:?}");
    }
    let wrong = local("history --since yesterday");
    assert_eq!(wrong.code, Some(64), "{wrong:?}");
    assert!(wrong.err.starts_with("rmxd: --since: \"yesterday\" is neither an age such as"), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn would_sums_up_what_monitor_mode_let_pass_with_lines_to_exempt_it() {
    let (zone, address) = (Zone::start(), free_address());
    let daemon = start(zone.address(), address, "[policy]\nmode = \"monitor\"").await;
    let nothing = run(daemon.home(), "history --would");
    assert_eq!(nothing.code, Some(1), "{nothing:?}");
    for sender in ["a@nomx.test", "b@nomx.test", "a@nowhere.test", "a@good.test"] {
        let reply = send(CLIENT, address, sender, "a@good.test").await;
        assert!(reply.starts_with("250"), "{reply}");
    }
    let is_written = |would: &Run| would.out.starts_with("3 would");
    let would = || Some(run(daemon.home(), "history --would")).filter(is_written);
    let would = eventually("what would have been refused", SOON, would).await;
    assert_eq!((would.code, would.err.as_str()), (Some(0), ""), "{would:?}");
    assert!(would.out.starts_with("3 would have been refused, and why\n"), "{}", would.out);
    let rows: Vec<_> = would.out.lines().filter(|line| line.contains("127.0.0.12")).collect();
    assert!(rows[0].starts_with("nomx.test ") && rows[0].contains(" no_mx "), "{}", would.out);
    assert!(rows[1].starts_with("nowhere.test "), "{}", would.out);
    assert!(
        would.out.ends_with(
            "\n[exempt]\n# all mail from these clients passes, whatever sender it names\nclients = [\"127.0.0.12\"]\n"
        ),
        "{}",
        would.out
    );
    let json = run(daemon.home(), "history --would --json --domain nomx.test").json();
    assert_eq!((&json["would_be_refused"], &json["refused"]), (&2.into(), &0.into()));
    let lines =
        ["# all mail from these clients passes, whatever sender it names", "clients = [\"127.0.0.12\"]"];
    assert_eq!(json["exempt"], serde_json::json!(lines));
    assert_eq!(json["senders"][0]["opens"], "all mail from this client passes, whatever sender it names");
    let listed = run(daemon.home(), "history --verdict reject --limit 1");
    assert!(listed.out.contains(" reject (monitor) "), "{}", listed.out);
    let one = run(daemon.home(), "history --verdict reject --json").json()[0].clone();
    assert_eq!((&one["refused"], &one["mode"]), (&false.into(), &"monitor".into()));
    let explained = run(daemon.home(), &format!("explain {}", one["id"].as_str().unwrap()));
    assert!(
        explained.out.contains("reject (mode monitor: accepted all the same), because of"),
        "{explained:?}"
    );
    assert!(explained.out.contains("\nreply:     550 5.1.8 <a@nowhere.test>: "), "what it would have been");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_greylisting_said_to_each_recipient_is_under_one_id() {
    let (zone, address) = (Zone::start(), free_address());
    let daemon =
        start(zone.address(), address, "[policy.mail_from]\nmatches = \"greylist\"\nmatches_by = [\"mx\"]")
            .await;
    let mut client = Client::greeted(CLIENT, address, "mail.good.test").await;
    client.command("MAIL FROM:<a@good.test>").await;
    let first = client.command("RCPT TO:<one@here.test>").await.text;
    let second = client.command("RCPT TO:<two@here.test>").await.text;
    assert_eq!(id(&first), id(&second));
    let explained = run(daemon.home(), &format!("explain {}", id(&first)));
    for part in ["\nrcpt:      one@here.test\n", "\nrcpt:      two@here.test\n", "\nid:        "] {
        assert!(explained.out.contains(part), "no {part:?} in\n{}", explained.out);
    }
    let json = run(daemon.home(), &format!("explain {} --json", id(&first))).json();
    assert_eq!((&json["rcpt"], &json["also"][0]["rcpt"]), (&"two@here.test".into(), &"one@here.test".into()));
    assert!(second.starts_with(json["reply"].as_str().unwrap()), "{second}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_not_kept_is_placed_among_those_that_are() {
    let (zone, address, admin) = (Zone::start(), free_address(), free_address());
    let text = configuration("gate.test", &[address], zone.address(), &with_relay(""));
    let text = text.replace("admin = \"\"", &format!("admin = \"{admin}\""));
    let daemon = Daemon::start(&text, &["--set", "history.path=decisions"]).await;
    let reply = send(CLIENT, address, "a@nomx.test", "a@nomx.test").await;
    let kept = Id::parse(id(&reply)).unwrap();
    assert_eq!(run(daemon.home(), &format!("explain {kept}")).code, Some(0));
    // 16 nodes may share a count
    let [before, after] = [kept.number() - 1600, kept.number() + 1600].map(Id::nth);
    let rows = [
        (before, format!("It was given before the oldest decision that is kept ({kept}, 20")),
        (after, format!("It would come after the latest decision that is kept ({kept}, 20")),
    ];
    for (missing, expected) in &rows {
        let told = run(daemon.home(), &format!("explain {missing}"));
        assert_eq!((told.code, told.out.as_str()), (Some(1), ""));
        let lines: Vec<_> = told.err.lines().collect();
        assert_eq!(lines[0], format!("rmxd: no decision {missing} in decisions"));
        assert!(lines[1].starts_with(expected), "{}", told.err);
        assert!(lines[1].ends_with(" Since its start the daemon has left out none."), "{}", told.err);
        assert!(lines[2].contains(&format!("journalctl -u rmxd | grep {missing} ")), "{}", told.err);
        let response = Request::get(&format!("/api/v1/decisions/{missing}")).send(admin).await;
        let detail = response.json()["detail"].as_str().unwrap().to_owned();
        assert_eq!(response.status, 404);
        assert!(detail.starts_with(&format!("no decision \"{missing}\" is kept: {expected}")), "{detail}");
    }
    // Without a daemon nobody knows what it left out.
    let home = daemon.terminate().await;
    let told = run(&home, &format!("explain {before}"));
    assert!(told.err.contains(&rows[0].1) && !told.err.contains("left out none"), "{}", told.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_has_its_exit_code_and_its_sentence() {
    let (zone, address) = (Zone::start(), free_address());
    let daemon = start(zone.address(), address, "").await;
    let folder = daemon.home().path().canonicalize().unwrap();
    let nowhere = format!("there is no history in {}/nowhere (history.path)", folder.display());
    let rows = [
        ("explain 00000000", 1, "no decision 00000000 in decisions"),
        ("history", 1, "no matching decisions in decisions"),
        ("explain", 64, "<ID>"),
        ("explain 4KXN7Q2", 64, "has 7 characters: an id has eight letters and digits, as in (id 4KXN7Q2M)"),
        ("explain 4KXN7Q2U", 64, "has a U, which no id has"),
        ("explain 00000000", 1, "\nThe history has no decision yet."),
        (
            "explain 00000000",
            1,
            "\nThe log may have its line: journalctl -u rmxd | grep 00000000 (with log.format",
        ),
        (
            "explain 00000000 --set history.path=",
            78,
            "no history is kept. The log may have its line: journalctl",
        ),
        ("history --outcome no", 64, "--outcome: \"no\" is not allowed: delivered, refused, relay_refused, "),
        ("history --verdict no", 64, "--verdict: \"no\" is not allowed: accept, defer, reject"),
        ("history --reason no", 64, "--reason: \"no\" is not allowed: no_such_domain, "),
        ("history --client here", 64, "--client: \"here\" is neither an address nor a network"),
        ("history --since soon", 64, "--since: \"soon\" is neither an age such as"),
        ("history --limit 0", 64, "--limit"),
        ("history --id no", 64, "--id: \"no\" is not an id: "),
        ("history --sender no", 64, "--sender: \"no\" is neither an address such as"),
        ("history --history /sys", 64, "--history: /sys is a folder: name the file of the history in it"),
        ("history --set history.path=", 78, "history.path is empty, so no history is kept"),
        ("history --set history.path=nowhere", 75, nowhere.as_str()),
        ("explain 4KXN7Q2M --set history.path=nowhere", 75, "keeps its decisions in memory until it ends"),
        (
            "explain 4KXN7Q2M --set history.path=nowhere",
            75,
            "\nThe log may have its line: journalctl -u rmxd | grep",
        ),
        ("history --set history.path=rmxd.toml", 75, "rmxd.toml: "),
        ("history --set history.keep=0s", 78, "history.keep"),
    ];
    for (arguments, code, part) in rows {
        let run = run(daemon.home(), arguments);
        assert_eq!((run.code, run.out.as_str()), (Some(code), ""), "{arguments}: {run:?}");
        assert!(run.err.contains(part), "{arguments}: {}", run.err);
    }
    // a second daemon doesn't get the file
    let other = Home::with(&configuration("gate.test", &[any_port()], zone.address(), &with_relay("")));
    let path = folder.join("decisions");
    let mut command = other.serve();
    command.args(["--set", &format!("history.path={}", path.display())]);
    let mut other = Daemon::launch(command, other);
    assert_eq!(other.ended(SOON).await.code(), Some(75), "{}", other.log());
    let said = format!("history.path: {}: in use by another rmxd", path.display());
    assert!(other.log().contains(&said), "{}", other.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_takes_another_file_and_the_old_one_back() {
    let (zone, address) = (Zone::start(), free_address());
    let text = |history: &str| {
        let text = configuration("gate.test", &[address], zone.address(), &with_relay(""));
        text.replace("path = \"\"", history)
    };
    let mut daemon = Daemon::start(&text("path = \"one\""), &[]).await;
    let mut open = Client::greeted(CLIENT, address, "mail.good.test").await;
    let mut replies = vec![("one", send(CLIENT, address, "a@nomx.test", "").await)];
    let others = ["path = \"two\"\nkeep = \"1d\"", "path = \"\"", "path = \"one\"\nsize = \"2MiB\""];
    for (history, folder) in others.into_iter().zip(["two", "", "one"]) {
        daemon.home().configure(&text(history));
        let log = daemon.reload().await;
        assert!(log.contains("serve: reloaded"), "{log}");
        replies.push((folder, send(CLIENT, address, "a@nomx.test", "").await));
    }
    // a session from before is remembered where it began
    open.command("MAIL FROM:<a@nomx.test>").await;
    replies.push(("one", open.command(&format!("RCPT TO:<{USER}>")).await.text));
    drop(open);
    let home = daemon.terminate().await;
    for (folder, reply) in &replies {
        for place in ["one", "two"] {
            let explained = run(&home, &format!("explain {} --set history.path={place}", id(reply)));
            let code = if place == *folder { 0 } else { 1 };
            assert_eq!(explained.code, Some(code), "{folder} {place}: {explained:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_under_load_the_history_opens_again_and_misses_the_last_second_at_most() {
    let (zone, address) = (Zone::start(), free_address());
    let mut daemon = start(zone.address(), address, "").await;
    let answered: Arc<Mutex<HashMap<String, (String, Instant)>>> = Arc::default();
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let answered = Arc::clone(&answered);
            tokio::spawn(async move {
                let from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, client));
                let mut connection = Client::greeted(from, address, "mail.good.test").await;
                for number in 0.. {
                    let domain = format!("c{client}-{number}.nowhere.test");
                    connection.command(&format!("MAIL FROM:<a@{domain}>")).await;
                    let reply = connection.command(&format!("RCPT TO:<{USER}>")).await;
                    assert_eq!(reply.code, 550, "{}", reply.text);
                    let id = id(&reply.text).to_owned();
                    answered.lock().unwrap().insert(id, (domain, Instant::now()));
                    connection.command("RSET").await;
                    sleep(Duration::from_millis(1)).await;
                }
            })
        })
        .collect();
    let old = |now: Instant| {
        let answered = answered.lock().unwrap();
        answered.values().filter(|(_, at)| now.saturating_duration_since(*at) > WRITTEN).count()
    };
    eventually("load, and for some time", SOON, || (old(Instant::now()) > 100).then_some(())).await;
    let killed = Instant::now();
    daemon.signal("KILL");
    daemon.ended(SOON).await;
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    let home = daemon.into_home();

    // as it was left, and by a daemon that goes on with it
    let left = run(&home, "history --json --limit 1000000");
    assert_eq!((left.code, left.err.as_str()), (Some(0), ""));
    let daemon = again(home).await;
    let reply = send(CLIENT, address, "a@nomx.test", "").await;
    assert_eq!(run(daemon.home(), &format!("explain {}", id(&reply))).code, Some(0));
    let listed = run(daemon.home(), "history --json --limit 1000000 --reason no_such_domain");
    assert_eq!((listed.code, listed.err.as_str()), (Some(0), ""));
    assert_eq!(listed.json(), left.json());
    let domains: HashMap<String, String> = listed
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|record| ["id", "domain"].map(|name| record[name].as_str().unwrap().to_owned()).into())
        .collect();
    assert!(old(killed) > 100, "too few to tell");
    let answered = answered.lock().unwrap();
    for (id, (domain, at)) in answered.iter() {
        match domains.get(id) {
            Some(found) => assert_eq!(found, domain, "{id}"),
            None => {
                let age = killed.saturating_duration_since(*at);
                assert!(age < WRITTEN, "{id} was answered {age:?} before the end");
            }
        }
    }
}
