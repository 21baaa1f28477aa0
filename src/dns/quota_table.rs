//! The table of [`ClientQuota`](super::client_quota::ClientQuota): the places that are taken, and the queues of those that
//! wait for one.
//!
//! Places are given by turns: a neighbourhood has its turn, and in it a network, for one question. A network or neighbourhood
//! that holds all it may isn't in the queue of turns until one of its own questions ends, so that no turn is spent on it.

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
    /// The oldest first.
    pub(super) places: BTreeMap<u64, Asking>,
    /// Without a place; the oldest first.
    pub(super) late: BTreeMap<u64, Asking>,
    pub(super) waiting: usize,
    pub(super) neighbourhoods: HashMap<IpAddr, Neighbourhood, RandomState>,
    pub(super) networks: HashMap<IpAddr, Network, RandomState>,
    pub(super) turns: Turns,
}

/// A question that is under way.
#[derive(Debug)]
pub(super) struct Asking {
    network: IpAddr,
    since: Instant,
    /// Its end is that of the question.
    _goes_on: oneshot::Sender<()>,
}

/// What its asker holds of it.
#[derive(Debug)]
pub(super) struct QueueEntry {
    pub(super) number: u64,
    pub(super) given_up: oneshot::Receiver<()>,
}

#[derive(Debug, Default)]
pub(super) struct Neighbourhood {
    /// With those that are late.
    held: usize,
    waiting: usize,
    networks: usize,
    in_turns: [bool; 2],
    turns: Turns,
}

#[derive(Debug, Default)]
pub(super) struct Network {
    /// With those that are late.
    held: usize,
    waiting: usize,
    in_turns: [bool; 2],
    /// Those of quota who left are closed.
    pub(super) queues: [VecDeque<Turn>; 2],
}

/// Where a question that waits is given its place.
pub(super) type Turn = oneshot::Sender<QueueEntry>;

/// Whose turn it is next, by [`Urgency`]: neighbourhoods, or networks within one.
pub(super) type Turns = [VecDeque<IpAddr>; 2];

const URGENCIES: [usize; 2] = [0, 1];
/// Of all places, what a neighbourhood may have and still take one from another.
pub(super) const NEWCOMERS_TOGETHER: usize = 64;
/// Without an answer for so long, a question can lose its place to a newcomer: most name servers answer sooner.
pub(super) const LATE: Duration = Duration::from_millis(100);
/// And for so long, it can be given up.
pub(super) const SILENT: Duration = Duration::from_secs(1);

