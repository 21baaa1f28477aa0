//! What it costs that every decision is remembered: the session's side, then the writer's.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use rmxd::decision::DecisionRecord;
use rmxd::gate::MessageInfo;
use rmxd::smtp::address::ReversePath;
use rmxd::store::history::{History, Settings};

use crate::session::Stage;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
/// About what a flood brings between two turns of the writer.
const BATCH: usize = 5_000;

fn open(folder: &tempfile::TempDir) -> History {
    let path = folder.path().join("history");
    History::open(&Settings { path, keep: Duration::from_secs(86_400), size: 64 << 20 }).expect("a folder")
}

/// A spoofed sender is refused: the decision becomes a record, which is handed over.
#[divan::bench]
fn session_side(bencher: Bencher<'_, '_>) {
    let (stage, folder) = (Stage::new("rcpt"), tempfile::tempdir().expect("a folder"));
    let history = open(&folder);
    let path = ReversePath::parse("u@nosuch.test").expect("an address");
    let mut guest = stage.gate.guest(CLIENT);
    let (inspection, decision) = stage.runtime.block_on(async {
        let mut inspection = guest.inspect(&path);
        let decision = inspection.envelope(&mut guest).await;
        (inspection, decision)
    });
    let facts =
        MessageInfo { mail_from: "<u@nosuch.test>", rcpt: "user@here.test", ..MessageInfo::default() };
    bencher.counter(ItemsCount::new(BATCH)).with_inputs(|| history.flush()).bench_local_values(|()| {
        for _ in 0..BATCH {
            history.record(inspection.record(&decision, &facts));
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
        let mut guest = stage.gate.guest(CLIENT);
        let path = ReversePath::parse("u@nosuch.test").expect("an address");
        let mut inspection = guest.inspect(&path);
        let decision = inspection.envelope(&mut guest).await;
        let facts =
            MessageInfo { mail_from: "<u@nosuch.test>", rcpt: "user@here.test", ..MessageInfo::default() };
        inspection.record(&decision, &facts)
    });
    let fill = || {
        history.flush();
        (0..BATCH).for_each(|_| history.record(record.clone()));
    };
    bencher.counter(ItemsCount::new(BATCH)).with_inputs(fill).bench_local_values(|()| history.flush());
    assert_eq!(history.count().dropped, 0);
}
