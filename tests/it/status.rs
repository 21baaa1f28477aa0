//! `rmxd status` beside real daemons: what is well, what is wrong, and who answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rmxd::zone::{self, Zone};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixStream};
use tokio::time::{Instant, sleep};

use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, configuration};
use crate::support::process::{Run, SOON, free_address, rmxd};

/// An exchanger of good.test, and the client of nomx.test.
const GOOD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const BAD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12));

async fn zone() -> zone::Server {
    zone::Server::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Zone::sample()).await.unwrap()
}

/// A configuration with `listen.admin`; `more` goes below.
fn text(dns: SocketAddr, admin: &str, smtp: SocketAddr, more: &str) -> String {
    let text =
        configuration("gate.test", &[smtp], dns, &format!("[relay]\ndomains = [\"here.test\"]\n{more}"));
    let admin = format!("admin = \"{admin}\"");
    text.replace("admin = \"\"", &admin).replace("path = \"\"", "path = \"decisions\"")
}

/// `rmxd status` with the daemon's configuration. The time zone is one without a file.
fn status(home: &Home, arguments: &[&str]) -> Run {
    let mut command = rmxd(&["status", "--config"]);
    command.arg(home.file()).args(arguments).current_dir(home.path()).env("TZ", "XYZ-5:30");
    Run::of(&mut command)
}

/// Asks until there is this line; the screen then.
async fn until(home: &Home, line: &str) -> Run {
    let began = Instant::now();
    loop {
        let run = status(home, &[]);
        // a text may be broken at any blank
        if run.out.split_whitespace().collect::<Vec<_>>().join(" ").contains(line) {
            return run;
        }
        assert!(began.elapsed() < SOON * 3, "no {line:?}: {run:?}");
        sleep(Duration::from_millis(200)).await;
    }
}

fn assert_one_screen(run: &Run) {
    assert!(run.out.lines().count() < 24, "{}", run.out);
    for line in run.out.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(!run.out.contains('\u{1b}') && run.err.is_empty(), "{run:?}");
}

/// The part of a name on one line, without its mark.
fn part(run: &Run, name: &str) -> String {
    let own = |line: &&str| line.get(4..).is_some_and(|rest| rest.split(' ').next() == Some(name));
    let lines = run.out.lines().skip_while(|line| !own(line));
    let rest = lines.clone().skip(1).take_while(|line| line.starts_with("    "));
    let words: Vec<&str> = lines.take(1).chain(rest).flat_map(str::split_whitespace).skip(2).collect();
    words.join(" ")
}

async fn deliver(to: SocketAddr, from: IpAddr, sender: &str) -> u16 {
    let mut client = Client::greeted(from, to, "mail.good.test").await;
    client.deliver(sender, "user@here.test", b"From: a@good.test\r\n\r\nHello\r\n").await.code
}

