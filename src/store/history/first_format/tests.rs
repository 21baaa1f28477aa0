//! A folder of the first format, as the last version that wrote it left it.

use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::store::history::{Archive, Filter, History, Settings};

const FILES: [(&str, &[u8]); 2] = [
    ("00066166fcd8a8eb.history", include_bytes!("sample/00066166fcd8a8eb.history")),
    ("00066166fcd8adf6.history", include_bytes!("sample/00066166fcd8adf6.history")),
];
/// Longer than the sample is old.
const KEEP: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn sample() -> (TempDir, Settings) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history");
    fs::create_dir(&path).unwrap();
    fs::write(path.join(LOCK), "").unwrap();
    for (name, octets) in FILES {
        fs::write(path.join(name), octets).unwrap();
    }
    (folder, Settings { path, keep: KEEP, size: 64 << 20 })
}

/// Waits until the folder is taken over.
fn take_over(settings: &Settings) -> History {
    let history = History::open(settings).unwrap();
    let pause = Arc::new(std::sync::Condvar::new());
    let lock = std::sync::Mutex::new(());
    for _ in 0..500 {
        if beside(&settings.path, "old").exists() {
            return history;
        }
        drop(pause.wait_timeout(lock.lock().unwrap(), Duration::from_millis(20)));
    }
    panic!("not taken over");
}

fn ids(settings: &Settings) -> Vec<u64> {
    let mut ids = Vec::new();
    let archive = Archive::open(settings.clone()).unwrap().expect("a history");
    archive.all(&Filter::default(), |record| ids.push(record.id.unwrap().number())).unwrap();
    ids
}

#[test]
fn a_history_of_the_first_format_is_taken_over_once() {
    let (folder, settings) = sample();
    let history = take_over(&settings);
    assert_eq!(ids(&settings), [4, 3, 2, 1, 0]);
    let archive = Archive::open(settings.clone()).unwrap().expect("a history");
    let [found] = <[DecisionRecord; 1]>::try_from(archive.find(Id::nth(2)).unwrap()).unwrap();
    assert_eq!(found.deciding().unwrap().domain, "d2.old.test");
    assert_eq!(found.findings[0].evidence.len(), 1);
    let mut filter = Filter::default();
    filter.set("domain", "old.test", SystemTime::now()).unwrap();
    assert_eq!(archive.search(&filter, None, 9).unwrap().records.len(), 4);
    drop((archive, history));
    let left: Vec<_> = fs::read_dir(folder.path().join("history.old")).unwrap().collect();
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(settings.path.is_file() && !folder.path().join("history.taking-over").exists());
}

#[test]
fn an_interrupted_taking_over_goes_on_without_repetitions() {
    let (folder, settings) = sample();
    drop(take_over(&settings));
    // As if the daemon had been killed behind the first file.
    wait_for_lock(&settings);
    fs::rename(folder.path().join("history.old"), folder.path().join("history.taking-over")).unwrap();
    let connection = rusqlite::Connection::open(&settings.path).unwrap();
    let number = i64::from_str_radix("00066166fcd8a8eb", 16).unwrap();
    connection.execute("INSERT INTO taken_over (file) VALUES (?1)", [number]).unwrap();
    connection.execute("DELETE FROM blocks WHERE segment = (SELECT max(segment) FROM segments)", []).unwrap();
    connection
        .execute("DELETE FROM segments WHERE segment = (SELECT max(segment) FROM segments)", [])
        .unwrap();
    connection.execute("DELETE FROM rows WHERE seq > (SELECT max(last) FROM segments)", []).unwrap();
    drop(connection);
    assert_eq!(ids(&settings), [2, 1, 0]);
    drop(take_over(&settings));
    assert_eq!(ids(&settings), [4, 3, 2, 1, 0]);
}

/// Waits until the daemon before has let go.
fn wait_for_lock(settings: &Settings) {
    let history = History::open(settings).unwrap();
    let weak = history.downgrade();
    drop(history);
    weak.wait_until_written();
}

#[test]
fn damaged_parts_are_left_out() {
    let (_folder, settings) = sample();
    let path = settings.path.join(FILES[1].0);
    let mut octets = fs::read(&path).unwrap();
    octets[80] ^= 0x55;
    fs::write(&path, octets).unwrap();
    drop(take_over(&settings));
    assert_eq!(ids(&settings), [4, 2, 1, 0]);
}

#[test]
fn what_is_too_old_is_left_out() {
    let (_folder, settings) = sample();
    let file = fs::File::options().write(true).open(settings.path.join(FILES[0].0)).unwrap();
    file.set_modified(SystemTime::now() - KEEP / 50).unwrap();
    drop(take_over(&Settings { keep: KEEP / 100, ..settings.clone() }));
    let number = ids(&settings).into_iter().max();
    assert_eq!(number, Some(4));
    assert!(!ids(&settings).contains(&2));
}

#[test]
fn another_folder_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("history");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("notes.txt"), "hello").unwrap();
    let error = History::open(&Settings { path: path.clone(), keep: KEEP, size: 1 << 20 }).unwrap_err();
    assert!(!error.is_temporary(), "{error}");
    assert!(path.join("notes.txt").exists());
}
