//! What is said of a question without an answer: why, and which server was asked. Each kind of fault has words of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::admin::http::Request;
use crate::support::daemon::{Daemon, Home, configuration};
use crate::support::process::{self, Run, binary, free_address, rmxd_asking};

/// A server of the documentation's network, to which no machine has a way.
const FAR: &str = "192.0.2.53:53";
const NO_ROUTE: &str = "no answer, no route to the server (asked 192.0.2.53:53)";

/// `rmxd check` of a sender that has to be looked up.
const CHECK: [&str; 5] = ["--client", "127.0.0.10", "--mail-from", "a@good.test", "--json"];

/// The verdict of `rmxd check`, and the answer of the question that decided.
fn checked(command: &mut Command) -> (Option<i32>, String) {
    let run = Run::of(command.args(CHECK));
    let json = run.json();
    let findings = json["findings"].as_array().unwrap_or_else(|| panic!("{json:#}"));
    let of_sender = findings.iter().find(|finding| finding["identity"] == "mail_from").unwrap();
    (run.code, of_sender["evidence"][0]["answer"].as_str().unwrap_or_default().to_owned())
}

/// A server that does as its rule says with each question, until this is dropped.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
}

/// The response to a question; `None` for silence.
type Rule = fn(Vec<u8>) -> Option<Vec<u8>>;

impl Server {
    fn start(rule: Rule) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let (address, stop) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            let mut question = [0; 4096];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut question) else { continue };
                if let Some(response) = rule(question[..length].to_vec()) {
                    socket.send_to(&response, client).ok();
                }
            }
        });
        Self { address, stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The question as a response with this code.
fn error(mut question: Vec<u8>, code: u8) -> Option<Vec<u8>> {
    question[2] |= 0x80;
    question[3] = question[3] & 0xF0 | code;
    Some(question)
}

#[test]
fn each_fault_of_a_server_has_its_own_words_and_is_a_451() {
    let rows: [(&str, Rule); 8] = [
        ("timeout", |_question| None),
        ("FORMERR", |question| error(question, 1)),
        ("SERVFAIL", |question| error(question, 2)),
        ("NOTIMP", |question| error(question, 4)),
        ("REFUSED", |question| error(question, 5)),
        ("an error code", |question| error(question, 9)),
        // a record is announced, and there is none
        ("broken answer", |question| {
            error(question, 0).map(|mut response| {
                response[7] = 1;
                response[11] = 0;
                let end = response.len() - 11;
                response.truncate(end);
                [response, vec![0xC0, 0x0C, 0, 15]].concat()
            })
        }),
        // TC, and nothing listens on TCP
        ("too long for UDP, and no connection over TCP", |question| {
            error(question, 0).map(|mut response| {
                response[2] |= 2;
                response
            })
        }),
    ];
    for (words, rule) in rows {
        let server = Server::start(rule);
        let (code, answer) = checked(&mut rmxd_asking("check", server.address));
        assert_eq!(answer, format!("{words} (asked {})", server.address));
        assert_eq!(code, Some(75), "{words}");
    }
    let nobody = free_address();
    let (code, answer) = checked(&mut rmxd_asking("check", nobody));
    let closed = format!("no answer, the server's port is closed (asked {nobody})");
    assert_eq!((code, answer), (Some(75), closed));
}

/// What starts the command behind it in a network of its own, which has loopback only.
const ISOLATED: [&str; 5] = ["--net", "sh", "-c", "ip link set lo up; exec \"$@\"", "sh"];

/// Whether such a network can be made here.
fn can_be_isolated() -> bool {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        process::missing("a network namespace has to be made by root");
        return false;
    }
    process::program("unshare").is_some() && process::program("ip").is_some()
}

#[test]
fn without_a_route_nobody_is_said_to_have_answered() {
    if !can_be_isolated() {
        return;
    }
    let inner = rmxd_asking("check", FAR.parse().unwrap());
    let mut command = process::command("unshare");
    command.args(ISOLATED).arg(inner.get_program()).args(inner.get_args());
    let began = Instant::now();
    assert_eq!(checked(&mut command), (Some(75), NO_ROUTE.to_owned()));
    assert!(began.elapsed() < Duration::from_secs(10));
}

/// A request to the daemon by its unix socket.
async fn get(path: &std::path::Path, target: &str) -> Option<Value> {
    let mut stream = UnixStream::connect(path).await.ok()?;
    stream.write_all(&Request::get(target).octets()).await.ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await.ok()?;
    let (_, body) = response.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_without_a_route_says_so_in_log_status_and_readiness() {
    if !can_be_isolated() {
        return;
    }
    let home = Home::new();
    let admin = home.path().join("admin");
    let text = configuration("gate.test", &["127.0.0.1:0".parse().unwrap()], FAR.parse().unwrap(), "");
    home.configure(&text.replace("admin = \"\"", &format!("admin = \"unix:{}\"", admin.display())));
    let mut command = home.command("unshare");
    command.args(ISOLATED).arg(binary()).args(["serve", "--config"]).arg(home.file());
    let daemon = Daemon::launch(command, home);
    let server = "192.0.2.53:53: no route to the server";
    daemon.logged(&format!("no DNS server answers ({server}): until one does")).await;
    let ready = get(&admin, "/readyz").await.unwrap();
    assert_eq!(
        (&ready["dns"]["ok"], &ready["dns"]["detail"]),
        (&false.into(), &format!("no server answers ({server})").into()),
        "{ready:#}"
    );
    let status = get(&admin, "/api/v1/status").await.unwrap();
    assert_eq!(status["dns"]["detail"], format!("no server answers ({server})"), "{status:#}");
    let of_server = &status["dns"]["servers"][0];
    assert_eq!((&of_server["address"], &of_server["ok"]), (&FAR.into(), &false.into()));
    assert!(of_server["detail"].as_str().unwrap().contains("no route to the server"), "{of_server}");
    let shown = Run::of(process::rmxd(&["status", "--config"]).arg(daemon.home().file()));
    assert!(shown.out.contains("no route to"), "{}", shown.out);
    let target = "/api/v1/check?client=127.0.0.10&mail_from=a@good.test";
    let decision = get(&admin, target).await.unwrap();
    assert!(decision.to_string().contains(NO_ROUTE), "{decision:#}");
    daemon.terminate().await;
}
