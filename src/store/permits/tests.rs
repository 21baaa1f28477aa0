//! Permits with their file: restarts, kills, a disk that fails, a clock that moves.

use std::fs;
use std::net::IpAddr;

use super::*;
use crate::exempt::entry;
use crate::exempt::permits::Sender;
use crate::policy::identity::Identity;
use crate::smtp::address::ForwardPath;
use crate::store::greylist::{Greylist, GreylistAnswer, Settings};
use crate::store::shared::Patience;

const HOUR: Duration = Duration::from_secs(3600);

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn clock() -> Clock {
    Clock::standing(UNIX_EPOCH + 1000 * HOUR)
}

fn open(folder: &Path, clock: &Clock) -> PermitStore {
    PermitStore::open_with(StateFile::at(&folder.join("state")), clock.clone()).unwrap()
}

fn new(client: &str, hours: Option<u32>) -> NewPermit {
    let conditions = Conditions { client: Some(entry::network(client).unwrap()), ..Conditions::default() };
    let time = hours.map(|hours| hours * HOUR);
    NewPermit { conditions, note: "a note".to_owned(), time, decision: Id::parse("4KXN7Q2M") }
}

fn finds(store: &PermitStore, client: &str) -> Option<u64> {
    let client: IpAddr = client.parse().unwrap();
    let found = store.find(|permits, now| permits.message(Sender { client, domain: None }, now));
    found.map(|let_in| let_in.number)
}

fn numbers(store: &PermitStore) -> Vec<u64> {
    store.list().iter().map(|permit| permit.number).collect()
}

#[test]
fn permits_outlive_a_restart_and_a_kill_and_numbers_are_never_given_twice() {
    let (folder, clock) = (folder(), clock());
    let store = open(folder.path(), &clock);
    assert!(!folder.path().join("state").exists(), "made with the first permit");
    assert!(store.is_on_disk());
    let made = store.add(new("192.0.2.0/24", Some(24))).unwrap();
    let domain = Some(entry::pattern(".a.test").unwrap());
    let rest = Conditions {
        domain,
        recipient: Some("u@here.test".into()),
        client: None,
        identity: Some(Identity::From),
    };
    let other = store.add(NewPermit { conditions: rest, ..new("192.0.2.0/24", None) }).unwrap();
    assert_eq!((made.number, other.number), (1, 2));
    // what a kill leaves
    let killed = self::folder();
    for name in ["state", "state-wal"] {
        fs::copy(folder.path().join(name), killed.path().join(name)).unwrap();
    }
    assert_eq!(store.remove(2), Some(other.clone()));
    assert_eq!(store.remove(2), None);
    drop(store);

    let again = open(folder.path(), &clock);
    assert_eq!(again.list(), std::slice::from_ref(&made));
    assert_eq!(again.add(new("198.51.100.0/24", None)).unwrap().number, 3);
    assert_eq!(open(killed.path(), &clock).list(), [made, other]);
}

#[test]
fn a_permit_ends_by_the_clock_with_or_without_a_tick() {
    let (folder, clock) = (folder(), clock());
    let store = open(folder.path(), &clock);
    store.add(new("192.0.2.0/24", Some(2))).unwrap();
    store.add(new("198.51.100.0/24", Some(4))).unwrap();
    store.add(new("203.0.113.0/24", None)).unwrap();
    assert_eq!(store.count(), (3, Some(UNIX_EPOCH + 1002 * HOUR)));
    clock.advance(2 * HOUR - Duration::from_millis(1));
    assert!(finds(&store, "192.0.2.1").is_some() && !store.is_due());
    clock.advance(Duration::from_millis(1));
    assert_eq!((finds(&store, "192.0.2.1"), finds(&store, "198.51.100.1")), (None, Some(2)));
    assert_eq!(numbers(&store), [2, 3]);
    assert_eq!(store.count(), (2, Some(UNIX_EPOCH + 1004 * HOUR)));
    assert!(store.is_due());
    store.tick();
    assert!(!store.is_due());
    clock.advance(1000 * HOUR);
    drop(store);
    let store = open(folder.path(), &clock);
    assert_eq!((numbers(&store), finds(&store, "203.0.113.1")), (vec![3], Some(3)));
    assert_eq!(store.remove(2), None, "it is over");
}

