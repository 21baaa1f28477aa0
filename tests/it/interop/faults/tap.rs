//! A tap in the line from Postfix to the milter: it passes all on until an event that the test chooses, and holds that
//! session there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Where a session is held. Events are known by their letter (milter protocol, `SMFIC_*`).
#[derive(Debug, Clone, Copy)]
pub(super) enum Hold {
    /// The event with this letter and number, from 1, is not passed on.
    Event(char, usize),
    /// The first event with this letter is passed on, and so many octets of the answer to it.
    Answer(char, usize),
}

type Armed = Arc<Mutex<Option<(Hold, oneshot::Sender<()>)>>>;

/// A running tap. Dropping it removes its socket; sessions under way end when rmxd or Postfix ends them.
pub(super) struct Tap {
    path: PathBuf,
    armed: Armed,
    accepting: JoinHandle<()>,
}

impl Tap {
    /// Listens at `path`, in front of rmxd at `behind`.
    pub(super) fn start(path: PathBuf, behind: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        let armed = Armed::default();
        let for_sessions = Arc::clone(&armed);
        let accepting = tokio::spawn(async move {
            while let Ok((postfix, _)) = listener.accept().await {
                // Without rmxd Postfix finds a closed connection.
                let Ok(rmxd) = UnixStream::connect(&behind).await else { continue };
                tokio::spawn(pass_on(postfix, rmxd, Arc::clone(&for_sessions)));
            }
        });
        Self { path, armed, accepting }
    }

    /// Holds the next session that comes so far; the receiver has word when it has.
    pub(super) fn hold(&self, hold: Hold) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        *self.armed.lock().unwrap() = Some((hold, sender));
        receiver
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accepting.abort();
        fs::remove_file(&self.path).unwrap();
    }
}

async fn pass_on(postfix: UnixStream, rmxd: UnixStream, armed: Armed) {
    let (from_postfix, to_postfix) = postfix.into_split();
    let (from_rmxd, to_rmxd) = rmxd.into_split();
    let limit = Arc::new(Mutex::new(None));
    // Whoever closes first closes both.
    tokio::select! {
        () = events(from_postfix, to_rmxd, armed, Arc::clone(&limit)) => {}
        () = answers(from_rmxd, to_postfix, limit) => {}
    }
}

/// How many octets of answers may still pass, and who has word when they have.
type Limit = Arc<Mutex<Option<(usize, oneshot::Sender<()>)>>>;

async fn events(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, armed: Armed, limit: Limit) {
    let mut seen = 0;
    while let Ok(length) = from.read_u32().await {
        let mut packet = vec![0; usize::try_from(length).unwrap()];
        if from.read_exact(&mut packet).await.is_err() {
            return;
        }
        let held = {
            let mut armed = armed.lock().unwrap();
            let letter = char::from(packet[0]);
            let is_meant = armed.as_ref().is_some_and(|(hold, _)| match hold {
                Hold::Event(meant, number) => {
                    seen += usize::from(*meant == letter);
                    *meant == letter && seen == *number
                }
                Hold::Answer(meant, _) => *meant == letter,
            });
            if is_meant { armed.take() } else { None }
        };
        let pass = [&length.to_be_bytes()[..], &packet].concat();
        match held {
            None => {
                if to.write_all(&pass).await.is_err() {
                    return;
                }
            }
            Some((Hold::Event(..), reached)) => {
                reached.send(()).unwrap();
                std::future::pending::<()>().await;
            }
            Some((Hold::Answer(_, octets), reached)) => {
                if octets == 0 {
                    reached.send(()).unwrap();
                    *limit.lock().unwrap() = Some((0, oneshot::channel().0));
                } else {
                    *limit.lock().unwrap() = Some((octets, reached));
                }
                to.write_all(&pass).await.unwrap();
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, limit: Limit) {
    let mut octets = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut octets).await {
        let (pass, reached) = {
            let mut limit = limit.lock().unwrap();
            match limit.take() {
                None => (length, None),
                Some((0, nobody)) => {
                    *limit = Some((0, nobody));
                    (0, None)
                }
                Some((left, reached)) => {
                    assert!(length > left, "the answer has {length} octets only");
                    *limit = Some((0, oneshot::channel().0));
                    (left, Some(reached))
                }
            }
        };
        if to.write_all(&octets[..pass]).await.is_err() {
            return;
        }
        if let Some(reached) = reached {
            reached.send(()).unwrap();
        }
    }
}
