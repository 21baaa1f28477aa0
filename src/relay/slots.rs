//! Slots: the right to use a connection to the relay, shared fairly among clients.
//!
//! A client takes a slot only while it holds fewer than are free: the first client has half of them at most, the next
//! half of the rest, and so on. So a new client finds one, however slow the others are. A client with its full share
//! waits, as all clients do if none is free; a released slot goes to the first in the queue that may have it. Each
//! request brings its limit: sessions from before a reload keep the old one, and all slots are counted together.
//!
//! While clients wait, slots are taken back from the slowest holders ([`super::hold`]), one for each waiting client:
//! from clients that hold more than it does or, after a longer time, from itself. A client that lost a slot is last in
//! the queue for a minute, so that its new connection doesn't win the slot back from a new client.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::relay::Settings;
use crate::relay::hold::{Hold, HoldState, Holder, TakenBack};

/// Interval of the checks of all holders while a client waits.
const CHECK: Duration = Duration::from_millis(200);
/// Wait for a holder before it loses its slot to the same client's next transaction.
const OWN_GRACE: Duration = Duration::from_secs(10);
/// Time for which a client that lost a slot is last in the queue.
const LAST_FOR: Duration = Duration::from_secs(60);
/// Most clients remembered for that.
const MOST_REMEMBERED: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Slots {
    state: Mutex<State>,
}

/// The right to use a connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    slots: Arc<Slots>,
    number: u64,
    holder: Arc<Holder>,
    /// The limit of the request that took the slot.
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    held: Held,
    /// Holders by the number of their slot.
    holders: HashMap<u64, Arc<Holder>>,
    /// Requests whose clients may not have a slot now.
    queue: BTreeMap<Turn, Waiter>,
    next_number: u64,
    /// Time of the last check of all holders.
    checked: Option<Instant>,
    /// Time at which each client lost a slot.
    lost: HashMap<IpAddr, Instant>,
}

/// The order in the queue: clients that lost a slot come last, otherwise by arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    lost: bool,
    number: u64,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_client: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct Waiter {
    holder: Arc<Holder>,
    limit: usize,
    hand: oneshot::Sender<Slot>,
}

impl Slots {
    /// A slot out of `settings.max_connections`, if this client may have one within `patience`. Pass `None` for a
    /// request that counts against no client; no slot is taken back for it.
    pub(super) async fn take(
        self: &Arc<Self>,
        client: Option<IpAddr>,
        settings: &Settings,
        patience: Duration,
    ) -> Option<Slot> {
        let deadline = Instant::now() + patience;
        let limit = settings.max_connections.max(1);
        let holder = Arc::new(Holder::new(client, settings));
        let (hand, mut handed) = oneshot::channel();
        let turn = {
            let mut state = self.state();
            if state.held.allow(client, limit) {
                return Some(self.hand_out(&mut state, holder, limit));
            }
            let turn = Turn { lost: state.has_lost(client), number: state.number() };
            state.queue.insert(turn, Waiter { holder, limit, hand });
            turn
        };
        let _place = QueueTicket { slots: self, turn };
        loop {
            let now = Instant::now();
            if client.is_some() {
                self.state().take_back(now);
            }
            match timeout_at(deadline.min(now + CHECK), &mut handed).await {
                Ok(slot) => return slot.ok(),
                Err(_elapsed) if Instant::now() >= deadline => return None,
                Err(_elapsed) => {}
            }
        }
    }

    fn hand_out(self: &Arc<Self>, state: &mut State, holder: Arc<Holder>, limit: usize) -> Slot {
        state.held.add(holder.client);
        let number = state.number();
        state.holders.insert(number, Arc::clone(&holder));
        Slot { slots: Arc::clone(self), number, holder, limit }
    }

