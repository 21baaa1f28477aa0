//! Places for questions, shared fairly among client networks: a flood of questions, be they to silent name servers, makes its
//! own quota wait and nobody else.
//!
//! - Networks take turns, one question each (round robin, which is what deficit round robin is where all cost the same), and
//!   so do the neighbourhoods that they stand in: an IPv4 /24 or an IPv6 /48, so that it helps nobody to own many.
//! - Nobody may hold so much that nothing is left: the fewer places are free, the fewer a network may hold to have one more,
//!   and a neighbourhood has three quarters, and of the last quarter fewer than are free. A place is held for as long as a name
//!   server is silent, so it is this that lets a newcomer in at once; turns alone would make it wait. About seventy networks
//!   can take all places.
//! - Then a network with hardly any question takes the place of the oldest one that has been without an answer for 100 ms. That
//!   one still waits for its answer, in a second pool; where that is full too, its oldest is given up after a second.
//! - Who is past that is not in the queue of turns until one of its own questions ends, so that no turn is spent on it.
//! - What can refuse mail goes before what only tags, and the last places are for it alone.
//! - What waits is bounded in the same way.
//!
//! One short lock is for all of it, and only questions that found the cache cold take it.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::future::pending;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use crate::dns::budget::Urgency;
use crate::policy::client::client_network;

/// How many questions there may be at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Of all, under way.
    pub(super) places: usize,
    /// Of these, only for what can refuse.
    pub(super) reserved: usize,
    /// Of all, those that lost their place to a newcomer and still wait for their answer.
    pub(super) late: usize,
    /// Of one network, under way.
    pub(super) places_each: usize,
    /// Of all, waiting.
    pub(super) waiting: usize,
    /// Of one network, waiting.
    pub(super) waiting_each: usize,
}

/// All clients with questions.
#[derive(Debug)]
pub(super) struct ClientQuota {
    bounds: Bounds,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    /// The number of the next question that has a place.
    next: u64,
    /// The oldest first.
    places: BTreeMap<u64, Asking>,
    /// Without a place; the oldest first.
    late: BTreeMap<u64, Asking>,
    waiting: usize,
    neighbourhoods: HashMap<IpAddr, Neighbourhood, RandomState>,
    networks: HashMap<IpAddr, Network, RandomState>,
    turns: Turns,
}

/// A question that is under way.
#[derive(Debug)]
struct Asking {
    network: IpAddr,
    since: Instant,
    /// Its end is that of the question.
    _goes_on: oneshot::Sender<()>,
}

/// What its asker holds of it.
#[derive(Debug)]
struct QueueEntry {
    number: u64,
    given_up: oneshot::Receiver<()>,
}

#[derive(Debug, Default)]
struct Neighbourhood {
    /// With those that are late.
    held: usize,
    waiting: usize,
    networks: usize,
    in_turns: [bool; 2],
    turns: Turns,
}

#[derive(Debug, Default)]
struct Network {
    /// With those that are late.
    held: usize,
    waiting: usize,
    in_turns: [bool; 2],
    /// Those of quota who left are closed.
    queues: [VecDeque<Turn>; 2],
}

/// Where a question that waits is given its place.
type Turn = oneshot::Sender<QueueEntry>;

/// Whose turn it is next, by [`Urgency`]: neighbourhoods, or networks within one.
type Turns = [VecDeque<IpAddr>; 2];

const URGENCIES: [usize; 2] = [0, 1];
/// What a network or a neighbourhood may have as long as anything is free.
const FEW: usize = 2;
/// Of all places, what a neighbourhood may have and still take one from another.
const NEWCOMERS_TOGETHER: usize = 64;
/// Without an answer for so long, a question can lose its place to a newcomer: most name servers answer sooner.
const LATE: Duration = Duration::from_millis(100);
/// And for so long, it can be given up.
const SILENT: Duration = Duration::from_secs(1);
/// When a question that waits looks first whether there is a place to take; then after twice as long each time.
const FIRST_LOOK: Duration = Duration::from_millis(25);

fn place(urgency: Urgency) -> usize {
    match urgency {
        Urgency::Refuses => 0,
        Urgency::Tags => 1,
    }
}

