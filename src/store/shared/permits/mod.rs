//! The permits of all nodes, in Redis: what is made or removed at one is in effect at the others within two seconds.
//!
//! Each node has all of them in its own state file too, so that Redis may lose them. They are sealed, each for its own field:
//! somebody without the secret can't make, change or move one. What such a writer removes or overwrites is written back by
//! any node. A removal is an entry of its own, which nodes keep: an old copy of the permit doesn't bring it back. So the worst
//! that can be done here is a delay.
//!
//! A number that each change raises is read every second, and the whole hash when it has changed; once a minute anyway, as
//! somebody may hold the number still.

mod scripts;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior};

use crate::metrics::ClusterOp;
use crate::smtp::escape::OneLine;
use crate::store::permits::{Entry, Merged, PermitStore, Unsent};
use crate::store::shared::failure::Failure;
use crate::store::shared::keys::Keys;
use crate::store::shared::link::Link;
pub(super) use crate::store::shared::permits::scripts::try_rights;
use crate::store::shared::permits::scripts::{Field, Names, Place};

/// Between two looks at the number: with the time to read, a change is everywhere within two seconds.
const BEAT: Duration = Duration::from_secs(1);
/// Between two reads of all, though the number stays.
const WHOLE: Duration = Duration::from_secs(60);
/// After a failure, and between two reads of much that isn't ours.
const PAUSE: Duration = Duration::from_secs(5);
/// Fields that aren't ours, above which reads have pauses.
const MUCH: usize = 1000;
/// Fields of one question.
const READ_AT_ONCE: usize = 256;
const WRITTEN_AT_ONCE: usize = 64;
/// A time that took longer to come says too little.
const SLOW: Duration = Duration::from_millis(500);
/// Clocks differ by less for the time that an answer takes.
const SAME: u64 = 250;

/// The exchange of permits with the other nodes.
#[derive(Debug)]
pub(super) struct Exchange {
    link: Arc<Link>,
    keys: Arc<Keys>,
    store: PermitStore,
    place: Place,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number when all was read; `None` = since Redis is there, it wasn't.
    number: Option<Vec<u8>>,
    /// When all was read.
    read: Option<Instant>,
    /// Nothing is read or tried again before.
    pause: Option<Instant>,
    /// What isn't ours was logged.
    foreign: bool,
    /// A clock that differs too much was logged.
    wrong_clock: bool,
    /// When it was last logged that permits are written back.
    written_back: Option<Instant>,
}

/// What a read has found.
#[derive(Debug, Default)]
struct Found {
    /// Numbers of which Redis has the same as this node.
    same: HashSet<u64>,
    /// Fields that nobody needs any more.
    over: Vec<Field>,
    /// Fields that no node with this secret has written.
    foreign: Vec<Field>,
}

impl Exchange {
    pub(super) fn new(link: Arc<Link>, keys: Arc<Keys>, store: PermitStore) -> Self {
        let place = Place::of(&keys);
        Self { link, keys, store, place, state: Mutex::default() }
    }