    fn give_back(self: &Arc<Self>, slot: &Slot) {
        let mut state = self.state();
        state.holders.remove(&slot.number);
        state.held.remove(slot.holder.client);
        let State { held, queue, .. } = &mut *state;
        // each slot taken leaves fewer for all others, so one pass in order serves all requests that may have one
        let served = queue.extract_if(.., |_, waiter| {
            let served = held.allow(waiter.holder.client, waiter.limit);
            if served {
                held.add(waiter.holder.client);
            }
            served
        });
        let served: Vec<Waiter> = served.map(|(_, waiter)| waiter).collect();
        let mut slots = Vec::with_capacity(served.len());
        for Waiter { holder, limit, hand } in served {
            state.held.remove(holder.client); // counted above; it is counted again as it is handed out
            slots.push((hand, self.hand_out(&mut state, holder, limit)));
        }
        drop(state);
        for (hand, slot) in slots {
            // a slot whose request was given up is dropped here, and goes to the next
            drop(hand.send(slot));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Whether the client lost a slot in the last minute.
    fn has_lost(&self, client: Option<IpAddr>) -> bool {
        let lost = client.and_then(|client| self.lost.get(&client));
        lost.is_some_and(|lost| lost.elapsed() < LAST_FOR)
    }

    /// Takes slots back from the slowest holders, one for each waiting client that may have one.
    fn take_back(&mut self, now: Instant) {
        if self.checked.is_some_and(|checked| now.saturating_duration_since(checked) < CHECK / 2) {
            return;
        }
        self.checked = Some(now);
        let (mut coming, mut slow) = (0, Vec::new());
        for holder in self.holders.values() {
            match holder.hold_state(now) {
                HoldState::Good => {}
                HoldState::Slow(seen) => slow.push((seen, Arc::clone(holder))),
                HoldState::Recalled => coming += 1,
            }
        }
        slow.sort_by(|(one, _), (other, _)| one.rate.total_cmp(&other.rate));
        let mut promised = Held::default();
        let mut lost = Vec::new();
        for waiter in self.queue.values() {
            if slow.is_empty() {
                break;
            }
            let Some(client) = waiter.holder.client else { continue };
            let own = self.held.of(client) + promised.of(client);
            let free = self.held.free(waiter.limit);
            if coming > 0 && own <= free {
                coming -= 1;
                promised.add(Some(client));
                continue;
            }
            let makes_way = |(seen, holder): &(TakenBack, Arc<Holder>)| match holder.client {
                Some(holder) if holder == client => seen.waited >= OWN_GRACE && own <= free + 1,
                Some(holder) => own <= free && own < self.held.of(holder),
                None => false,
            };
            let Some(at) = slow.iter().position(makes_way) else { continue };
            let (_, holder) = slow.remove(at);
            if holder.recall() {
                promised.add(Some(client));
                lost.extend(holder.client.filter(|holder| *holder != client));
            }
        }
        self.remember(lost, now);
    }

    fn remember(&mut self, lost: Vec<IpAddr>, now: Instant) {
        if self.lost.len() + lost.len() > MOST_REMEMBERED {
            self.lost.retain(|_, lost| now.saturating_duration_since(*lost) < LAST_FOR);
        }
        for client in lost {
            if self.lost.len() < MOST_REMEMBERED {
                self.lost.insert(client, now);
            }
        }
    }
}

impl Slot {
    /// Slots that are free besides this one.
    pub(super) fn others_free(&self) -> usize {
        self.slots.state().held.free(self.limit)
    }

    pub(super) fn hold(&self) -> Hold {
        Hold::of(&self.holder)
    }

    /// Counts a command that the client sent for the relay.
    pub(super) fn count_command(&self) {
        self.holder.count_command();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let slots = Arc::clone(&self.slots);
        slots.give_back(self);
    }
}

impl Held {
    fn free(&self, limit: usize) -> usize {
        limit.saturating_sub(self.total)
    }

    fn allow(&self, client: Option<IpAddr>, limit: usize) -> bool {
        client.map_or(0, |client| self.of(client)) < self.free(limit)
    }

    fn of(&self, client: IpAddr) -> usize {
        self.by_client.get(&client).copied().unwrap_or(0)
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

/// A place in the queue, until the wait ends or is given up.
struct QueueTicket<'a> {
    slots: &'a Slots,
    turn: Turn,
}

impl Drop for QueueTicket<'_> {
    fn drop(&mut self) {
        self.slots.state().queue.remove(&self.turn);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::pin::pin;

    use futures_util::FutureExt;
    use futures_util::future::join_all;
    use tokio::task::JoinHandle;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::relay::NextHop;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn client(number: u8) -> Option<IpAddr> {
        Some(Ipv4Addr::new(192, 0, 2, number).into())
    }

    fn settings(most: usize) -> Settings {
        Settings { max_connections: most, ..crate::relay::tests::settings(NextHop::Maildir("mail".into())) }
    }

    /// All slots that a client gets without waiting.
    async fn grab(slots: &Arc<Slots>, client: Option<IpAddr>, limit: usize) -> Vec<Slot> {
        let mut grabbed = Vec::new();
        while let Some(slot) = slots.take(client, &settings(limit), Duration::ZERO).await {
            grabbed.push(slot);
        }
        grabbed
    }

    /// A request that waits in the queue when this returns.
    async fn queue(slots: &Arc<Slots>, client: Option<IpAddr>, limit: usize) -> JoinHandle<Option<Slot>> {
        let (slots, waiting) = (Arc::clone(slots), slots.state().queue.len());
        let task = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.take(client, &settings(limit), PATIENCE).await }
        });
        while slots.state().queue.len() == waiting {
            tokio::task::yield_now().await;
        }
        task
    }

