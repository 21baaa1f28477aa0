//! The table of [`ClientQuota`](super::client_quota::ClientQuota): the places that are taken, and the questions that wait.
//!
//! Free places go round the neighbourhoods, and within one round its networks, one question at a time. A network or
//! neighbourhood that holds as many places as it may is left out of the turns until one of its own questions ends: no turn
//! is spent on it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use foldhash::quality::RandomState;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::dns::budget::Urgency;
use crate::dns::shares::{Bounds, FEW, has_room, most_together, neighbourhood, share};

/// All networks with questions.
#[derive(Debug, Default)]
pub(super) struct Table {
    /// The number of the next question that has a place.
    next: u64,
    /// By number, so the oldest is first.
    pub(super) places: BTreeMap<u64, TakenPlace>,
    /// Questions that lost their place and still wait for their answer, the oldest first.
    pub(super) late: BTreeMap<u64, TakenPlace>,
    pub(super) waiting: usize,
    pub(super) neighbourhoods: HashMap<IpAddr, Neighbourhood, RandomState>,
    pub(super) networks: HashMap<IpAddr, Network, RandomState>,
    pub(super) turns: Turns,
}

/// A place, as the table keeps it.
#[derive(Debug)]
pub(super) struct TakenPlace {
    network: IpAddr,
    since: Instant,
    /// Dropped when the question ends or loses its place: that resolves [`QuotaPlace::revoked`].
    _end: oneshot::Sender<()>,
}

/// A place, as the question keeps it.
#[derive(Debug)]
pub(super) struct QuotaPlace {
    pub(super) number: u64,
    pub(super) revoked: oneshot::Receiver<()>,
}

#[derive(Debug, Default)]
pub(super) struct Neighbourhood {
    /// Places, those of late questions included.
    held: usize,
    waiting: usize,
    networks: usize,
    in_turns: [bool; 2],
    turns: Turns,
}

#[derive(Debug, Default)]
pub(super) struct Network {
    /// Places, those of late questions included.
    held: usize,
    waiting: usize,
    in_turns: [bool; 2],
    /// The turn of a question that was cancelled is closed.
    pub(super) queues: [VecDeque<Turn>; 2],
}

/// The sender end of a waiting question: its place is sent here.
pub(super) type Turn = oneshot::Sender<QuotaPlace>;

/// The order of turns for each [`Urgency`]: of neighbourhoods, or of the networks within one.
pub(super) type Turns = [VecDeque<IpAddr>; 2];

const URGENCIES: [usize; 2] = [0, 1];
/// One in so many of all places: a neighbourhood with fewer may take the place of a late question.
pub(super) const NEWCOMER_SHARE: usize = 64;
/// A question without an answer for so long is late and can lose its place to a newcomer: most name servers answer sooner.
pub(super) const LATE: Duration = Duration::from_millis(100);
/// A late question without an answer for so long can be ended.
pub(super) const SILENT: Duration = Duration::from_secs(1);

pub(super) fn index(urgency: Urgency) -> usize {
    match urgency {
        Urgency::Refuses => 0,
        Urgency::Tags => 1,
    }
}

impl Table {
    pub(super) fn enter(&mut self, network: IpAddr) {
        if let Entry::Vacant(vacant) = self.networks.entry(network) {
            vacant.insert(Network::default());
            self.neighbourhoods.entry(neighbourhood(network)).or_default().networks += 1;
        }
    }

    /// Removes a network without places and questions. One that is still among the turns is removed when its turn comes.
    pub(super) fn leave(&mut self, network: IpAddr) {
        let idle = |it: &Network| it.held == 0 && it.waiting == 0 && it.in_turns == [false; 2];
        if !self.networks.get(&network).is_some_and(idle) {
            return;
        }
        self.networks.remove(&network);
        if let Some(neighbours) = self.neighbourhoods.get_mut(&neighbourhood(network)) {
            neighbours.networks -= 1;
        }
        self.leave_neighbourhood(neighbourhood(network));
    }

    fn leave_neighbourhood(&mut self, key: IpAddr) {
        let idle = |it: &Neighbourhood| it.networks == 0 && it.in_turns == [false; 2];
        if self.neighbourhoods.get(&key).is_some_and(idle) {
            self.neighbourhoods.remove(&key);
        }
    }

    /// Whether other questions of the network wait already.
    pub(super) fn has_waiting(&self, network: IpAddr) -> bool {
        self.networks.get(&network).is_none_or(|network| network.waiting > 0)
    }

    pub(super) fn may_take(&self, bounds: Bounds, network: IpAddr, urgency: usize) -> bool {
        let Some((neighbours, network)) =
            self.neighbourhoods.get(&neighbourhood(network)).zip(self.networks.get(&network))
        else {
            return false;
        };
        let left = (bounds.places - self.places.len())
            .min(most_together(bounds.places).saturating_sub(neighbours.held));
        self.is_free(bounds, urgency)
            && self.has_room(bounds, neighbours)
            && network.held < share(bounds.places, left, bounds.places_each)
    }