pub(super) fn place(urgency: Urgency) -> usize {
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

    /// Forgets a network that holds nothing and waits for nothing; one that still stands in the turns goes with its turn.
    pub(super) fn leave(&mut self, network: IpAddr) {
        let idle = |it: &Network| it.held == 0 && it.waiting == 0 && it.in_turns == [false; 2];
        if !self.networks.get(&network).is_some_and(idle) {
            return;
        }
        self.networks.remove(&network);
        if let Some(around) = self.neighbourhoods.get_mut(&neighbourhood(network)) {
            around.networks -= 1;
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
        let Some((around, network)) =
            self.neighbourhoods.get(&neighbourhood(network)).zip(self.networks.get(&network))
        else {
            return false;
        };
        let left =
            (bounds.places - self.places.len()).min(most_together(bounds.places).saturating_sub(around.held));
        self.is_free(bounds, urgency)
            && self.has_room(bounds, around)
            && network.held < share(bounds.places, left, bounds.places_each)
    }

    fn is_free(&self, bounds: Bounds, urgency: usize) -> bool {
        let needed = if urgency == place(Urgency::Tags) { bounds.reserved } else { 0 };
        bounds.places - self.places.len() > needed
    }

    fn has_room(&self, bounds: Bounds, around: &Neighbourhood) -> bool {
        has_room(bounds.places, bounds.places - self.places.len(), around.held)
    }

    pub(super) fn may_wait(&self, bounds: Bounds, network: IpAddr) -> bool {
        let Some((around, network)) =
            self.neighbourhoods.get(&neighbourhood(network)).zip(self.networks.get(&network))
        else {
            return false;
        };
        let left = bounds.waiting.saturating_sub(self.waiting);
        let room = has_room(bounds.waiting, left, around.waiting);
        let left = left.min(most_together(bounds.waiting).saturating_sub(around.waiting));
        left > 0 && room && network.waiting < share(bounds.waiting, left, bounds.waiting_each)
    }

    pub(super) fn take(&mut self, network: IpAddr) -> QueueEntry {
        let (goes_on, given_up) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.places.insert(number, Asking { network, since: Instant::now(), _goes_on: goes_on });
        if let Some(around) = self.neighbourhoods.get_mut(&neighbourhood(network)) {
            around.held += 1;
        }
        if let Some(network) = self.networks.get_mut(&network) {
            network.held += 1;
        }
        QueueEntry { number, given_up }
    }

    /// The end of a question, unless it was given up before.
    pub(super) fn release(&mut self, number: u64) {
        let ended = self.places.remove(&number).or_else(|| self.late.remove(&number));
        let Some(Asking { network, .. }) = ended else {
            return;
        };
        if let Some(around) = self.neighbourhoods.get_mut(&neighbourhood(network)) {
            around.held -= 1;
        }
        if let Some(network) = self.networks.get_mut(&network) {
            network.held -= 1;
        }
        for urgency in URGENCIES {
            self.stand_in_turns(network, urgency);
        }
    }

    /// Gives a network with hardly any question, where one that can refuse waits, the place of the oldest that is late.
    pub(super) fn give_to_newcomer(&mut self, bounds: Bounds, key: IpAddr) {
        let urgent = place(Urgency::Refuses);
        if !self.is_new(bounds, key) {
            return;
        }
        while let Some(turn) = self.queue(key, urgent).and_then(VecDeque::pop_front) {
            if turn.is_closed() {
                continue;
            }
            if self.take_back(bounds) {
                self.give(key, turn);
            } else if let Some(queue) = self.queue(key, urgent) {
                queue.push_front(turn);
            }
            return;
        }
    }

    pub(super) fn is_new(&self, bounds: Bounds, key: IpAddr) -> bool {
        let together = (bounds.places / NEWCOMERS_TOGETHER).max(FEW);
        self.networks.get(&key).is_some_and(|it| it.held < FEW)
            && self.neighbourhoods.get(&neighbourhood(key)).is_some_and(|it| it.held < together)
    }

    /// Whether there is one place more now.
    pub(super) fn take_back(&mut self, bounds: Bounds) -> bool {
        let oldest = |of: &BTreeMap<u64, Asking>, age| {
            let (number, asking) = of.first_key_value()?;
            (asking.since.elapsed() >= age).then_some(*number)
        };
        let Some(late) = oldest(&self.places, LATE) else {
            return false;
        };
        if self.late.len() >= bounds.late {
            let Some(silent) = oldest(&self.late, SILENT) else {
                return false;
            };
            let network = self.late.get(&silent).map(|asking| asking.network);
            self.release(silent);
            network.into_iter().for_each(|network| self.leave(network));
        }
        self.late.extend(self.places.remove(&late).map(|asking| (late, asking)));
        true
    }

    /// Whether the asker is still there; if it is not, it was counted when it left.
    fn give(&mut self, key: IpAddr, turn: Turn) -> bool {
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
        self.stand_in_turns(network, urgency);
    }

    /// An asker left: its turn is closed. What is closed goes from the queue when it is the greater part of it.
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
        if let Some(around) = self.neighbourhoods.get_mut(&neighbourhood(network)) {
            around.waiting = change(around.waiting);
        }
        if let Some(network) = self.networks.get_mut(&network) {
            network.waiting = change(network.waiting);
        }
    }

    fn queue(&mut self, network: IpAddr, urgency: usize) -> Option<&mut VecDeque<Turn>> {
        self.networks.get_mut(&network)?.queues.get_mut(urgency)
    }

    /// Puts a network with a queue, and its neighbourhood, at the end of the turns, unless they stand there. Whatever keeps
    /// them from having a place is looked at when it is their turn.
    fn stand_in_turns(&mut self, key: IpAddr, urgency: usize) {
        let Some((around, network)) =
            self.neighbourhoods.get_mut(&neighbourhood(key)).zip(self.networks.get_mut(&key))
        else {
            return;
        };
        let waits = network.queues.get(urgency).is_some_and(|queue| !queue.is_empty());
        if waits && let Some(stands @ false) = network.in_turns.get_mut(urgency) {
            *stands = true;
            around.turns.get_mut(urgency).into_iter().for_each(|turns| turns.push_back(key));
        }
        let turns = around.turns.get(urgency).is_some_and(|turns| !turns.is_empty());
        if turns && let Some(stands @ false) = around.in_turns.get_mut(urgency) {
            *stands = true;
            self.turns.get_mut(urgency).into_iter().for_each(|turns| turns.push_back(neighbourhood(key)));
        }
    }

    /// Gives the free places to whose turn it is.
    pub(super) fn give_places(&mut self, bounds: Bounds) {
        for urgency in URGENCIES {
            while self.is_free(bounds, urgency) {
                let Some(key) = self.turns.get_mut(urgency).and_then(VecDeque::pop_front) else {
                    break;
                };
                self.neighbourhood_has_its_turn(bounds, key, urgency);
            }
        }
    }

    fn neighbourhood_has_its_turn(&mut self, bounds: Bounds, key: IpAddr, urgency: usize) {
        let Some(around) = self.neighbourhoods.get_mut(&key) else {
            return;
        };
        around.in_turns.get_mut(urgency).into_iter().for_each(|stands| *stands = false);
        loop {
            let Some(around) = self.neighbourhoods.get(&key) else {
                return;
            };
            if !self.has_room(bounds, around) {
                return; // until a question of its own ends
            }
            let next = self
                .neighbourhoods
                .get_mut(&key)
                .and_then(|around| around.turns.get_mut(urgency)?.pop_front());
            let Some(network) = next else {
                self.leave_neighbourhood(key);
                return;
            };
            let given = self.network_has_its_turn(bounds, network, urgency);
            self.leave(network);
            if given {
                self.stand_again(key, urgency);
                return;
            }
        }
    }

    /// Whether it took a place.
    fn network_has_its_turn(&mut self, bounds: Bounds, key: IpAddr, urgency: usize) -> bool {
        if let Some(network) = self.networks.get_mut(&key) {
            network.in_turns.get_mut(urgency).into_iter().for_each(|stands| *stands = false);
        }
        while self.may_take(bounds, key, urgency) {
            let Some(turn) = self.queue(key, urgency).and_then(VecDeque::pop_front) else {
                return false;
            };
            if !turn.is_closed() && self.give(key, turn) {
                self.stand_in_turns(key, urgency);
                return true;
            }
        }
        false // until a question of its own ends
    }

    /// A neighbourhood with networks in its turns goes to the end of all turns.
    fn stand_again(&mut self, key: IpAddr, urgency: usize) {
        let Some(around) = self.neighbourhoods.get_mut(&key) else {
            return;
        };
        let turns = around.turns.get(urgency).is_some_and(|turns| !turns.is_empty());
        if turns && let Some(stands @ false) = around.in_turns.get_mut(urgency) {
            *stands = true;
            self.turns.get_mut(urgency).into_iter().for_each(|turns| turns.push_back(key));
        }
    }
}