    /// Whether the request has got a slot, which is released then.
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
    async fn a_new_client_is_served_at_once_beside_two_greedy_clients_that_wait() {
        let slots = Arc::new(Slots::default());
        let first = grab(&slots, client(1), 100).await;
        let second = grab(&slots, client(2), 100).await;
        let mut waiting = Vec::new();
        for number in [1, 2].repeat(50) {
            waiting.push(queue(&slots, client(number), 100).await);
        }
        let began = Instant::now();
        let newcomer = slots.take(client(3), &settings(100), PATIENCE).await;
        assert!(newcomer.is_some() && began.elapsed().is_zero());
        let probe = slots.take(None, &settings(100), PATIENCE).await;
        assert!(probe.is_some() && began.elapsed().is_zero());
        let outcomes = join_all(waiting).await;
        assert!(outcomes.into_iter().all(|slot| slot.unwrap().is_none()));
        assert_eq!(began.elapsed(), PATIENCE, "they waited");
        drop((first, second, newcomer, probe));
        assert_empty(&slots);
    }

    #[tokio::test(start_paused = true)]
    async fn a_released_slot_goes_to_the_first_client_that_may_have_it() {
        let slots = Arc::new(Slots::default());
        let (mut greedy, other) = (grab(&slots, client(1), 4).await, grab(&slots, client(2), 4).await);
        let last = slots.take(None, &settings(4), Duration::ZERO).await.unwrap();
        assert_eq!((greedy.len(), other.len()), (2, 1));
        let mut again = queue(&slots, client(1), 4).await;
        let mut third = queue(&slots, client(3), 4).await;
        let mut fourth = queue(&slots, client(4), 4).await;
        drop(last);
        assert!(is_served(&mut third).await, "client 1 came before, and has its share");
        // the first check gave the slot back, and it went to the next request, and so on
        assert!(is_served(&mut fourth).await);
        assert!(!is_served(&mut again).await);
        greedy.pop();
        assert!(is_served(&mut again).await, "two are free, and it holds one");
        drop((greedy, other));
        assert_empty(&slots);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_one_client_are_served_in_order() {
        let slots = Arc::new(Slots::default());
        let held = slots.take(client(9), &settings(1), Duration::ZERO).await;
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
    async fn a_request_that_gives_up_keeps_no_place_and_loses_no_slot() {
        let slots = Arc::new(Slots::default());
        let held = slots.take(client(9), &settings(1), Duration::ZERO).await;
        // given up while it waits
        let task = queue(&slots, client(1), 1).await;
        task.abort();
        assert!(task.await.is_err());
        assert_eq!(slots.state().queue.len(), 0);
        // given up when it has a slot that it didn't see yet
        let mut next = queue(&slots, client(2), 1).await;
        {
            let one = settings(1);
            let mut unseen = pin!(slots.take(client(1), &one, PATIENCE));
            assert!(unseen.as_mut().now_or_never().is_none());
            next.abort();
            assert!((&mut next).await.is_err());
            drop(held);
            assert_eq!(slots.state().held.free(1), 0, "it is the waiter's");
            next = queue(&slots, client(2), 1).await;
        }
        assert!(is_served(&mut next).await);
        assert_empty(&slots);
        // too late for this request
        let held = slots.take(client(9), &settings(1), Duration::ZERO).await;
        let task = queue(&slots, client(1), 1).await;
        advance(PATIENCE).await;
        assert!(task.await.unwrap().is_none());
        drop(held);
        assert_empty(&slots);
    }

    #[tokio::test(start_paused = true)]
    async fn limits_of_old_and_new_settings_count_the_same_slots() {
        let slots = Arc::new(Slots::default());
        let six = settings(6);
        let mut old = join_all((1..=6).map(|number| slots.take(client(number), &six, Duration::ZERO))).await;
        let mut new = queue(&slots, client(7), 3).await;
        let mut as_before = queue(&slots, client(8), 6).await;
        old.truncate(5);
        assert!(is_served(&mut as_before).await, "of six, one is free");
        old.truncate(3);
        assert!(!is_served(&mut new).await, "three are in use");
        assert!(slots.take(client(8), &settings(10), Duration::ZERO).await.is_some());
        old.truncate(2);
        assert!(is_served(&mut new).await);
        drop(old);
        assert_empty(&slots);
    }

    /// A holder whose client sends `octets` at every interval, until its hold ends.
    fn sender(slot: Slot, octets: usize, every: Duration) -> JoinHandle<TakenBack> {
        tokio::spawn(async move {
            let hold = slot.hold();
            loop {
                let read = async {
                    sleep(every).await;
                    Ok::<usize, ()>(octets)
                };
                if let Err(taken_back) = hold.wait(read).await {
                    return taken_back;
                }
            }
        })
    }

    async fn senders(
        slots: &Arc<Slots>,
        numbers: std::ops::RangeInclusive<u8>,
        limit: usize,
        octets: usize,
        every: Duration,
    ) -> Vec<JoinHandle<TakenBack>> {
        let mut senders = Vec::new();
        for number in numbers {
            let slot = slots.take(client(number), &settings(limit), Duration::ZERO).await.unwrap();
            senders.push(sender(slot, octets, every));
        }
        senders
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_client_gets_the_slot_of_the_slowest_holder() {
        const TICK: Duration = Duration::from_millis(100);
        let slots = Arc::new(Slots::default());
        let mut honest = senders(&slots, 1..=4, 8, 200, TICK).await;
        let slow = senders(&slots, 5..=7, 8, 1, Duration::from_secs(20)).await;
        let slowest = senders(&slots, 8..=8, 8, 1, Duration::from_secs(100_000)).await;
        sleep(Duration::from_secs(90)).await;
        assert!(
            honest.iter().chain(&slow).chain(&slowest).all(|sender| !sender.is_finished()),
            "no client waits"
        );
        let began = Instant::now();
        let newcomer = slots.take(client(9), &settings(8), PATIENCE).await;
        assert!(newcomer.is_some() && began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
        let seen = slowest.into_iter().next().unwrap().await.unwrap();
        assert!(seen.rate < 0.01 && seen.waited >= Duration::from_secs(90), "{seen:?}");
        assert!(
            honest.iter().chain(&slow).all(|sender| !sender.is_finished()),
            "one waited, one was taken back"
        );
        let more =
            join_all((10..=12).map(async |number| slots.take(client(number), &settings(8), PATIENCE).await))
                .await;
        assert!(more.iter().all(Option::is_some) && slow.iter().all(JoinHandle::is_finished));
        assert!(
            slots.take(client(13), &settings(8), PATIENCE).await.is_none(),
            "senders at 2000 octets a second stay"
        );
        assert!(honest.iter().all(|sender| !sender.is_finished()));
        honest.drain(..).for_each(|sender| sender.abort());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_clients_that_reconnect_are_behind_a_new_client() {
        let slots = Arc::new(Slots::default());
        let tasks: Vec<_> = (1..=20)
            .map(|number| {
                let slots = Arc::clone(&slots);
                tokio::spawn(async move {
                    loop {
                        let slot = slots.take(client(number), &settings(10), PATIENCE).await;
                        if let Some(slot) = slot {
                            sender(slot, 1, Duration::from_secs(20)).await.unwrap();
                        }
                    }
                })
            })
            .collect();
        sleep(Duration::from_secs(40)).await;
        for number in 100..110 {
            let began = Instant::now();
            assert!(slots.take(client(number), &settings(10), PATIENCE).await.is_some());
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
            sleep(Duration::from_millis(700)).await;
        }
        tasks.iter().for_each(JoinHandle::abort);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_the_relay_keeps_its_slot() {
        let slots = Arc::new(Slots::default());
        let slot = slots.take(client(1), &settings(1), PATIENCE).await.unwrap();
        let hold = slot.hold();
        let long = async {
            sleep(Duration::from_secs(30)).await;
            Ok::<usize, ()>(1)
        };
        assert_eq!(hold.wait(long).await, Ok(Ok(1)));
        // the client has sent its final dot, and the relay is slow
        assert!(slots.take(client(2), &settings(1), PATIENCE).await.is_none());
        assert!(slots.take(None, &settings(1), PATIENCE).await.is_none());
        // now the client is slow, but a request without a client takes nothing back
        let waiting = sender(slot, 1, Duration::from_secs(1000));
        assert!(slots.take(None, &settings(1), PATIENCE).await.is_none());
        assert!(!waiting.is_finished());
        assert!(slots.take(client(2), &settings(1), PATIENCE).await.is_some());
        assert!(waiting.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn no_client_takes_a_slot_back_from_one_that_holds_fewer() {
        let slots = Arc::new(Slots::default());
        let greedy: Vec<_> = grab(&slots, client(1), 8)
            .await
            .into_iter()
            .map(|slot| sender(slot, 5000, Duration::from_secs(1)))
            .collect();
        let slow = senders(&slots, 2..=5, 8, 1, Duration::from_secs(20)).await;
        assert_eq!(greedy.len(), 4);
        assert!(slots.take(client(1), &settings(8), PATIENCE).await.is_none());
        assert!(slow.iter().all(|sender| !sender.is_finished()));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_longer_time_a_client_takes_slots_back_from_itself() {
        let slots = Arc::new(Slots::default());
        let own: Vec<_> = grab(&slots, client(1), 8)
            .await
            .into_iter()
            .map(|slot| sender(slot, 1, Duration::from_secs(20)))
            .collect();
        assert!(slots.take(client(1), &settings(8), Duration::from_secs(8)).await.is_none());
        assert!(slots.take(client(1), &settings(8), PATIENCE).await.is_some());
        assert_eq!(own.iter().filter(|sender| sender.is_finished()).count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_transaction_that_takes_too_long_always_loses_its_slot() {
        let slots = Arc::new(Slots::default());
        let long = senders(&slots, 1..=1, 1, 5000, Duration::from_secs(1)).await;
        sleep(Duration::from_secs(595)).await;
        assert!(slots.take(client(2), &settings(1), Duration::from_secs(3)).await.is_none());
        sleep(Duration::from_secs(10)).await;
        assert!(!long[0].is_finished());
        assert!(slots.take(client(2), &settings(1), PATIENCE).await.is_some());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nothing_leaks_and_no_limit_is_exceeded_under_load() {
        let slots = Arc::new(Slots::default());
        let tasks = (0..64_u64).map(|task| {
            let slots = Arc::clone(&slots);
            tokio::spawn(async move {
                for round in 0..200 {
                    let (client, limit) = (client((task % 7) as u8), if task % 2 == 0 { 5 } else { 3 });
                    let patience = Duration::from_micros((task * 31 + round * 17) % 400);
                    if let Some(slot) = slots.take(client, &settings(limit), patience).await {
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
