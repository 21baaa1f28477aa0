//! What DNS said and until when: the only file that names moka.
//!
//! Freshness is ours: moka's own expiry (`Expiry` or `time_to_live`) stalls a reader for more than a second when a
//! million entries end together, and it can't be tested with a moved clock. So an expired entry stays until it is
//! replaced or evicted, which is also what lets it serve as stale evidence. The bound is in octets.

use std::mem::size_of;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::RandomState;
use moka::ops::compute::Op;

use crate::dns::CacheSettings;
use crate::dns::alias::Resolved;
use crate::dns::clock::{Clock, Moment};
use crate::policy::evidence::{Answer, Question, QuestionName, RecordType, Records, Target, Trouble};

/// What moka and the allocator use for one entry besides what is counted here: 310 to 360 octets, measured with half a
/// million entries of each kind.
const OVERHEAD: usize = 360;
/// How long trouble is remembered: long enough to spare a struggling server, short enough to be forgotten at once.
const TROUBLE_HELD: Duration = Duration::from_secs(5);
/// Entries that are copied, or looked through, before others get their turn.
const COPIED_AT_ONCE: usize = 256;

/// What an entry is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    name: QuestionName,
    about: About,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum About {
    Records(RecordType),
    /// That the name doesn't exist, nor anything below it (RFC 8020).
    Existence,
}

impl From<Question> for Key {
    fn from(question: Question) -> Self {
        Self { name: question.name, about: About::Records(question.rtype) }
    }
}

/// An answer with its times.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) answer: Arc<Answer>,
    pub(super) received: Moment,
    pub(super) expires: Moment,
}

/// The latest answer, and while that is trouble, the positive one before it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) latest: Held,
    last_good: Option<Arc<Held>>,
}

impl Entry {
    /// A positive answer that expired less than `stale` ago, for use while the latest is trouble.
    pub(super) fn stale(&self, now: Moment, stale: Duration) -> Option<&Held> {
        self.last_good.as_deref().filter(|held| now < held.expires.plus(stale))
    }

    fn is_fresh(&self, now: Moment) -> bool {
        now < self.latest.expires
    }

    /// What the next entry keeps of this one when it is trouble.
    fn into_last_good(self) -> Option<Arc<Held>> {
        match *self.latest.answer {
            Answer::Found(_) => Some(Arc::new(self.latest)),
            Answer::Unavailable(_) => self.last_good,
            Answer::NoData | Answer::NoSuchDomain => None,
        }
    }

    fn weight(&self) -> usize {
        let last_good = self.last_good.as_ref().map_or(0, |held| size_of::<Held>() + weight(&held.answer));
        size_of::<Self>() + weight(&self.latest.answer) + last_good
    }
}

/// All answers that are held.
pub(super) struct Cache {
    store: moka::future::Cache<Key, Entry, RandomState>,
    settings: CacheSettings,
    clock: Clock,
}

impl Cache {
    pub(super) fn new(settings: CacheSettings, clock: Clock) -> Self {
        let store = moka::future::Cache::builder()
            .max_capacity(settings.memory)
            .weigher(|key: &Key, entry: &Entry| {
                let octets = OVERHEAD + size_of::<Key>() + heap(key.name.as_str()) + entry.weight();
                u32::try_from(octets).unwrap_or(u32::MAX)
            })
            .build_with_hasher(RandomState::default());
        Self { store, settings, clock }
    }

    /// The same answers by other settings, which bind the answers to come. While the memory stays as it is, both are
    /// one store; else this is a copy, as moka's bound is for good.
    pub(super) async fn renewed(&self, settings: CacheSettings) -> Self {
        if settings.memory == self.settings.memory {
            return Self { store: self.store.clone(), settings, clock: self.clock.clone() };
        }
        let renewed = Self::new(settings, self.clock.clone());
        for (count, (key, entry)) in self.store.iter().enumerate() {
            renewed.store.insert((*key).clone(), entry).await;
            if count % COPIED_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        renewed
    }

    /// How many answers are held, and their octets; what was done in the last moment may be missing.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.store.entry_count(), self.store.weighted_size())
    }

