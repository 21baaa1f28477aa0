//! Limits: of all questions under way, of one client's, of a budget.

use std::cell::RefCell;
use std::collections::HashSet;

use super::*;

#[tokio::test]
async fn past_the_bound_the_answer_is_busy_which_is_not_cached() {
    let server = TestServer::start("good.test MX 10 m.test").await;
    let quick = Settings { timeout: Duration::from_millis(100), ..settings(&[server.address()]) };
    let dns = Dns::new(quick).unwrap();
    let all: Vec<_> = (0..MAX_PER_CLIENT).map(|_| dns.0.quota.admit(CLIENT, Urgency::Refuses)).collect();
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh too many questions under way");
    drop(all);
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh 10 m.test");
    assert_eq!(dns.0.quota.counts(), (0, 0, 0));
}

#[tokio::test]
async fn a_client_with_a_thousand_names_leaves_room_for_the_others() {
    let names: Vec<String> = (0..MAX_UNDER_WAY * 2).map(|nth| format!("n{nth}.slow.test")).collect();
    let zone: String = names.iter().map(|name| format!("{name} DROP\n")).collect();
    let server =
        TestServer::start(&format!("{zone}good.test MX 10 mail.good.test\nwarm.test MX 10 m.test")).await;
    let patient = Settings { timeout: 5 * SECOND, ..settings(&[server.address()]) };
    let dns = Dns::with_clock(patient, Clock::standing()).unwrap();
    mx(&dns, "warm.test").await;
    server.asked();
    let flood = {
        let dns = dns.clone();
        tokio::spawn(async move { join_all(names.iter().map(|name| mx(&dns, name))).await })
    };
    let under_way = RefCell::new(HashSet::new());
    until("as many questions as it may have under way", || {
        under_way.borrow_mut().extend(server.asked());
        under_way.borrow().len() >= MAX_PER_CLIENT
    })
    .await;
    assert_eq!(another(&dns).await, "fresh 10 mail.good.test");
    let under_way = under_way.into_inner().into_iter().chain(server.asked()).collect::<HashSet<_>>();
    assert_eq!(under_way.len(), MAX_PER_CLIENT + 1, "no more than that, and the other client's");
    assert_eq!(text(&mx(&dns, "warm.test").await), "cached 10 m.test", "its own warm answers are there too");
    let flood = flood.await.unwrap();
    let busy = flood.iter().filter(|lookup| text(lookup).ends_with("too many questions under way")).count();
    assert!(busy >= MAX_UNDER_WAY, "{busy} of {} were too many", flood.len());
    assert_eq!(text(&mx(&dns, "n0.good.test").await), "fresh NXDOMAIN", "afterwards it may ask again");
}

/// Nothing below `slow.test` is answered.
const SILENT_BUT_FOR_ONE: &str = "*.slow.test DROP\ngood.test MX 10 mail.good.test";

/// Another client asks for the name that is answered.
async fn another(dns: &Dns) -> String {
    let other = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));
    text(&dns.ask(question(RecordType::Mx, "good.test"), &account(other)).await)
}

