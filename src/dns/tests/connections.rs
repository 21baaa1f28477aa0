//! What servers do wrong with TCP connections.

use super::faults::{dns, said};
use super::raw_server::{Behaviour, RawServer, Reaction, found, truncated};
use super::*;

/// UDP says that TCP is the way; names that begin with `s` are never answered there.
const LONG: Reaction = |query| match query.tcp {
    false => Some(truncated(query.octets)),
    true if query.octets[13].eq_ignore_ascii_case(&b's') => None,
    true => Some(found(query.octets)),
};

async fn all_said(dns: &Dns, names: impl Iterator<Item = String>) -> Vec<String> {
    join_all(names.map(|name| async move { said(dns, &name).await })).await
}

#[tokio::test]
async fn long_answers_come_over_connections_that_are_used_again_and_side_by_side() {
    let server = RawServer::start(LONG, Behaviour::Serve).await;
    let dns = dns(&server, SECOND * 2);
    for nth in 0..20 {
        assert_eq!(said(&dns, &format!("n{nth}.test")).await, "10 m.test");
    }
    assert_eq!(server.connections(), 1);
    let many = all_said(&dns, (0..100).map(|nth| format!("many{nth}.test"))).await;
    assert_eq!(many, vec!["10 m.test"; 100]);
    assert!((2..=8).contains(&server.connections()), "{}", server.connections());
}

#[tokio::test]
async fn a_server_that_answers_one_question_after_the_other_is_asked_on_several_connections() {
    let server = RawServer::start(LONG, Behaviour::Serial(SECOND / 5)).await;
    let dns = dns(&server, SECOND * 4);
    let began = Instant::now();
    let many = all_said(&dns, (0..8).map(|nth| format!("n{nth}.test"))).await;
    assert_eq!(many, vec!["10 m.test"; 8]);
    assert!(began.elapsed() < SECOND, "one after the other takes 1.6 s: {:?}", began.elapsed());
    assert_eq!(server.connections(), 8);
}

#[tokio::test]
async fn a_connection_that_falls_silent_costs_no_answer_and_is_used_no_more() {
    let server = RawServer::start(LONG, Behaviour::FallSilentAfter(3)).await;
    let dns = dns(&server, SECOND);
    for nth in 0..10 {
        assert_eq!(said(&dns, &format!("n{nth}.test")).await, "10 m.test", "{nth}");
    }
    assert_eq!(server.connections(), 4);
    // the questions that waited with it ask again as well
    let many = all_said(&dns, (0..30).map(|nth| format!("many{nth}.test"))).await;
    assert_eq!(many.iter().filter(|said| *said == "10 m.test").count(), 30);
}

#[tokio::test]
async fn a_server_that_accepts_and_is_silent_is_a_timeout_each_time_on_a_new_connection() {
    let server = RawServer::start(LONG, Behaviour::Silent).await;
    let dns = dns(&server, SECOND / 2);
    let began = Instant::now();
    assert_eq!(said(&dns, "one.test").await, "timeout");
    assert!(began.elapsed() < SECOND);
    let before = server.connections();
    assert_eq!(said(&dns, "two.test").await, "timeout");
    assert!(server.connections() > before);
    assert_eq!(all_said(&dns, (0..20).map(|nth| format!("n{nth}.test"))).await, vec!["timeout"; 20]);
}

#[tokio::test]
async fn a_server_that_closes_each_connection_after_an_answer_answers_all() {
    let server = RawServer::start(LONG, Behaviour::CloseAfter(1)).await;
    let dns = dns(&server, SECOND * 4);
    for nth in 0..5 {
        assert_eq!(said(&dns, &format!("n{nth}.test")).await, "10 m.test");
    }
    let many = all_said(&dns, (0..40).map(|nth| format!("many{nth}.test"))).await;
    assert_eq!(many, vec!["10 m.test"; 40]);
}

#[tokio::test]
async fn a_server_that_closes_idle_connections_answers_the_next_question_on_a_new_one() {
    let server = RawServer::start(LONG, Behaviour::CloseIdle(SECOND / 20)).await;
    let dns = dns(&server, SECOND * 2);
    for nth in 0..4 {
        assert_eq!(said(&dns, &format!("n{nth}.test")).await, "10 m.test");
        server.closes(nth + 1).await;
    }
    assert_eq!(server.connections(), 4);
}

#[tokio::test]
async fn a_server_that_closes_without_an_answer_fails_at_once() {
    let server = RawServer::start(LONG, Behaviour::Close).await;
    let dns = dns(&server, SECOND * 4);
    let began = Instant::now();
    assert_eq!(said(&dns, "one.test").await, "broken answer");
    assert!(began.elapsed() < SECOND * 2);
}

#[tokio::test]
async fn a_question_that_takes_long_does_not_cost_others_their_connection() {
    let server = RawServer::start(LONG, Behaviour::Serve).await;
    let dns = dns(&server, SECOND * 2);
    let others = async {
        for nth in 0..40 {
            assert_eq!(said(&dns, &format!("n{nth}.test")).await, "10 m.test");
            tokio::time::sleep(SECOND / 20).await;
        }
    };
    let (slow, ()) = tokio::join!(said(&dns, "silent.test"), others);
    assert_eq!(slow, "timeout");
    assert!(server.connections() <= 4, "{}", server.connections());
}