    fn is_free(&self, bounds: Bounds, urgency: usize) -> bool {
        let needed = if urgency == index(Urgency::Tags) { bounds.reserved } else { 0 };
        bounds.places - self.places.len() > needed
    }

    fn has_room(&self, bounds: Bounds, neighbours: &Neighbourhood) -> bool {
        has_room(bounds.places, bounds.places - self.places.len(), neighbours.held)
    }

    pub(super) fn may_wait(&self, bounds: Bounds, network: IpAddr) -> bool {
        let Some((neighbours, network)) =
            self.neighbourhoods.get(&neighbourhood(network)).zip(self.networks.get(&network))
        else {
            return false;
        };
        let left = bounds.waiting.saturating_sub(self.waiting);
        let room = has_room(bounds.waiting, left, neighbours.waiting);
        let left = left.min(most_together(bounds.waiting).saturating_sub(neighbours.waiting));
        left > 0 && room && network.waiting < share(bounds.waiting, left, bounds.waiting_each)
    }

    pub(super) fn take(&mut self, network: IpAddr) -> QuotaPlace {
        let (end, revoked) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.places.insert(number, TakenPlace { network, since: Instant::now(), _end: end });
        if let Some(neighbours) = self.neighbourhoods.get_mut(&neighbourhood(network)) {
            neighbours.held += 1;
        }
        if let Some(network) = self.networks.get_mut(&network) {
            network.held += 1;
        }
        QuotaPlace { number, revoked }
    }

    /// Frees the place of a question that has ended, unless it was revoked before.
    pub(super) fn release(&mut self, number: u64) {
        let ended = self.places.remove(&number).or_else(|| self.late.remove(&number));
        let Some(TakenPlace { network, .. }) = ended else {
            return;
        };
        if let Some(neighbours) = self.neighbourhoods.get_mut(&neighbourhood(network)) {
            neighbours.held -= 1;
        }
        if let Some(network) = self.networks.get_mut(&network) {
            network.held -= 1;
        }
        for urgency in URGENCIES {
            self.enqueue_turn(network, urgency);
        }
    }

    /// Gives the place of the oldest late question to a newcomer: a network with hardly any question under way, of which one
    /// that can refuse mail waits.
    pub(super) fn grant_to_newcomer(&mut self, bounds: Bounds, key: IpAddr) {
        let urgent = index(Urgency::Refuses);
        if !self.is_newcomer(bounds, key) {
            return;
        }
        while let Some(turn) = self.queue(key, urgent).and_then(VecDeque::pop_front) {
            if turn.is_closed() {
                continue;
            }
            if self.revoke_oldest_late(bounds) {
                self.grant(key, turn);
            } else if let Some(queue) = self.queue(key, urgent) {
                queue.push_front(turn);
            }
            return;
        }
    }

    pub(super) fn is_newcomer(&self, bounds: Bounds, key: IpAddr) -> bool {
        let most = (bounds.places / NEWCOMER_SHARE).max(FEW);
        self.networks.get(&key).is_some_and(|it| it.held < FEW)
            && self.neighbourhoods.get(&neighbourhood(key)).is_some_and(|it| it.held < most)
    }

    /// Frees the place of the oldest late question; false where none is late, or the pool of late ones is full.
    pub(super) fn revoke_oldest_late(&mut self, bounds: Bounds) -> bool {
        let oldest = |of: &BTreeMap<u64, TakenPlace>, age| {
            let (number, place) = of.first_key_value()?;
            (place.since.elapsed() >= age).then_some(*number)
        };
        let Some(late) = oldest(&self.places, LATE) else {
            return false;
        };
        if self.late.len() >= bounds.late {
            let Some(silent) = oldest(&self.late, SILENT) else {
                return false;
            };
            let network = self.late.get(&silent).map(|place| place.network);
            self.release(silent);
            network.into_iter().for_each(|network| self.leave(network));
        }
        self.late.extend(self.places.remove(&late).map(|place| (late, place)));
        true
    }

    /// False where the question was cancelled meanwhile; [`Table::abandon`] has counted it then.
    fn grant(&mut self, key: IpAddr, turn: Turn) -> bool {
        let place = self.take(key);
        match turn.send(place) {
            Ok(()) => {
                self.count_waiting(key, |waiting| waiting - 1);
                true
            }
            Err(place) => {
                self.release(place.number);
                false
            }
        }
    }

    pub(super) fn enqueue(&mut self, network: IpAddr, urgency: usize, turn: Turn) {
        self.count_waiting(network, |waiting| waiting + 1);
        if let Some(queue) = self.queue(network, urgency) {
            queue.push_back(turn);
        }
        self.enqueue_turn(network, urgency);
    }

