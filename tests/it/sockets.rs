//! Unix sockets, and sockets that the service manager passes by name (contract 7.4).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use crate::admin::http::Request;
use crate::support::client::Client;
use crate::support::daemon::{Daemon, Home, any_port, configuration};
use crate::support::process::{self, SOON, binary, free_address};

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A configuration whose admin server is at `admin`.
fn with_admin(admin: &str) -> String {
    let text = configuration("gate.test", &[any_port()], free_address(), "");
    text.replace("admin = \"\"", &format!("admin = \"{admin}\""))
}

/// The whole answer to a request by a unix socket.
async fn get(path: &Path, target: &str) -> String {
    let mut stream = UnixStream::connect(path).await.unwrap();
    stream.write_all(&Request::get(target).octets()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The exit code and the log of a start that fails.
async fn failing(command: Command, home: Home) -> (Option<i32>, String) {
    let mut daemon = Daemon::launch(command, home);
    let status = daemon.ended(SOON).await;
    (status.code(), daemon.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_server_is_reached_by_a_unix_socket() {
    let home = Home::new();
    let path = home.path().join("admin");
    let endpoint = format!("unix:{}", path.display());
    home.configure(&with_admin(&endpoint));
    let mut daemon = Daemon::spawn(home.serve(), home).await;
    daemon.logged(&format!("metrics and API address={endpoint}")).await;
    let metadata = fs::metadata(&path).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o660);
    for (target, expected) in
        [("/healthz", "ok\n"), ("/metrics", "rmxd_"), ("/api/v1/status", "\"gate.test\"")]
    {
        let answer = get(&path, target).await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(expected), "{target}: {answer}");
    }

    // A second daemon doesn't take a socket away on which the first listens.
    let other = Home::new();
    other.configure(&with_admin(&endpoint));
    let (code, log) = failing(other.serve(), other).await;
    assert_eq!(code, Some(75), "{log}");
    assert!(
        log.contains(&format!("listen.admin: {endpoint}: another process listens on this socket")),
        "{log}"
    );
    assert!(get(&path, "/healthz").await.ends_with("ok\n"));

    // A crash leaves the file behind; the next start replaces it.
    daemon.signal("KILL");
    daemon.ended(SOON).await;
    assert!(path.exists());
    let home = daemon.into_home();
    let mut daemon = Daemon::spawn(home.serve(), home).await;
    assert!(get(&path, "/healthz").await.ends_with("ok\n"));

    // A reload moves it.
    let moved = daemon.home().path().join("moved");
    daemon.home().configure(&with_admin(&format!("unix:{}", moved.display())));
    let log = daemon.reload().await;
    assert!(log.contains(&format!("metrics and API address=unix:{}", moved.display())), "{log}");
    assert!(get(&moved, "/healthz").await.ends_with("ok\n"));
    process::eventually("the end of the old socket", SOON, || (!path.exists()).then_some(())).await;
    daemon.terminate().await;
    assert!(!moved.exists());
}

#[tokio::test]
async fn a_file_at_the_path_of_a_socket_stops_the_start_and_stays() {
    let home = Home::new();
    let path = home.path().join("admin");
    fs::write(&path, "kept").unwrap();
    home.configure(&with_admin(&format!("unix:{}", path.display())));
    let mut daemon = Daemon::launch(home.serve(), home);
    assert_eq!(daemon.ended(SOON).await.code(), Some(75), "{}", daemon.log());
    assert!(daemon.log().contains("there is a file at this path, and it isn't a socket"), "{}", daemon.log());
    assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
}

/// `rmxd serve` with two sockets passed as the service manager does it.
fn activated(home: &Home, names: &str, sockets: [OwnedFd; 2]) -> Command {
    let script = "exec 3<&0 4<&1 </dev/null >/dev/null
        LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=\"$2\" exec \"$0\" serve --config \"$1\"";
    let [first, second] = sockets;
    let mut command = home.command("sh");
    command.args(["-c", script, binary()]).arg(home.file()).arg(names);
    command.stdin(Stdio::from(first)).stdout(Stdio::from(second));
    command
}

fn tcp(address: Ipv4Addr) -> TcpListener {
    TcpListener::bind((address, 0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_socket_goes_to_the_door_of_its_name() {
    let home = Home::new();
    home.configure(&configuration("gate.test", &[], free_address(), ""));
    let path = home.path().join("passed");
    let (admin, smtp) = (UnixListener::bind(&path).unwrap(), tcp(Ipv4Addr::LOCALHOST));
    let address = smtp.local_addr().unwrap();
    let command = activated(&home, "admin:rmxd.socket", [admin.into(), smtp.into()]);
    let mut daemon = Daemon::spawn(command, home).await;
    let log = daemon.log();
    assert!(log.contains(&format!("metrics and API address=unix:{}", path.display())), "{log}");
    Client::greeted(CLIENT, address, "mail.good.test").await;
    assert!(get(&path, "/healthz").await.ends_with("ok\n"));
    // It is the service manager's, so that a reload and the end leave it.
    daemon.home().configure(&configuration("other.test", &[], free_address(), ""));
    let log = daemon.reload().await;
    assert!(log.contains("reloaded"), "{log}");
    assert!(get(&path, "/api/v1/status").await.contains("\"other.test\""));
    daemon.terminate().await;
}

#[tokio::test]
async fn a_passed_socket_that_has_no_door_stops_the_start() {
    let any = Ipv4Addr::UNSPECIFIED;
    let unix = |home: &Home| UnixListener::bind(home.path().join("passed")).unwrap();
    let rows: [(&str, bool, String); 3] = [
        (
            ":submission",
            false,
            "socket 2 of those that the service manager passed: it has the name \"submission\"".into(),
        ),
        (
            ":",
            true,
            "socket 2 of those that the service manager passed: fd 4 is not a valid tcp socket".into(),
        ),
        (":admin", false, "for the admin server: an address that is not loopback needs admin.token".into()),
    ];
    for (names, by_path, expected) in rows {
        let home = Home::new();
        home.configure(&configuration("gate.test", &[], free_address(), ""));
        let second = if by_path { unix(&home).into() } else { tcp(any).into() };
        let command = activated(&home, names, [tcp(Ipv4Addr::LOCALHOST).into(), second]);
        let (code, log) = failing(command, home).await;
        assert_eq!(code, Some(78), "{names}: {log}");
        assert!(log.contains(&expected), "{names}: {log}");
    }
}

#[tokio::test]
async fn a_next_hop_that_is_a_passed_socket_stops_the_start_and_a_reload_to_it() {
    let smtp = tcp(Ipv4Addr::UNSPECIFIED);
    let port = smtp.local_addr().unwrap().port();
    let text = configuration("gate.test", &[], free_address(), "");
    for host in ["127.0.0.1", "localhost"] {
        let relay = format!("[relay]\nnext_hop = \"smtp://{host}:{port}\"\nidentity = \"xclient\"\n");
        let expected = format!(
            "relay.next_hop: \"smtp://{host}:{port}\" leads back to rmxd itself: listen.smtp has 0.0.0.0:{port} (a socket that \
             the service manager passed)"
        );
        let home = Home::new();
        home.configure(&format!("{text}{relay}"));
        let command = home.serve_with_socket("smtp", smtp.try_clone().unwrap());
        let (code, log) = failing(command, home).await;
        assert_eq!(code, Some(78), "{log}");
        assert!(log.contains(&expected), "{log}");

        let home = Home::with(&text);
        let command = home.serve_with_socket("smtp", smtp.try_clone().unwrap());
        let mut daemon = Daemon::spawn(command, home).await;
        daemon.home().configure(&format!("{text}{relay}"));
        let log = daemon.reload().await;
        assert!(log.contains(&expected) && log.contains("not reloaded"), "{log}");
        daemon.terminate().await;
    }
}

/// BindIPv6Only=ipv6-only of systemd, and its default, both.
#[tokio::test]
async fn a_passed_socket_of_every_ipv6_address_takes_ipv4_as_its_option_says() {
    for only_v6 in [true, false] {
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::STREAM, None).unwrap();
        socket.set_only_v6(only_v6).unwrap();
        socket.bind(&std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 0)).into()).unwrap();
        socket.listen(9).unwrap();
        let smtp = TcpListener::from(socket);
        let port = smtp.local_addr().unwrap().port();
        let behind = only_v6.then(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
        let relay = format!("[relay]\nnext_hop = \"smtp://127.0.0.1:{port}\"\n");
        let home = Home::with(&format!("{}{relay}", configuration("gate.test", &[], free_address(), "")));
        let command = home.serve_with_socket("smtp", smtp);
        if only_v6 {
            Daemon::spawn(command, home).await.terminate().await;
        } else {
            let (code, log) = failing(command, home).await;
            assert_eq!(code, Some(78), "{log}");
            assert!(
                log.contains(&format!("leads back to rmxd itself: listen.smtp has [::]:{port} (a socket")),
                "{log}"
            );
        }
        drop(behind);
    }
}

/// A request of Postfix about a@nowhere.test, which doesn't exist.
const REQUEST: &[u8] = b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=127.0.0.10\n\
    sender=a@nowhere.test\nrecipient=user@here.test\ninstance=1.2.3.0\n\n";

/// The answer to a request, from a service that has `mode = "monitor"`.
async fn policy_answer(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = [0; 64];
    let length = timeout(SOON, stream.read(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

/// A configuration with the policy service alone.
fn with_policy(policy: &str) -> String {
    let more = "[policy]\nmode = \"monitor\"\n";
    let text = configuration("gate.test", &[], free_address(), more);
    text.replace("smtp = []", &format!("smtp = []\npolicy = {policy}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_service_has_a_unix_socket_and_tcp_and_needs_no_relay() {
    let home = Home::new();
    let (path, address) = (home.path().join("policy"), free_address());
    home.configure(&with_policy(&format!("[\"unix:{}\", \"{address}\"]", path.display())));
    let mut daemon = Daemon::launch(home.serve(), home);
    daemon.logged(&format!("listening address={address}")).await;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
    let mut by_path = UnixStream::connect(&path).await.unwrap();
    let mut by_tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    assert_eq!(policy_answer(&mut by_path).await, "action=DUNNO\n\n");
    assert_eq!(policy_answer(&mut by_tcp).await, "action=DUNNO\n\n");
    assert!(!daemon.home().path().join("mail").exists(), "no Maildir where nothing is stored");

    // A reload opens and closes endpoints, and leaves connections.
    daemon.home().configure(&with_policy(&format!("[\"{address}\"]")));
    let log = daemon.reload().await;
    assert!(log.contains(&format!("not listening any more address=unix:{}", path.display())), "{log}");
    process::eventually("the end of the socket", SOON, || (!path.exists()).then_some(())).await;
    assert_eq!(policy_answer(&mut by_path).await, "action=DUNNO\n\n");
    // With an SMTP listener the relay is needed from then on.
    let smtp = with_policy(&format!("[\"{address}\"]")).replace("smtp = []", "smtp = [\"127.0.0.1:0\"]");
    daemon.home().configure(&smtp);
    let log = daemon.reload().await;
    assert!(log.contains("serve: reloaded"), "{log}");
    assert!(daemon.home().path().join("mail").exists());

    // The end doesn't wait for the drain time.
    let home = daemon.terminate().await;
    assert!(home.log().contains("drained"), "{}", home.log());
    assert_eq!(by_tcp.read_u8().await.ok(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_policy_socket_outlives_a_restart() {
    let home = Home::new();
    home.configure(&with_policy("[]"));
    let path = home.path().join("passed");
    let (policy, admin) = (UnixListener::bind(&path).unwrap(), tcp(Ipv4Addr::LOCALHOST));
    let sockets = || [policy.try_clone().unwrap().into(), admin.try_clone().unwrap().into()];
    let command = activated(&home, "policy:admin", sockets());
    let daemon = Daemon::launch(command, home);
    daemon.logged("listening address=unix:").await;
    let mut before = UnixStream::connect(&path).await.unwrap();
    assert_eq!(policy_answer(&mut before).await, "action=DUNNO\n\n");
    let home = daemon.terminate().await;
    assert!(path.exists());
    // A request that comes in between waits.
    let mut between = UnixStream::connect(&path).await.unwrap();
    let command = activated(&home, "policy:admin", sockets());
    let daemon = Daemon::launch(command, home);
    assert_eq!(policy_answer(&mut between).await, "action=DUNNO\n\n");
    daemon.logged_times("listening address=unix:", 2).await;
    daemon.terminate().await;
}

/// How long a session of a milter that says nothing outlives SIGTERM, with a drain time of 8 s.
async fn silent_milter_after_sigterm(passed: bool) -> Duration {
    let home = Home::new();
    let path = home.path().join("milter");
    let text = configuration("gate.test", &[], free_address(), "");
    let milter = format!("smtp = []\nmilter = [\"unix:{}\"]", path.display());
    home.configure(&text.replace("smtp = []", &milter));
    let mut command = match passed {
        true => home.serve_with_socket("milter", UnixListener::bind(&path).unwrap()),
        false => home.serve(),
    };
    command.args(["--drain", "8s"]);
    let mut daemon = Daemon::launch(command, home);
    daemon.logged("listening address=unix:").await;
    let mut session = UnixStream::connect(&path).await.unwrap();
    let mut terms = [0; 17];
    session.write_all(b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff").await.unwrap();
    session.read_exact(&mut terms).await.unwrap();
    assert_eq!(terms[4], b'O');
    daemon.signal("TERM");
    let began = Instant::now();
    let mut rest = Vec::new();
    timeout(SOON, session.read_to_end(&mut rest)).await.unwrap().unwrap();
    let lasted = began.elapsed();
    assert_eq!(daemon.ended(SOON).await.code(), Some(0));
    assert!(daemon.log().contains("drained"), "{}", daemon.log());
    lasted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_milter_session_lasts_longer_where_new_ones_wait_at_a_passed_socket() {
    let (own, passed) = tokio::join!(silent_milter_after_sigterm(false), silent_milter_after_sigterm(true));
    let seconds = Duration::from_secs;
    assert!(seconds(3) <= own && own < seconds(5), "{own:?}");
    assert!(seconds(6) <= passed && passed < seconds(8), "{passed:?}");
}