    /// Removes what is held of a name and of all below it, and that a name above it doesn't exist, which would go on to
    /// say the same of this one. A question that is under way may bring its answer back.
    pub(super) async fn forget(&self, name: &QuestionName) -> usize {
        let is_meant = |key: &Key| match key.about {
            _ if key.name.is_at_or_below(name) => true,
            About::Existence => name.is_at_or_below(&key.name),
            About::Records(_) => false,
        };
        let mut removed = 0;
        for (count, (key, _)) in self.store.iter().enumerate() {
            if is_meant(&key) && self.store.remove(&*key).await.is_some() {
                removed += 1;
            }
            if count % COPIED_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        removed
    }

    /// The answer, if one is held that has not expired. Gives the question back.
    pub(super) async fn fresh(&self, question: Question) -> (Question, Option<Entry>) {
        let rtype = question.rtype;
        let key = Key::from(question);
        let entry = self.store.get(&key).await.filter(|entry| entry.is_fresh(self.clock.now()));
        (Question { name: key.name, rtype }, entry)
    }

    /// A fresh NXDOMAIN of `name` or of a name above it (RFC 8020 2).
    pub(super) async fn denial(&self, name: &QuestionName) -> Option<Entry> {
        let now = self.clock.now();
        let mut name = Some(name.clone());
        while let Some(denied) = name {
            name = denied.parent();
            let key = Key { name: denied, about: About::Existence };
            if let Some(entry) = self.store.get(&key).await.filter(|entry| entry.is_fresh(now)) {
                return Some(entry);
            }
        }
        None
    }

    /// The fresh answer; asks by `resolve` if there is none, once for all who wait for the same question. `None` where
    /// the cache could not be used.
    pub(super) async fn ask_once(
        &self,
        question: Question,
        resolve: impl Future<Output = Resolved>,
    ) -> Option<Entry> {
        let (key, began) = (Key::from(question), self.clock.now());
        // Also what came while this one waited, however short it is to be kept.
        let usable = |entry: &Entry| entry.is_fresh(self.clock.now()) || entry.latest.received > began;
        let denial = Key { name: key.name.clone(), about: About::Existence };
        let mut given = None;
        let ask = |known: Option<moka::Entry<Key, Entry>>| async {
            let known = known.map(moka::Entry::into_value);
            let was_known = known.is_some();
            let denied = self.store.get(&denial).await;
            if let Some(entry) = known.clone().filter(usable).or(denied.filter(usable)) {
                given = Some(entry);
                return Op::Nop;
            }
            let resolved = resolve.await;
            let itself = resolved.denied.as_ref().is_some_and(|name| name.as_str() == denial.name.as_str());
            let entry = self.entry(known, resolved).await;
            given = Some(entry.clone());
            match (itself, was_known) {
                // That the name doesn't exist is held, and says it for every type: a second entry would double what a
                // flood of invented names takes.
                (true, true) => Op::Remove,
                (true, false) => Op::Nop,
                (false, _) => Op::Put(entry),
            }
        };
        self.store.entry_by_ref(&key).and_compute_with(ask).await;
        given
    }

    /// What is known of a question that could not be asked. That says nothing of the name, so it isn't held.
    pub(super) async fn unasked(&self, question: Question, why: Trouble) -> Entry {
        let now = self.clock.now();
        let known = self.store.get(&Key::from(question)).await;
        if let Some(entry) = known.as_ref().filter(|entry| entry.is_fresh(now)) {
            return entry.clone();
        }
        let answer = Arc::new(Answer::Unavailable(why));
        let latest = Held { answer, received: now, expires: now };
        Entry { latest, last_good: known.and_then(Entry::into_last_good) }
    }

    /// The entry of an answer; `known` is what was held before it.
    async fn entry(&self, known: Option<Entry>, resolved: Resolved) -> Entry {
        let received = self.clock.now();
        let expires = received.plus(self.keep(&resolved));
        let latest = Held { answer: Arc::new(resolved.answer), received, expires };
        if let Some(name) = resolved.denied {
            let denial = Entry {
                latest: Held { answer: Arc::new(Answer::NoSuchDomain), ..latest.clone() },
                last_good: None,
            };
            self.store.insert(Key { name: name.into(), about: About::Existence }, denial).await;
        }
        let last_good = match *latest.answer {
            Answer::Unavailable(_) => known.and_then(Entry::into_last_good),
            Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain => None,
        };
        Entry { latest, last_good }
    }

    /// How long an answer is fresh.
    fn keep(&self, resolved: &Resolved) -> Duration {
        let CacheSettings { min_ttl, max_ttl, max_negative_ttl, .. } = self.settings;
        let ttl = resolved.ttl.unwrap_or(min_ttl).max(min_ttl);
        match resolved.answer {
            Answer::Found(_) => ttl.min(max_ttl),
            Answer::NoData | Answer::NoSuchDomain => ttl.min(max_negative_ttl),
            Answer::Unavailable(Trouble::Busy | Trouble::TooMany) => Duration::ZERO,
            Answer::Unavailable(_) => TROUBLE_HELD,
        }
    }
}

/// What an answer holds on the heap, its own allocation included.
fn weight(answer: &Answer) -> usize {
    let records = match answer {
        Answer::Found(Records::Mx(list)) => {
            list.capacity() * size_of::<(u16, Target)>()
                + list.iter().map(|(_, target)| name(target)).sum::<usize>()
        }
        Answer::Found(Records::A(list)) => list.capacity() * size_of::<std::net::Ipv4Addr>(),
        Answer::Found(Records::Aaaa(list)) => list.capacity() * size_of::<std::net::Ipv6Addr>(),
        Answer::Found(Records::Ptr(list)) => {
            list.capacity() * size_of::<Target>() + list.iter().map(name).sum::<usize>()
        }
        Answer::Found(Records::Txt(list)) => {
            let each = size_of::<Box<[u8]>>() + 2 * size_of::<usize>();
            list.capacity() * each + list.iter().map(|text| text.len()).sum::<usize>()
        }
        Answer::Found(Records::Cname(target)) => name(target),
        Answer::NoData | Answer::NoSuchDomain | Answer::Unavailable(_) => 0,
    };
    size_of::<Answer>() + 2 * size_of::<usize>() + records
}

fn name(target: &Target) -> usize {
    match target {
        Target::Root => 0,
        Target::Host(name) => heap(name.as_str()),
        Target::Invalid(text) => heap(text),
    }
}

/// What a compact string of this text holds on the heap.
fn heap(text: &str) -> usize {
    if text.len() > size_of::<compact_str::CompactString>() { text.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    use crate::smtp::address::DomainName;

    /// One MiB.
    fn small_cache() -> Cache {
        let settings = CacheSettings {
            memory: 1 << 20,
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(86_400),
            max_negative_ttl: Duration::from_secs(3_600),
            stale: Duration::from_secs(86_400),
        };
        Cache::new(settings, Clock::standing())
    }

    #[tokio::test]
    async fn memory_is_bounded_and_what_is_often_asked_for_stays() {
        let cache = small_cache();
        let question = |text: String| Question {
            name: QuestionName::parse(text.as_bytes()).unwrap(),
            rtype: RecordType::Mx,
        };
        let found = || async {
            let target =
                Target::Host(DomainName::parse("a-name-that-does-not-fit-inline.example.test").unwrap());
            let answer = Answer::Found(Records::Mx(vec![(10, target)]));
            Resolved { answer, ttl: Some(Duration::from_secs(300)), denied: None }
        };
        let often = question("often.test".to_owned());
        for at in 0..20_000 {
            cache.ask_once(question(format!("{at}.test")), found()).await;
            cache.ask_once(often.clone(), found()).await;
        }
        cache.store.run_pending_tasks().await;
        assert!(cache.store.weighted_size() <= 1 << 20, "{}", cache.store.weighted_size());
        assert!((1_000..2_000).contains(&cache.store.entry_count()), "{}", cache.store.entry_count());
        assert!(cache.fresh(often).await.1.is_some());
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_takes_one_entry_whatever_is_asked_of_it() {
        let cache = small_cache();
        let name = |text: &str| QuestionName::parse(text.as_bytes()).unwrap();
        let question = |text, rtype| Question { name: name(text), rtype };
        let denied = |text| Resolved {
            answer: Answer::NoSuchDomain,
            ttl: Some(Duration::from_secs(300)),
            denied: Some(DomainName::parse(text).unwrap()),
        };
        for rtype in [RecordType::Mx, RecordType::A] {
            let gone = async { denied("gone.test") };
            let entry = cache.ask_once(question("gone.test", rtype), gone).await.unwrap();
            assert_eq!(*entry.latest.answer, Answer::NoSuchDomain);
        }
        cache.store.run_pending_tasks().await;
        assert_eq!(cache.store.entry_count(), 1);
        assert!(cache.denial(&name("gone.test")).await.is_some());
        assert!(cache.denial(&name("below.gone.test")).await.is_some());

        // behind an alias it is another name that is denied, and the answer is held as well
        cache.ask_once(question("alias.test", RecordType::Mx), async { denied("elsewhere.test") }).await;
        cache.store.run_pending_tasks().await;
        assert_eq!(cache.store.entry_count(), 3);
        assert!(cache.denial(&name("alias.test")).await.is_none());
        assert!(cache.fresh(question("alias.test", RecordType::Mx)).await.1.is_some());
    }

    #[tokio::test]
    async fn who_waits_for_an_answer_takes_it_however_short_it_is_kept() {
        let cache = Cache { clock: Clock::running(), ..small_cache() };
        let asked = Cell::new(0);
        let question = Question { name: QuestionName::parse(b"busy.test").unwrap(), rtype: RecordType::Mx };
        let ask = async || {
            asked.set(asked.get() + 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Resolved::trouble(Trouble::Busy)
        };
        let askers = (0..50).map(|_| cache.ask_once(question.clone(), ask()));
        let given = futures_util::future::join_all(askers).await;
        assert!(
            given.iter().flatten().all(|entry| *entry.latest.answer == Answer::Unavailable(Trouble::Busy))
        );
        assert_eq!((given.iter().flatten().count(), asked.get()), (50, 1));
        cache.ask_once(question, ask()).await;
        assert_eq!(asked.get(), 2, "it is not kept");
    }

    #[test]
    fn weight_counts_what_is_on_the_heap() {
        let host = |text| Target::Host(DomainName::parse(text).unwrap());
        let empty = weight(&Answer::NoData);
        let long = "a-name-that-does-not-fit-inline.example.test";
        let rows = [
            (Answer::Found(Records::A(vec![std::net::Ipv4Addr::LOCALHOST; 3])), 12),
            (Answer::Found(Records::Ptr(vec![host("short.test")])), size_of::<Target>()),
            (Answer::Found(Records::Ptr(vec![host(long)])), size_of::<Target>() + long.len()),
            (Answer::Found(Records::Txt(vec![Box::from(&[0; 60_000][..])])), 60_032),
        ];
        for (answer, octets) in rows {
            assert_eq!(weight(&answer) - empty, octets, "{answer}");
        }
    }
}
