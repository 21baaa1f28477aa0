//! Discovery and alignment over a real server on loopback, with the questions that they cost.

use super::*;
use crate::dns::test_server::TestServer;
use crate::dns::{Account, Budget, Urgency};

const ZONE: &str = "
    _dmarc.own.test TXT v=DMARC1; p=reject
    own.test A 192.0.2.1
    _dmarc.sub.own.test TXT v=DMARC1; p=none; psd=n
    _dmarc.tested.test TXT v=DMARC1; p=reject; t=y
    _dmarc.np.test TXT v=DMARC1; p=none; np=reject
    here.np.test AAAA 2001:db8::1
    mail.np.test MX 10 mx.np.test
    halfgone.np.test SERVFAIL
    _dmarc.broken.test TXT v=DMARC1; p=reject; p=none
    _dmarc.twice.test TXT v=DMARC1; p=reject
    _dmarc.twice.test TXT v=DMARC1; p=none
    _dmarc.servfail.test SERVFAIL
    _dmarc.bank.example TXT v=DMARC1; p=none; sp=reject; psd=y
    _dmarc.one.bank.example TXT v=DMARC1; p=quarantine
    _dmarc.com SERVFAIL
    _dmarc.mid.com TXT v=DMARC1; p=reject
    _dmarc.wrong.mid.com SERVFAIL
    _dmarc.stop.mid.com TXT v=DMARC1; p=reject; psd=n
    _dmarc.a.stop.mid.com TXT v=spf1 -all
    _dmarc.broken.own.test TXT v=DMARC1; p=none; p=none
    _dmarc.twice.own.test TXT v=DMARC1; p=none
    _dmarc.twice.own.test TXT v=DMARC1; p=none
    _dmarc.all.test TXT v=DMARC1; p=reject; sp=quarantine; np=none; t=y
    here.all.test A 192.0.2.1
    npfail.np.test SERVFAIL MX
    npfail.np.test A 192.0.2.1
    _dmarc.same.test TXT v=DMARC1; p=reject; np=reject
    _dmarc.alias.test CNAME _dmarc.own.test
    _dmarc.loop.test CNAME _dmarc.loop.test
    _dmarc.refused.test REFUSED
    _dmarc.b.psd.com SERVFAIL
    _dmarc.psd.com TXT v=DMARC1; p=reject; psd=y
    _dmarc.below.psd.com TXT v=DMARC1; p=none; psd=n
    _dmarc.gov TXT v=DMARC1; p=none; np=reject; psd=y
    a.gov MX 10 mx.a.gov
    _dmarc.corp.example TXT v=DMARC1; p=reject
";

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn account(questions: u32) -> Account {
    Account::new("127.0.0.1".parse().unwrap(), Budget::of(questions), Urgency::Refuses)
}

#[tokio::test]
async fn the_record_that_applies_is_found_with_as_few_questions_as_can_be() {
    let server = TestServer::start(ZONE).await;
    let rows = [
        ("own.test", "own.test asks for reject", 1),
        ("a.own.test", "own.test asks for reject", 3),
        ("sub.own.test", "sub.own.test asks for none", 1),
        ("a.sub.own.test", "sub.own.test asks for none", 4),
        ("tested.test", "tested.test asks for reject, t=y", 1),
        ("nothing.test", "nothing", 2),
        ("a.b.nothing.test", "nothing", 4),
        ("a.b.c.d.e.f.g.h.i.j.nothing.test", "nothing", 8),
        ("np.test", "np.test asks for none", 1),
        ("gone.np.test", "np.test asks for reject", 6),
        ("here.np.test", "np.test asks for none", 6),
        ("mail.np.test", "np.test asks for none", 4),
        ("halfgone.np.test", "SERVFAIL", 6),
        ("broken.test", "malformed", 2),
        ("twice.test", "nothing", 2),
        ("servfail.test", "SERVFAIL", 1),
        ("a.servfail.test", "SERVFAIL", 3),
        ("two.bank.example", "bank.example asks for reject", 3),
        ("mail.one.bank.example", "one.bank.example asks for quarantine", 4),
        ("a.mid.com", "mid.com asks for reject", 3),
        ("nothing.com", "nothing", 2),
        ("a.wrong.mid.com", "SERVFAIL", 4),
        ("test", "nothing", 0),
        ("192.0.2.1", "nothing", 0),
        // an own record that does not count is none
        ("broken.own.test", "own.test asks for reject", 3),
        ("twice.own.test", "own.test asks for reject", 3),
        ("alias.test", "alias.test asks for reject", 1),
        // sp, np and t together
        ("all.test", "all.test asks for reject, t=y", 1),
        ("here.all.test", "all.test asks for quarantine, t=y", 5),
        ("gone.all.test", "all.test asks for none, t=y", 6),
        ("npfail.np.test", "np.test asks for none", 5),
        ("a.same.test", "same.test asks for reject", 3),
        // the record of a top-level domain
        ("a.gov", "gov asks for none", 3),
        ("b.gov", "gov asks for reject", 5),
        // failures that count, and those behind the end of the walk
        ("loop.test", "CNAME loop", 1),
        ("refused.test", "REFUSED", 1),
        ("a.b.psd.com", "SERVFAIL", 4),
        ("a.stop.mid.com", "stop.mid.com asks for reject", 4),
        ("a.wrong.stop.mid.com", "stop.mid.com asks for reject", 5),
    ];
    for (domain, expected, questions) in rows {
        let (dns, _) = server.dns();
        let account = account(100);
        let mut lookups = Lookups::new(&dns, &account);
        let found = match discover(&mut lookups, &name(domain)).await {
            Ok(Discovery::Nothing) => "nothing".to_owned(),
            Ok(Discovery::Malformed) => "malformed".to_owned(),
            Ok(Discovery::Applied { applied, request }) => {
                let testing = if applied.record.testing { ", t=y" } else { "" };
                format!("{} asks for {request}{testing}", applied.name)
            }
            Err(failure) => failure.to_string(),
        };
        assert_eq!((found.as_str(), lookups.into_evidence().len()), (expected, questions), "{domain}");
    }
}

