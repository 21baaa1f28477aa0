//! What the daemon of `--self` counted: outcomes of a door where no sink is behind, from its metrics.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::net::Endpoint;
use crate::policy::door::DoorName;
use crate::policy::outcome::Outcome;
use crate::tools::mta::dial;

/// For the metrics.
const PATIENCE: Duration = Duration::from_secs(5);

/// Messages at a door by outcome, as the daemon counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(in crate::tools::load) struct Outcomes {
    pub(in crate::tools::load) passed: u64,
    pub(in crate::tools::load) refused: u64,
    pub(in crate::tools::load) others: u64,
}

impl Outcomes {
    pub(super) fn total(&self) -> u64 {
        self.passed + self.refused + self.others
    }

    /// # Errors
    /// The metrics can't be read.
    pub(super) async fn read(admin: &Endpoint, door: DoorName) -> Result<Self, String> {
        let text =
            timeout(PATIENCE, metrics(admin)).await.unwrap_or_else(|_elapsed| Err("timeout".to_owned()));
        let text = text.map_err(|why| format!("the metrics of the daemon at {admin}: {why}"))?;
        Self::of(&text, door).ok_or_else(|| format!("the metrics of the daemon at {admin} have no outcomes"))
    }

    /// `None` if an outcome is missing.
    fn of(metrics: &str, door: DoorName) -> Option<Self> {
        let mut outcomes = Self::default();
        for outcome in Outcome::ALL {
            let name =
                format!("rmxd_outcomes_total{{door=\"{}\",outcome=\"{}\"}} ", door.name(), outcome.name());
            let count: u64 =
                metrics.lines().find_map(|line| line.strip_prefix(&name))?.trim().parse().ok()?;
            match outcome {
                Outcome::Passed => outcomes.passed = count,
                Outcome::Refused => outcomes.refused = count,
                Outcome::Delivered | Outcome::RelayRefused | Outcome::RelayFailed | Outcome::NotCompleted => {
                    outcomes.others += count
                }
            }
        }
        Some(outcomes)
    }
}

async fn metrics(admin: &Endpoint) -> Result<String, String> {
    let mut stream = dial(admin, PATIENCE).await.map_err(|failure| failure.to_string())?;
    let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcomes_of_one_door_are_found() {
        let line = |door: &str, outcome: &str, count| {
            format!("rmxd_outcomes_total{{door=\"{door}\",outcome=\"{outcome}\"}} {count}\n")
        };
        let names = ["delivered", "refused", "relay_refused", "relay_failed", "not_completed", "passed"];
        let all = |door, from| -> String {
            names.iter().zip(from..).map(|(name, count)| line(door, name, count)).collect()
        };
        let text =
            format!("HTTP/1.1 200 OK\r\n\r\n# TYPE x counter\n{}{}", all("policy", 100), all("milter", 1));
        let found = Outcomes::of(&text, DoorName::Milter);
        assert_eq!(found, Some(Outcomes { passed: 6, refused: 2, others: 1 + 3 + 4 + 5 }));
        assert_eq!(Outcomes::of(&all("policy", 1), DoorName::Milter), None);
    }
}
