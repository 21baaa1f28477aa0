//! What it costs that every decision is remembered: the session's side, then the writer's.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use rmxd::decision::DecisionRecord;
use rmxd::gate::{Client, Transaction};
use rmxd::smtp::address::{ForwardPath, ReversePath};
use rmxd::store::history::{History, Settings};

use crate::session::Stage;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
/// About what a flood brings between two turns of the writer.
const BATCH: usize = 5_000;

fn open(folder: &tempfile::TempDir) -> History {
    let path = folder.path().join("history");
    History::open(&Settings { path, keep: Duration::from_secs(86_400), size: 64 << 20 }).expect("a folder")
}

/// A transaction that is refused at RCPT.
async fn refused(client: &mut Client, path: &ReversePath) -> Transaction {
    let mut transaction = client.transaction(path);
    let recipient = ForwardPath::parse("user@here.test").expect("an address");
    transaction.rcpt(client, &recipient).await.expect_err("no such domain");
    transaction
}

/// A spoofed sender is refused: the decision becomes a record, which is handed over.
#[divan::bench]
fn session_side(bencher: Bencher<'_, '_>) {
    let (stage, folder) = (Stage::new("rcpt"), tempfile::tempdir().expect("a folder"));
    let history = open(&folder);
    let path = ReversePath::parse("u@nosuch.test").expect("an address");
    let _in_runtime = stage.runtime.enter(); // the lookup of the PTR name is a task
    let mut client = stage.gate.client(CLIENT);
    let transaction = stage.runtime.block_on(refused(&mut client, &path));
    let decision = transaction.decision().expect("a decision").clone();
    bencher.counter(ItemsCount::new(BATCH)).with_inputs(|| history.flush()).bench_local_values(|()| {
        for _ in 0..BATCH {
            history.record(transaction.record(&decision));
        }
    });
    assert_eq!(history.count().dropped, 0);
}

/// The same records are encoded and written, with the wait for the disk.
#[divan::bench]
fn writer_side(bencher: Bencher<'_, '_>) {
    let (stage, folder) = (Stage::new("rcpt"), tempfile::tempdir().expect("a folder"));
    let history = open(&folder);
    let record: DecisionRecord = stage.runtime.block_on(async {
        let mut client = stage.gate.client(CLIENT);
        let path = ReversePath::parse("u@nosuch.test").expect("an address");
        let transaction = refused(&mut client, &path).await;
        transaction.record(transaction.decision().expect("a decision"))
    });
    let fill = || {
        history.flush();
        (0..BATCH).for_each(|_| history.record(record.clone()));
    };
    bencher.counter(ItemsCount::new(BATCH)).with_inputs(fill).bench_local_values(|()| history.flush());
    assert_eq!(history.count().dropped, 0);
}