#[tokio::test]
async fn domains_are_aligned_that_have_one_organisation() {
    use Alignment::{Relaxed, Strict};
    let server = TestServer::start(ZONE).await;
    let rows = [
        ("own.test", "own.test", Relaxed, "true", 0),
        ("own.test", "own.test", Strict, "true", 0),
        ("own.test", "mail.own.test", Strict, "false", 0),
        ("own.test", "mail.own.test", Relaxed, "true", 3),
        ("news.own.test", "mail.own.test", Relaxed, "true", 4),
        // psd=n cuts a sub-domain off
        ("own.test", "sub.own.test", Relaxed, "false", 3),
        ("own.test", "a.sub.own.test", Relaxed, "false", 4),
        ("a.sub.own.test", "sub.own.test", Relaxed, "true", 4),
        // another's zone is never asked
        ("own.test", "mail.bot.test", Relaxed, "false", 2),
        ("own.test", "notown.test", Relaxed, "false", 2),
        ("a.nothing.test", "b.nothing.test", Relaxed, "false", 3),
        ("a.nothing.test", "nothing.test", Relaxed, "false", 3),
        // two organisations of one public suffix domain
        ("one.bank.example", "mail.one.bank.example", Relaxed, "true", 4),
        ("one.bank.example", "two.bank.example", Relaxed, "false", 3),
        ("own.test", "a.servfail.test", Relaxed, "false", 2),
        ("mid.com", "a.wrong.mid.com", Relaxed, "SERVFAIL", 4),
        ("mid.com", "a.mid.com", Relaxed, "true", 3),
        ("own.test", "test", Relaxed, "false", 2),
        ("own.test", "192.0.2.1", Relaxed, "false", 2),
        ("192.0.2.1", "192.0.2.1", Relaxed, "true", 0),
        ("192.0.2.1", "a.192.0.2.1", Relaxed, "false", 0),
        // below psd=n below psd=y
        ("below.psd.com", "a.below.psd.com", Relaxed, "true", 4),
        ("one.psd.com", "a.one.psd.com", Relaxed, "true", 4),
        ("one.psd.com", "psd.com", Relaxed, "false", 3),
        ("psd.com", "one.psd.com", Relaxed, "false", 3),
        // the names between are not asked
        ("a.b.c.d.e.f.g.h.corp.example", "corp.example", Relaxed, "true", 8),
        ("a.b.c.d.e.f.g.h.corp.example", "z.b.c.d.e.f.g.h.corp.example", Relaxed, "true", 9),
    ];
    for (author, other, mode, expected, questions) in rows {
        let (dns, _) = server.dns();
        let account = account(100);
        let mut lookups = Lookups::new(&dns, &account);
        let result = aligned(&mut lookups, &name(author), &name(other), mode).await;
        let shown = result.map_or_else(|failure| failure.to_string(), |aligned| aligned.to_string());
        let asked = lookups.into_evidence().len();
        assert_eq!((shown.as_str(), asked), (expected, questions), "{author} {other} {mode:?}");
    }
}

#[tokio::test]
async fn a_spent_budget_is_a_failure_and_no_absence() {
    let server = TestServer::start(ZONE).await;
    // four names with dots, and `test`, whose own failure would be none
    for questions in 0..5 {
        let (dns, _) = server.dns(); // what is cached costs nothing
        let account = account(questions);
        let mut lookups = Lookups::new(&dns, &account);
        let found = discover(&mut lookups, &name("a.b.long.own.test")).await;
        assert_eq!(found, Err(DnsFailure::TooMany), "{questions}");
    }
}

#[tokio::test]
async fn a_name_too_long_for_a_record_costs_no_question() {
    let server = TestServer::start(ZONE).await;
    let (dns, _) = server.dns();
    let label = "a".repeat(60);
    // 253 octets, and as many as leave room for `_dmarc.`
    for (first, questions) in [("b".repeat(61), 5), ("b".repeat(54), 6)] {
        let domain = name(&format!("{first}.{label}.{label}.{label}.own.test"));
        let account = account(100);
        let mut lookups = Lookups::new(&dns, &account);
        let found = discover(&mut lookups, &domain).await;
        let Ok(Discovery::Applied { applied, request }) = found else { panic!("{found:?}") };
        assert_eq!((applied.name.as_str(), request), ("own.test", Request::Reject));
        assert_eq!(lookups.into_evidence().len(), questions, "{}", domain.as_str().len());
    }
}

#[tokio::test]
async fn what_is_known_is_not_asked_again() {
    let server = TestServer::start(ZONE).await;
    let (dns, _) = server.dns();
    let account = account(100);
    let mut lookups = Lookups::new(&dns, &account);
    let (author, other) = (name("own.test"), name("mail.own.test"));
    assert!(discover(&mut lookups, &author).await.is_ok());
    assert_eq!(aligned(&mut lookups, &author, &other, Alignment::Relaxed).await, Ok(true));
    assert_eq!(organization(&mut lookups, &author).await, Ok(author.clone()));
    assert_eq!(organization(&mut lookups, &other).await, Ok(author));
    let asked: Vec<_> = lookups.into_evidence().iter().map(|seen| seen.question.to_string()).collect();
    assert_eq!(asked, ["TXT _dmarc.own.test", "TXT _dmarc.test", "TXT _dmarc.mail.own.test"]);
}
