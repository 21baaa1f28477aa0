//! The action `greylist` through the daemon: 450 until the same network, sender and recipient come again, whatever happens
//! to the daemon meanwhile.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::support::client::{Client, Reply};
use crate::support::daemon::{Daemon, Home, any_port, configuration};
use crate::support::process::{SOON, free_address};
use crate::support::zone::Zone;

/// An address in the network of good.test's exchanger, and no exchanger itself.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));
const NEIGHBOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 9, 11));
const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));

const SENDER: &str = "ann@good.test";
const USER: &str = "user@here.test";
/// Where a test comes before the delay is over.
const LONG: Duration = Duration::from_secs(1);
/// The file is written once a second; twice that, and a little for a busy machine.
const WRITTEN: Duration = Duration::from_millis(2_500);
/// Of the envelope, who isn't an exchanger.
const ENVELOPE: &str = "[policy.mail_from]\nmatches = \"greylist\"\nmatches_by = [\"mx\"]";

/// No rule asks for a greylist.
const NEVER: &str = "[policy.reply_to]\nexists = \"reject\"";

/// A place to be greylisted at.
struct Site {
    zone: Zone,
    address: SocketAddr,
    delay: Duration,
}

impl Site {
    fn new() -> Self {
        Self::with_delay(Duration::from_millis(200))
    }

    fn with_delay(delay: Duration) -> Self {
        Self { zone: Zone::start(), address: free_address(), delay }
    }

    /// Waits as a client does that comes again when it was told to.
    async fn delay(&self) {
        sleep(self.delay + Duration::from_millis(50)).await;
    }

    fn text(&self, policy: &str) -> String {
        self.text_with(&format!("delay = \"{}ms\"", self.delay.as_millis()), policy)
    }

    fn text_with(&self, greylist: &str, policy: &str) -> String {
        let more = format!("[relay]\ndomains = [\"here.test\"]\n[greylist]\n{greylist}\n{policy}");
        configuration("gate.test", &[self.address], self.zone.address(), &more)
    }

    async fn start(&self, policy: &str) -> Daemon {
        Daemon::start(&self.text(policy), &[]).await
    }

    async fn client(&self, from: IpAddr) -> Client {
        Client::greeted(from, self.address, "mail.good.test").await
    }

    /// One message to one recipient.
    async fn send(&self, from: IpAddr, sender: &str, recipient: &str) -> Reply {
        self.client(from).await.deliver(sender, recipient, message().as_bytes()).await
    }

    async fn code(&self, from: IpAddr, sender: &str, recipient: &str) -> u16 {
        self.send(from, sender, recipient).await.code
    }
}

fn message() -> String {
    format!("From: {SENDER}\r\n\r\nHello\r\n")
}

/// The daemon again, in the same place.
async fn again(home: Home) -> Daemon {
    Daemon::spawn(home.serve(), home).await
}

/// The reply with `X` in the place of its id.
fn without_id(reply: &Reply) -> String {
    let (before, after) = reply.text.split_once("(id ").expect("an id");
    let (id, after) = after.split_once(')').unwrap();
    assert_eq!(id.len(), 8, "{}", reply.text);
    format!("{before}(id X){after}")
}

/// MAIL and the recipients; their codes.
async fn recipients(client: &mut Client, recipients: &[&str]) -> Vec<u16> {
    assert_eq!(client.command(&format!("MAIL FROM:<{SENDER}>")).await.code, 250);
    let mut codes = Vec::new();
    for recipient in recipients {
        codes.push(client.command(&format!("RCPT TO:<{recipient}>")).await.code);
    }
    codes
}

