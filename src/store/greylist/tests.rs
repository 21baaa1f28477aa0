//! The greylist with its file: restarts, crashes and damaged files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::LazyLock;

use super::*;

const EXPIRE: Duration = Duration::from_secs(100 * 24 * 3600);

/// In the past, so that the tests' own time stays before the writer's.
static START: LazyLock<u64> = LazyLock::new(|| now() - milliseconds(EXPIRE / 2));

fn settings(folder: &Path) -> Settings {
    Settings {
        path: folder.join("greylist"),
        delay: Duration::from_secs(60),
        expire: EXPIRE,
        prefix_v4: 24,
        prefix_v6: 64,
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn triple(greylist: &Greylist, client: &str, domain: &str, recipient: &str) -> Triple {
    greylist.triple(client.parse().unwrap(), domain, &ForwardPath::parse(recipient).unwrap())
}

/// Seconds to wait at this second; 0 if the triple passed.
fn check(greylist: &Greylist, triple: &Triple, at: u64) -> u64 {
    match greylist.check_at(triple, *START + at * 1000) {
        Checked::Passes { .. } => 0,
        Checked::Waits { rest, .. } => rest / 1000,
    }
}

/// The number of triples in the file, even while another process has it open.
fn on_disk(folder: &Path) -> usize {
    let connection = rusqlite::Connection::open(folder.join("greylist")).unwrap();
    let count = connection.query_row("SELECT count(*) FROM greylist", [], |row| row.get::<_, i64>(0));
    count.map_or(usize::MAX, |count| usize::try_from(count).unwrap())
}

#[test]
fn a_network_is_one_client_and_a_prefix_can_be_an_address() {
    let folder = folder();
    let greylist = Greylist::in_memory(settings(folder.path())).unwrap();
    let of = |greylist: &Greylist, client: &str| triple(greylist, client, "a.test", "u@here.test").key;
    let rows = [
        ("192.0.2.1", "192.0.2.254", true),
        ("192.0.2.1", "::ffff:192.0.2.9", true),
        ("192.0.2.1", "192.0.3.1", false),
        ("2001:db8::1", "2001:db8::ffff:0:0:1", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
    ];
    for (one, other, same) in rows {
        assert_eq!(of(&greylist, one) == of(&greylist, other), same, "{one} {other}");
    }
    let exact = greylist.with_settings(Settings { prefix_v4: 32, ..settings(folder.path()) });
    assert_ne!(of(&exact, "192.0.2.1"), of(&exact, "192.0.2.2"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "in memory only");
}

#[test]
fn triples_outlive_a_restart() {
    let folder = folder();
    let of = |greylist: &Greylist, number: u8| {
        triple(greylist, &format!("192.0.{number}.1"), "a.test", "u@here.test")
    };
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    let mode = fs::metadata(folder.path().join("greylist")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!((check(&greylist, &of(&greylist, 1), 0), check(&greylist, &of(&greylist, 2), 0)), (60, 60));
    assert_eq!(check(&greylist, &of(&greylist, 1), 60), 0);
    let clone = greylist.clone();
    drop(greylist);
    assert!(matches!(Greylist::open(settings(folder.path())), Err(OpenError::InUse { .. })));
    drop(clone);

    let greylist = Greylist::open(settings(folder.path())).unwrap();
    assert_eq!(greylist.count(), (1, 1));
    assert_eq!(check(&greylist, &of(&greylist, 1), 61), 0);
    assert_eq!(check(&greylist, &of(&greylist, 2), 59), 1);
    assert_eq!(check(&greylist, &of(&greylist, 2), 60), 0);
    assert_eq!(check(&greylist, &of(&greylist, 3), 60), 60);
    drop(greylist);

    let greylist = Greylist::open(settings(folder.path())).unwrap();
    assert_eq!(greylist.count(), (1, 2));
    assert_eq!(
        check(&greylist, &of(&greylist, 2), 60 + EXPIRE.as_secs()),
        60,
        "the expiry counts from the last use"
    );
}

#[test]
fn written_triples_outlive_a_crash() {
    let folder = folder();
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    let one = triple(&greylist, "192.0.2.1", "a.test", "u@here.test");
    check(&greylist, &one, 0);
    greylist.flush();
    assert_eq!(on_disk(folder.path()), 1);
    let crashed = self::folder();
    for name in ["greylist", "greylist-wal"] {
        fs::copy(folder.path().join(name), crashed.path().join(name)).unwrap();
    }
    let after = Greylist::open(settings(crashed.path())).unwrap();
    assert_eq!(check(&after, &one, 60), 0, "the same key under the same secret");
}

#[tokio::test]
async fn changes_are_written_without_a_flush() {
    let folder = folder();
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    assert_eq!(
        greylist.check(&triple(&greylist, "192.0.2.1", "", "postmaster"), &Patience::default()).await,
        GreylistAnswer::Wait(Duration::from_secs(60))
    );
    let written = (0..100).any(|_| {
        let (_lock, condvar) = (Mutex::new(()), Condvar::new());
        drop(condvar.wait_timeout(lock(&_lock), Duration::from_millis(100)));
        on_disk(folder.path()) == 1
    });
    assert!(written);
}

#[test]
fn an_unusable_file_is_reported_and_left_unchanged() {
    let folder = folder();
    let path = folder.path().join("greylist");
    let error = |path: &Path| {
        Greylist::open(Settings { path: path.to_owned(), ..settings(folder.path()) }).unwrap_err()
    };

    let none = error(&folder.path().join("missing/greylist"));
    assert!(
        !none.is_temporary()
            && none.to_string().ends_with("/missing/greylist: No such file or directory (os error 2)"),
        "{none}"
    );
    let inner = folder.path().join("inner");
    fs::create_dir(&inner).unwrap();
    let directory = error(&inner);
    assert!(!directory.is_temporary() && directory.to_string().contains("Is a directory"), "{directory}");

    for garbage in [&b"no database\n"[..], &[0; 10_000], &[0xA5; 100_000]] {
        fs::write(&path, garbage).unwrap();
        let error = error(&path);
        assert!(!error.is_temporary(), "{error}");
        assert!(error.to_string().contains("/greylist: can't be read ("), "{error}");
        assert!(error.to_string().ends_with("): move it away, and rmxd begins a new one"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), garbage);
    }
}

#[test]
fn a_damaged_file_is_refused_or_read_correctly_and_never_panics() {
    let folder = folder();
    let path = folder.path().join("greylist");
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    for number in 0..500 {
        check(&greylist, &triple(&greylist, "192.0.2.1", &format!("{number}.test"), "u@here.test"), 0);
    }
    drop(greylist);
    let whole = fs::read(&path).unwrap();
    let used = whole.iter().rposition(|octet| *octet != 0).unwrap();
    let mut refused = 0;
    for at in (0..used).step_by(used / 60) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xFF;
        fs::write(&path, &damaged).unwrap();
        crate::store::file::remove_log(&path).unwrap();
        match Greylist::open(settings(folder.path())) {
            // SQLite has no checksums: a time or a hash may be another one.
            Ok(greylist) => assert_eq!(greylist.count().0 + greylist.count().1, 500, "at {at}"),
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("at {at}: {other}"),
        }
    }
    assert!(refused > 5, "{refused}");
    for length in [0, 100, 4096, used / 2, used] {
        fs::write(&path, &whole[..length]).unwrap();
        crate::store::file::remove_log(&path).unwrap();
        match Greylist::open(settings(folder.path())) {
            Ok(greylist) => assert!(length == 0 || length == used, "{length}: {:?}", greylist.count()),
            Err(error) => assert!(!error.is_temporary(), "{error}"),
        }
    }
}

#[test]
fn the_greylist_works_on_while_the_disk_fails_and_rewrites_the_file_later() {
    let folder = folder();
    let path = folder.path().join("greylist");
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    let one = triple(&greylist, "192.0.2.1", "a.test", "u@here.test");
    check(&greylist, &one, 0);
    greylist.flush();
    // A folder is in place of the file.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(check(&greylist, &one, 60), 0);
    greylist.flush();
    assert!(lock(&greylist.store.shared.disk).as_ref().unwrap().failing);
    assert_eq!(check(&greylist, &one, 61), 0);
    // The disk works again: all triples are written, with the same secret, to a new file.
    fs::remove_dir(&path).unwrap();
    let other = triple(&greylist, "192.0.2.1", "b.test", "u@here.test");
    check(&greylist, &other, 61);
    greylist.flush();
    assert!(!lock(&greylist.store.shared.disk).as_ref().unwrap().failing);
    drop(greylist);
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    assert_eq!((check(&greylist, &one, 62), check(&greylist, &other, 121)), (0, 0));
}

#[test]
fn expired_triples_are_removed_from_disk_by_the_settings_in_force() {
    let folder = folder();
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    check(&greylist, &triple(&greylist, "192.0.2.1", "a.test", "u@here.test"), 0);
    greylist.store.shared.write(*START, true);
    assert_eq!(on_disk(folder.path()), 1);
    let shorter =
        greylist.with_settings(Settings { expire: Duration::from_secs(100), ..settings(folder.path()) });
    greylist.store.shared.write(*START + 200_000, true);
    assert_eq!(greylist.count(), (1, 0));
    shorter.apply_expiry();
    greylist.store.shared.write(*START + 200_000, true);
    assert_eq!((greylist.count(), on_disk(folder.path())), ((0, 0), 0));
}

#[test]
fn concurrent_checks_of_one_triple_give_the_same_result() {
    let folder = folder();
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    let round = |at: u64, expected: u64| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..2_000 {
                        let domain = format!("{number}.test");
                        let triple = triple(&greylist, "192.0.2.1", &domain, "u@here.test");
                        assert_eq!(check(&greylist, &triple, at), expected, "{number}");
                    }
                });
            }
            scope.spawn(|| (0..20).for_each(|_| greylist.flush()));
        });
    };
    round(0, 60);
    round(20, 40);
    round(60, 0);
    assert_eq!(greylist.count(), (0, 2_000));
    greylist.flush();
    assert_eq!(on_disk(folder.path()), 2_000);
}
