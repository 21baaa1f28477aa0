//! Answers and the time until which they hold; the only file that names moka.
//!
//! Freshness is ours: moka's own expiry (`Expiry` or `time_to_live`) stalls a reader for more than a second when a
//! million entries end together, and it can't be tested with a moved clock. So an expired entry stays until it is
//! replaced or evicted, so that it can serve as stale evidence. The bound is in octets.

use std::mem::size_of;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use foldhash::quality::RandomState;
use moka::ops::compute::Op;

use crate::dns::clock::{Clock, Moment};
use crate::dns::cname::Resolved;
use crate::dns::denials::{Denial, Denials, Of};
use crate::dns::settings::CacheSettings;
use crate::evidence::{Answer, DnsFailure, Question, QuestionName, RecordType, Records, Target};

/// Octets that moka and the allocator use for an entry besides those counted here: 310 to 360, measured with half a million
/// entries of each kind.
const OVERHEAD: usize = 360;
/// How long a failure is cached: long enough to spare an overloaded server, and short, as it may be over.
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// Entries that are copied or searched before the task yields.
const COPIED_AT_ONCE: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    name: QuestionName,
    about: About,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum About {
    Records(RecordType),
    /// Every NXDOMAIN of the name, in one entry.
    Denials,
}

#[derive(Debug, Clone)]
enum Value {
    Answer(Entry),
    Denials(Denials),
}

impl Value {
    fn answer(self) -> Option<Entry> {
        match self {
            Self::Answer(entry) => Some(entry),
            Self::Denials(_) => None,
        }
    }

    fn denials(self) -> Option<Denials> {
        match self {
            Self::Answer(_) => None,
            Self::Denials(denials) => Some(denials),
        }
    }

    fn weight(&self) -> usize {
        let heap = match self {
            Self::Answer(entry) => entry.heap(),
            Self::Denials(denials) => denials.heap(),
        };
        size_of::<Self>() + heap
    }
}

impl From<Question> for Key {
    fn from(question: Question) -> Self {
        Self { name: question.name, about: About::Records(question.rtype) }
    }
}

#[derive(Debug, Clone)]
pub(super) struct CachedAnswer {
    pub(super) answer: Arc<Answer>,
    /// [`crate::evidence::Evidence::server`].
    pub(super) server: Option<Arc<SocketAddr>>,
    pub(super) received: Moment,
    pub(super) expires: Moment,
}

/// The latest answer, and where that is a failure, the positive one before it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) latest: CachedAnswer,
    last_good: Option<Arc<CachedAnswer>>,
}

impl Entry {
    /// The positive answer before a failure, if it expired less than `stale` ago.
    pub(super) fn stale(&self, now: Moment, stale: Duration) -> Option<&CachedAnswer> {
        self.last_good.as_deref().filter(|held| now < held.expires.plus(stale))
    }

    fn is_fresh(&self, now: Moment) -> bool {
        now < self.latest.expires
    }

    /// The positive answer that the next entry keeps if it is a failure.
    fn into_last_good(self) -> Option<Arc<CachedAnswer>> {
        match *self.latest.answer {
            Answer::Found(_) => Some(Arc::new(self.latest)),
            Answer::Unavailable(_) => self.last_good,
            Answer::NoData | Answer::NoSuchDomain => None,
        }
    }

    fn heap(&self) -> usize {
        let last_good =
            self.last_good.as_ref().map_or(0, |held| size_of::<CachedAnswer>() + weight(&held.answer));
        weight(&self.latest.answer) + last_good
    }
}

pub(super) struct Cache {
    store: moka::future::Cache<Key, Value, RandomState>,
    settings: CacheSettings,
    clock: Clock,
    /// Shared by all denials.
    no_such_domain: Arc<Answer>,
}

impl Cache {
    pub(super) fn new(settings: CacheSettings, clock: Clock) -> Self {
        let store = moka::future::Cache::builder()
            .max_capacity(settings.memory)
            .weigher(|key: &Key, value: &Value| {
                let octets = OVERHEAD + size_of::<Key>() + heap(key.name.as_str()) + value.weight();
                u32::try_from(octets).unwrap_or(u32::MAX)
            })
            .build_with_hasher(RandomState::default());
        Self { store, settings, clock, no_such_domain: Arc::new(Answer::NoSuchDomain) }
    }