/// DATA and the message.
async fn data(client: &mut Client) -> Reply {
    assert_eq!(client.command("DATA").await.code, 354);
    client.send(format!("{}.\r\n", message()).as_bytes()).await;
    client.reply().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_triple_passes_when_it_comes_again_in_time_and_no_other_does() {
    let site = Site::with_delay(LONG);
    let daemon = site.start(ENVELOPE).await;
    let first = site.send(CLIENT, SENDER, USER).await;
    let greylisted = "450 4.7.1 <ann@good.test>: good.test is greylisted, try again in 1 second (id X)";
    assert_eq!(without_id(&first), greylisted);
    assert_eq!(without_id(&site.send(CLIENT, SENDER, USER).await), greylisted, "too early");
    assert_eq!(site.code(EXCHANGER, SENDER, USER).await, 250, "its rule doesn't fail");
    assert_eq!(site.code(EXCHANGER, "a@nomx.test", USER).await, 550, "reject goes before greylist");
    site.delay().await;
    assert_eq!(site.code(NEIGHBOUR, "bob@GOOD.test", "User@Here.Test").await, 250, "the same triple");
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 250);
    for (from, sender, recipient) in
        [(STRANGER, SENDER, USER), (CLIENT, "ann@bulk.test", USER), (CLIENT, SENDER, "other@here.test")]
    {
        assert_eq!(site.code(from, sender, recipient).await, 450, "{from} {sender} {recipient}");
    }
    let log = daemon.logged("reason=greylisted").await;
    assert!(log.contains("greylisted id="), "{log}");
    let line = log.lines().find(|line| line.contains("reason=greylisted")).expect("a decision");
    for part in [
        "verdict=defer",
        "identity=mail_from",
        "rule=matches",
        "domain=good.test",
        "client=127.0.0.11",
        "rcpt=user@here.test",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    let messages = daemon.terminate().await.messages();
    assert_eq!(messages.len(), 3);
    let failed = "x-reverse-mx=fail (not_an_exchanger) smtp.mailfrom=good.test";
    let told = messages
        .iter()
        .filter(|message| String::from_utf8_lossy(message).replace("\n\t", " ").contains(failed));
    assert_eq!(told.count(), 2, "passing changes nothing of what was found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_and_a_crash_forget_nobody() {
    let site = Site::new();
    let daemon = site.start(ENVELOPE).await;
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 450);
    // at once: what the end finds unwritten is written then
    let daemon = again(daemon.terminate().await).await;
    site.delay().await;
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 250);
    assert_eq!(site.code(STRANGER, SENDER, USER).await, 450);
    sleep(WRITTEN).await;
    let mut daemon = daemon;
    daemon.signal("KILL");
    assert!(!daemon.ended(SOON).await.success());
    let daemon = again(daemon.into_home()).await;
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 250);
    assert_eq!(site.code(STRANGER, SENDER, USER).await, 250);
    daemon.logged("waiting=1 passed=1").await;
    assert!(daemon.terminate().await.path().join("rmxd-state").is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_recipient_has_an_answer_of_its_own() {
    let site = Site::with_delay(LONG);
    let daemon = site.start(ENVELOPE).await;
    let mut client = site.client(CLIENT).await;
    assert_eq!(
        recipients(&mut client, &[USER, "two@here.test", "user@elsewhere.test"]).await,
        [450, 450, 550]
    );
    assert_eq!(client.command("DATA").await.code, 554);
    assert_eq!(client.command("RSET").await.code, 250);
    assert_eq!(recipients(&mut client, &[USER]).await, [450], "a reset is no way around");
    site.delay().await;
    assert_eq!(client.command("RSET").await.code, 250);
    let all = [USER, "three@here.test", "postmaster@here.test", "two@here.test"];
    assert_eq!(recipients(&mut client, &all).await, [250, 450, 250, 250]);
    assert_eq!(data(&mut client).await.code, 250);
    // whom the greylist let through is no error, nor is whom it did not
    assert_eq!(client.command("QUIT").await.code, 221);
    let log = daemon.settled("reason=greylisted", 4).await;
    assert_eq!(log.matches("reason=greylisted").count(), 4, "one decision for each recipient: {log}");
    assert_eq!(daemon.terminate().await.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn for_the_header_every_recipient_must_have_come_before() {
    let site = Site::with_delay(LONG);
    let daemon = site.start("[policy.from]\nmatches = \"greylist\"\nmatches_by = [\"mx\"]").await;
    let mut client = site.client(CLIENT).await;
    let both = [USER, "two@here.test"];
    assert_eq!(recipients(&mut client, &[USER]).await, [250]);
    let refused = data(&mut client).await;
    let greylisted = "450 4.7.1 <ann@good.test>: good.test is greylisted, try again in 1 second (id X)";
    assert_eq!(without_id(&refused), greylisted);
    site.delay().await;
    assert_eq!(recipients(&mut client, &both).await, [250, 250]);
    assert_eq!(data(&mut client).await.code, 450, "one of them is new");
    assert_eq!(recipients(&mut client, &[USER]).await, [250]);
    assert_eq!(data(&mut client).await.code, 250);
    assert_eq!(recipients(&mut client, &["postmaster@here.test"]).await, [250]);
    assert_eq!(data(&mut client).await.code, 250, "the message of an exempt recipient isn't judged");
    site.delay().await;
    assert_eq!(recipients(&mut client, &both).await, [250, 250]);
    assert_eq!(data(&mut client).await.code, 250);
    // who was refused at RCPT is none of the message's recipients
    assert_eq!(recipients(&mut client, &[USER, "user@elsewhere.test"]).await, [250, 550]);
    assert_eq!(data(&mut client).await.code, 250);
    drop(client);
    assert_eq!(daemon.terminate().await.messages().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_delay_is_for_envelope_and_header_together() {
    let site = Site::new();
    let _daemon = site
        .start(&format!("{ENVELOPE}\n[policy.from]\nmatches = \"greylist\"\nmatches_by = [\"mx\"]"))
        .await;
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 450);
    site.delay().await;
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 250);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_null_sender_is_greylisted_by_the_identities_that_it_has() {
    let site = Site::new();
    let _daemon = site.start("[policy.ptr]\nmatches = \"greylist\"\n[policy.from]\nexists = \"off\"").await;
    let first = site.send(CLIENT, "", USER).await;
    assert!(without_id(&first).starts_with("450 4.7.1 "), "{}", first.text);
    site.delay().await;
    assert_eq!(site.code(CLIENT, "", USER).await, 250);
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 450);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verdict_at_mail_waits_for_the_recipient() {
    let site = Site::new();
    let daemon = site.start(&format!("[policy]\nreject_at = \"mail\"\n{ENVELOPE}")).await;
    let mut client = site.client(CLIENT).await;
    assert_eq!(client.command("MAIL FROM:<a@nomx.test>").await.code, 550);
    assert_eq!(recipients(&mut client, &[USER, "postmaster@here.test"]).await, [450, 250]);
    site.delay().await;
    assert_eq!(client.command(&format!("RCPT TO:<{USER}>")).await.code, 250, "in the same transaction");
    assert_eq!(data(&mut client).await.code, 250);
    drop(client);
    assert_eq!(daemon.terminate().await.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn monitor_refuses_nothing_says_who_would_have_waited_and_remembers() {
    let site = Site::new();
    let monitor = format!("[policy]\nmode = \"monitor\"\n{ENVELOPE}");
    let mut daemon = site.start(&monitor).await;
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 250);
    let log = daemon.settled(" rmxd::decision: ", 1).await;
    assert_eq!(log.matches("accepted, would have been greylisted").count(), 1, "{log}");
    site.delay().await;
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 250);
    let log = daemon.settled(" rmxd::decision: ", 2).await;
    assert_eq!(log.matches("would have been greylisted").count(), 1, "{log}");
    daemon.home().configure(&site.text(ENVELOPE));
    assert!(daemon.reload().await.contains("reloaded"));
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 250, "it was learned");
    assert_eq!(site.code(STRANGER, SENDER, USER).await, 450);
}

#[tokio::test(flavor = "multi_thread")]
async fn unused_triples_are_forgotten_and_use_renews_them() {
    let site = Site::new();
    let text = site.text_with("delay = \"500ms\"\nexpire = \"2s\"", ENVELOPE);
    let daemon = Daemon::start(&text, &[]).await;
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 450);
    for _ in 0..4 {
        sleep(Duration::from_millis(800)).await;
        assert_eq!(site.code(CLIENT, SENDER, USER).await, 250);
    }
    sleep(Duration::from_millis(2_200)).await;
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 450);
    drop(daemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_turns_it_on_and_off_and_changes_the_delay() {
    let site = Site::new();
    let mut daemon = site.start(NEVER).await;
    let file = daemon.home().path().join("rmxd-state");
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 250);
    assert!(!file.exists(), "no rule asks for it");

    std::fs::create_dir(&file).unwrap();
    daemon.home().configure(&site.text(ENVELOPE));
    let log = daemon.reload().await;
    assert!(log.contains("ERROR rmxd::cli::serve: greylist: ") && log.contains("not reloaded"), "{log}");
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 250);
    std::fs::remove_dir(&file).unwrap();

    daemon.home().configure(&site.text_with("delay = \"1h\"", ENVELOPE));
    daemon.reload().await;
    assert!(file.is_file());
    let mut old = site.client(CLIENT).await;
    assert_eq!(site.send(CLIENT, SENDER, USER).await.text.matches("try again in 3600 seconds").count(), 1);
    site.delay().await;
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 450);
    daemon.home().configure(&site.text(ENVELOPE));
    daemon.reload().await;
    assert_eq!(recipients(&mut old, &[USER]).await, [450], "by the settings that it began with");
    assert_eq!(site.code(CLIENT, SENDER, USER).await, 250);
    daemon.home().configure(&site.text(NEVER));
    daemon.reload().await;
    assert_eq!(site.code(STRANGER, SENDER, USER).await, 250);
    daemon.home().configure(&site.text(ENVELOPE));
    daemon.reload().await;
    assert_eq!((site.code(CLIENT, SENDER, USER).await, site.code(STRANGER, SENDER, USER).await), (250, 450));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_can_not_be_used_stops_the_start_with_a_reason() {
    let site = Site::new();
    let daemon = site.start(ENVELOPE).await;
    let (code, log) = refused(&site, daemon.home().path()).await;
    assert_eq!(code, Some(75), "{log}");
    assert!(log.contains("/rmxd-state: in use by another rmxd"), "{log}");
    let home = daemon.terminate().await;

    let file = home.path().join("rmxd-state");
    std::fs::write(&file, "no database\n").unwrap();
    let (code, log) = refused(&site, home.path()).await;
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("/rmxd-state: can't be read ("), "{log}");
    assert!(log.contains("): move it away, and rmxd begins a new one"), "{log}");
    let (code, log) = refused(&site, &home.path().join("missing")).await;
    assert_eq!(code, Some(78), "{log}");
    assert!(log.contains("missing/rmxd-state: No such file or directory"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_may_be_written_it_waits_in_memory_and_says_so() {
    let site = Site::new();
    let home = Home::with(&site.text("[policy.from]\nmatches = \"off\""));
    let mut command = home.serve();
    // nobody, root included, makes a file there
    command.env("STATE_DIRECTORY", "/sys");
    let daemon = Daemon::spawn(command, home).await;
    let warning = "the greylist is kept in memory only, a restart forgets it";
    daemon.logged(warning).await;
    let reply_to = format!("From: {SENDER}\r\nReply-To: x@made-up.good.test\r\n\r\nHello\r\n");
    let send = async || site.client(EXCHANGER).await.deliver(SENDER, USER, reply_to.as_bytes()).await;
    assert_eq!(send().await.code, 450, "the default policy greylists for Reply-To:");
    site.delay().await;
    assert_eq!(send().await.code, 250);
    assert_eq!(daemon.terminate().await.messages().len(), 1);
}

/// A second daemon, with its state in this folder: how it ended, and its log.
async fn refused(site: &Site, state: &Path) -> (Option<i32>, String) {
    let text = site.text(ENVELOPE);
    let home = Home::with(&text.replace(&site.address.to_string(), &any_port().to_string()));
    let mut command = home.serve();
    command.env("STATE_DIRECTORY", state);
    let mut daemon = Daemon::launch(command, home);
    (daemon.ended(SOON).await.code(), daemon.log())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_sessions_at_once_are_answered_alike() {
    const SESSIONS: u8 = 30;
    let site = std::sync::Arc::new(Site::with_delay(LONG));
    let daemon = site.start(ENVELOPE).await;
    for expected in [450, 250, 250] {
        let mut sessions = tokio::task::JoinSet::new();
        for number in 0..SESSIONS {
            let site = std::sync::Arc::clone(&site);
            sessions.spawn(async move {
                let from = IpAddr::V4(Ipv4Addr::new(127, 0, number % 3, 11));
                let recipient = format!("user{}@here.test", number % 10);
                (recipient.clone(), site.code(from, SENDER, &recipient).await)
            });
        }
        while let Some(answer) = sessions.join_next().await {
            let (recipient, code) = answer.unwrap();
            assert_eq!(code, expected, "{recipient}");
        }
        site.delay().await;
    }
    assert_eq!(daemon.terminate().await.messages().len(), 2 * usize::from(SESSIONS));
}