#[test]
fn ten_thousand_are_the_most_and_those_over_make_way() {
    let clock = clock();
    let store = PermitStore::in_memory(clock.clone());
    assert!(!store.is_on_disk());
    for number in 0..MOST {
        store.add(new(&format!("10.{}.{}.0/24", number / 256, number % 256), Some(1))).unwrap();
    }
    assert_eq!(store.add(new("192.0.2.0/24", None)), Err(Full));
    assert_eq!(Full.to_string(), "10000 permits are in effect, the most that there can be");
    assert!(store.remove(5000).is_some());
    assert_eq!(store.add(new("192.0.2.0/24", None)).unwrap().number, 10_001);
    assert_eq!(store.add(new("192.0.2.0/24", None)), Err(Full));
    clock.advance(HOUR);
    assert_eq!(store.add(new("192.0.2.0/24", None)).unwrap().number, 10_002);
    assert_eq!(numbers(&store), [10_001, 10_002]);
}

#[tokio::test]
async fn greylist_and_permits_share_the_file_whichever_comes_first() {
    let clock = clock();
    let settings = |folder: &Path| Settings {
        path: folder.join("state"),
        delay: Duration::from_secs(60),
        expire: 100 * HOUR,
        prefix_v4: 24,
        prefix_v6: 64,
    };
    for permits_first in [true, false] {
        let folder = folder();
        let file = StateFile::at(&folder.path().join("state"));
        let store = PermitStore::open_with(Arc::clone(&file), clock.clone()).unwrap();
        if permits_first {
            store.add(new("192.0.2.0/24", None)).unwrap();
        }
        let greylist = Greylist::open_in(Arc::clone(&file), settings(folder.path())).unwrap();
        if !permits_first {
            store.add(new("192.0.2.0/24", None)).unwrap();
        }
        let path = ForwardPath::parse("u@here.test").unwrap();
        let triple = greylist.triple("192.0.2.1".parse().unwrap(), "a.test", &path);
        assert!(matches!(greylist.check(&triple, &Patience::default()).await, GreylistAnswer::Wait(_)));
        greylist.flush();
        let another = PermitStore::open(StateFile::at(&folder.path().join("state")));
        assert!(matches!(another, Err(OpenError::InUse { .. })), "{another:?}");
        drop((store, greylist, file));
        let file = StateFile::at(&folder.path().join("state"));
        let greylist = Greylist::open_in(Arc::clone(&file), settings(folder.path())).unwrap();
        let store = PermitStore::open_with(file, clock.clone()).unwrap();
        assert_eq!((greylist.count(), numbers(&store)), ((1, 0), vec![1]));
    }
}

#[test]
fn while_the_disk_fails_permits_are_in_effect_and_are_written_later() {
    let (folder, clock) = (folder(), clock());
    let path = folder.path().join("state");
    let store = open(folder.path(), &clock);
    store.add(new("192.0.2.0/24", None)).unwrap();
    store.add(new("198.51.100.0/24", None)).unwrap();
    // A folder is in place of the file.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    store.add(new("203.0.113.0/24", None)).unwrap();
    assert!(store.remove(1).is_some());
    assert!(!store.is_on_disk() && store.is_due());
    assert_eq!((finds(&store, "203.0.113.1"), finds(&store, "192.0.2.1")), (Some(3), None));
    fs::remove_dir(&path).unwrap();
    for _ in 0..=RETRY_TICKS {
        store.tick();
    }
    assert!(store.is_on_disk() && !store.is_due());
    assert_eq!(store.remove(3).map(|permit| permit.number), Some(3));
    drop(store);
    let store = open(folder.path(), &clock);
    assert_eq!(numbers(&store), [2]);
    assert_eq!(store.add(new("192.0.2.0/24", None)).unwrap().number, 4, "the new file knows the last number");
}

#[test]
fn a_file_that_was_moved_away_is_written_anew() {
    let (folder, clock) = (folder(), clock());
    let path = folder.path().join("state");
    let store = open(folder.path(), &clock);
    store.add(new("192.0.2.0/24", None)).unwrap();
    assert!(!store.is_due());
    fs::rename(&path, folder.path().join("away")).unwrap();
    assert!(store.is_due());
    store.tick();
    assert!(path.exists() && !store.is_due() && store.is_on_disk());
    drop(store);
    assert_eq!(numbers(&open(folder.path(), &clock)), [1]);
}

