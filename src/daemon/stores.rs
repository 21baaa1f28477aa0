//! The stores: opened at a start, passed on by a reload, and written at the end.

use std::io::ErrorKind;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::config::Settings;
use crate::daemon::StartError;
use crate::daemon::parts::{Observers, Parts};
use crate::store::greylist::Greylist;
use crate::store::history::{History, WeakHistory};
use crate::store::permits::{Clock, PermitStore};
use crate::store::shared::Fleet;
use crate::store::{OpenError, StateFile};

/// The stores that are open.
#[derive(Debug)]
pub(super) struct Stores {
    /// The file of greylist and permits.
    state: Arc<StateFile>,
    /// Stays open once it is opened: old sessions may still use it, and a later reload may need it again.
    greylist: Option<Greylist>,
    /// All that were opened: old sessions may still write to them, and no other process can open them.
    histories: Vec<WeakHistory>,
    fleet: Option<Fleet>,
}

impl Stores {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { state: StateFile::at(&settings.state), greylist: None, histories: Vec::new(), fleet: None }
    }

    /// The greylist of these settings: the open one, or a new one.
    pub(super) async fn greylist(&self, settings: &Settings) -> Result<Option<Greylist>, StartError> {
        let Some(wanted) = settings.greylist.clone() else { return Ok(None) };
        if let Some(open) = &self.greylist {
            return Ok(Some(open.with_settings(wanted)));
        }
        let settings = wanted.clone();
        let state = Arc::clone(&self.state);
        let opened = spawn_blocking(move || Greylist::open_in(state, settings)).await;
        match opened.map_err(StartError::StoreDied)? {
            Ok(greylist) => Ok(Some(greylist)),
            // Greylisting is on by default. An operator may start rmxd without write access and not need it for
            // anything else.
            Err(OpenError::Io { path, error }) if may_not_write(&error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "the greylist is kept in memory only, a restart forgets it");
                Greylist::in_memory(wanted).map(Some).map_err(StartError::Random)
            }
            Err(error) => Err(StartError::Greylist(error)),
        }
    }

    /// The permits of the state file, once at a start.
    pub(super) async fn permits(&self) -> Result<PermitStore, StartError> {
        let state = Arc::clone(&self.state);
        let opened = spawn_blocking(move || PermitStore::open(state)).await;
        match opened.map_err(StartError::StoreDied)? {
            Err(OpenError::Io { path, error }) if may_not_write(&error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "permits are kept in memory only, a restart forgets them");
                Ok(PermitStore::in_memory(Clock::default()))
            }
            opened => opened.map_err(StartError::Permits),
        }
    }

    /// The history of these settings: an open one, or a new one.
    pub(super) async fn history(&self, settings: &Settings) -> Result<Option<History>, StartError> {
        let Some(wanted) = settings.history.clone() else { return Ok(None) };
        let open =
            self.histories.iter().filter_map(WeakHistory::upgrade).find(|history| history.is_at(&wanted));
        if open.is_some() {
            return Ok(open);
        }
        let opened = spawn_blocking(move || History::open(&wanted)).await;
        opened.map_err(StartError::StoreDied)?.map(Some).map_err(StartError::History)
    }

    /// The other nodes: by the connection that is there, or by a new one.
    pub(super) async fn fleet(
        &self,
        settings: &Settings,
        observers: &Observers,
    ) -> Result<Option<Fleet>, StartError> {
        let Some(wanted) = &settings.cluster else { return Ok(None) };
        if let Some(open) = self.fleet.as_ref().filter(|open| open.settings() == wanted) {
            return Ok(Some(open.clone()));
        }
        let (metrics, elsewhere) = (observers.metrics.clone(), observers.elsewhere.clone());
        Fleet::start(wanted.clone(), metrics, elsewhere).await.map(Some).map_err(StartError::Fleet)
    }

    /// Puts the stores' settings into effect; the decisions of new sessions go to these stores.
    pub(super) fn take_over(&mut self, parts: &Parts) {
        self.histories.retain(|before| before.upgrade().is_some());
        if let (Some(history), Some(wanted)) = (&parts.history, &parts.settings.history) {
            history.set_limits(wanted);
            // Once only, however often the settings are reloaded.
            self.histories.retain(|before| before.upgrade().is_some_and(|open| !open.is_at(wanted)));
            self.histories.push(history.downgrade());
        }
        let before = std::mem::replace(&mut self.fleet, parts.fleet.clone());
        let stays = |before: &Fleet| self.fleet.as_ref().is_some_and(|fleet| fleet.is(before));
        before.iter().filter(|before| !stays(before)).for_each(Fleet::retire);
        if let Some(greylist) = &parts.greylist {
            greylist.apply_expiry();
            self.greylist = Some(greylist.clone());
        }
    }

    /// Writes everything to disk, also histories that only sessions from before a reload use.
    pub(super) async fn write(self) {
        let Self { greylist, histories, state: _held, fleet: _ } = self;
        if let Some(greylist) = greylist
            && spawn_blocking(move || greylist.flush()).await.is_err()
        {
            tracing::error!("the greylist could not be written");
        }
        let settle = move || histories.iter().for_each(WeakHistory::wait_until_written);
        if spawn_blocking(settle).await.is_err() {
            tracing::error!("the history could not be written");
        }
    }
}

fn may_not_write(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}