    /// A waiting question was cancelled, and its turn is closed. Closed turns are removed once they are the greater part of a
    /// queue.
    pub(super) fn abandon(&mut self, network: IpAddr) {
        self.count_waiting(network, |waiting| waiting - 1);
        if let Some(network) = self.networks.get_mut(&network)
            && network.queues.iter().map(VecDeque::len).sum::<usize>() > 2 * network.waiting + 16
        {
            network.queues.iter_mut().for_each(|queue| queue.retain(|turn| !turn.is_closed()));
        }
    }

    fn count_waiting(&mut self, network: IpAddr, change: impl Fn(usize) -> usize) {
        self.waiting = change(self.waiting);
        if let Some(neighbours) = self.neighbourhoods.get_mut(&neighbourhood(network)) {
            neighbours.waiting = change(neighbours.waiting);
        }
        if let Some(network) = self.networks.get_mut(&network) {
            network.waiting = change(network.waiting);
        }
    }

    fn queue(&mut self, network: IpAddr, urgency: usize) -> Option<&mut VecDeque<Turn>> {
        self.networks.get_mut(&network)?.queues.get_mut(urgency)
    }

    /// Puts a network with waiting questions, and its neighbourhood, at the end of the turns, unless they are there already.
    /// Whether they may take a place is checked when their turn comes.
    fn enqueue_turn(&mut self, key: IpAddr, urgency: usize) {
        let Some((neighbours, network)) =
            self.neighbourhoods.get_mut(&neighbourhood(key)).zip(self.networks.get_mut(&key))
        else {
            return;
        };
        let waits = network.queues.get(urgency).is_some_and(|queue| !queue.is_empty());
        if waits && let Some(stands @ false) = network.in_turns.get_mut(urgency) {
            *stands = true;
            neighbours.turns.get_mut(urgency).into_iter().for_each(|turns| turns.push_back(key));
        }
        let turns = neighbours.turns.get(urgency).is_some_and(|turns| !turns.is_empty());
        if turns && let Some(stands @ false) = neighbours.in_turns.get_mut(urgency) {
            *stands = true;
            self.turns.get_mut(urgency).into_iter().for_each(|turns| turns.push_back(neighbourhood(key)));
        }
    }

    /// Gives the free places away by turns.
    pub(super) fn grant_places(&mut self, bounds: Bounds) {
        for urgency in URGENCIES {
            while self.is_free(bounds, urgency) {
                let Some(key) = self.turns.get_mut(urgency).and_then(VecDeque::pop_front) else {
                    break;
                };
                self.serve_neighbourhood(bounds, key, urgency);
            }
        }
    }

    fn serve_neighbourhood(&mut self, bounds: Bounds, key: IpAddr, urgency: usize) {
        let Some(neighbours) = self.neighbourhoods.get_mut(&key) else {
            return;
        };
        neighbours.in_turns.get_mut(urgency).into_iter().for_each(|stands| *stands = false);
        loop {
            let Some(neighbours) = self.neighbourhoods.get(&key) else {
                return;
            };
            if !self.has_room(bounds, neighbours) {
                return; // it comes back when one of its own questions ends
            }
            let next = self
                .neighbourhoods
                .get_mut(&key)
                .and_then(|neighbours| neighbours.turns.get_mut(urgency)?.pop_front());
            let Some(network) = next else {
                self.leave_neighbourhood(key);
                return;
            };
            let given = self.serve_network(bounds, network, urgency);
            self.leave(network);
            if given {
                self.requeue_neighbourhood(key, urgency);
                return;
            }
        }
    }

    /// True where the network took a place.
    fn serve_network(&mut self, bounds: Bounds, key: IpAddr, urgency: usize) -> bool {
        if let Some(network) = self.networks.get_mut(&key) {
            network.in_turns.get_mut(urgency).into_iter().for_each(|stands| *stands = false);
        }
        while self.may_take(bounds, key, urgency) {
            let Some(turn) = self.queue(key, urgency).and_then(VecDeque::pop_front) else {
                return false;
            };
            if !turn.is_closed() && self.grant(key, turn) {
                self.enqueue_turn(key, urgency);
                return true;
            }
        }
        false // it comes back when one of its own questions ends
    }

    /// Puts a neighbourhood whose networks still wait at the end of all turns.
    fn requeue_neighbourhood(&mut self, key: IpAddr, urgency: usize) {
        let Some(neighbours) = self.neighbourhoods.get_mut(&key) else {
            return;
        };
        let turns = neighbours.turns.get(urgency).is_some_and(|turns| !turns.is_empty());
        if turns && let Some(stands @ false) = neighbours.in_turns.get_mut(urgency) {
            *stands = true;
            self.turns.get_mut(urgency).into_iter().for_each(|turns| turns.push_back(key));
        }
    }
}