/// SQLite's locks are those of fcntl(2): another connection must not end them.
#[test]
fn opening_the_file_again_keeps_the_locks_of_the_first_connection() {
    let folder = folder();
    let path = folder.path().join("state");
    let file = StateFile::at(&path);
    let store = PermitStore::open(Arc::clone(&file)).unwrap();
    store.add(new("192.0.2.0/24", None)).unwrap();
    let settings =
        Settings { path: path.clone(), delay: HOUR, expire: 2 * HOUR, prefix_v4: 24, prefix_v6: 64 };
    drop(Greylist::open_in(file, settings).unwrap());
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&path).unwrap());
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let held = locks.lines().any(|line| line.contains("POSIX") && line.contains(&format!(":{inode} ")));
    assert!(held, "{inode}: {locks}");
    drop(store);
}

#[test]
fn a_damaged_file_is_refused_and_left_unchanged() {
    let folder = folder();
    let path = folder.path().join("state");
    fs::write(&path, b"no database\n").unwrap();
    let error = PermitStore::open(StateFile::at(&path)).unwrap_err();
    assert!(!error.is_temporary() && error.to_string().contains("/state: can't be read ("), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"no database\n");
    fs::remove_file(&path).unwrap();

    open(folder.path(), &clock()).add(new("192.0.2.0/24", None)).unwrap();
    for (column, value, what) in [
        ("client", "'192.0.2'", "permit 1: is not a network such as "),
        ("domain", "'a..test'", "permit 1: is not a domain such as "),
        ("client", "NULL", "permit 1: has no condition"),
        ("identity", "'cc'", "permit 1: is for no identity"),
        ("created", "253402300800000", "permit 1: has a time past the year 9999"),
        ("until", "253402300800000", "permit 1: has a time past the year 9999"),
        ("until", "'tomorrow'", "Invalid column type Text at index: 6, name: until"),
    ] {
        let connection = rusqlite::Connection::open(&path).unwrap();
        let set = |column: &str, value: &str| {
            connection.execute(&format!("UPDATE permits SET {column} = {value}"), []).unwrap()
        };
        set("client", "'192.0.2.0/24'");
        set("domain", "NULL");
        set("identity", "NULL");
        set("created", "0");
        set(column, value);
        drop(connection);
        let error = PermitStore::open(StateFile::at(&path)).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }) && error.to_string().contains(what), "{error}");
    }
}

/// As versions wrote it whose permits had no identity.
#[test]
fn a_file_of_before_is_read_and_gets_what_it_lacks() {
    let (folder, clock) = (folder(), clock());
    let path = folder.path().join("state");
    let store = open(folder.path(), &clock);
    let old = store.add(NewPermit { decision: None, ..new("192.0.2.0/24", None) }).unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute_batch("ALTER TABLE permits DROP COLUMN identity").unwrap();
    drop(connection);
    assert_eq!(PermitStore::read(&path).unwrap().list(), std::slice::from_ref(&old), "nothing is written");
    let store = open(folder.path(), &clock);
    assert_eq!(store.list(), std::slice::from_ref(&old));
    let conditions = Conditions { identity: Some(Identity::From), ..old.conditions.clone() };
    let made = store.add(NewPermit { conditions, ..new("192.0.2.0/24", None) }).unwrap();
    drop(store);
    assert_eq!(open(folder.path(), &clock).list(), [old, made]);
}

#[test]
fn a_command_reads_the_permits_beside_the_daemon() {
    let folder = folder();
    let path = folder.path().join("state");
    assert!(PermitStore::read(&path).unwrap().list().is_empty() && !path.exists());
    let store = PermitStore::open(StateFile::at(&path)).unwrap();
    store.add(new("192.0.2.0/24", Some(1))).unwrap();
    assert_eq!(PermitStore::read(&path).unwrap().list(), store.list());
    fs::write(folder.path().join("other"), b"no database\n").unwrap();
    assert!(PermitStore::read(&folder.path().join("other")).is_err());
}
