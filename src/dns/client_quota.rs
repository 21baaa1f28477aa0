//! Places for questions, shared fairly among client networks: a flood of questions, to silent name servers too, delays only the
//! network that sends it.
//!
//! - Networks take turns, one question each (round robin: that is deficit round robin where every question costs the same).
//!   So do the neighbourhoods that they are in, an IPv4 /24 or an IPv6 /48: many networks in one are of no use to a client.
//! - No client can take all places: the fewer are free, the fewer a network may hold and still get one more (`shares`). A
//!   place is held as long as a name server is silent, so turns alone would make a newcomer wait.
//! - Where no place is free, a network with hardly any question takes the place of the oldest question that has been without
//!   an answer for 100 ms. That one still waits for its answer, in a second pool; where that is full too, its oldest is ended
//!   after a second.
//! - A question that can refuse mail goes before one that only tags, and the last places are for it alone.
//! - The number of waiting questions is bounded in the same way.
//!
//! One short lock guards all of it. Only questions that the cache can't answer take it.

use std::future::pending;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::dns::budget::Urgency;
use crate::dns::quota_table::{QuotaPlace, Table, index};
use crate::dns::shares::Bounds;
use crate::policy::client::client_network;

/// After this time a waiting question tries to take the place of a late one; then after twice as long each time.
const FIRST_CHECK: Duration = Duration::from_millis(25);

/// All clients with questions.
#[derive(Debug)]
pub(super) struct ClientQuota {
    bounds: Bounds,
    table: Mutex<Table>,
}

/// An admitted question. Dropping it frees its place, or ends its wait for one.
#[derive(Debug)]
pub(super) struct Ticket {
    quota: Arc<ClientQuota>,
    network: IpAddr,
    /// `None` once it has its place.
    turn: Option<oneshot::Receiver<QuotaPlace>>,
    place: Option<QuotaPlace>,
}

