//! What a slow, silent or endless client is held to, by a clock that only tests move.
//!
//! DNS is not asked (real sockets don't know of a paused clock): the client is exempt, the next hop a Maildir.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rmxd::door::SmtpDoor;
use rmxd::relay::NextHop;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support;
use crate::support::client::Client;

/// Longer than any limit of these tests.
const AGES: Duration = Duration::from_secs(100_000);

/// A session at a door with a Maildir behind it.
struct Session {
    smtp: Client<DuplexStream>,
    served: JoinHandle<SmtpDoor>,
    stop: CancellationToken,
    began: Instant,
    mail: Arc<TempDir>,
}

impl Session {
    /// With a pipe of this many octets each way; has read the greeting.
    async fn start(lines: &[&str], pipe: usize) -> Self {
        let mail = Arc::new(tempfile::tempdir().unwrap());
        let exempt = ["exempt.clients=127.0.0.0/8"];
        let mut settings = support::settings(exempt.into_iter().chain(lines.iter().copied()));
        settings.relay.next_hop = NextHop::Maildir(mail.path().to_owned());
        let door = support::door(&settings, "127.0.0.1:9".parse().unwrap());
        door.relay.probe().await.unwrap();
        let (near, far) = tokio::io::duplex(pipe);
        let stop = CancellationToken::new();
        let token = stop.clone();
        let served = tokio::spawn(async move {
            door.serve(far, "127.0.0.10:40000".parse().unwrap(), token).await;
            door
        });
        let smtp = Client::over(near).with_patience(AGES);
        let mut session = Self { smtp, served, stop, began: Instant::now(), mail };
        assert_eq!(session.smtp.reply().await.text, "220 gate.test ESMTP rmxd");
        session
    }

    /// Sends lines and returns the last of all that is answered.
    async fn ask(&mut self, text: &str, answers: usize) -> String {
        self.smtp.send(text).await;
        let mut last = String::new();
        for _ in 0..answers {
            last = self.smtp.reply().await.text;
        }
        last
    }

    async fn open_transaction(&mut self) {
        let last = self.ask("HELO x\r\nMAIL FROM:<a@good.test>\r\nRCPT TO:<b@here.test>\r\n", 3).await;
        assert!(last.starts_with("250 "), "{last}");
    }

    async fn open_data(&mut self) {
        self.open_transaction().await;
        let last = self.ask("DATA\r\nFrom: a@good.test\r\n\r\n", 1).await;
        assert!(last.starts_with("354 "), "{last}");
    }

    /// The last line before rmxd closes, and after how many seconds it came.
    async fn last_words(&mut self) -> (String, u64) {
        last_words(&mut self.smtp, self.began).await
    }

    /// Sends an octet every so often for as long as rmxd takes them, until it closes; as [`Self::last_words`].
    async fn drip(self, text: &'static str, every: Duration) -> (String, u64) {
        let Self { smtp, served, stop, began, mail } = self;
        let (mut read, mut write) = smtp.split();
        let dripping = async {
            for octet in text.bytes().cycle() {
                if write.write_all(&[octet]).await.is_err() {
                    return;
                }
                sleep(every).await;
            }
        };
        let ((), last) = tokio::join!(dripping, last_words(&mut read, began));
        drop((read, write));
        drop(served.await.unwrap());
        assert!(!stop.is_cancelled());
        assert_eq!(delivered(mail.path()), 0);
        last
    }
}

async fn last_words<S: AsyncRead + Unpin>(client: &mut Client<S>, began: Instant) -> (String, u64) {
    let (mut last, mut at) = (String::new(), 0);
    loop {
        match client.reply_or_end().await {
            Ok(reply) => (last, at) = (reply.text, began.elapsed().as_secs()),
            Err(so_far) => {
                assert_eq!(so_far, "", "a line is cut off");
                return (last, at);
            }
        }
    }
}

fn delivered(maildir: &Path) -> usize {
    let count = |folder: &str| std::fs::read_dir(maildir.join(folder)).unwrap().count();
    assert_eq!(count("tmp"), 0, "a draft is left behind");
    count("new")
}

const SILENT: &str = "421 4.4.2 gate.test waited too long, closing connection";

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_told_421_and_cut_off() {
    let limits = ["limits.command_timeout=60s", "limits.data_timeout=90s"];
    let mut idle = Session::start(&limits, 4096).await;
    assert_eq!(idle.last_words().await, (SILENT.to_owned(), 60));

    let mut between = Session::start(&limits, 4096).await;
    between.open_transaction().await;
    sleep(Duration::from_secs(50)).await;
    between.ask("NOOP\r\n", 1).await;
    assert_eq!(between.last_words().await, (SILENT.to_owned(), 110));

    let mut amid = Session::start(&limits, 4096).await;
    amid.open_data().await;
    assert_eq!(amid.last_words().await, (SILENT.to_owned(), 90));
    assert_eq!(delivered(amid.mail.path()), 0);
}

