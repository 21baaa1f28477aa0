//! A session of the tour and what came of it, with the reasons from the log.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::policy::door::DoorName;
use crate::policy::reason::Reason;
use crate::tools::demo::doors::frame::Frame;
use crate::tools::demo::doors::judged::{Judged, Wanted};
use crate::tools::demo::doors::scene::Scene;
use crate::tools::demo::doors::stage::Stage;
use crate::tools::demo::doors::{milter, policy};
use crate::tools::demo::observed;

/// For each answer; longer than the lookups of a gate may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Maximum wait for a line of the log, and the time between two reads.
const LOG_WRITTEN: Duration = Duration::from_secs(2);
const LOG_POLL: Duration = Duration::from_millis(5);
/// What is shown of a line of the log.
const SHOWN: [&str; 7] = ["verdict=", "outcome=", "mode=", "identity=", "rule=", "reason=", "domain="];

#[derive(Debug)]
pub(super) struct Played {
    pub(super) scene: Scene,
    pub(super) frames: Vec<Frame>,
    pub(super) judged: Vec<Judged>,
    /// The session broke.
    pub(super) error: Option<String>,
}

impl Played {
    pub(super) fn is_wrong(&self) -> bool {
        self.error.is_some() || self.judged.iter().any(Judged::is_wrong) || self.judged.is_empty()
    }
}

/// Plays a session; `number` counts from 1.
pub(super) async fn play(stage: &Stage, scene: Scene, number: u16) -> Played {
    let socket = stage.socket(scene.gate);
    let played = match stage.door {
        DoorName::Policy => policy::play(&scene, number, &socket, PATIENCE).await,
        DoorName::Milter | DoorName::Smtp => milter::play(&scene, number, &socket, PATIENCE).await,
    };
    let (frames, judged, error) = match played {
        Ok((frames, judged)) => (frames, judged, None),
        Err(failure) => (Vec::new(), Vec::new(), Some(failure.to_string())),
    };
    let mut played = Played { scene, frames, judged, error };
    if let Err(error) = explain(&stage.log(), &mut played).await {
        played.error = Some(format!("the log: {error}"));
    }
    played
}

/// Adds the reasons from the log.
async fn explain(log: &Path, played: &mut Played) -> std::io::Result<()> {
    for judged in &mut played.judged {
        if let Some(id) = judged.id() {
            judged.reason = observed::logged(log, &id).await?;
        } else if let Wanted::Logged(_) = judged.wanted {
            let Some(line) = monitored(log).await? else { continue };
            let words = line.split(' ').filter(|word| SHOWN.iter().any(|name| word.starts_with(name)));
            let words: Vec<&str> = words.collect();
            let named = words.iter().find_map(|word| word.strip_prefix("reason="));
            judged.reason =
                named.and_then(|name| Reason::ALL.into_iter().find(|reason| reason.name() == name));
            played.frames.push(Frame::rmxd("log", words.join(" ")));
        }
    }
    Ok(())
}

/// The line of the decision in monitor mode, which is written when the session is over.
async fn monitored(log: &Path) -> std::io::Result<Option<String>> {
    let until = Instant::now() + LOG_WRITTEN;
    loop {
        let text = fs::read_to_string(log)?;
        let is_decision = |line: &&str| line.contains(" rmxd::decision: ") && line.contains(" mode=monitor ");
        if let Some(line) = text.lines().find(is_decision) {
            return Ok(Some(line.to_owned()));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        sleep(LOG_POLL).await;
    }
}
