//! The right to have a connection to the relay in use, shared out among the clients that want one.
//!
//! A client takes a slot only while it holds fewer than are free: one has half of them at most, the next half of the
//! rest, and so on. However slowly a few let theirs go, a newcomer finds one. Who has its share waits, and so does
//! everybody when none is free; each slot that gets free goes to whoever came first among those who may have it. The
//! limit comes with each request: sessions that began under an older configuration ask with theirs, and all are counted
//! together.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

/// The slots of one relay.
#[derive(Debug, Default)]
pub(super) struct Slots {
    state: Mutex<State>,
}

/// The right to have a connection in use, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    client: Option<IpAddr>,
    /// Out of how many it was taken.
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    held: Held,
    /// By number, in order of arrival. None of them may have a slot now.
    queue: BTreeMap<u64, Waiter>,
    next_number: u64,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Waiter {
    client: Option<IpAddr>,
    limit: usize,
    hand: oneshot::Sender<Slot>,
}

impl Slots {
    /// A slot out of `limit`, if one that this client may have is free or gets so in time. `None` as the client is
    /// nobody's share.
    pub(super) async fn take(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        limit: usize,
        patience: Duration,
    ) -> Option<Slot> {
        let (hand, handed) = oneshot::channel();
        let number = {
            let mut state = self.state();
            if state.held.allow(client, limit) {
                state.held.add(client);
                return Some(Slot { slots: Arc::clone(self), client, limit });
            }
            let number = state.next_number;
            state.next_number += 1;
            state.queue.insert(number, Waiter { client, limit, hand });
            number
        };
        let _place = Place { slots: self, number };
        timeout(patience, handed).await.ok()?.ok()
    }

