//! The evaluation of a policy (RFC 7208 4.6 to 6.1), within its limits (4.6.4).
//!
//! Each limit is for the whole check, includes and redirects included: ten terms that ask DNS, two of them without a result.
//! So a loop of includes ends, and no policy causes more than 122 questions: its own, ten terms with ten MX hosts each, and the
//! client's names. A void lookup counts once for its term: an MX host without an address of the client's family is no error of
//! the domain.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use ipnet::IpNet;

use crate::dns::fcrdns::{self, ForwardConfirmation, MOST_NAMES};
use crate::dns::lookups::{Lookups, Start, addresses, family};
use crate::evidence::{Answer, Question, QuestionName, RecordType, Records, Target};
use crate::smtp::address::DomainName;
use crate::spf::macros::{DomainSpec, SyntaxError, Values};
use crate::spf::record::{Mechanism, Prefixes, SpfRecord};
use crate::spf::{Sender, SpfResult};

/// Terms that ask DNS.
const MAX_LOOKUPS: usize = 10;
/// Of these, terms that find nothing.
const MAX_VOID: usize = 2;
/// Hosts of one `mx`.
const MAX_MX: usize = 10;

/// `check_host()`.
pub(super) async fn check_host(lookups: &mut Lookups<'_>, sender: &Sender<'_>) -> SpfResult {
    let mut evaluation = Evaluation { lookups, sender, terms: 0, void: 0, confirmation: None };
    evaluation.policy_of(sender.domain.into()).await.unwrap_or_else(|stop| match stop {
        Stop::Permanent => SpfResult::PermError,
        Stop::Temporary => SpfResult::TempError,
    })
}

/// Why the check ends without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Permanent,
    Temporary,
}

impl From<SyntaxError> for Stop {
    fn from(_: SyntaxError) -> Self {
        Self::Permanent
    }
}

struct Evaluation<'a, 'd> {
    lookups: &'a mut Lookups<'d>,
    sender: &'a Sender<'a>,
    terms: usize,
    void: usize,
    /// The client's names, once a term needed them.
    confirmation: Option<ForwardConfirmation>,
}

impl Evaluation<'_, '_> {
    /// The result of one domain's policy, and of those that it redirects to.
    async fn policy_of(&mut self, mut domain: QuestionName) -> Result<SpfResult, Stop> {
        let mut redirected = false;
        loop {
            let answer = self.text_of(&domain).await?;
            let record = match answer.as_deref() {
                Some(Answer::Found(Records::Txt(texts))) => SpfRecord::among(texts)?,
                _ => None,
            };
            let Some(record) = record else {
                // RFC 7208 6.1: a redirect to a domain without a policy is an error.
                return if redirected { Err(Stop::Permanent) } else { Ok(SpfResult::None) };
            };
            for (outcome, mechanism) in record.directives() {
                if self.holds(mechanism, &domain).await? {
                    return Ok(outcome);
                }
            }
            let Some(target) = record.redirect else {
                return Ok(SpfResult::Neutral);
            };
            self.count_lookup()?;
            domain = self.target(Some(target), &domain).await.ok_or(Stop::Permanent)?;
            redirected = true;
        }
    }

    /// The texts of a name that has at least two labels (RFC 7208 4.3).
    async fn text_of(&mut self, domain: &QuestionName) -> Result<Option<Arc<Answer>>, Stop> {
        if domain.parent().is_none() {
            return Ok(None);
        }
        let answer = self.lookups.ask(domain.clone(), RecordType::Txt).await;
        no_failure(&answer)?;
        Ok(Some(answer))
    }

