//! More connections than rmxd has descriptors for, or than `limits.connections` allows.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use tokio::time::sleep;

use super::{BAD, bad, each_came_once, good, is_well};
use crate::interop::beside_postfix::{EXCHANGER, Site};
use crate::support::daemon::Daemon;
use crate::support::process::{SOON, binary, eventually};

const DESCRIPTORS: usize = 64;

/// rmxd that may have this many file descriptors at most.
async fn with_descriptors(site: &Site, most: usize) -> Daemon {
    let home = site.home();
    let script = format!("ulimit -n {most} && exec \"$0\" serve --config \"$1\" --set listen.admin=");
    let mut command = home.command("sh");
    command.args(["-c", &script, binary()]).arg(home.file());
    site.launch(command, home).await
}

/// Connections that say nothing. The kernel takes them, whether rmxd does or not.
fn crowd(site: &Site, size: usize) -> Vec<UnixStream> {
    (0..size).map(|_| UnixStream::connect(site.socket()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_the_milter_makes_mail_wait_and_says_so_once() {
    let short = |guide: String| guide.replace("connect_timeout=5s", "connect_timeout=5s, command_timeout=2s");
    let Some(site) = Site::with_milter(short) else { return };
    let rmxd = with_descriptors(&site, DESCRIPTORS).await;
    is_well(&site, 1).await;
    let mut open = site.client(EXCHANGER).await;
    let idle = crowd(&site, 2 * DESCRIPTORS);
    rmxd.logged("accept failed").await;
    for _ in 0..2 {
        let (new, refused) = tokio::join!(good(&site, 2), bad(&site));
        for reply in [new, refused] {
            assert!(reply.text.starts_with("451 4.7.1 "), "{}", reply.text);
        }
    }
    // A session that is under way is judged, or waits since nothing can be looked up.
    open.talk(&[(&format!("MAIL FROM:<{BAD}>"), "250")]).await;
    let reply = open.command("RCPT TO:<user@relay.test>").await;
    assert!(reply.text.starts_with("550 5.1.8 ") || reply.text.starts_with("451 4."), "{}", reply.text);
    drop(open);
    drop(idle);
    // What couldn't be looked up isn't asked again for 5 s.
    let mut tries = 0;
    while bad(&site).await.is_transient() {
        tries += 1;
        assert!(tries < 70, "still a temporary failure");
        sleep(Duration::from_millis(100)).await;
    }
    is_well(&site, 2).await;
    each_came_once(&site, 2).await;
    let log = rmxd.whole_log().await;
    assert_eq!(log.matches("accept failed").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_the_policy_service_is_left_to_default_action() {
    let short = |guide: String| guide.replace("timeout=30s", "timeout=2s");
    let Some(site) = Site::with_policy_service(short) else { return };
    let rmxd = with_descriptors(&site, DESCRIPTORS).await;
    let idle = crowd(&site, 2 * DESCRIPTORS);
    rmxd.logged("accept failed").await;
    let mut client = site.client(EXCHANGER).await;
    client
        .talk(&[
            (&format!("MAIL FROM:<{BAD}>"), "250"),
            ("RCPT TO:<user@relay.test>", "250"),
            ("QUIT", "221"),
        ])
        .await;
    drop(idle);
    is_well(&site, 1).await;
    each_came_once(&site, 1).await;
    let log = rmxd.whole_log().await;
    assert_eq!(log.matches("accept failed").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn past_the_limit_of_connections_default_action_decides() {
    const LIMIT: usize = 4;
    for milter in [true, false] {
        let site =
            if milter { Site::with_milter(|guide| guide) } else { Site::with_policy_service(|guide| guide) };
        let Some(site) = site else { return };
        let rmxd = site.rmxd(&["--set", &format!("limits.connections={LIMIT}")]).await;
        let idle = crowd(&site, LIMIT);
        // The last one in the queue is turned away; then rmxd has seen all.
        let mut one_more = UnixStream::connect(site.socket()).unwrap();
        one_more.set_read_timeout(Some(SOON)).unwrap();
        assert_eq!(std::io::Read::read(&mut one_more, &mut [0; 1]).unwrap(), 0);
        let mut client = site.client(EXCHANGER).await;
        let mail = client.command(&format!("MAIL FROM:<{BAD}>")).await;
        if milter {
            assert!(mail.text.starts_with("451 4.7.1 "), "{}", mail.text);
        } else {
            client.talk(&[("RCPT TO:<user@relay.test>", "250")]).await;
        }
        drop((client, idle));
        let counted = || rmxd.log().contains("too many connections").then_some(());
        eventually("the refusal", SOON, counted).await;
        sleep(Duration::from_millis(100)).await; // until rmxd has seen that they are gone
        is_well(&site, 1).await;
        each_came_once(&site, 1).await;
    }
}