/// A question that was admitted: its place, or its wait for one, ends when this is dropped.
#[derive(Debug)]
pub(super) struct Ticket {
    quota: Arc<ClientQuota>,
    network: IpAddr,
    /// `None` = it has its place.
    turn: Option<oneshot::Receiver<QueueEntry>>,
    place: Option<QueueEntry>,
}

impl ClientQuota {
    /// Nobody has asked yet.
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, table: Mutex::default() })
    }

    /// One more question of the client with this address, unless too many wait.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, urgency: Urgency) -> Option<Ticket> {
        let network = client_network(address);
        let mut table = self.table();
        table.enter(network);
        let first = table.networks.get(&network).is_some_and(|it| it.waiting == 0);
        let ticket = |turn, place| Ticket { quota: Arc::clone(self), network, turn, place };
        if first && table.may_take(self.bounds, network, place(urgency)) {
            let place = table.take(network);
            return Some(ticket(None, Some(place)));
        }
        let urgent = urgency == Urgency::Refuses;
        if first && urgent && table.is_new(self.bounds, network) && table.take_back(self.bounds) {
            let place = table.take(network);
            return Some(ticket(None, Some(place)));
        }
        if !table.may_wait(self.bounds, network) {
            table.leave(network);
            return None;
        }
        let (turn, wait) = oneshot::channel();
        table.enqueue(network, place(urgency), turn);
        table.give_places(self.bounds);
        Some(ticket(Some(wait), None))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn enter(&mut self, network: IpAddr) {
        if let Entry::Vacant(vacant) = self.networks.entry(network) {
            vacant.insert(Network::default());
            self.neighbourhoods.entry(neighbourhood(network)).or_default().networks += 1;
        }
    }

    /// Forgets a network that holds nothing and waits for nothing; one that still stands in the turns goes with its turn.
    fn leave(&mut self, network: IpAddr) {
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

    fn may_take(&self, bounds: Bounds, network: IpAddr, urgency: usize) -> bool {
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

    fn may_wait(&self, bounds: Bounds, network: IpAddr) -> bool {
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

    fn take(&mut self, network: IpAddr) -> QueueEntry {
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
    fn release(&mut self, number: u64) {
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
    fn give_to_newcomer(&mut self, bounds: Bounds, key: IpAddr) {
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

    fn is_new(&self, bounds: Bounds, key: IpAddr) -> bool {
        let together = (bounds.places / NEWCOMERS_TOGETHER).max(FEW);
        self.networks.get(&key).is_some_and(|it| it.held < FEW)
            && self.neighbourhoods.get(&neighbourhood(key)).is_some_and(|it| it.held < together)
    }

    /// Whether there is one place more now.
    fn take_back(&mut self, bounds: Bounds) -> bool {
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

    fn enqueue(&mut self, network: IpAddr, urgency: usize, turn: Turn) {
        self.count_waiting(network, |waiting| waiting + 1);
        if let Some(queue) = self.queue(network, urgency) {
            queue.push_back(turn);
        }
        self.stand_in_turns(network, urgency);
    }

    /// An asker left: its turn is closed. What is closed goes from the queue when it is the greater part of it.
    fn abandon(&mut self, network: IpAddr) {
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
    fn give_places(&mut self, bounds: Bounds) {
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

impl Ticket {
    /// Waits for the place. May be cancelled and called again.
    pub(super) async fn take_place(&mut self) {
        let mut wait = FIRST_LOOK;
        // The table holds the other end as long as this ticket is there.
        while let Some(turn) = &mut self.turn {
            if let Ok(place) = timeout(wait, turn).await {
                (self.place, self.turn) = (place.ok(), None);
            } else {
                self.quota.table().give_to_newcomer(self.quota.bounds, self.network);
                wait *= 2;
            }
        }
    }

    /// Waits until the question is given up; it may never be.
    pub(super) async fn given_up(&mut self) {
        match &mut self.place {
            Some(place) => {
                (&mut place.given_up).await.ok();
            }
            None => pending().await,
        }
    }

    /// Whether it has its place by now.
    fn has_place(&mut self) -> bool {
        if let Some(place) = self.turn.as_mut().and_then(|turn| turn.try_recv().ok()) {
            (self.place, self.turn) = (Some(place), None);
        }
        self.place.is_some()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let quota = Arc::clone(&self.quota);
        let mut table = quota.table();
        // Turns are given under the lock that is held here.
        self.turn.as_mut().into_iter().for_each(oneshot::Receiver::close);
        if self.has_place() {
            self.place.iter().for_each(|place| table.release(place.number));
            table.give_places(quota.bounds);
        } else {
            table.abandon(self.network);
        }
        table.leave(self.network);
    }
}

/// How many a network may have, when so many of all are left for it.
fn share(all: usize, left: usize, most: usize) -> usize {
    let few = match left {
        0 => 0,
        _ if left > all / 2 => most,
        _ if left > all / 4 => all / 64,
        _ if left > all / 8 => all / 128,
        _ => all / 256,
    };
    few.min(most).max(FEW.min(left))
}

/// Whether a neighbourhood may have one more than it has.
fn has_room(all: usize, left: usize, has: usize) -> bool {
    has < FEW || has < most_together(all) && (left > all / 4 || has < left)
}

/// How many the networks of one neighbourhood may have.
fn most_together(all: usize) -> usize {
    all / 4 * 3
}

/// What a client network stands in: an IPv4 /24, an IPv6 /48.
fn neighbourhood(network: IpAddr) -> IpAddr {
    match network {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            IpAddr::V4(Ipv4Addr::new(a, b, c, 0))
        }
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    impl ClientQuota {
        /// Questions that are under way, those that wait, and of how many clients they are.
        pub(in crate::dns) fn counts(&self) -> (usize, usize, usize) {
            let table = self.table();
            (table.places.len(), table.waiting, table.networks.len())
        }
    }

    const BOUNDS: Bounds =
        Bounds { places: 512, reserved: 64, late: 512, places_each: 64, waiting: 4096, waiting_each: 200 };

    fn admit(quota: &Arc<ClientQuota>, address: &str, urgency: Urgency) -> Option<Ticket> {
        quota.admit(address.parse().unwrap(), urgency)
    }

    fn has_place(ticket: &mut Ticket) -> bool {
        ticket.has_place()
    }

    /// As many questions as this client can have, and how many of them have a place.
    fn flood(quota: &Arc<ClientQuota>, address: &str, urgency: Urgency) -> (Vec<Ticket>, usize) {
        let mut tickets: Vec<_> = (0..1_000).map_while(|_| admit(quota, address, urgency)).collect();
        let placed = tickets.iter_mut().map(has_place).filter(|has| *has).count();
        (tickets, placed)
    }

    /// All places but one are taken, each by a network of its own.
    fn with_one_place() -> (Arc<ClientQuota>, Vec<Ticket>) {
        let quota = ClientQuota::new(Bounds { places: 4, reserved: 0, ..BOUNDS });
        let others = (0..3).map(|nth| admit(&quota, &format!("10.{nth}.0.1"), Urgency::Refuses).unwrap());
        let others = others.collect();
        (quota, others)
    }

    #[test]
    fn one_client_has_its_own_bounds_whatever_is_free() {
        let quota = ClientQuota::new(BOUNDS);
        let (tickets, placed) = flood(&quota, "192.0.2.1", Urgency::Refuses);
        assert_eq!((tickets.len(), placed), (64 + 200, 64));
        assert_eq!(quota.counts(), (64, 200, 1));
        assert!(admit(&quota, "::ffff:192.0.2.1", Urgency::Refuses).is_none(), "it is the same");
        assert!(admit(&quota, "192.0.2.2", Urgency::Refuses).is_some());
        drop(tickets);
        assert_eq!(quota.counts(), (0, 0, 0), "nothing is left of who asks no more");
        let table = quota.table();
        assert!(table.neighbourhoods.is_empty() && table.turns.iter().all(VecDeque::is_empty));
    }

    #[test]
    fn however_many_networks_flood_a_newcomer_has_a_place_at_once() {
        let rows: [fn(usize) -> String; 4] = [
            |nth| format!("192.0.{nth}.1"),
            |nth| format!("192.0.2.{nth}"),
            |nth| format!("2001:db8:{nth}::1"),
            |nth| format!("2001:db8:1:{nth}::1"),
        ];
        for address in rows {
            let quota = ClientQuota::new(BOUNDS);
            let flooding: Vec<_> =
                (0..60).map(|nth| flood(&quota, &address(nth), Urgency::Refuses)).collect();
            for newcomer in ["198.51.100.1", &address(100)] {
                let mut questions = [(); 2].map(|()| admit(&quota, newcomer, Urgency::Refuses).unwrap());
                assert!(questions.iter_mut().all(has_place), "{newcomer}: {:?}", quota.counts());
            }
            drop(flooding);
            assert_eq!(quota.counts(), (0, 0, 0));
        }
    }

    /// So many networks ask all they may; none of their questions is answered.
    async fn flooded(networks: usize) -> (Arc<ClientQuota>, Vec<Ticket>) {
        let quota = ClientQuota::new(BOUNDS);
        let address = |nth: usize| format!("10.{}.{}.1", nth / 256, nth % 256);
        let mut tickets = Vec::new();
        for nth in 0..networks {
            tickets.extend((0..4).filter_map(|_| admit(&quota, &address(nth), Urgency::Refuses)));
        }
        advance(LATE).await;
        (quota, tickets)
    }

    #[tokio::test(start_paused = true)]
    async fn where_nothing_is_left_a_newcomer_has_the_place_of_the_oldest_that_is_late() {
        for networks in [200, 400, 2_000] {
            let (quota, mut flooding) = flooded(networks).await;
            assert_eq!(quota.counts().0, BOUNDS.places, "{networks}");
            for nth in 0..100 {
                let began = Instant::now();
                let mut newcomer = admit(&quota, &format!("192.0.{nth}.1"), Urgency::Refuses).unwrap();
                newcomer.take_place().await;
                assert!(began.elapsed() <= LATE, "{networks}: {:?}", began.elapsed());
            }
            assert_eq!(quota.counts().0, BOUNDS.places);
            let given_up = flooding.iter_mut().filter_map(|ticket| ticket.given_up().now_or_never());
            assert_eq!(given_up.count(), 0, "they still wait for their answers");
            drop(flooding);
            assert_eq!(quota.counts(), (0, 0, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_given_up_for_newcomers_after_a_second_when_there_is_too_much_of_it() {
        let (quota, mut flooding) = flooded(200).await;
        let newcomer = |nth: usize| {
            admit(&quota, &format!("172.{}.{}.1", nth / 256, nth % 256), Urgency::Refuses).unwrap()
        };
        let mut newcomers: Vec<_> = (0..BOUNDS.places + BOUNDS.late).map(newcomer).collect();
        let placed = newcomers.iter_mut().map(has_place).filter(|has| *has).count();
        assert_eq!((quota.counts().0, placed), (BOUNDS.places, BOUNDS.late));
        advance(SILENT).await;
        newcomers.last_mut().unwrap().take_place().await;
        let given_up = flooding.iter_mut().filter_map(|ticket| ticket.given_up().now_or_never());
        assert!(given_up.count() >= 1);
        assert_eq!(quota.table().late.len(), BOUNDS.late);
        drop((flooding, newcomers));
        assert_eq!(quota.counts(), (0, 0, 0));
        let table = quota.table();
        assert!(table.late.is_empty() && table.neighbourhoods.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_takes_no_place_back_not_even_from_a_neighbourhood_of_many_networks() {
        let (quota, _flooding) = flooded(200).await;
        assert!(!has_place(&mut admit(&quota, "10.0.0.1", Urgency::Refuses).unwrap()));
        assert!(!has_place(&mut admit(&quota, "192.0.3.1", Urgency::Tags).unwrap()));
        let mut neighbours: Vec<_> =
            (0..100).map(|nth| admit(&quota, &format!("192.0.2.{nth}"), Urgency::Refuses).unwrap()).collect();
        let placed = neighbours.iter_mut().map(has_place).filter(|has| *has).count();
        assert_eq!(placed, BOUNDS.places / NEWCOMERS_TOGETHER);
    }

    #[test]
    fn who_owns_a_whole_neighbourhood_has_no_more_than_one_who_does_not() {
        let quota = ClientQuota::new(BOUNDS);
        let mut held = [0; 2];
        let mut tickets = Vec::new();
        for nth in 0..400 {
            let (many, placed) = flood(&quota, &format!("2001:db8:1:{nth}::1"), Urgency::Refuses);
            tickets.extend(many);
            held[0] += placed;
        }
        for address in ["192.0.2.1", "198.51.100.1"] {
            let (many, placed) = flood(&quota, address, Urgency::Refuses);
            tickets.extend(many);
            held[1] += placed;
        }
        assert!(held[0] <= 384 && held[1] >= 8, "{held:?}");
    }

    #[test]
    fn places_go_round_among_the_networks_that_wait_and_what_refuses_goes_first() {
        let (quota, _others) = with_one_place();
        let first = admit(&quota, "192.0.2.1", Urgency::Refuses).unwrap();
        let asked = [
            ("a tags", "198.51.100.1", Urgency::Tags),
            ("a 1", "198.51.100.1", Urgency::Refuses),
            ("a 2", "198.51.100.1", Urgency::Refuses),
            ("a 3", "198.51.100.1", Urgency::Refuses),
            ("b 1", "203.0.113.1", Urgency::Refuses),
            ("c 1", "203.0.113.2", Urgency::Refuses),
            ("b 2", "203.0.113.1", Urgency::Refuses),
        ];
        let mut waiting: Vec<_> = asked
            .iter()
            .map(|(name, client, urgency)| (*name, admit(&quota, client, *urgency).unwrap()))
            .collect();
        drop(first);
        let mut order = Vec::new();
        while let Some(at) = waiting.iter_mut().position(|(_, ticket)| has_place(ticket)) {
            order.push(waiting.remove(at).0); // and its place is free again
        }
        assert_eq!(order, ["a 1", "b 1", "a 2", "c 1", "a 3", "b 2", "a tags"]);
    }

    #[test]
    fn the_last_places_are_for_what_can_refuse() {
        let quota = ClientQuota::new(BOUNDS);
        let tags: Vec<_> =
            (0..60).map(|nth| flood(&quota, &format!("192.0.{nth}.1"), Urgency::Tags)).collect();
        assert_eq!(quota.counts().0, 512 - 64);
        assert!(has_place(&mut admit(&quota, "192.0.100.1", Urgency::Refuses).unwrap()));
        assert!(!has_place(&mut admit(&quota, "192.0.100.1", Urgency::Tags).unwrap()));
        drop(tags);
    }

    #[test]
    fn who_leaves_gives_up_its_turn_and_its_place() {
        let (quota, _others) = with_one_place();
        let question = || admit(&quota, "192.0.2.1", Urgency::Refuses).unwrap();
        let (first, second, mut third, fourth) = (question(), question(), question(), question());
        drop(second);
        drop(first);
        assert!(has_place(&mut third));
        drop(third);
        drop(fourth); // it was given its place, and never saw it
        assert!(has_place(&mut question()));
        assert_eq!(quota.counts(), (3, 0, 3));
        let holder = question();
        for _ in 0..1_000 {
            drop(question());
        }
        let queued: usize =
            quota.table().networks.values().flat_map(|it| &it.queues).map(VecDeque::len).sum();
        assert!(queued <= 17, "{queued} turns of clients that left");
        drop(holder);
    }

    #[test]
    fn nobody_fills_the_room_for_what_waits() {
        let quota = ClientQuota::new(BOUNDS);
        let flooding: Vec<_> =
            (0..60).map(|nth| flood(&quota, &format!("192.0.{nth}.1"), Urgency::Refuses)).collect();
        let (held, waiting, _) = quota.counts();
        assert!(held < BOUNDS.places && waiting < BOUNDS.waiting, "{held} {waiting}");
        drop(flooding);
    }
}
