//! From a domain to a decision, with every answer in the cache.

use std::net::{IpAddr, Ipv4Addr};

use divan::{Bencher, black_box};
use rmxd::dns::{Account, Budget, Urgency};
use rmxd::evidence::{Question, RecordType};
use rmxd::smtp::address::{DomainName, ForwardPath, ReversePath};

use crate::session::Stage;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

#[divan::bench(args = ["good.test", "nosuch.test"])]
fn cache_hit(bencher: Bencher<'_, '_>, name: &str) {
    let stage = Stage::new("mail");
    let question = Question { name: DomainName::parse(name).expect("a name").into(), rtype: RecordType::Mx };
    let account = Account::new(CLIENT, Budget::of(u32::MAX), Urgency::Refuses);
    stage.runtime.block_on(stage.dns.ask(question.clone(), &account));
    bencher
        .with_inputs(|| question.clone())
        .bench_local_values(|question| stage.runtime.block_on(stage.dns.ask(question, &account)));
}

/// MAIL FROM to its decision: rule `exists`.
#[divan::bench(args = ["u@good.test", "u@nosuch.test"])]
fn mail_from(bencher: Bencher<'_, '_>, sender: &str) {
    let stage = Stage::new("mail");
    let path = ReversePath::parse(sender).expect("an address");
    let recipient = ForwardPath::parse("user@here.test").expect("an address");
    let judge = || {
        stage.runtime.block_on(async {
            let mut client = stage.gate.client(CLIENT);
            let mut transaction = client.transaction(black_box(&path));
            transaction.rcpt(&mut client, &recipient).await.is_ok()
        })
    };
    judge();
    bencher.bench_local(judge);
}

/// Findings to a decision.
#[divan::bench(args = ["u@good.test", "u@nosuch.test"])]
fn decide(bencher: Bencher<'_, '_>, sender: &str) {
    let stage = Stage::new("mail");
    let path = ReversePath::parse(sender).expect("an address");
    let findings = stage.runtime.block_on(async {
        let mut client = stage.gate.client(CLIENT);
        let mut transaction = client.transaction(&path);
        let recipient = ForwardPath::parse("user@here.test").expect("an address");
        transaction.rcpt(&mut client, &recipient).await.ok();
        transaction.findings().to_vec()
    });
    assert!(!findings.is_empty());
    bencher.bench(|| rmxd::policy::decide::decide(stage.gate.policy(), black_box(&findings)));
}
