//! The units in `systemd/`, and what the daemon and the service manager have to say to each other: readiness, reloads,
//! keep-alives, and sockets that outlive a restart.
//!
//! No service manager is needed or touched: `systemd-analyze` reads the files, and the test plays the manager's part.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::interop::mail;
use crate::support::client::{Client, on_the_wire};
use crate::support::daemon::{Daemon, Home, any_port, configuration};
use crate::support::process::{self, SOON, binary, free_address};
use crate::support::readme;
use crate::support::zone::Zone;

/// The units of sockets.
const SOCKETS: [&str; 3] = ["rmxd.socket", "rmxd-milter.socket", "rmxd-policy.socket"];
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The units as they are shipped, but for the program's path; with `rmxd.service.d` or without.
fn units(with_drop_in: bool) -> TempDir {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
    let folder = tempfile::tempdir().unwrap();
    let service = fs::read_to_string(shipped.join("rmxd.service")).unwrap();
    assert!(service.contains("/usr/bin/rmxd"));
    fs::write(folder.path().join("rmxd.service"), service.replace("/usr/bin/rmxd", binary())).unwrap();
    for name in SOCKETS {
        fs::copy(shipped.join("socket").join(name), folder.path().join(name)).unwrap();
    }
    if with_drop_in {
        fs::create_dir(folder.path().join("rmxd.service.d")).unwrap();
        let name = "rmxd.service.d/socket.conf";
        fs::copy(shipped.join("socket").join(name), folder.path().join(name)).unwrap();
    }
    folder
}

async fn analyze(program: &Path, arguments: &[&str], units: &[PathBuf]) -> (bool, String) {
    let mut command = Command::new(program);
    let output = process::run(command.args(arguments).args(units), Vec::new(), SOON).await;
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[tokio::test]
async fn systemd_finds_nothing_wrong_with_the_units() {
    let Some(program) = process::program("systemd-analyze") else { return };
    for with_drop_in in [false, true] {
        let units = units(with_drop_in);
        let names = ["rmxd.service"].into_iter().chain(SOCKETS);
        let paths: Vec<PathBuf> = names.map(|name| units.path().join(name)).collect();
        let (good, said) = analyze(&program, &["verify"], &paths).await;
        assert!(good, "{said}");
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("rmxd")).collect();
        assert!(ours.is_empty(), "{ours:?}");
    }
}

/// A start finds the socket that was passed under the path of the configuration, and main.cf names the same one.
#[test]
fn the_sockets_for_postfix_have_the_paths_of_the_guide() {
    for door in ["milter", "policy"] {
        let unit = readme::text(&format!("systemd/socket/rmxd-{door}.socket"));
        let value = |key: &str| {
            let mut values = unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            let value = values.next().unwrap_or_else(|| panic!("{key}: {unit}"));
            assert_eq!(values.next(), None, "{key}: {unit}");
            value
        };
        let path = value("ListenStream");
        let line = format!("{door} = [\"unix:{path}\"]\n");
        assert!(readme::block(&format!("toml {door}")).contains(&line), "{line}");
        let below_the_queue = path.strip_prefix("/var/spool/postfix/").expect(path);
        let main_cf = readme::block(&format!("main.cf {door}"));
        assert!(main_cf.contains(&format!(" unix:{below_the_queue}, ")), "{path}: {main_cf}");
        assert_eq!((value("FileDescriptorName"), value("Service")), (door, "rmxd.service"));
        assert_eq!((value("SocketGroup"), value("SocketMode")), ("postfix", "0660"));
    }
}

#[tokio::test]
async fn the_service_is_exposed_as_little_as_a_mail_server_can_be() {
    let Some(program) = process::program("systemd-analyze") else { return };
    // the thresholds are in tenths
    for (with_drop_in, threshold) in [(false, "--threshold=14"), (true, "--threshold=11")] {
        let units = units(with_drop_in);
        let paths = [units.path().join("rmxd.service")];
        let arguments = ["security", "--offline=true", "--no-pager", threshold];
        let (good, said) = analyze(&program, &arguments, &paths).await;
        assert!(good && said.contains("Overall exposure level"), "{said}");
    }
}

