//! Drain and restart, with the socket of the door held by the service manager, whose part the test plays, and without.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{GOOD, bad, each_came_once, good, in_the_middle, is_well, message, other_half};
use crate::interop::beside_postfix::{EXCHANGER, Site};
use crate::support::daemon::{Daemon, Home};
use crate::support::process::SOON;

const NOWHERE: [(&str, &str); 2] =
    [("MAIL FROM:<a@nowhere.test>", "250"), ("RCPT TO:<user@relay.test>", "550 5.1.8 ")];

/// The socket of the door, as the socket unit of the guide makes it.
fn held_socket(site: &Site) -> UnixListener {
    let socket = UnixListener::bind(site.socket()).unwrap();
    fs::set_permissions(site.socket(), fs::Permissions::from_mode(0o660)).unwrap();
    socket
}

/// rmxd with the socket passed.
async fn activated(site: &Site, socket: &UnixListener, home: Home, arguments: &[&str]) -> Daemon {
    let name = site.socket().file_name().unwrap().to_str().unwrap().to_owned();
    let mut command = home.serve_with_socket(&name, socket.try_clone().unwrap());
    command.args(["--set", "listen.admin="]).args(arguments);
    site.launch(command, home).await
}

/// A session of SMTP of one kind of four: refused, a message at once, two with a pause between them, one with a pause
/// within it. All of it must go as if nothing happened to rmxd.
async fn undisturbed(site: &Site, kind: usize, number: &AtomicUsize) {
    let next = || number.fetch_add(1, Ordering::Relaxed) + 1;
    let pause = Duration::from_millis(1000 + 100 * (kind % 10) as u64);
    match kind % 4 {
        0 => {
            let reply = bad(site).await;
            assert!(reply.text.starts_with("550 5.1.8 "), "{}", reply.text);
        }
        1 => {
            let reply = good(site, next()).await;
            assert_eq!(reply.code, 250, "{}", reply.text);
        }
        2 => {
            let mut client = site.client(EXCHANGER).await;
            for nth in 0..2 {
                sleep(pause * nth).await;
                let text = message(next(), GOOD);
                let reply = client.deliver(GOOD, "user@relay.test", text.as_bytes()).await;
                assert_eq!(reply.code, 250, "message {nth} of a session: {}", reply.text);
            }
            client.talk(&NOWHERE).await;
            client.talk(&[("QUIT", "221")]).await;
        }
        _ => {
            let mut client = in_the_middle(site, next()).await;
            sleep(pause).await;
            let reply = other_half(&mut client).await;
            assert_eq!(reply.code, 250, "in the middle of a message: {}", reply.text);
        }
    }
}