    /// Exchanges until it is cancelled.
    pub(super) async fn run(self: Arc<Self>) {
        let node = self.link.settings().node;
        // Also while Redis is away: another node may give these numbers.
        drop(self.with_store(move |store| store.adopt(node)).await);
        let mut beats = tokio::time::interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let mut state = self.state.lock().await;
            if !self.link.is_up() {
                *state = State { number: None, pause: None, ..std::mem::take(&mut *state) };
                continue;
            }
            if state.pause.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            state.pause = None;
            if self.turn(&mut state).await.is_err() {
                state.pause = Some(Instant::now() + PAUSE);
            }
        }
    }

    /// Tells the other nodes at once what was made and removed here; whether they can know it now.
    pub(super) async fn share(&self) -> bool {
        if self.store.is_shared() {
            return true;
        }
        if !self.link.is_up() {
            self.link.metrics().cluster_dropped(ClusterOp::Permits);
            return false;
        }
        let mut state = self.state.lock().await;
        // First what others have: the number of the new one may be taken.
        let done =
            if state.number.is_none() { self.turn(&mut state).await } else { self.tell(&mut state).await };
        drop(state);
        done.is_ok() && self.store.is_shared()
    }

    async fn turn(&self, state: &mut State) -> Result<(), Failure> {
        if state.number.is_none() || state.read.is_none_or(|read| read.elapsed() >= WHOLE) {
            return self.read_all(state, true).await;
        }
        self.tell(state).await?;
        if Some(self.place.number(&self.link).await?) == state.number {
            return Ok(());
        }
        self.read_all(state, false).await
    }

    /// Writes what the other nodes can't know yet.
    async fn tell(&self, state: &mut State) -> Result<(), Failure> {
        let changes = self.store.unsent();
        for changes in changes.chunks(WRITTEN_AT_ONCE) {
            self.write(state, changes).await?;
            self.store.sent(changes);
        }
        Ok(())
    }

    async fn write(&self, state: &mut State, changes: &[Unsent]) -> Result<(), Failure> {
        let numbers: Vec<u64> = changes.iter().map(|change| change.number).collect();
        let entries = self.with_store(move |store| store.entries(&numbers)).await?;
        let now = by_server(SystemTime::now(), self.store.ahead());
        let sealed = entries.iter().filter_map(|entry| {
            let field = self.keys.permit_field(entry.number());
            Some((field, self.keys.seal_permit(&field, now, &entry.text())?))
        });
        let sealed: Vec<(Field, Vec<u8>)> = sealed.collect();
        if sealed.is_empty() {
            return Ok(());
        }
        let (before, after) = self.place.write(&self.link, &sealed).await?;
        // Nobody else has changed anything since the last read.
        if state.number.as_ref() == Some(&before) {
            state.number = Some(after);
        }
        Ok(())
    }

    /// Reads all, merges it, and writes what is lacking.
    async fn read_all(&self, state: &mut State, tidy: bool) -> Result<(), Failure> {
        let unsent = self.store.unsent();
        let (began, asked) = (SystemTime::now(), Instant::now());
        let Names { number, time, fields, odd } = self.place.names(&self.link).await?;
        self.set_clock(state, began, asked.elapsed(), time);
        let mut found = Found::default();
        let is_ours = fields.is_some();
        match fields {
            Some(fields) => {
                for fields in fields.chunks(READ_AT_ONCE) {
                    self.read(fields, &mut found).await?;
                }
            }
            // Another type, or more than there can be: what is ours is written back.
            None => self.place.clear(&self.link).await?,
        }
        let is_foreign = odd || !is_ours || !found.foreign.is_empty();
        self.note_foreign(state, is_foreign, tidy);
        let numbers = self.with_store(|store| store.numbers()).await?;
        let lacking: Vec<u64> = numbers.into_iter().filter(|number| !found.same.contains(number)).collect();
        let is_lacking: HashSet<u64> = lacking.iter().copied().collect();
        let known: Vec<Unsent> =
            unsent.into_iter().filter(|change| !is_lacking.contains(&change.number)).collect();
        self.store.sent(&known);
        self.store.lacking(&lacking);
        (state.number, state.read) = (Some(number), Some(Instant::now()));
        if found.foreign.len() > MUCH {
            state.pause = Some(Instant::now() + PAUSE);
        }
        // Before anything is written: a field that isn't ours may be in the place of one that is.
        let tidied = self.tidy(found, tidy, odd).await;
        self.tell(state).await?;
        note_written_back(state, lacking.len());
        tidied
    }

    /// Removes what nobody needs. What no gate could have written goes at once: it may be huge.
    async fn tidy(&self, Found { over, foreign, .. }: Found, all: bool, odd: bool) -> Result<(), Failure> {
        if odd {
            self.place.sweep(&self.link).await?;
        }
        let fields = if all { [over, foreign].concat() } else { Vec::new() };
        for fields in fields.chunks(READ_AT_ONCE) {
            self.place.remove(&self.link, fields).await?;
        }
        Ok(())
    }

    /// Reads some fields, and merges what nodes have sealed.
    async fn read(&self, fields: &[Field], found: &mut Found) -> Result<(), Failure> {
        let values = self.place.values(&self.link, fields).await?;
        let mut entries = Vec::new();
        for (field, value) in fields.iter().zip(values) {
            let Some(value) = value else { continue };
            match self.keys.open_permit(field, &value) {
                None => found.foreign.push(*field),
                // Sealed, and not understood: of a later version.
                Some((_, text)) => entries.extend(Entry::read(&text)),
            }
        }
        let node = self.link.settings().node;
        let Merged { same, over } = self.with_store(move |store| store.merge(entries, node)).await?;
        found.same.extend(same);
        found.over.extend(over.iter().map(|number| self.keys.permit_field(*number)));
        Ok(())
    }

    /// What isn't ours counts as absent.
    fn note_foreign(&self, state: &mut State, is_foreign: bool, tidy: bool) {
        if !is_foreign {
            // All of it was read, and was ours.
            state.foreign &= !tidy;
            return;
        }
        self.link.metrics().cluster_nonsense(ClusterOp::Permits);
        if !std::mem::replace(&mut state.foreign, true) {
            let key = OneLine(&self.keys.permits()).to_string();
            tracing::warn!(
                key,
                "the permits in Redis have values that rmxd didn't write; they count as absent"
            );
        }
    }

    /// Permits end by the server's clock, so that they end at all nodes at once.
    fn set_clock(&self, state: &mut State, began: SystemTime, took: Duration, server: SystemTime) {
        if took > SLOW {
            return;
        }
        let own = began + took / 2;
        let ahead = match server.duration_since(own) {
            Ok(ahead) => i64::try_from(ahead.as_millis()),
            Err(behind) => i64::try_from(behind.duration().as_millis()).map(|behind| -behind),
        };
        let ahead = ahead.unwrap_or(i64::MAX);
        if ahead.abs_diff(self.store.ahead()) <= SAME {
            return;
        }
        let is_possible = self.store.set_ahead(ahead);
        if !is_possible && !state.wrong_clock {
            let seconds = ahead / 1000;
            tracing::warn!(
                seconds,
                "the clock of Redis is far ahead of this one, or behind: permits end by this one"
            );
        }
        state.wrong_clock = !is_possible;
    }

    async fn with_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&PermitStore) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let store = self.store.clone();
        spawn_blocking(move || work(&store)).await.map_err(|error| {
            tracing::error!(%error, "the exchange of permits died");
            Failure::Away
        })
    }
}

/// Once a minute at most: somebody may remove them again and again.
fn note_written_back(state: &mut State, count: usize) {
    if count > 0 && state.written_back.is_none_or(|last| last.elapsed() >= WHOLE) {
        state.written_back = Some(Instant::now());
        tracing::info!(permits = count, "Redis lacked permits or removals, and has them now");
    }
}

/// Milliseconds since 1970.
fn by_server(now: SystemTime, ahead: i64) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default().saturating_add_signed(ahead)
}

#[cfg(test)]
mod tests;
