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

use std::future::pending;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::dns::budget::Urgency;
use crate::dns::quota_table::{QueueEntry, Table, place};
use crate::dns::shares::Bounds;
use crate::policy::client::client_network;

/// When a question that waits looks first whether there is a place to take; then after twice as long each time.
const FIRST_LOOK: Duration = Duration::from_millis(25);

/// All clients with questions.
#[derive(Debug)]
pub(super) struct ClientQuota {
    bounds: Bounds,
    table: Mutex<Table>,
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
        let first = !table.has_waiting(network);
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;
    use tokio::time::{Instant, advance};

    use super::*;
    use crate::dns::quota_table::{LATE, NEWCOMERS_TOGETHER, SILENT};

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
        assert!(queued <= 17, "{queued} turns of quota who left");
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
