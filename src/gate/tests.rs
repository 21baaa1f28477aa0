//! The client's names over a real server on loopback: when they are known, and what can't take them away.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::dns::Dns;
use crate::dns::test_server::{TestServer, settings};
use crate::evidence::DnsFailure;
use crate::exempt::permits::Conditions;
use crate::policy::finding::{Finding, RuleResult};
use crate::policy::rule::{Action, IdentityRules, Mode, OnDnsError, RejectAt, Rung};
use crate::policy::senders::Senders;
use crate::reverse_mx::{self, ClientNames, FcrdnsResult, PrivateAddresses};
use crate::smtp::address::{ForwardPath, ReversePath};
use crate::store::permits::{self, NewPermit};

/// For the names and the findings together.
const DEADLINE: Duration = Duration::from_millis(3_000);
/// More than an answer takes, less than the deadline.
const SOON: Duration = Duration::from_millis(2_000);

/// The name of 127.0.0.10 is confirmed, but its exchanger's name server is silent; 127.0.0.11 has a good name, and of
/// 127.0.0.12 nothing is to be learned.
const ZONE: &str = "
    10.0.0.127.in-addr.arpa PTR mail.lost.test
    mail.lost.test A 127.0.0.10
    mail.lost.test MX 10 mx.silent.test
    mx.silent.test DROP
    11.0.0.127.in-addr.arpa PTR mail.good.test
    mail.good.test A 127.0.0.11
    mail.good.test MX 10 mail.good.test
    12.0.0.127.in-addr.arpa DROP";

/// A gate that looks at PTR names only.
async fn gate() -> (Arc<Gate>, TestServer) {
    let server = TestServer::start(ZONE).await;
    let rules = |exists| IdentityRules {
        exists,
        matches: Action::Off,
        exists_by: vec![Rung::Mx],
        matches_by: vec![Rung::Mx],
    };
    let policy = Policy {
        mode: Mode::Enforce,
        reject_at: RejectAt::Rcpt,
        on_dns_error: OnDnsError::Defer,
        malformed: Action::Tag,
        dmarc_quarantine: Action::Tag,
        senders: Senders::default(),
        helo: rules(Action::Off),
        ptr: rules(Action::Tag),
        mail_from: rules(Action::Off),
        from: rules(Action::Off),
        reply_to: rules(Action::Off),
    };
    let by = reverse_mx::Settings {
        max_mx_hosts: 20,
        private_addresses: PrivateAddresses::Accept,
        match_prefix_v4: 24,
        match_prefix_v6: 64,
    };
    // A question of DNS has more time than all of them together: it is the gate's deadline that ends them.
    let patient = crate::dns::Settings { timeout: 3 * DEADLINE, ..settings(&[server.address()]) };
    let dns = Dns::new(patient).unwrap();
    let settings = Settings { policy, exempt: Exemptions::default(), help_url: String::new() };
    (Gate::new(settings, ReverseMx::new(dns, by), DEADLINE), server)
}

fn connect(gate: &Arc<Gate>, address: &str) -> Client {
    gate.client(address.parse().unwrap())
}

fn first(names: Option<&ClientNames>) -> Option<&str> {
    names.and_then(ClientNames::first).map(|name| name.as_str())
}

/// At the end of a header.
async fn findings(client: &mut Client) -> Vec<Finding> {
    let mut transaction = client.transaction(&ReversePath::Null);
    let path = ForwardPath::parse("u@here.test").unwrap();
    let permit = transaction.rcpt(client, &path).await.unwrap();
    transaction.accepted(permit, path);
    transaction.header(client, b"From: u@here.test\r\n").await.unwrap();
    transaction.findings().to_vec()
}

