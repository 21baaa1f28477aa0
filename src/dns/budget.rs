//! How many questions one client may cause, and on whose account each is asked.
//!
//! A [`Budget`] is a number of questions that many look-ups share; a part of it has a bound of its own and takes from the
//! whole as well. Nothing asks DNS without an [`Account`]. Only what goes to a name server is paid for: an answer from the
//! cache, or one that another asker waits for already, is free, since it costs nobody anything. Packets that are repeated, and
//! the next server after one that failed, belong to the question that was paid for.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Questions that may still be asked; clones share them.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Purse>);

#[derive(Debug)]
struct Purse {
    left: AtomicU32,
    whole: Option<Budget>,
}

impl Budget {
    /// So many questions.
    #[must_use]
    pub fn of(questions: u32) -> Self {
        Self(Arc::new(Purse { left: AtomicU32::new(questions), whole: None }))
    }

    /// At most so many of these.
    #[must_use]
    pub fn part(&self, questions: u32) -> Self {
        Self(Arc::new(Purse { left: AtomicU32::new(questions), whole: Some(self.clone()) }))
    }

    /// What is left, in equal parts: none of them can take another's.
    #[must_use]
    pub fn shares(&self, count: usize) -> Vec<Self> {
        let each = self.left() / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
        (0..count).map(|_| self.part(each)).collect()
    }

    /// How many questions may still be asked.
    #[must_use]
    pub fn left(&self) -> u32 {
        let left = self.0.left.load(Ordering::Relaxed);
        self.0.whole.as_ref().map_or(left, |whole| left.min(whole.left()))
    }

    /// Pays for one question; `None` when nothing is left.
    pub(super) fn pay(&self) -> Option<Payment> {
        self.take().then(|| Payment { from: Some(self.clone()) })
    }

    /// A question that is asked, for tests of what budgets are made into.
    #[cfg(test)]
    pub(crate) fn spend(&self) -> bool {
        self.pay().map(Payment::spend).is_some()
    }

    fn take(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        if self.0.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
            return false;
        }
        let taken = self.0.whole.as_ref().is_none_or(Self::take);
        if !taken {
            self.0.left.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    fn give_back(&self) {
        self.0.left.fetch_add(1, Ordering::Relaxed);
        if let Some(whole) = &self.0.whole {
            whole.give_back();
        }
    }
}

/// One question, paid for; given back when it is dropped before it was asked.
#[derive(Debug)]
pub(super) struct Payment {
    from: Option<Budget>,
}

impl Payment {
    /// The question is asked now.
    pub(super) fn spend(mut self) {
        self.from = None;
    }
}

impl Drop for Payment {
    fn drop(&mut self) {
        if let Some(budget) = &self.from {
            budget.give_back();
        }
    }
}

/// What an answer can lead to, the more urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// It can refuse mail: the client waits for it.
    Refuses,
    /// It can only tag.
    Tags,
}

impl Urgency {
    /// Both, in the order in which they are asked.
    pub const ALL: [Self; 2] = [Self::Refuses, Self::Tags];
}

/// On whose account questions are asked.
#[derive(Debug, Clone)]
pub struct Account {
    /// Whose share of the places it is.
    pub(super) client: IpAddr,
    pub(super) budget: Budget,
    pub(super) urgency: Urgency,
}

impl Account {
    /// A client's, as far as the budget reaches.
    #[must_use]
    pub fn new(client: IpAddr, budget: Budget, urgency: Urgency) -> Self {
        Self { client: client.to_canonical(), budget, urgency }
    }

    /// The same for each of so many look-ups side by side: none can take what another needs.
    #[must_use]
    pub fn shares(&self, count: usize) -> Vec<Self> {
        let budgets = self.budget.shares(count).into_iter();
        budgets.map(|budget| Self { budget, ..self.clone() }).collect()
    }

    /// The client, as IPv4 where it came as an IPv4-mapped address.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        self.client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_taken_from_the_part_and_from_the_whole_and_comes_back_unless_it_is_asked() {
        let whole = Budget::of(5);
        let (one, other) = (whole.part(3), whole.part(4));
        (0..3).for_each(|_| one.pay().unwrap().spend());
        assert!(one.pay().is_none());
        assert_eq!((one.left(), other.left(), whole.left()), (0, 2, 2));
        let unasked = other.pay().unwrap();
        other.pay().unwrap().spend();
        assert!(other.pay().is_none(), "the whole is spent");
        drop(unasked);
        assert_eq!((other.left(), whole.left()), (1, 1));
        other.pay().unwrap().spend();
        assert_eq!((one.left(), other.left(), whole.left()), (0, 0, 0));
    }

    #[test]
    fn shares_are_equal_and_none_takes_from_another() {
        let whole = Budget::of(45);
        let shares = whole.shares(5);
        while let Some(payment) = shares[0].pay() {
            payment.spend();
        }
        assert!(shares[1..].iter().all(|share| share.left() == 9));
        assert_eq!(whole.left(), 36);
        assert!(whole.shares(0).is_empty());
    }
}