    /// Whether a mechanism matches the client.
    async fn holds(&mut self, mechanism: Mechanism<'_>, domain: &QuestionName) -> Result<bool, Stop> {
        let client = self.lookups.client();
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(network) => Ok(IpNet::V4(network).contains(&client)),
            Mechanism::Ip6(network) => Ok(IpNet::V6(network).contains(&client)),
            Mechanism::Include(target) => {
                self.count_lookup()?;
                // RFC 7208 4.3: a name that can't be asked for has no policy; 5.2: and that is an error.
                let target = self.target(Some(target), domain).await.ok_or(Stop::Permanent)?;
                self.include(target).await
            }
            Mechanism::A(target, prefixes) => {
                self.count_lookup()?;
                let Some(target) = self.target(target, domain).await else {
                    return Ok(false);
                };
                let answer = self.lookups.ask(target, family(client)).await;
                no_failure(&answer)?;
                self.count_void(&answer)?;
                Ok(prefixes.reach(&answer, client))
            }
            Mechanism::Mx(target, prefixes) => {
                self.count_lookup()?;
                match self.target(target, domain).await {
                    Some(target) => self.is_exchanger(target, prefixes).await,
                    None => Ok(false),
                }
            }
            Mechanism::Ptr(target) => {
                self.count_lookup()?;
                let target = self.target(target, domain).await;
                let absent = self.confirmation().await.absent;
                self.count_void_if(absent)?;
                let confirmed = &self.confirmation().await.confirmed;
                let below = |target| confirmed.iter().any(|name| is_at_or_below(name.as_str(), &target));
                Ok(target.is_some_and(below))
            }
            Mechanism::Exists(target) => {
                self.count_lookup()?;
                let Some(target) = self.target(Some(target), domain).await else {
                    return Ok(false);
                };
                // RFC 7208 5.7: A, whatever family the client is of.
                let answer = self.lookups.ask(target, RecordType::A).await;
                no_failure(&answer)?;
                self.count_void(&answer)?;
                Ok(matches!(*answer, Answer::Found(_)))
            }
        }
    }

    /// RFC 7208 5.2. Boxed, since it is recursive; the limit on lookups bounds the depth.
    fn include<'s>(
        &'s mut self,
        target: QuestionName,
    ) -> Pin<Box<dyn Future<Output = Result<bool, Stop>> + Send + 's>> {
        Box::pin(async move {
            match self.policy_of(target).await? {
                SpfResult::Pass => Ok(true),
                SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral => Ok(false),
                SpfResult::None | SpfResult::PermError => Err(Stop::Permanent),
                SpfResult::TempError => Err(Stop::Temporary),
            }
        })
    }

    /// RFC 7208 5.4, the hosts in parallel: one that matches counts more than the failed lookup of another.
    async fn is_exchanger(&mut self, target: QuestionName, prefixes: Prefixes) -> Result<bool, Stop> {
        let answer = self.lookups.ask(target, RecordType::Mx).await;
        no_failure(&answer)?;
        self.count_void(&answer)?;
        let Answer::Found(Records::Mx(list)) = &*answer else {
            return Ok(false);
        };
        if list.len() > MAX_MX {
            return Err(Stop::Permanent);
        }
        let client = self.lookups.client();
        let hosts = list.iter().filter_map(|(_, target)| {
            let name = match target {
                Target::Host(name) => name.into(),
                // No host name, but it may have an address all the same; with an escape in it we can't ask.
                Target::Invalid(text) if !text.contains('\\') => QuestionName::parse(text.as_bytes())?,
                Target::Invalid(_) | Target::Root => return None,
            };
            Some(Question { name, rtype: family(client) })
        });
        let (mut held, mut failure) = (false, Ok(()));
        self.lookups
            .ask_all(hosts.collect(), Start::Together, |_, answer| {
                held |= prefixes.reach(answer, client);
                failure = failure.and(no_failure(answer));
                held
            })
            .await;
        if held { Ok(true) } else { failure.map(|()| false) }
    }

    /// The name that a term is about, by default the domain itself; `None` where DNS can't be asked for it, and then the
    /// term doesn't match (RFC 7208 4.8 leaves that open).
    async fn target(&mut self, spec: Option<DomainSpec<'_>>, domain: &QuestionName) -> Option<QuestionName> {
        let Some(spec) = spec else {
            return Some(domain.clone());
        };
        let Sender { local, domain: origin, helo } = *self.sender;
        let local = if local.is_empty() { "postmaster" } else { local };
        let client = self.lookups.client();
        let name = if spec.names_client() { best_name(self.confirmation().await, domain) } else { "unknown" };
        let (origin, domain) = (origin.as_str(), domain.as_str());
        spec.expand(&Values { local, origin, domain, client, helo, name })
    }

    async fn confirmation(&mut self) -> &ForwardConfirmation {
        match self.confirmation.take() {
            Some(confirmation) => self.confirmation.insert(confirmation),
            None => self.confirmation.insert(fcrdns::look_up(self.lookups, MOST_NAMES, |_| true).await),
        }
    }

    fn count_lookup(&mut self) -> Result<(), Stop> {
        self.terms += 1;
        if self.terms > MAX_LOOKUPS { Err(Stop::Permanent) } else { Ok(()) }
    }

    fn count_void(&mut self, answer: &Answer) -> Result<(), Stop> {
        self.count_void_if(matches!(answer, Answer::NoData | Answer::NoSuchDomain))
    }

    fn count_void_if(&mut self, void: bool) -> Result<(), Stop> {
        self.void += usize::from(void);
        if self.void > MAX_VOID { Err(Stop::Permanent) } else { Ok(()) }
    }
}

impl Prefixes {
    /// Whether the client is in a network of one of the addresses.
    fn reach(self, answer: &Answer, client: IpAddr) -> bool {
        addresses(answer).any(|address| {
            let length = if address.is_ipv4() { self.v4 } else { self.v6 };
            IpNet::new(address, length).is_ok_and(|network| network.contains(&client))
        })
    }
}

/// The value of the macro `p` (RFC 7208 7.3): the domain itself, or a name below it, or any.
fn best_name<'a>(confirmation: &'a ForwardConfirmation, domain: &QuestionName) -> &'a str {
    let names = || confirmation.confirmed.iter().map(DomainName::as_str);
    names()
        .find(|name| *name == domain.as_str())
        .or_else(|| names().find(|name| is_at_or_below(name, domain)))
        .or_else(|| names().next())
        .unwrap_or("unknown")
}

fn is_at_or_below(name: &str, domain: &QuestionName) -> bool {
    name.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn no_failure(answer: &Answer) -> Result<(), Stop> {
    match answer {
        Answer::Unavailable(_) => Err(Stop::Temporary),
        Answer::Found(_) | Answer::NoData | Answer::NoSuchDomain => Ok(()),
    }
}