#[tokio::test]
async fn a_question_without_a_waiting_caller_is_not_asked() {
    let server = TestServer::start(SILENT_BUT_FOR_ONE).await;
    let (dns, _) = server.dns();
    let (before, began) = (tasks(), Instant::now());
    for nth in 0..5_000 {
        // MAIL and RSET at once, without end
        assert!(mx(&dns, &format!("n{nth}.slow.test")).now_or_never().is_none());
        if nth % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(dns.0.quota.counts(), (MAX_PER_CLIENT, 0, 1), "those that began are still asked");
    assert!(tasks() - before <= 4 * MAX_PER_CLIENT, "{} tasks more than {before}", tasks() - before);
    assert_eq!(another(&dns).await, "fresh 10 mail.good.test");
    // Each timeout frees places: on a busy machine the loop may take longer than one.
    let rounds =
        usize::try_from(began.elapsed().as_millis() / settings(&[]).timeout.as_millis()).unwrap() + 1;
    until("the end of those that began", || dns.0.quota.counts() == (0, 0, 0)).await;
    let asked: HashSet<String> = server.asked().into_iter().collect();
    assert!((MAX_PER_CLIENT + 1..=rounds * MAX_PER_CLIENT + 1).contains(&asked.len()), "{}", asked.len());
    assert_eq!(text(&mx(&dns, "n0.good.test").await), "fresh NXDOMAIN", "afterwards it may ask again");
}

#[tokio::test]
async fn of_too_many_waiting_questions_the_last_are_busy_at_once() {
    let server = TestServer::start(SILENT_BUT_FOR_ONE).await;
    let patient = Settings { timeout: 20 * SECOND, ..settings(&[server.address()]) };
    let dns = Dns::new(patient).unwrap();
    let before = tasks();
    let (mut waiting, mut busy) = (Vec::new(), 0);
    const ADMITTED: usize = MAX_PER_CLIENT + MAX_WAITING_PER_CLIENT;
    for nth in 0..ADMITTED + 500 {
        let dns = dns.clone();
        let mut asked = Box::pin(async move { mx(&dns, &format!("n{nth}.slow.test")).await });
        match (&mut asked).now_or_never() {
            None => waiting.push(asked),
            Some(lookup) => {
                assert_eq!(text(&lookup), "fresh too many questions under way");
                busy += 1;
            }
        }
        if nth % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!((waiting.len(), busy), (ADMITTED, 500));
    assert!(tasks() - before <= 4 * MAX_PER_CLIENT, "{} tasks more than {before}", tasks() - before);
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh too many questions under way");
    assert_eq!(another(&dns).await, "fresh 10 mail.good.test");
    assert_eq!(text(&mx(&dns, "good.test").await), "cached 10 mail.good.test", "busy is not remembered");
    assert_eq!(dns.0.quota.counts(), (MAX_PER_CLIENT, MAX_WAITING_PER_CLIENT, 1));
    drop(waiting);
    assert_eq!(dns.0.quota.counts(), (MAX_PER_CLIENT, 0, 1), "those that began are still asked");
}

#[tokio::test]
async fn a_busy_answer_comes_with_the_expired_one() {
    let server = TestServer::start("good.test 10 MX 10 m.test").await;
    let (dns, clock) = server.dns();
    mx(&dns, "good.test").await;
    clock.advance(10 * SECOND);
    let all: Vec<_> = (0..MAX_PER_CLIENT + MAX_WAITING_PER_CLIENT)
        .map(|_| dns.0.quota.admit(CLIENT, Urgency::Refuses).unwrap())
        .collect();
    let lookup = mx(&dns, "good.test").await;
    assert_eq!(text(&lookup), "fresh too many questions under way");
    assert_eq!(lookup.stale.unwrap().answer.to_string(), "10 m.test");
    drop(all);
    assert_eq!(text(&mx(&dns, "good.test").await), "fresh 10 m.test");
}

#[tokio::test]
async fn a_question_that_others_ask_too_or_the_cache_answers_costs_nothing_and_past_the_budget_none_is_asked()
{
    let zone = "a.test MX 10 m.test\nb.test MX 10 m.test\nslow.test MX 10 m.test\nslow.test DELAY 200";
    let server = TestServer::start(zone).await;
    let (dns, _) = server.dns();
    let poor = Account::new(CLIENT, Budget::of(2), Urgency::Refuses);
    let ask = async |name| text(&dns.ask(question(RecordType::Mx, name), &poor).await);
    mx(&dns, "a.test").await;
    assert_eq!(ask("a.test").await, "cached 10 m.test");
    let (_, joined) = tokio::join!(mx(&dns, "slow.test"), ask("slow.test"));
    assert_eq!((joined.as_str(), poor.budget.left()), ("fresh 10 m.test", 2));
    assert_eq!(ask("b.test").await, "fresh 10 m.test");
    assert_eq!(ask("c.test").await, "fresh NXDOMAIN");
    server.asked();
    assert_eq!(ask("d.test").await, "fresh too many questions");
    assert_eq!((ask("a.test").await.as_str(), server.asked().len()), ("cached 10 m.test", 0));
    assert_eq!(text(&mx(&dns, "d.test").await), "fresh NXDOMAIN", "it is not remembered");
}

#[tokio::test]
async fn every_step_along_aliases_is_paid_for_and_one_budget_does_not_bind_another() {
    let zone =
        "a.test CNAME b.test\na.test BARE\nb.test CNAME c.test\nb.test BARE\nc.test CNAME d.test\nc.test BARE
        d.test MX 10 m.test\na.test DELAY 100";
    let server = TestServer::start(zone).await;
    let (dns, _) = server.dns();
    let poor = Account::new(CLIENT, Budget::of(2), Urgency::Refuses);
    let ask = async || text(&dns.ask(question(RecordType::Mx, "a.test"), &poor).await);
    let (short, whole) = tokio::join!(ask(), mx(&dns, "a.test"));
    assert_eq!((short.as_str(), text(&whole).as_str()), ("fresh too many questions", "fresh 10 m.test"));
    assert_eq!(server.asked().len(), 2 + 4);
    let rich = Account::new(CLIENT, Budget::of(9), Urgency::Refuses);
    server.set("x.test CNAME y.test\nx.test BARE\ny.test MX 10 m.test");
    dns.ask(question(RecordType::Mx, "x.test"), &rich).await;
    assert_eq!(rich.budget.left(), 7);
}
