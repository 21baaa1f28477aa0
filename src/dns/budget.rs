//! How many questions one client may cause, and on whose account each is asked.
//!
//! A [`Budget`] is a number of questions that several lookups share. A part of it has a bound of its own and takes from the
//! whole as well. Every question to DNS is on an [`Account`]. Only a question that goes to a name server is paid for: an answer
//! from the cache, or to a question that is under way already, is free. Repeated packets, and the next server after one that
//! failed, belong to the question that was paid for.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Questions that may still be asked; clones share them.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Counter>);

#[derive(Debug)]
struct Counter {
    left: AtomicU32,
    whole: Option<Budget>,
}

impl Budget {
    #[must_use]
    pub fn of(questions: u32) -> Self {
        Self(Arc::new(Counter { left: AtomicU32::new(questions), whole: None }))
    }

    /// A part of this budget: at most so many questions, which count for the whole as well.
    #[must_use]
    pub fn part(&self, questions: u32) -> Self {
        Self(Arc::new(Counter { left: AtomicU32::new(questions), whole: Some(self.clone()) }))
    }

    /// Divides what is left into equal parts, of which none can take another's questions.
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

    /// Takes one question; `None` when none is left.
    pub(super) fn pay(&self) -> Option<Payment> {
        self.take().then(|| Payment { from: Some(self.clone()) })
    }

    /// Takes one question and spends it, for tests of other modules.
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

/// One question taken from a budget; dropping it before it is asked gives it back.
#[derive(Debug)]
pub(super) struct Payment {
    from: Option<Budget>,
}

impl Payment {
    /// The question is asked: it doesn't go back.
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

/// What an answer can lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// It can refuse mail, so the client waits for it.
    Refuses,
    /// It can only tag.
    Tags,
}

impl Urgency {
    /// In the order in which waiting questions get their places.
    pub const ALL: [Self; 2] = [Self::Refuses, Self::Tags];
}

/// The client and the budget that a question is asked for.
#[derive(Debug, Clone)]
pub struct Account {
    /// The client whose quota of places counts.
    pub(super) client: IpAddr,
    pub(super) budget: Budget,
    pub(super) urgency: Urgency,
}

impl Account {
    #[must_use]
    pub fn new(client: IpAddr, budget: Budget, urgency: Urgency) -> Self {
        Self { client: client.to_canonical(), budget, urgency }
    }

    /// One account for each of so many parallel lookups, with equal budgets.
    #[must_use]
    pub fn shares(&self, count: usize) -> Vec<Self> {
        let budgets = self.budget.shares(count).into_iter();
        budgets.map(|budget| Self { budget, ..self.clone() }).collect()
    }

    /// An IPv4-mapped address is IPv4 here.
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