/// 200 sessions, 25 at one time, over a restart every two seconds or so, with a held socket.
async fn under_load(site: Site) {
    const SESSIONS: usize = 200;
    const AT_ONCE: usize = 25;
    let socket = held_socket(&site);
    let site = Arc::new(site);
    let (started, number) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut rmxd = activated(&site, &socket, site.home(), &[]).await;
    let mut workers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (site, started, number) = (Arc::clone(&site), Arc::clone(&started), Arc::clone(&number));
        workers.spawn(async move {
            loop {
                let kind = started.fetch_add(1, Ordering::Relaxed);
                if kind >= SESSIONS {
                    return;
                }
                undisturbed(&site, kind, &number).await;
            }
        });
    }
    let mut restarts = 0;
    while started.load(Ordering::Relaxed) < SESSIONS {
        sleep(Duration::from_millis(700)).await;
        let began = Instant::now();
        let home = rmxd.terminate().await;
        let taken = started.load(Ordering::Relaxed).min(SESSIONS);
        eprintln!("drained in {:?}, {taken} sessions so far", began.elapsed());
        rmxd = activated(&site, &socket, home, &[]).await;
        restarts += 1;
    }
    assert!(restarts > 2, "{restarts} restarts are none under load");
    while let Some(worker) = workers.join_next().await {
        worker.unwrap();
    }
    let log = rmxd.terminate().await.log();
    assert!(!log.contains("cut off"), "{log}");
    each_came_once(&site, number.load(Ordering::Relaxed)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_held_socket_a_restart_breaks_no_session_of_a_milter() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    under_load(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_held_socket_a_restart_leaves_no_mail_unjudged_by_the_policy_service() {
    let Some(site) = Site::with_policy_service(|guide| guide) else { return };
    under_load(site).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_held_socket_a_silent_session_is_not_broken_and_new_ones_wait() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    let socket = held_socket(&site);
    let mut rmxd = activated(&site, &socket, site.home(), &[]).await;
    let mut silent = site.client(EXCHANGER).await;
    let reply = silent.deliver(GOOD, "user@relay.test", message(1, GOOD).as_bytes()).await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    rmxd.signal("TERM");
    rmxd.logged("draining").await;
    let new = async {
        let began = Instant::now();
        (good(&site, 2).await, began.elapsed())
    };
    let over = async {
        sleep(Duration::from_secs(6)).await;
        silent.talk(&NOWHERE).await;
        silent.talk(&[("RSET", "250")]).await;
        let reply = silent.deliver(GOOD, "user@relay.test", message(3, GOOD).as_bytes()).await;
        assert_eq!(reply.code, 250, "{}", reply.text);
        silent.talk(&[("QUIT", "221")]).await;
        assert_eq!(rmxd.ended(SOON).await.code(), Some(0));
        activated(&site, &socket, rmxd.into_home(), &[]).await
    };
    let ((reply, waited), rmxd) = tokio::join!(new, over);
    assert_eq!(reply.code, 250, "{}", reply.text);
    assert!(waited > Duration::from_secs(6), "{waited:?}");
    is_well(&site, 4).await;
    each_came_once(&site, 4).await;

    // One that stays silent is given up before the end of the drain time.
    let mut rmxd = activated(&site, &socket, rmxd.terminate().await, &["--drain", "6s"]).await;
    let mut silent = site.client(EXCHANGER).await;
    let began = Instant::now();
    rmxd.signal("TERM");
    rmxd.ended(SOON).await;
    let drained = began.elapsed();
    assert!(Duration::from_secs(3) < drained && drained < Duration::from_secs(6), "{drained:?}");
    assert!(!rmxd.log().contains("cut off"), "{}", rmxd.log());
    silent.talk(&[("MAIL FROM:<a@good.test>", "451 4.7.1 "), ("QUIT", "221")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_held_socket_a_message_that_is_open_ends_well_and_the_rest_waits() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    let mut rmxd = site.rmxd(&[]).await;
    let mut middle = in_the_middle(&site, 1).await;
    let (mut soon, mut silent) = (site.client(EXCHANGER).await, site.client(EXCHANGER).await);
    rmxd.signal("TERM");
    rmxd.logged("draining").await;
    // Sessions that stand are served, each that is new waits.
    let reply = soon.deliver(GOOD, "user@relay.test", message(2, GOOD).as_bytes()).await;
    assert_eq!(reply.code, 250, "{}", reply.text);
    let reply = good(&site, 3).await;
    assert!(reply.text.starts_with("451 4.7.1 "), "{}", reply.text);
    soon.talk(&[("QUIT", "221")]).await;
    sleep(Duration::from_secs(4)).await;
    silent.talk(&[("MAIL FROM:<a@good.test>", "451 4.7.1 "), ("QUIT", "221")]).await;
    assert_eq!(other_half(&mut middle).await.code, 250);
    middle.talk(&[("QUIT", "221")]).await;
    assert_eq!(rmxd.ended(SOON).await.code(), Some(0));
    let rmxd = site.rmxd_at(rmxd.into_home(), &["--drain", "1s"]).await;
    is_well(&site, 3).await;

    // At the end of the drain time an open message is cut off, and waits.
    let mut middle = in_the_middle(&site, 4).await;
    let mut rmxd = rmxd;
    rmxd.signal("TERM");
    assert_eq!(rmxd.ended(SOON).await.code(), Some(0));
    assert!(rmxd.log().contains("connections were cut off open=1"), "{}", rmxd.log());
    let reply = other_half(&mut middle).await;
    assert!(reply.text.starts_with("451 4.7.1 "), "{}", reply.text);
    let _rmxd = site.rmxd_at(rmxd.into_home(), &[]).await;
    is_well(&site, 4).await;
    each_came_once(&site, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_accept_as_default_action_mail_goes_on_unjudged() {
    let Some(site) = Site::with_milter(|guide| {
        assert!(guide.contains("default_action=tempfail"), "{guide}");
        guide.replace("default_action=tempfail", "default_action=accept")
    }) else {
        return;
    };
    let home = site.rmxd(&[]).await.terminate().await;
    for (number, reply) in [
        (1, good(&site, 1).await),
        (2, super::session(site.postfix.address(), super::BAD, &message(2, GOOD)).await),
    ] {
        assert_eq!(reply.code, 250, "{number}: {}", reply.text);
    }
    let _rmxd = site.rmxd_at(home, &[]).await;
    is_well(&site, 3).await;
    each_came_once(&site, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_held_socket_even_a_crash_leaves_no_mail_unjudged_by_the_policy_service() {
    let Some(site) = Site::with_policy_service(|guide| guide) else { return };
    let socket = held_socket(&site);
    let mut rmxd = activated(&site, &socket, site.home(), &[]).await;
    let mut client = site.client(EXCHANGER).await;
    client.talk(&NOWHERE).await;
    for _ in 0..3 {
        client.talk(&[("RSET", "250"), NOWHERE[0]]).await;
        rmxd.signal("KILL");
        rmxd.ended(SOON).await;
        let home = rmxd.into_home();
        let again = async {
            sleep(Duration::from_secs(1)).await; // RestartSec of the unit
            activated(&site, &socket, home, &[]).await
        };
        let (reply, again) = tokio::join!(client.command(NOWHERE[1].0), again);
        assert!(reply.text.starts_with(NOWHERE[1].1), "{}", reply.text);
        rmxd = again;
    }
    is_well(&site, 1).await;
    each_came_once(&site, 1).await;
}
