//! Permits with their file: restarts, kills, a disk that fails, a clock that moves.

use std::fs;
use std::net::IpAddr;
use std::time::UNIX_EPOCH;

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
    NewPermit { conditions, note: "a note".to_owned(), time, decision: Id::parse("4KXN7Q2M"), node: None }
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
        ("uid", "'a'", "Invalid column type Text at index: 9, name: uid"),
    ] {
        let connection = rusqlite::Connection::open(&path).unwrap();
        let set = |column: &str, value: &str| {
            connection.execute(&format!("UPDATE permits SET {column} = {value}"), []).unwrap()
        };
        set("client", "'192.0.2.0/24'");
        set("domain", "NULL");
        set("identity", "NULL");
        set("created", "0");
        set("until", "NULL");
        set("uid", "NULL");
        set(column, value);
        drop(connection);
        let error = PermitStore::open(StateFile::at(&path)).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }) && error.to_string().contains(what), "{error}");
    }
}

/// As versions wrote it whose permits had no identity, and no fleet.
#[test]
fn a_file_of_before_is_read_and_gets_what_it_lacks() {
    let (folder, clock) = (folder(), clock());
    let path = folder.path().join("state");
    let store = open(folder.path(), &clock);
    let old = store.add(NewPermit { decision: None, ..new("192.0.2.0/24", None) }).unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(&path).unwrap();
    let old_tables = "ALTER TABLE permits DROP COLUMN identity; ALTER TABLE permits DROP COLUMN uid; DROP TABLE removed_permits";
    connection.execute_batch(old_tables).unwrap();
    drop(connection);
    assert_eq!(PermitStore::read(&path).unwrap().list(), std::slice::from_ref(&old), "nothing is written");
    let store = open(folder.path(), &clock);
    assert_eq!(store.list(), std::slice::from_ref(&old));
    let conditions = Conditions { identity: Some(Identity::From), ..old.conditions.clone() };
    let made = store.add(NewPermit { conditions, ..of(1, "192.0.2.0/24", None) }).unwrap();
    let removed = store.add(of(1, "192.0.2.0/24", None)).unwrap().number;
    assert!(store.remove(removed).is_some());
    drop(store);
    let store = open(folder.path(), &clock);
    assert_eq!((store.list(), store.numbers()), (vec![old, made.clone()], vec![made.number, removed]));
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

fn node(number: u8) -> Node {
    Node::of_a_test(number)
}

/// A permit of a node, as [`new`].
fn of(node_: u8, client: &str, hours: Option<u32>) -> NewPermit {
    NewPermit { node: Some(node(node_)), ..new(client, hours) }
}

/// What all nodes have to know, by number.
fn known(store: &PermitStore) -> Vec<Entry> {
    let mut entries = store.entries(&store.numbers());
    entries.sort_by_key(Entry::number);
    entries
}

/// All orders of these.
fn orders<T: Clone>(all: &[T]) -> Vec<Vec<T>> {
    let Some((first, rest)) = all.split_first() else { return vec![Vec::new()] };
    let places = 0..all.len();
    let with = |order: Vec<T>| {
        places.clone().map(move |place| {
            let mut order = order.clone();
            order.insert(place, first.clone());
            order
        })
    };
    orders(rest).into_iter().flat_map(with).collect()
}

#[test]
fn nodes_come_to_the_same_in_whatever_order_they_hear_of_changes() {
    let clock = clock();
    let (one, two) = (PermitStore::in_memory(clock.clone()), PermitStore::in_memory(clock.clone()));
    let first = one.add(of(1, "192.0.2.0/24", Some(24))).unwrap();
    let second = one.add(of(1, "198.51.100.0/24", None)).unwrap();
    let third = two.add(of(2, "203.0.113.0/24", None)).unwrap();
    assert_eq!([first.number, second.number, third.number], [1, 17, 2]);
    assert_eq!(first.node().map(Node::number), Some(1));
    let made: Vec<Entry> = [&first, &second, &third].map(|permit| Entry::Permit(permit.clone())).into();
    assert_eq!(two.merge(made.clone(), node(2)).same, [1, 17, 2]);
    assert_eq!(one.merge(made.clone(), node(1)).same, [1, 17, 2]);
    // Both remove the same, and each one more.
    clock.advance(HOUR);
    assert!(two.remove(1).is_some() && two.remove(17).is_some());
    clock.advance(HOUR);
    assert!(one.remove(1).is_some() && one.remove(2).is_some());
    let changes = [made, known(&one), known(&two)].concat();
    let mut changes: Vec<Entry> = changes;
    changes.dedup();
    let expected: Vec<Entry> = [1, 2, 17]
        .map(|number| {
            changes.iter().filter(|it| it.number() == number).min_by_key(|it| it.rank()).unwrap().clone()
        })
        .into();
    assert!(expected.iter().all(|entry| matches!(entry, Entry::Removal(_))), "{expected:?}");
    // The three of which two nodes know most, in all orders, and then each of the others once more.
    for order in orders(&changes[changes.len() - 6..]) {
        let store = PermitStore::in_memory(clock.clone());
        for entry in order.iter().chain(&changes) {
            store.merge(vec![entry.clone()], node(3));
        }
        assert_eq!(known(&store), expected, "{order:?}");
        assert!(store.is_shared() && store.list().is_empty());
    }
    let later = known(&two);
    assert_eq!(one.merge(later.clone(), node(1)).same, [1, 17], "2 was removed here");
    two.merge(known(&one), node(2));
    assert_eq!((known(&one), known(&two)), (expected.clone(), expected));
}

#[test]
fn a_number_that_was_given_twice_stays_with_the_first_and_its_node_gives_another() {
    let clock = clock();
    let lost = PermitStore::in_memory(clock.clone());
    let first = lost.add(of(1, "192.0.2.0/24", None)).unwrap();
    clock.advance(HOUR);
    let again = PermitStore::in_memory(clock.clone());
    let second = again.add(of(1, "198.51.100.0/24", None)).unwrap();
    assert_eq!((first.number, second.number), (1, 1));
    let removal = Entry::Removal(Removal::of(&second, clock.now()).unwrap());
    let entries = [Entry::Permit(first.clone()), Entry::Permit(second.clone()), removal];
    for order in orders(&entries) {
        let other = PermitStore::in_memory(clock.clone());
        order.iter().for_each(|entry| drop(other.merge(vec![entry.clone()], node(2))));
        assert_eq!(other.list(), std::slice::from_ref(&first), "{order:?}");
    }
    // A removal of the first is none of the second.
    for told in [Entry::Permit(first.clone()), Entry::Removal(Removal::of(&first, clock.now()).unwrap())] {
        let store = PermitStore::in_memory(clock.clone());
        let own = store.add(of(1, "198.51.100.0/24", None)).unwrap();
        assert_eq!(store.merge(vec![told.clone()], node(1)).same, [1]);
        assert_eq!(finds(&store, "198.51.100.1"), Some(17));
        assert_eq!(finds(&store, "192.0.2.1"), matches!(told, Entry::Permit(_)).then_some(1));
        assert_eq!(store.list().last(), Some(&TemporaryPermit { number: 17, ..own }));
        let unsent: Vec<u64> = store.unsent().iter().map(|change| change.number).collect();
        assert_eq!(unsent, [1, 17]);
        assert_eq!(
            store.merge(vec![Entry::Permit(first.clone())], node(1)).same.is_empty(),
            told.rank() < Entry::Permit(first.clone()).rank()
        );
    }
}

#[test]
fn a_removed_permit_does_not_come_back_until_it_would_be_over() {
    let (folder, clock) = (folder(), clock());
    let store = open(folder.path(), &clock);
    let timed = store.add(of(1, "192.0.2.0/24", Some(24))).unwrap();
    let endless = store.add(of(1, "198.51.100.0/24", None)).unwrap();
    assert!(store.remove(1).is_some() && store.remove(17).is_some());
    drop(store);
    let store = open(folder.path(), &clock);
    let old = vec![Entry::Permit(timed), Entry::Permit(endless)];
    assert_eq!(store.merge(old.clone(), node(1)), Merged::default(), "this node has something newer");
    assert!(store.list().is_empty());
    assert_eq!(known(&store).len(), 2);
    // At its end it is nobody's any more, and what is endless stays.
    clock.advance(24 * HOUR);
    assert_eq!(store.merge(old.clone(), node(1)), Merged::default());
    assert_eq!(store.numbers(), [17]);
    clock.advance(HOUR);
    assert_eq!(store.merge(old.clone(), node(1)), Merged { same: Vec::new(), over: vec![1] });
    clock.advance(1000 * HOUR);
    assert_eq!(store.merge(old, node(1)).over, [1]);
    drop(store);
    let store = open(folder.path(), &clock);
    assert_eq!((store.numbers(), store.list()), (vec![17], Vec::new()));
    assert_eq!(store.add(of(1, "192.0.2.0/24", None)).unwrap().number, 33, "never given twice");
}

#[test]
fn what_is_over_is_taken_from_nobody() {
    let clock = clock();
    let (one, two) = (PermitStore::in_memory(clock.clone()), PermitStore::in_memory(clock.clone()));
    let permit = one.add(of(1, "192.0.2.0/24", Some(1))).unwrap();
    let told = vec![Entry::Permit(permit)];
    clock.advance(HOUR);
    assert_eq!(two.merge(told.clone(), node(2)), Merged::default(), "the clock of another may be behind");
    clock.advance(HOUR);
    assert_eq!(two.merge(told.clone(), node(2)).over, [1]);
    assert_eq!(one.merge(told, node(1)).over, [1]);
    assert!(one.numbers().is_empty() && two.list().is_empty());
}

#[test]
fn permits_from_before_the_fleet_get_numbers_of_the_node() {
    let (folder, clock) = (folder(), clock());
    let store = open(folder.path(), &clock);
    let plain: Vec<TemporaryPermit> = ["192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"]
        .map(|it| store.add(new(it, None)).unwrap())
        .into();
    assert!(store.remove(2).is_some());
    assert!(store.numbers().is_empty() && store.is_shared(), "nobody else has them");
    store.adopt(node(2));
    assert_eq!(numbers(&store), [18, 34]);
    let adopted = store.list();
    assert_eq!(adopted[0], TemporaryPermit { number: 18, uid: adopted[0].uid, ..plain[0].clone() });
    assert_eq!(store.numbers(), [18, 34]);
    assert_eq!(store.unsent().len(), 2);
    drop(store);
    let store = open(folder.path(), &clock);
    assert_eq!(store.list(), adopted);
    store.adopt(node(3));
    assert_eq!(store.list(), adopted, "once only, whatever the node is later");
    // Without a fleet numbers go on by one; what another has under that number is another permit.
    assert_eq!(store.add(new("10.0.0.0/8", None)).unwrap().number, 35);
    let other = PermitStore::in_memory(clock.clone());
    other.merge(known(&store), node(3));
    let told = other.add(of(3, "172.16.0.0/12", None)).unwrap();
    assert_eq!(told.number, 35);
    store.merge(vec![Entry::Permit(told)], node(2));
    assert_eq!(numbers(&store), [18, 34, 35, 50]);
    assert_eq!((finds(&store, "172.16.0.1"), finds(&store, "10.0.0.1")), (Some(35), Some(50)));
}

#[test]
fn a_change_is_unsent_until_that_very_change_was_sent() {
    let store = PermitStore::in_memory(clock());
    store.add(new("10.0.0.0/8", None)).unwrap();
    assert!(store.is_shared(), "there is no fleet");
    let number = store.add(of(1, "192.0.2.0/24", None)).unwrap().number;
    let made = store.unsent();
    assert!(!store.is_shared() && made.len() == 1);
    assert!(store.remove(number).is_some());
    store.sent(&made);
    assert!(!store.is_shared(), "its removal came meanwhile");
    store.sent(&store.unsent());
    assert!(store.is_shared());
    store.lacking(&[number]);
    assert_eq!(store.unsent().len(), 1);
}

/// Clocks of nodes differ; that of Redis is the one that counts.
#[test]
fn a_permit_ends_at_all_nodes_at_once_whatever_their_clocks_show() {
    let (early, late) =
        (Clock::standing(UNIX_EPOCH + 1000 * HOUR), Clock::standing(UNIX_EPOCH + 1000 * HOUR + HOUR / 2));
    let (one, two) = (PermitStore::in_memory(early.clone()), PermitStore::in_memory(late.clone()));
    // Redis is between them.
    assert!(one.set_ahead(15 * 60 * 1000) && two.set_ahead(-15 * 60 * 1000));
    let permit = one.add(of(1, "192.0.2.0/24", Some(1))).unwrap();
    assert_eq!(permit.created, UNIX_EPOCH + 1000 * HOUR + HOUR / 4);
    two.merge(vec![Entry::Permit(permit)], node(2));
    for (passed, found) in [(HOUR - Duration::from_millis(1), Some(1)), (Duration::from_millis(1), None)] {
        early.advance(passed);
        late.advance(passed);
        assert_eq!((finds(&one, "192.0.2.1"), finds(&two, "192.0.2.1")), (found, found));
    }
    // Nobody knows which of the two is wrong.
    for wrong in [3_600_001, -3_600_001, i64::MAX, i64::MIN] {
        assert!(!one.set_ahead(wrong));
        assert_eq!(one.ahead(), 15 * 60 * 1000);
    }
}

#[test]
fn the_oldest_of_ten_thousand_removals_is_forgotten() {
    let clock = clock();
    let store = PermitStore::in_memory(clock.clone());
    let first = store.add(of(1, "192.0.2.0/24", None)).unwrap();
    assert!(store.remove(first.number).is_some());
    let removal = known(&store);
    clock.advance(HOUR);
    for _ in 0..10_000 {
        let number = store.add(of(1, "192.0.2.0/24", None)).unwrap().number;
        assert!(store.remove(number).is_some());
    }
    assert_eq!(store.numbers().len(), 10_000);
    assert!(!store.numbers().contains(&1));
    // Told again, there is no place for it here, and none is needed in Redis.
    assert_eq!(store.merge(removal, node(1)), Merged { same: vec![1], over: vec![1] });
    assert_eq!(store.numbers().len(), 10_000);
}