#[tokio::test]
async fn a_confirmed_name_stays_known_when_the_look_ups_for_it_take_too_long() {
    let (gate, _server) = gate().await;
    let began = Instant::now();
    let mut client = connect(&gate, "127.0.0.10");
    let names = timeout(SOON, client.names()).await;
    assert_eq!(first(names.expect("the name is known before the deadline")), Some("mail.lost.test"));
    let found = findings(&mut client).await;
    assert!(began.elapsed() >= DEADLINE, "one deadline for both");
    assert!(began.elapsed() < DEADLINE + SOON, "{:?}", began.elapsed());
    let shown: Vec<_> = found.iter().map(|it| (it.subject.as_str(), it.outcome)).collect();
    assert_eq!(shown, [("mail.lost.test", RuleResult::TempError(DnsFailure::Timeout))]);
    assert_eq!(first(client.names().await), Some("mail.lost.test"));
    assert_eq!(first(client.names_if_known()), Some("mail.lost.test"));
}

/// A permit that ends while a transaction begins, after PTR and HELO were not looked up for it.
#[tokio::test]
async fn a_permit_that_ends_at_the_beginning_of_a_transaction_holds_for_all_of_it() {
    let (gate, _server) = gate().await;
    let clock = permits::Clock::standing(std::time::UNIX_EPOCH + DEADLINE);
    let permits = PermitStore::in_memory(clock.clone());
    let conditions = Conditions { client: Some("127.0.0.0/24".parse().unwrap()), ..Conditions::default() };
    let time = Some(Duration::from_secs(1));
    let made =
        permits.add(NewPermit { conditions, note: String::new(), time, decision: None, node: None }).unwrap();
    let services = Services { permits: Some(permits), ..Services::default() };
    let gate = Gate::with_services(gate.settings.clone(), gate.reverse_mx.clone(), DEADLINE, services);
    let mut client = connect(&gate, "127.0.0.11");
    let (allowance, let_in) = client.begin();
    clock.advance(Duration::from_secs(1));
    let evaluation = evaluation::Evaluation::new(&client, &ReversePath::Null, allowance, let_in);
    assert_eq!(evaluation.permit(), Some(made.let_in()));
    assert!(evaluation.is_let_in());
    drop(evaluation);
    assert_eq!(findings(&mut client).await[0].outcome, RuleResult::Pass(Rung::Mx), "the next one is judged");
}

#[tokio::test]
async fn names_are_known_without_being_waited_for() {
    let (gate, _server) = gate().await;
    for address in ["127.0.0.10", "127.0.0.11"] {
        let client = connect(&gate, address);
        assert_eq!(client.names_if_known(), None);
        assert!(timeout(Duration::ZERO, client.names()).await.is_err(), "leaving takes nothing away");
        let known = async {
            while client.names_if_known().is_none() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, known).await.expect("they come by themselves");
        assert!(first(client.names_if_known()).is_some(), "{address}");
        assert!(timeout(Duration::ZERO, client.names()).await.is_ok(), "{address}");
    }
}

#[tokio::test]
async fn without_an_answer_the_names_are_in_trouble_after_the_deadline() {
    let (gate, _server) = gate().await;
    let mut client = connect(&gate, "127.0.0.12");
    assert!(timeout(SOON, client.names()).await.is_err());
    assert_eq!(client.names_if_known(), None);
    let names = timeout(DEADLINE, client.names()).await.expect("the deadline");
    assert_eq!(names.map(|names| &names.outcome), Some(&FcrdnsResult::TempError(DnsFailure::Timeout)));
    let found = findings(&mut client).await;
    let shown: Vec<_> = found.iter().map(|it| (it.subject.as_str(), it.outcome)).collect();
    assert_eq!(shown, [("127.0.0.12", RuleResult::TempError(DnsFailure::Timeout))]);
}

#[tokio::test]
async fn what_the_cache_knows_is_known_at_once_and_without_a_task() {
    let (gate, _server) = gate().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    findings(&mut connect(&gate, "127.0.0.11")).await;
    let before = tasks();
    let mut client = connect(&gate, "127.0.0.11");
    assert_eq!(first(client.names_if_known()), Some("mail.good.test"));
    assert_eq!(tasks(), before);
    assert_eq!(findings(&mut client).await[0].outcome, RuleResult::Pass(Rung::Mx));
    assert_eq!(tasks(), before);
}