/// The service manager's end of `NOTIFY_SOCKET`.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(home: &Home) -> Self {
        let path = home.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Self { socket, path }
    }

    /// The next word that isn't a keep-alive, by lines.
    fn told(&self) -> Vec<String> {
        loop {
            let words = self.next();
            if words != ["WATCHDOG=1"] {
                return words;
            }
        }
    }

    /// Waits for keep-alives that are sent from now on.
    fn keep_alives(&self, count: usize) {
        self.socket.set_nonblocking(true).unwrap();
        while self.socket.recv(&mut [0; 4096]).is_ok() {}
        self.socket.set_nonblocking(false).unwrap();
        for _ in 0..count {
            assert_eq!(self.next(), ["WATCHDOG=1"]);
        }
    }

    /// Leaves no room in the queue.
    fn fill(&self) {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        while sender.send_to(b"WATCHDOG=1", &self.path).is_ok() {}
    }

    fn next(&self) -> Vec<String> {
        let mut word = [0; 4096];
        let length = self.socket.recv(&mut word).expect("a word in time");
        String::from_utf8_lossy(&word[..length]).lines().map(str::to_owned).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_is_told_what_happens() {
    let (zone, address, home) = (Zone::start(), free_address(), Home::new());
    let manager = Manager::new(&home);
    let text = |name: &str| configuration(name, &[address], zone.address(), "");
    home.configure(&text("gate.test"));
    let mut command = home.serve();
    command.args(["--drain", "20s"]).env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "40000");
    let mut daemon = Daemon::spawn(command, home).await;
    let ready = ["READY=1".to_owned(), format!("STATUS=listening on {address}, mode enforce")];
    assert_eq!(manager.told(), ready);
    manager.keep_alives(5);

    for text in [text("other.test"), "broken".to_owned(), text("gate.test")] {
        daemon.home().configure(&text);
        daemon.signal("HUP");
        let told = manager.told();
        assert_eq!(told[0], "RELOADING=1");
        let time = told[1].strip_prefix("MONOTONIC_USEC=").expect("a time");
        assert!(time.parse::<u64>().unwrap() > 0);
        let [now, status] = &manager.told()[..] else { panic!("two words") };
        assert_eq!(*now, ready[0]);
        let broken = format!("{}; the reload of 20", ready[1]);
        let problem = format!("Z was not applied: {}:1:", daemon.home().file().display());
        match text.as_str() {
            "broken" => assert!(status.starts_with(&broken) && status.contains(&problem), "{status}"),
            _ => assert_eq!(*status, ready[1]),
        }
    }

    let mut client = Client::greeted(CLIENT, address, "mail.good.test").await;
    assert_eq!(client.command("MAIL FROM:<a@good.test>").await.code, 250);
    daemon.signal("TERM");
    let stopping = ["STOPPING=1", "STATUS=draining for at most 20s", "EXTEND_TIMEOUT_USEC=30000000"];
    assert_eq!(manager.told(), stopping);
    manager.keep_alives(5);
    // a manager that doesn't read any more stops nothing: this is the time of several keep-alives
    manager.fill();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(client.command("QUIT").await.code, 221);
    assert_eq!(daemon.ended(SOON).await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_starts_the_daemon_by_socket_activation() {
    let Some(program) = process::program("systemd-socket-activate") else { return };
    let (zone, address, home) = (Zone::start(), free_address(), Home::new());
    home.configure(&configuration("gate.test", &[], zone.address(), ""));
    let mut command = home.command(program.to_str().unwrap());
    command.args(["-E", "NO_COLOR=1", "-l", &address.to_string(), binary(), "serve", "--config"]);
    command.arg(home.file());
    let connecting = tokio::spawn(process::accepted(address));
    // what listens before the first connection is systemd-socket-activate, which becomes rmxd then
    let mut daemon = Daemon::spawn(command, home).await;
    drop(connecting.await.unwrap());
    assert!(daemon.log().contains(&format!(": listening address={address} ")), "{}", daemon.log());
    let mut client = Client::greeted(CLIENT, address, "mail.good.test").await;
    let log = daemon.reload().await;
    assert!(log.contains("reloaded"), "{log}");
    let reply = client.deliver("a@good.test", "user@relay.test", &mail::message(1, 100)).await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    drop(client);
    assert_eq!(daemon.terminate().await.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_lost_over_a_restart_when_the_socket_is_held() {
    let zone = Zone::start();
    let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = held.local_addr().unwrap();
    // that the configuration names the address too is no reason to bind it again
    let text = |name: &str, listen: &[SocketAddr]| configuration(name, listen, zone.address(), "");
    let mut home = Home::new();
    let mut queued: Vec<Client> = Vec::new();
    for (name, listen) in [("first.test", vec![]), ("second.test", vec![address]), ("third.test", vec![])] {
        home.configure(&text(name, &listen));
        let mut daemon = Daemon::spawn(home.serve_with_socket("", held.try_clone().unwrap()), home).await;
        for client in &mut queued {
            let greeting = client.reply().await;
            assert!(greeting.text.starts_with(&format!("220 {name} ")), "{}", greeting.text);
            assert_eq!(client.command("EHLO mail.good.test").await.code, 250);
            let reply = client.deliver("a@good.test", "user@relay.test", &mail::message(1, 100)).await;
            assert_eq!(reply.code, 250, "{}", reply.text);
            assert_eq!(client.command("QUIT").await.code, 221);
        }
        queued.clear();

        let mut middle = Client::greeted(CLIENT, address, "mail.good.test").await;
        for line in ["MAIL FROM:<a@good.test>", "RCPT TO:<user@relay.test>", "DATA"] {
            assert!(middle.command(line).await.is_positive());
        }
        daemon.signal("TERM");
        let drains = |log: &str| log.rsplit_once(name).is_some_and(|(_, rest)| rest.contains("draining"));
        process::eventually("the drain", SOON, || drains(&daemon.log()).then_some(())).await;
        queued.push(Client::connect(CLIENT, address).await);
        middle.send(&on_the_wire(&mail::message(1, 100))).await;
        assert_eq!(middle.reply().await.code, 250);
        assert_eq!(middle.reply().await.code, 421);
        drop(middle);
        assert_eq!(daemon.ended(SOON).await.code(), Some(0));
        queued.push(Client::connect(CLIENT, address).await);
        home = daemon.into_home();
    }
    // three in the middle of a message at the end, two that waited at each of two restarts
    assert_eq!(home.messages().len(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_socket_of_use_it_does_not_start_and_says_why() {
    let datagram = UnixDatagram::unbound().unwrap();
    let stream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let connected = std::net::TcpStream::connect(stream.local_addr().unwrap()).unwrap();
    let rows: [(Option<OwnedFd>, &str); 3] = [
        (
            None,
            "listen.smtp is empty, no other door listens, and the service manager passed no socket either: set listen.smtp, such \
             as [\"0.0.0.0:25\"], or enable the socket: systemctl enable --now rmxd.socket",
        ),
        (
            Some(datagram.into()),
            "socket 1 of those that the service manager passed: fd 3 is not a valid tcp socket",
        ),
        (Some(connected.into()), "socket 1 of those that the service manager passed: it doesn't listen"),
    ];
    for (socket, expected) in rows {
        let home = Home::with(&configuration("gate.test", &[], free_address(), ""));
        let command = match socket {
            Some(socket) => home.serve_with_socket("", socket),
            None => home.serve(),
        };
        let mut daemon = Daemon::launch(command, home);
        assert_eq!(daemon.ended(SOON).await.code(), Some(78), "{expected}");
        assert!(daemon.log().contains(expected), "{expected}: {}", daemon.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_beside_a_socket_that_has_its_port_says_which_of_them_to_drop() {
    for (passed, configured) in
        [("0.0.0.0:0", "127.0.0.1"), ("127.0.0.1:0", "0.0.0.0"), ("[::]:0", "0.0.0.0")]
    {
        let Ok(socket) = TcpListener::bind(passed) else {
            return process::missing("this machine has no IPv6");
        };
        let passed = socket.local_addr().unwrap();
        let configured = format!("{configured}:{}", passed.port());
        let listen = [configured.parse().unwrap()];
        let home = Home::with(&configuration("gate.test", &listen, free_address(), ""));
        let mut daemon = Daemon::launch(home.serve_with_socket("smtp", socket), home);
        assert_eq!(daemon.ended(SOON).await.code(), Some(78), "{}", daemon.log());
        let expected = format!(
            "listen.smtp: {configured}: the service manager passed {passed}, which has this port already: take {configured} out \
             of listen.smtp (listen.smtp = [] with rmxd.socket), or disable the socket unit"
        );
        assert!(daemon.log().contains(&expected), "{}", daemon.log());
    }
}

#[test]
fn the_service_starts_after_the_mail_servers_and_needs_none() {
    let unit = readme::text("systemd/rmxd.service");
    let after: Vec<&str> =
        unit.lines().filter_map(|line| line.strip_prefix("After=")).flat_map(str::split_whitespace).collect();
    for server in ["postfix.service", "exim4.service", "opensmtpd.service"] {
        assert!(after.contains(&server), "{after:?}");
        let needs = unit.lines().any(|line| !line.starts_with(['#', 'A']) && line.contains(server));
        assert!(!needs, "{unit}");
    }
}

/// Before the service manager is told that it is ready, a start must not take longer than it waits.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_a_start_that_waits_for_the_relay() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let relay = silent.local_addr().unwrap();
    let more = format!("[relay]\nnext_hop = \"smtp://{relay}\"\nconnect_timeout = \"1h\"");
    let home = Home::with(&configuration("gate.test", &[any_port()], free_address(), &more));
    let mut daemon = Daemon::launch(home.serve(), home);
    // it has come to the relay
    let accepted = tokio::task::spawn_blocking(move || silent.accept()).await.unwrap();
    daemon.signal("TERM");
    assert_eq!(daemon.ended(Duration::from_secs(10)).await.code(), Some(0));
    drop(accepted);
}