#[tokio::test(flavor = "multi_thread")]
async fn all_doors_are_on_one_screen_with_what_came_through_them() {
    let (zone, admin, smtp) = (zone().await, free_address(), free_address());
    let (milter, home) = (free_address(), Home::new());
    let policy = home.path().join("policy");
    let config = text(zone.address(), &admin.to_string(), smtp, "");
    let doors = format!("[listen]\nmilter = [\"{milter}\"]\npolicy = [\"unix:{}\"]\n", policy.display());
    home.configure(&config.replace("[listen]\n", &doors));
    let daemon = Daemon::spawn(home.serve(), home).await;
    assert_eq!(deliver(smtp, GOOD, "a@good.test").await, 250);
    assert_eq!(deliver(smtp, BAD, "a@nomx.test").await, 550);
    let _open = Client::greeted(GOOD, smtp, "mail.good.test").await;
    let mut stream = UnixStream::connect(&policy).await.unwrap();
    let request = "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=127.0.0.12\n\
                   sender=a@nomx.test\nrecipient=user@here.test\ninstance=1\n\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.unwrap();

    let run = until(daemon.home(), "per minute: 0 accept, 0 defer, 1.0 reject").await;
    assert_one_screen(&run);
    assert_eq!(run.code, Some(0), "{}", run.out);
    assert!(run.out.starts_with("rmxd 0.1.0 on gate.test, mode enforce, up "), "{}", run.out);
    assert!(run.out.ends_with("\n\nAll is well.\n"), "{}", run.out);
    for (name, expected) in [
        ("smtp", format!("{smtp}; 1 open; per minute: 1.0 accept, 0 defer, 1.0 reject")),
        ("milter", format!("{milter}; 0 open; per minute: 0 accept, 0 defer, 0 reject")),
        ("policy", format!("unix:{}; 1 open; per minute: 0 accept, 0 defer, 1.0 reject", policy.display())),
        ("verdicts", "1 accept, 0 defer, 2 reject since the start".to_owned()),
        ("relay", "maildir:mail can be used; 0 of".to_owned()),
        ("reload", "none since the start".to_owned()),
        ("greylist", "0 wait, 0 have passed".to_owned()),
    ] {
        // a path may be broken anywhere
        let found = part(&run, name).replace(' ', "");
        assert!(found.starts_with(&expected.replace(' ', "")), "{name}: {expected}: {}", run.out);
    }
    let whole = status(daemon.home(), &["--json"]).json();
    crate::schema::assert_conforms("status", &whole);
    assert_eq!((&whole["ok"], &whole["wrong"]), (&json!(true), &json!([])), "{whole}");
    assert_eq!(whole["address"], admin.to_string());
    let names: Vec<&Value> =
        whole["daemon"]["doors"].as_array().unwrap().iter().map(|door| &door["door"]).collect();
    assert_eq!(names, ["smtp", "milter", "policy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_marked_and_the_exit_code_has_it() {
    let (zone, admin, smtp) = (zone().await, free_address(), free_address());
    let gone = free_address();
    let config = |more: &str| text(zone.address(), &admin.to_string(), smtp, more);
    let mut daemon = Daemon::start(&config(""), &[]).await;
    let well = until(daemon.home(), "All is well.").await;
    assert_eq!(well.code, Some(0), "{well:?}");

    // a reload that is refused, and why
    daemon.home().configure(&config("[limits]\nerors = 1"));
    daemon.reload().await;
    let run = Run::of(
        rmxd(&["status", "--set", &format!("listen.admin={admin}"), "--set", "hostname=x.test"])
            .args(["--set", "relay.domains=here.test"])
            .env("TZ", "XYZ-5:30"),
    );
    assert_one_screen(&run);
    assert_eq!(run.code, Some(1), "{run:?}");
    let line = part(&run, "reload");
    assert!(line.contains(" XYZ, not applied, the settings before it are in effect: "), "{line}");
    assert!(line.replace(' ', "").contains("limits.erors:nosuchkey"), "{line}");
    assert!(
        run.out.contains("\u{2717} reload ") && run.out.ends_with("Something is wrong: reload.\n"),
        "{}",
        run.out
    );

    // a relay that is gone
    daemon.home().configure(&config(&format!("next_hop = \"smtp://{gone}\"")));
    let log = daemon.reload().await;
    assert!(log.contains("serve: reloaded"), "{log}");
    let run = until(daemon.home(), "Something is wrong: relay.").await;
    assert_one_screen(&run);
    assert_eq!(run.code, Some(1), "{run:?}");
    let line = part(&run, "relay");
    assert!(line.starts_with(&format!("smtp://{gone} can't be used, mail is deferred: ")), "{line}");
    assert!(part(&run, "reload").ends_with(" XYZ, applied"), "{}", run.out);
    let whole = status(daemon.home(), &["--json"]);
    assert_eq!((whole.code, &whole.json()["wrong"][0]["part"]), (Some(1), &json!("relay")));
}

#[tokio::test(flavor = "multi_thread")]
async fn dns_that_is_silent_is_wrong() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let config = text(silent.local_addr().unwrap(), &free_address().to_string(), free_address(), "");
    let daemon = Daemon::start(&config, &["--set", "dns.timeout=1s"]).await;
    let run = until(daemon.home(), "Something is wrong: dns.").await;
    assert_one_screen(&run);
    assert_eq!(run.code, Some(1), "{run:?}");
    let line = part(&run, "dns");
    assert!(line.starts_with("no server answers (127.0.0.1:") && line.contains("set dns.servers"), "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_and_the_socket_are_those_of_the_configuration() {
    let zone = zone().await;
    let home = Home::new();
    let path = home.path().join("admin");
    let endpoint = format!("unix:{}", path.display());
    home.configure(&text(zone.address(), &endpoint, free_address(), "[admin]\ntoken = \"s3cret\""));
    let daemon = Daemon::spawn(home.serve(), home).await;
    let run = until(daemon.home(), "All is well.").await;
    assert_eq!(run.code, Some(0), "{run:?}");

    for set in ["admin.token=other", "admin.token="] {
        let run = status(daemon.home(), &["--set", set]);
        let expected = format!(
            "rmxd: no answer of the daemon at {endpoint} (listen.admin): it has another admin.token than this \
             configuration (401)\n"
        );
        assert_eq!((run.code, run.err, run.out.as_str()), (Some(75), expected, ""), "{set}");
    }
    let home = daemon.terminate().await;
    let run = status(&home, &[]);
    assert_eq!(run.code, Some(75), "{run:?}");
    assert!(run.err.contains(&format!("at {endpoint} (listen.admin): there is no such socket: ")), "{run:?}");
}

#[tokio::test]
async fn without_a_daemon_its_address_is_named_and_why() {
    let admin = free_address();
    let home = Home::with(&text(free_address(), &admin.to_string(), free_address(), ""));
    let refused = format!(
        "rmxd: no answer of the daemon at {admin} (listen.admin): connection refused: it doesn't run\n"
    );
    let rows: [(&[&str], i32, &str); 5] = [
        (&[], 75, &refused),
        (&["--json"], 75, &refused),
        (
            &["--set", "listen.admin="],
            78,
            "rmxd: listen.admin is empty, so the daemon can't be asked; set it, ",
        ),
        (&["--set", "limits.errors=0"], 78, "flag --set: limits.errors: "),
        (&["--what"], 64, "error: unexpected argument '--what'"),
    ];
    for (arguments, code, message) in rows {
        let run = status(&home, arguments);
        assert_eq!((run.code, run.out.as_str()), (Some(code), ""), "{arguments:?}: {run:?}");
        assert!(run.err.starts_with(message), "{arguments:?}: {run:?}");
    }
}

/// A server that answers each request for one of these paths.
async fn imitation(media: &'static str, status: &'static str) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap_or(0);
            let is_ready = request[..length].starts_with(b"GET /readyz ");
            let body = if is_ready { "{\"ready\": true}" } else { status };
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: {media}\r\nContent-Length: {}\r\n", body.len());
            stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).await.ok();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_of_another_version_is_told_and_another_server_too() {
    let older = "{\"version\": \"0.0.9\", \"hostname\": \"old.test\", \"mode\": \"monitor\", \"uptime_seconds\": 90061, \
                  \"verdicts\": {\"accept\": 1, \"reject\": 2, \"defer\": 0}}";
    let admin = imitation("application/json", older).await;
    let home = Home::with(&text(free_address(), &admin.to_string(), free_address(), ""));
    let run = status(&home, &[]);
    assert_one_screen(&run);
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.out.starts_with("rmxd 0.0.9 on old.test, mode monitor, up 1day 1h\n"), "{}", run.out);
    let line = part(&run, "version");
    assert_eq!(line, "the daemon is 0.0.9, this command 0.1.0; a restart takes the installed one");
    assert!(
        part(&run, "verdicts").ends_with("since the start (mode monitor refuses none of it)"),
        "{}",
        run.out
    );

    for (media, body) in [("text/html", "<p>hello"), ("application/json", "{}"), ("application/json", "x")] {
        let admin = imitation(media, body).await;
        let run = status(&home, &["--set", &format!("listen.admin={admin}")]);
        assert_eq!(run.code, Some(75), "{run:?}");
        assert!(run.err.ends_with("what answers there is no rmxd, or one of another version\n"), "{run:?}");
    }
}