impl ClientQuota {
    pub(super) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, table: Mutex::default() })
    }

    /// Admits one more question of this client; `None` where too many wait.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr, urgency: Urgency) -> Option<Ticket> {
        let network = client_network(address);
        let mut table = self.table();
        table.enter(network);
        let first = !table.has_waiting(network);
        let ticket = |turn, place| Ticket { quota: Arc::clone(self), network, turn, place };
        if first && table.may_take(self.bounds, network, index(urgency)) {
            let place = table.take(network);
            return Some(ticket(None, Some(place)));
        }
        let urgent = urgency == Urgency::Refuses;
        if first && urgent && table.is_newcomer(self.bounds, network) && table.revoke_oldest_late(self.bounds)
        {
            let place = table.take(network);
            return Some(ticket(None, Some(place)));
        }
        if !table.may_wait(self.bounds, network) {
            table.leave(network);
            return None;
        }
        let (turn, wait) = oneshot::channel();
        table.enqueue(network, index(urgency), turn);
        table.grant_places(self.bounds);
        Some(ticket(Some(wait), None))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Waits for the place. It can be cancelled and called again.
    pub(super) async fn take_place(&mut self) {
        let mut wait = FIRST_CHECK;
        // The table keeps the sender as long as this ticket exists.
        while let Some(turn) = &mut self.turn {
            if let Ok(place) = timeout(wait, turn).await {
                (self.place, self.turn) = (place.ok(), None);
            } else {
                self.quota.table().grant_to_newcomer(self.quota.bounds, self.network);
                wait *= 2;
            }
        }
    }

    /// Waits until the place is revoked, which may never happen.
    pub(super) async fn revoked(&mut self) {
        match &mut self.place {
            Some(place) => {
                (&mut place.revoked).await.ok();
            }
            None => pending().await,
        }
    }

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
        // Places are sent under the lock that is held here, so none is sent to a closed turn.
        self.turn.as_mut().into_iter().for_each(oneshot::Receiver::close);
        if self.has_place() {
            self.place.iter().for_each(|place| table.release(place.number));
            table.grant_places(quota.bounds);
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
    use crate::dns::quota_table::{LATE, NEWCOMER_SHARE, SILENT};

    impl ClientQuota {
        /// Questions under way, waiting questions, and their networks.
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

    /// As many questions as this client may have, and how many of them have a place.
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
        assert!(admit(&quota, "::ffff:192.0.2.1", Urgency::Refuses).is_none(), "it is the same client");
        assert!(admit(&quota, "192.0.2.2", Urgency::Refuses).is_some());
        drop(tickets);
        assert_eq!(quota.counts(), (0, 0, 0), "nothing is kept of a client without questions");
        let table = quota.table();
        assert!(table.neighbourhoods.is_empty() && table.turns.iter().all(VecDeque::is_empty));
    }

    #[test]
    fn a_newcomer_has_a_place_at_once_however_many_networks_flood() {
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

    /// So many networks have four questions each; no question is answered.
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
    async fn a_newcomer_takes_the_place_of_the_oldest_late_question_where_none_is_free() {
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
            let revoked = flooding.iter_mut().filter_map(|ticket| ticket.revoked().now_or_never());
            assert_eq!(revoked.count(), 0, "they still wait for their answers");
            drop(flooding);
            assert_eq!(quota.counts(), (0, 0, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn late_questions_end_after_a_second_where_newcomers_need_their_places() {
        let (quota, mut flooding) = flooded(200).await;
        let newcomer = |nth: usize| {
            admit(&quota, &format!("172.{}.{}.1", nth / 256, nth % 256), Urgency::Refuses).unwrap()
        };
        let mut newcomers: Vec<_> = (0..BOUNDS.places + BOUNDS.late).map(newcomer).collect();
        let placed = newcomers.iter_mut().map(has_place).filter(|has| *has).count();
        assert_eq!((quota.counts().0, placed), (BOUNDS.places, BOUNDS.late));
        advance(SILENT).await;
        newcomers.last_mut().unwrap().take_place().await;
        let revoked = flooding.iter_mut().filter_map(|ticket| ticket.revoked().now_or_never());
        assert!(revoked.count() >= 1);
        assert_eq!(quota.table().late.len(), BOUNDS.late);
        drop((flooding, newcomers));
        assert_eq!(quota.counts(), (0, 0, 0));
        let table = quota.table();
        assert!(table.late.is_empty() && table.neighbourhoods.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_takes_no_place_of_a_late_question_not_even_from_many_networks_of_one_neighbourhood() {
        let (quota, _flooding) = flooded(200).await;
        assert!(!has_place(&mut admit(&quota, "10.0.0.1", Urgency::Refuses).unwrap()));
        assert!(!has_place(&mut admit(&quota, "192.0.3.1", Urgency::Tags).unwrap()));
        let mut neighbours: Vec<_> =
            (0..100).map(|nth| admit(&quota, &format!("192.0.2.{nth}"), Urgency::Refuses).unwrap()).collect();
        let placed = neighbours.iter_mut().map(has_place).filter(|has| *has).count();
        assert_eq!(placed, BOUNDS.places / NEWCOMER_SHARE);
    }

    #[test]
    fn a_client_with_a_whole_neighbourhood_leaves_places_for_others() {
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
    fn places_go_round_the_waiting_networks_and_questions_that_can_refuse_go_first() {
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
            order.push(waiting.remove(at).0); // which frees its place
        }
        assert_eq!(order, ["a 1", "b 1", "a 2", "c 1", "a 3", "b 2", "a tags"]);
    }

    #[test]
    fn the_last_places_are_for_questions_that_can_refuse() {
        let quota = ClientQuota::new(BOUNDS);
        let tags: Vec<_> =
            (0..60).map(|nth| flood(&quota, &format!("192.0.{nth}.1"), Urgency::Tags)).collect();
        assert_eq!(quota.counts().0, 512 - 64);
        assert!(has_place(&mut admit(&quota, "192.0.100.1", Urgency::Refuses).unwrap()));
        assert!(!has_place(&mut admit(&quota, "192.0.100.1", Urgency::Tags).unwrap()));
        drop(tags);
    }

    #[test]
    fn a_cancelled_question_frees_its_turn_and_its_place() {
        let (quota, _others) = with_one_place();
        let question = || admit(&quota, "192.0.2.1", Urgency::Refuses).unwrap();
        let (first, second, mut third, fourth) = (question(), question(), question(), question());
        drop(second);
        drop(first);
        assert!(has_place(&mut third));
        drop(third);
        drop(fourth); // it had its place already, unread
        assert!(has_place(&mut question()));
        assert_eq!(quota.counts(), (3, 0, 3));
        let holder = question();
        for _ in 0..1_000 {
            drop(question());
        }
        let queued: usize =
            quota.table().networks.values().flat_map(|it| &it.queues).map(VecDeque::len).sum();
        assert!(queued <= 17, "{queued} turns of cancelled questions");
        drop(holder);
    }

    #[test]
    fn no_client_fills_the_queue_of_waiting_questions() {
        let quota = ClientQuota::new(BOUNDS);
        let flooding: Vec<_> =
            (0..60).map(|nth| flood(&quota, &format!("192.0.{nth}.1"), Urgency::Refuses)).collect();
        let (held, waiting, _) = quota.counts();
        assert!(held < BOUNDS.places && waiting < BOUNDS.waiting, "{held} {waiting}");
        drop(flooding);
    }
}