/// RFC 5321 4.5.3.2.7: the time-out is for the command, not for an octet of it.
#[tokio::test(start_paused = true)]
async fn a_command_that_comes_octet_by_octet_has_no_more_time_than_another() {
    for text in ["NOOP aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a"] {
        // the second is a line that is too long and has no end
        let limits = ["limits.command_timeout=60s", "limits.command_line=512"];
        let client = Session::start(&limits, 4096).await;
        let every = Duration::from_millis(if text.len() == 1 { 50 } else { 5000 });
        assert_eq!(client.drip(text, every).await, (SILENT.to_owned(), 60), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_keeps_to_every_time_out_still_has_to_leave_at_the_end_of_the_session() {
    let limits = ["limits.command_timeout=5m", "limits.data_timeout=5m", "limits.session=30m"];
    let minute = Duration::from_secs(60);

    // a command takes four minutes
    let client = Session::start(&limits, 4096).await;
    assert_eq!(client.drip("NOOP\r\n", minute * 2 / 3).await, (SILENT.to_owned(), 1800));

    let mut client = Session::start(&limits, 4096).await;
    client.open_data().await;
    assert_eq!(client.drip("text\r\n", minute).await, (SILENT.to_owned(), 1800));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_its_replies_is_cut_off_in_a_minute() {
    let mut client = Session::start(&[], 512).await;
    let began = Instant::now();
    let flood = async {
        while client.smtp.try_send("HELP\r\n").await.is_ok() {}
        began.elapsed().as_secs()
    };
    let cut_off = timeout(AGES, flood).await.unwrap();
    assert!((60..65).contains(&cut_off), "{cut_off}");
    // what was said before is whole lines, but for the last
    let said = client.smtp.rest().await;
    let whole = said.lines().rev().skip(1).all(|line| line.starts_with("214 2.0.0 HELO"));
    assert!(whole && !said.contains("421"), "{said}");
}

/// Each read finds octets, so that none of them waits for a time-out.
#[tokio::test(start_paused = true)]
async fn a_client_that_never_lets_a_read_wait_has_to_leave_at_the_end_of_the_session_too() {
    for (in_data, text) in [(false, "NOOP\r\n"), (true, "text\r\n")] {
        let mut client = Session::start(&["limits.session=30m", "limits.junk_commands=10000"], 1 << 20).await;
        if in_data {
            client.open_data().await;
        }
        let mut taken = 0;
        while taken < 5000 && client.smtp.try_send(text).await.is_ok() {
            tokio::time::advance(Duration::from_secs(1)).await;
            taken = client.began.elapsed().as_secs();
        }
        // for a moment after the close octets are taken in and thrown away
        assert!((1800..1810).contains(&taken), "{text}: {taken}");
        let said = client.smtp.rest().await;
        assert!(said.ends_with(&format!("{SILENT}\r\n")), "{text}: {:?}", said.lines().last());
    }
}

const GOING: &str = "421 4.3.2 gate.test is shutting down, closing connection";

#[tokio::test(start_paused = true)]
async fn at_shutdown_an_idle_session_gets_421_at_once() {
    let mut idle = Session::start(&[], 4096).await;
    idle.stop.cancel();
    assert_eq!(idle.last_words().await, (GOING.to_owned(), 0));

    let mut greeted = Session::start(&[], 4096).await;
    greeted.ask("HELO x\r\n", 1).await;
    greeted.smtp.send("MAIL FR").await;
    greeted.stop.cancel();
    assert_eq!(greeted.last_words().await, (GOING.to_owned(), 0));
}

#[tokio::test(start_paused = true)]
async fn at_shutdown_an_open_transaction_may_finish_and_then_the_session_ends() {
    let mut early = Session::start(&[], 4096).await;
    early.open_transaction().await;
    let mut late = Session::start(&[], 4096).await;
    late.open_data().await;
    for client in [&mut early, &mut late] {
        client.stop.cancel();
        sleep(Duration::from_secs(20)).await;
    }
    assert!(early.ask("DATA\r\n", 1).await.starts_with("354 "));
    early.smtp.send("From: a@good.test\r\n\r\n").await;
    for client in [&mut early, &mut late] {
        assert_eq!(client.ask(".\r\n", 1).await, "250 2.0.0 Message stored");
        assert_eq!(client.last_words().await.0, GOING);
        assert_eq!(delivered(client.mail.path()), 1);
    }

    let mut abandoned = Session::start(&[], 4096).await;
    abandoned.open_transaction().await;
    abandoned.stop.cancel();
    assert!(abandoned.ask("RSET\r\n", 1).await.starts_with("250 "));
    assert_eq!(abandoned.last_words().await.0, GOING);
}

/// A reply that was under way when the daemon was stopped is neither lost nor sent twice.
#[tokio::test(start_paused = true)]
async fn at_shutdown_a_reply_under_way_arrives_whole() {
    let mut client = Session::start(&[], 64).await;
    client.smtp.send("NOOP\r\nHELP\r\nHELP\r\nNOOP\r\n").await;
    sleep(Duration::from_secs(1)).await;
    client.stop.cancel();
    sleep(Duration::from_secs(1)).await;
    let said = client.smtp.rest().await;
    let codes: Vec<&str> = said.lines().map(|line| line.split_at(9).0).collect();
    assert_eq!(codes, ["250 2.0.0", "214 2.0.0", "214 2.0.0", "250 2.0.0", "421 4.3.2"], "{said}");
}