    /// The same answers under other settings, which hold for new answers. Both caches share one store while the memory bound
    /// is the same; otherwise this is a copy, as moka's bound can't change.
    pub(super) async fn with_settings(&self, settings: CacheSettings) -> Self {
        if settings.memory == self.settings.memory {
            let (store, clock) = (self.store.clone(), self.clock.clone());
            return Self { store, settings, clock, no_such_domain: Arc::clone(&self.no_such_domain) };
        }
        let with_settings = Self::new(settings, self.clock.clone());
        for (count, (key, value)) in self.store.iter().enumerate() {
            with_settings.store.insert((*key).clone(), value).await;
            if count % COPIED_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        with_settings
    }

    /// Number of entries and their octets; moka counts with a short delay.
    pub(super) fn size(&self) -> (u64, u64) {
        (self.store.entry_count(), self.store.weighted_size())
    }

    /// Removes the entries of a name and of all names below it, and the proofs that a name above it doesn't exist, which would
    /// deny this one too. The answer to a question under way may add an entry again.
    pub(super) async fn forget(&self, name: &QuestionName) -> usize {
        let is_meant = |key: &Key, value: &Value| match value {
            _ if key.name.is_at_or_below(name) => true,
            Value::Denials(denials) => denials.of_name().is_some() && name.is_at_or_below(&key.name),
            Value::Answer(_) => false,
        };
        let mut removed = 0;
        for (count, (key, value)) in self.store.iter().enumerate() {
            if is_meant(&key, &value) && self.store.remove(&*key).await.is_some() {
                removed += 1;
            }
            if count % COPIED_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
        removed
    }

    /// The cached answer that has not expired; returns the question too.
    pub(super) async fn fresh(&self, question: Question) -> (Question, Option<Entry>) {
        let rtype = question.rtype;
        let key = Key::from(question);
        let entry = self.answer(&key).await.filter(|entry| entry.is_fresh(self.clock.now()));
        (Question { name: key.name, rtype }, entry)
    }

    /// A fresh NXDOMAIN of the name and type, or of the name or one above it where that is proven (RFC 8020 2).
    pub(super) async fn denial(&self, question: &Question) -> Option<Entry> {
        let now = self.clock.now();
        let own = self.denials(question.name.clone()).await.and_then(|denials| denials.of(question.rtype));
        if let Some(denial) = own.filter(|denial| denial.is_fresh(now)) {
            return Some(self.denied(denial));
        }
        let mut above = question.name.parent();
        while let Some(name) = above {
            above = name.parent();
            let proven = self.denials(name).await.and_then(|denials| denials.of_name());
            if let Some(denial) = proven.filter(|denial| denial.is_fresh(now)) {
                return Some(self.denied(denial));
            }
        }
        None
    }

    /// The fresh answer. Without one `resolve` runs, once for all callers with the same question. `None` where the cache
    /// failed.
    pub(super) async fn ask_once(
        &self,
        question: Question,
        resolve: impl Future<Output = Resolved>,
    ) -> Option<Entry> {
        let (name, rtype) = (question.name.clone(), question.rtype);
        let (key, began) = (Key::from(question), self.clock.now());
        // Also an answer that came while this call waited, even if it is not kept.
        let usable = |entry: &Entry| entry.is_fresh(self.clock.now()) || entry.latest.received > began;
        let mut given = None;
        let ask = |known: Option<moka::Entry<Key, Value>>| async {
            let known = known.and_then(|known| known.into_value().answer());
            let was_known = known.is_some();
            let denied = self.denials(name.clone()).await.and_then(|denials| denials.of(rtype));
            let denied = denied.map(|denial| self.denied(denial));
            if let Some(entry) = known.clone().filter(usable).or(denied.filter(usable)) {
                given = Some(entry);
                return Op::Nop;
            }
            let resolved = resolve.await;
            let is_denial = resolved.answer == Answer::NoSuchDomain;
            let entry = if is_denial {
                self.deny(&name, rtype, &resolved).await
            } else {
                self.entry(known, resolved)
            };
            given = Some(entry.clone());
            match (is_denial, was_known) {
                // All denials of a name are one entry: an entry for each type would multiply what a flood of invented
                // names takes.
                (true, true) => Op::Remove,
                (true, false) => Op::Nop,
                (false, _) => Op::Put(Value::Answer(entry)),
            }
        };
        self.store.entry_by_ref(&key).and_compute_with(ask).await;
        given
    }

    /// The entry of a question that was not asked. It says nothing about the name, so it isn't cached.
    pub(super) async fn unasked(&self, question: Question, why: DnsFailure) -> Entry {
        let now = self.clock.now();
        let known = self.answer(&Key::from(question)).await;
        if let Some(entry) = known.as_ref().filter(|entry| entry.is_fresh(now)) {
            return entry.clone();
        }
        let answer = Arc::new(Answer::Unavailable(why));
        let latest = CachedAnswer { answer, server: None, received: now, expires: now };
        Entry { latest, last_good: known.and_then(Entry::into_last_good) }
    }

    async fn answer(&self, key: &Key) -> Option<Entry> {
        self.store.get(key).await.and_then(Value::answer)
    }

    async fn denials(&self, name: QuestionName) -> Option<Denials> {
        self.store.get(&Key { name, about: About::Denials }).await.and_then(Value::denials)
    }

    fn denied(&self, Denial { received, expires, .. }: Denial) -> Entry {
        let answer = Arc::clone(&self.no_such_domain);
        Entry { latest: CachedAnswer { answer, server: None, received, expires }, last_good: None }
    }

    /// Stores an NXDOMAIN and what DNSSEC proves by it.
    async fn deny(&self, name: &QuestionName, rtype: RecordType, resolved: &Resolved) -> Entry {
        let received = self.clock.now();
        let expires = received.plus(self.keep(resolved));
        let of = |of| Denial { of, received, expires };
        let proven = resolved.proven_absent.as_ref();
        if proven != Some(name) {
            self.add_denial(name.clone(), of(Of::Type(rtype))).await;
        }
        if let Some(proven) = proven {
            self.add_denial(proven.clone(), of(Of::Name)).await;
        }
        self.denied(of(Of::Type(rtype)))
    }

    async fn add_denial(&self, name: QuestionName, denial: Denial) {
        let add = |known: Option<moka::Entry<Key, Value>>| async move {
            let known = known.and_then(|known| known.into_value().denials()).unwrap_or_default();
            Value::Denials(known.and(denial, denial.received))
        };
        self.store.entry(Key { name, about: About::Denials }).and_upsert_with(add).await;
    }

    /// The entry of an answer that is no denial; `known` is the entry before it.
    fn entry(&self, known: Option<Entry>, resolved: Resolved) -> Entry {
        let received = self.clock.now();
        let expires = received.plus(self.keep(&resolved));
        let (answer, server) = (Arc::new(resolved.answer), resolved.server);
        let latest = CachedAnswer { answer, server, received, expires };
        let last_good = match *latest.answer {
            Answer::Unavailable(_) => known.and_then(Entry::into_last_good),
            Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain => None,
        };
        Entry { latest, last_good }
    }

    /// How long an answer stays fresh.
    fn keep(&self, resolved: &Resolved) -> Duration {
        let CacheSettings { min_ttl, max_ttl, max_negative_ttl, .. } = self.settings;
        let ttl = resolved.ttl.unwrap_or(min_ttl).max(min_ttl);
        match resolved.answer {
            Answer::Found(_) => ttl.min(max_ttl),
            Answer::NoData | Answer::NoSuchDomain => ttl.min(max_negative_ttl),
            Answer::Unavailable(DnsFailure::Busy | DnsFailure::TooMany) => Duration::ZERO,
            Answer::Unavailable(_) => FAILURE_TTL,
        }
    }
}

/// Octets of an answer on the heap, its own allocation included.
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

/// Octets of a compact string on the heap.
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
    async fn memory_is_bounded_and_frequent_questions_stay() {
        let cache = small_cache();
        let question = |text: String| Question {
            name: QuestionName::parse(text.as_bytes()).unwrap(),
            rtype: RecordType::Mx,
        };
        let found = || async {
            let target =
                Target::Host(DomainName::parse("a-name-that-does-not-fit-inline.example.test").unwrap());
            let answer = Answer::Found(Records::Mx(vec![(10, target)]));
            Resolved::new(answer, Some(Duration::from_secs(300)))
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

    fn question(name: &str, rtype: RecordType) -> Question {
        Question { name: QuestionName::parse(name.as_bytes()).unwrap(), rtype }
    }

    async fn deny(cache: &Cache, name: &str, rtype: RecordType, proven_absent: Option<&str>) {
        let proven_absent = proven_absent.map(|name| QuestionName::parse(name.as_bytes()).unwrap());
        let ttl = Some(Duration::from_secs(300));
        let gone = async { Resolved { proven_absent, ..Resolved::new(Answer::NoSuchDomain, ttl) } };
        let entry = cache.ask_once(question(name, rtype), gone).await.unwrap();
        assert_eq!(*entry.latest.answer, Answer::NoSuchDomain);
        cache.store.run_pending_tasks().await;
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_takes_one_entry_and_what_was_not_asked_is_not_denied() {
        use RecordType::{A, Aaaa, Cname, Mx, Txt};
        let cache = small_cache();
        let denied = async |name, rtype| cache.denial(&question(name, rtype)).await.is_some();
        for rtype in [Mx, A, Txt] {
            assert!(!denied("gone.test", rtype).await, "{rtype}");
            deny(&cache, "gone.test", rtype, None).await;
            assert!(denied("gone.test", rtype).await, "{rtype}");
            assert_eq!(cache.store.entry_count(), 1);
        }
        assert!(!denied("gone.test", Aaaa).await && !denied("gone.test", Cname).await);
        assert!(!denied("below.gone.test", Mx).await);

        // DNSSEC proves it: of all types and all names below
        deny(&cache, "gone.test", Aaaa, Some("gone.test")).await;
        assert_eq!(cache.store.entry_count(), 1);
        assert!(denied("gone.test", Cname).await && denied("b.a.gone.test", Mx).await);
        assert!(!denied("test", Mx).await && !denied("notgone.test", Mx).await);

        // behind an alias it is another name that is denied, and of the alias no more than was asked for
        deny(&cache, "alias.test", Mx, None).await;
        assert_eq!(cache.store.entry_count(), 2);
        assert!(denied("alias.test", Mx).await && !denied("alias.test", A).await);
        deny(&cache, "alias.test", A, Some("elsewhere.test")).await;
        assert_eq!(cache.store.entry_count(), 3);
        assert!(denied("alias.test", A).await && !denied("alias.test", Txt).await);
        assert!(denied("below.elsewhere.test", Txt).await && !denied("below.alias.test", Mx).await);
    }

    #[tokio::test]
    async fn a_denial_ends_for_its_type_when_its_own_time_is_over() {
        use RecordType::{A, Mx};
        let cache = small_cache();
        let denied = async |rtype| cache.denial(&question("gone.test", rtype)).await.is_some();
        deny(&cache, "gone.test", Mx, None).await;
        cache.clock.advance(Duration::from_secs(200));
        deny(&cache, "gone.test", A, None).await;
        let held = cache.denial(&question("gone.test", Mx)).await.unwrap().latest;
        assert_eq!(cache.clock.now().since(held.received), Duration::from_secs(200));
        cache.clock.advance(Duration::from_secs(100));
        assert!(!denied(Mx).await && denied(A).await);
        deny(&cache, "gone.test", Mx, None).await;
        cache.clock.advance(Duration::from_secs(200));
        assert!(denied(Mx).await && !denied(A).await);
    }

    #[tokio::test]
    async fn denials_of_all_types_at_once_are_all_kept() {
        use RecordType::{A, Aaaa, Cname, Mx, Ptr, Txt};
        let cache = small_cache();
        let types = [Mx, A, Aaaa, Txt, Ptr, Cname];
        let ask = |rtype| {
            let slowly = async {
                tokio::task::yield_now().await;
                let ttl = Some(Duration::from_secs(300));
                Resolved::new(Answer::NoSuchDomain, ttl)
            };
            cache.ask_once(question("gone.test", rtype), slowly)
        };
        futures_util::future::join_all(types.map(ask)).await;
        cache.store.run_pending_tasks().await;
        assert_eq!(cache.store.entry_count(), 1);
        for rtype in types {
            assert!(cache.denial(&question("gone.test", rtype)).await.is_some(), "{rtype}");
        }
    }

    #[tokio::test]
    async fn a_waiting_caller_takes_the_answer_even_if_it_is_not_kept() {
        let cache = Cache { clock: Clock::running(), ..small_cache() };
        let asked = Cell::new(0);
        let question = Question { name: QuestionName::parse(b"busy.test").unwrap(), rtype: RecordType::Mx };
        let ask = async || {
            asked.set(asked.get() + 1);
            tokio::time::sleep(Duration::from_millis(20)).await;
            Resolved::failure(DnsFailure::Busy)
        };
        let calls = (0..50).map(|_| cache.ask_once(question.clone(), ask()));
        let given = futures_util::future::join_all(calls).await;
        assert!(
            given.iter().flatten().all(|entry| *entry.latest.answer == Answer::Unavailable(DnsFailure::Busy))
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