    fn give_back(self: &Arc<Self>, client: Option<IpAddr>) {
        let mut state = self.state();
        let State { held, queue, .. } = &mut *state;
        held.remove(client);
        // each slot taken leaves less for all others, so one pass in order of arrival finds all who may have one
        let served = queue.extract_if(.., |_, waiter| {
            let served = held.allow(waiter.client, waiter.limit);
            if served {
                held.add(waiter.client);
            }
            served
        });
        let served: Vec<Waiter> = served.map(|(_, waiter)| waiter).collect();
        drop(state);
        for Waiter { client, limit, hand } in served {
            // who has gone meanwhile leaves it in our hands: dropped, it goes to the next
            drop(hand.send(Slot { slots: Arc::clone(self), client, limit }));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    /// How many besides it nobody holds.
    pub(super) fn others_free(&self) -> usize {
        self.slots.state().held.free(self.limit)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.give_back(self.client);
    }
}

impl Held {
    fn free(&self, limit: usize) -> usize {
        limit.saturating_sub(self.total)
    }

    fn allow(&self, client: Option<IpAddr>, limit: usize) -> bool {
        let own = client.and_then(|client| self.by_client.get(&client)).copied().unwrap_or(0);
        own < self.free(limit)
    }

    fn add(&mut self, client: Option<IpAddr>) {
        self.total += 1;
        if let Some(client) = client {
            *self.by_client.entry(client).or_default() += 1;
        }
    }

    fn remove(&mut self, client: Option<IpAddr>) {
        self.total = self.total.saturating_sub(1);
        let Some(client) = client else { return };
        if let Some(own) = self.by_client.get_mut(&client) {
            *own -= 1;
            if *own == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}

/// A place in the queue; who gives up waiting leaves it.
struct Place<'a> {
    slots: &'a Slots,
    number: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.slots.state().queue.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::pin::pin;

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, advance};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn client(number: u8) -> Option<IpAddr> {
        Some(Ipv4Addr::new(192, 0, 2, number).into())
    }

    /// All that a client gets without waiting.
    async fn grab(slots: &Arc<Slots>, client: Option<IpAddr>, limit: usize) -> Vec<Slot> {
        let mut grabbed = Vec::new();
        while let Some(slot) = slots.take(client, limit, Duration::ZERO).await {
            grabbed.push(slot);
        }
        grabbed
    }

    /// One that waits, in line when this returns.
    async fn queue(slots: &Arc<Slots>, client: Option<IpAddr>, limit: usize) -> JoinHandle<Option<Slot>> {
        let (slots, waiting) = (Arc::clone(slots), slots.state().queue.len());
        let task = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.take(client, limit, PATIENCE).await }
        });
        while slots.state().queue.len() == waiting {
            tokio::task::yield_now().await;
        }
        task
    }

    /// Whether one who waited has a slot by now, which is given back.
    async fn is_served(task: &mut JoinHandle<Option<Slot>>) -> bool {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        task.now_or_never().is_some_and(|slot| slot.unwrap().is_some())
    }

    fn assert_empty(slots: &Slots) {
        let state = slots.state();
        assert_eq!((state.held.total, state.held.by_client.len(), state.queue.len()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn each_greedy_client_gets_half_of_what_is_left() {
        for (limit, shares) in [
            (100, vec![50, 25, 13, 6, 3, 2, 1, 0]),
            (8, vec![4, 2, 1, 1, 0]),
            (3, vec![2, 1, 0]),
            (2, vec![1, 1, 0]),
            (1, vec![1, 0]),
        ] {
            let slots = Arc::new(Slots::default());
            let mut held = Vec::new();
            for (number, share) in (1..).zip(shares) {
                let grabbed = grab(&slots, client(number), limit).await;
                assert_eq!(grabbed.len(), share, "client {number} of {limit}");
                held.push(grabbed);
            }
            assert_eq!(slots.state().held.free(limit), 0);
            drop(held);
            assert_empty(&slots);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn beside_two_greedy_clients_that_wait_a_newcomer_is_served_at_once() {
        let slots = Arc::new(Slots::default());
        let first = grab(&slots, client(1), 100).await;
        let second = grab(&slots, client(2), 100).await;
        let mut waiting = Vec::new();
        for number in [1, 2].repeat(50) {
            waiting.push(queue(&slots, client(number), 100).await);
        }
        let began = Instant::now();
        let newcomer = slots.take(client(3), 100, PATIENCE).await;
        assert!(newcomer.is_some() && began.elapsed().is_zero());
        let probe = slots.take(None, 100, PATIENCE).await;
        assert!(probe.is_some() && began.elapsed().is_zero());
        let outcomes = join_all(waiting).await;
        assert!(outcomes.into_iter().all(|slot| slot.unwrap().is_none()));
        assert_eq!(began.elapsed(), PATIENCE, "they waited");
        drop((first, second, newcomer, probe));
        assert_empty(&slots);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slot_that_gets_free_goes_to_the_first_who_may_have_it() {
        let slots = Arc::new(Slots::default());
        let (mut greedy, other) = (grab(&slots, client(1), 4).await, grab(&slots, client(2), 4).await);
        let last = slots.take(None, 4, Duration::ZERO).await.unwrap();
        assert_eq!((greedy.len(), other.len()), (2, 1));
        let mut again = queue(&slots, client(1), 4).await;
        let mut third = queue(&slots, client(3), 4).await;
        let mut fourth = queue(&slots, client(4), 4).await;
        drop(last);
        assert!(is_served(&mut third).await, "client 1 came before, and has its share");
        // that test gave it back, which served the next, and so on
        assert!(is_served(&mut fourth).await);
        assert!(!is_served(&mut again).await);
        greedy.pop();
        assert!(is_served(&mut again).await, "two are free, and it holds one");
        drop((greedy, other));
        assert_empty(&slots);
    }

    #[tokio::test(start_paused = true)]
    async fn of_one_client_who_came_first_is_served_first() {
        let slots = Arc::new(Slots::default());
        let held = slots.take(client(9), 1, Duration::ZERO).await;
        let (mut first, mut second) = (queue(&slots, client(1), 1).await, queue(&slots, client(1), 1).await);
        drop(held);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let slot = (&mut first).now_or_never().expect("the first is served").unwrap();
        assert!((&mut second).now_or_never().is_none());
        drop(slot);
        assert!(is_served(&mut second).await);
        assert_empty(&slots);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_neither_keeps_a_place_nor_loses_a_slot() {
        let slots = Arc::new(Slots::default());
        let held = slots.take(client(9), 1, Duration::ZERO).await;
        // cancelled while it waits
        let task = queue(&slots, client(1), 1).await;
        task.abort();
        assert!(task.await.is_err());
        assert_eq!(slots.state().queue.len(), 0);
        // cancelled when it was handed a slot and didn't look yet
        let mut next = queue(&slots, client(2), 1).await;
        {
            let mut unseen = pin!(slots.take(client(1), 1, PATIENCE));
            assert!(unseen.as_mut().now_or_never().is_none());
            next.abort();
            assert!((&mut next).await.is_err());
            drop(held);
            assert_eq!(slots.state().held.free(1), 0, "it is the waiter's");
            next = queue(&slots, client(2), 1).await;
        }
        assert!(is_served(&mut next).await);
        assert_empty(&slots);
        // too late
        let held = slots.take(client(9), 1, Duration::ZERO).await;
        let task = queue(&slots, client(1), 1).await;
        advance(PATIENCE).await;
        assert!(task.await.unwrap().is_none());
        drop(held);
        assert_empty(&slots);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_of_old_and_new_settings_count_the_same_slots() {
        let slots = Arc::new(Slots::default());
        let mut old = join_all((1..=6).map(|number| slots.take(client(number), 6, Duration::ZERO))).await;
        let mut new = queue(&slots, client(7), 3).await;
        let mut as_before = queue(&slots, client(8), 6).await;
        old.truncate(5);
        assert!(is_served(&mut as_before).await, "of six, one is free");
        old.truncate(3);
        assert!(!is_served(&mut new).await, "three are in use");
        assert!(slots.take(client(8), 10, Duration::ZERO).await.is_some());
        old.truncate(2);
        assert!(is_served(&mut new).await);
        drop(old);
        assert_empty(&slots);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_leaks_and_no_limit_is_passed_whoever_comes_and_goes() {
        let slots = Arc::new(Slots::default());
        let tasks = (0..64_u64).map(|task| {
            let slots = Arc::clone(&slots);
            tokio::spawn(async move {
                for round in 0..200 {
                    let (client, limit) = (client((task % 7) as u8), if task % 2 == 0 { 5 } else { 3 });
                    let patience = Duration::from_micros((task * 31 + round * 17) % 400);
                    if let Some(slot) = slots.take(client, limit, patience).await {
                        assert!(slots.state().held.total <= 5);
                        tokio::task::yield_now().await;
                        drop(slot);
                    }
                }
            })
        });
        for task in join_all(tasks.collect::<Vec<_>>()).await {
            task.unwrap();
        }
        assert_empty(&slots);
    }
}
