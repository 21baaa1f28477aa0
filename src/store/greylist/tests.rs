//! The greylist with its file: what a restart remembers, what a crash leaves, what can be wrong with a file.

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

/// Seconds to wait at this second; 0 = passed.
fn ask(greylist: &Greylist, triple: &Triple, at: u64) -> u64 {
    match greylist.ask_at(triple, *START + at * 1000) {
        GreylistAnswer::Passed => 0,
        GreylistAnswer::Wait(wait) => wait.as_secs(),
    }
}

/// What is in the file, whoever has it open.
fn on_disk(folder: &Path) -> usize {
    let copy = folder.join("copy");
    fs::copy(folder.join("greylist"), &copy).unwrap();
    // a copy that was made while the writer was at it may be of no use
    Disk::open(&copy).map_or(usize::MAX, |(_, loaded)| loaded.known.len())
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
fn what_was_known_is_known_after_a_restart() {
    let folder = folder();
    let of = |greylist: &Greylist, number: u8| {
        triple(greylist, &format!("192.0.{number}.1"), "a.test", "u@here.test")
    };
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    let mode = fs::metadata(folder.path().join("greylist")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!((ask(&greylist, &of(&greylist, 1), 0), ask(&greylist, &of(&greylist, 2), 0)), (60, 60));
    assert_eq!(ask(&greylist, &of(&greylist, 1), 60), 0);
    let clone = greylist.clone();
    drop(greylist);
    assert!(matches!(Greylist::open(settings(folder.path())), Err(OpenError::InUse { .. })));
    drop(clone);

    let greylist = Greylist::open(settings(folder.path())).unwrap();
    assert_eq!(greylist.count(), (1, 1));
    assert_eq!(ask(&greylist, &of(&greylist, 1), 61), 0);
    assert_eq!(ask(&greylist, &of(&greylist, 2), 59), 1);
    assert_eq!(ask(&greylist, &of(&greylist, 2), 60), 0);
    assert_eq!(ask(&greylist, &of(&greylist, 3), 60), 60);
    drop(greylist);

    let greylist = Greylist::open(settings(folder.path())).unwrap();
    assert_eq!(greylist.count(), (1, 2));
    assert_eq!(ask(&greylist, &of(&greylist, 2), 60 + EXPIRE.as_secs()), 60, "it counts from the last use");
}

#[test]
fn what_is_written_outlives_a_crash() {
    let folder = folder();
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    let one = triple(&greylist, "192.0.2.1", "a.test", "u@here.test");
    ask(&greylist, &one, 0);
    greylist.flush();
    assert_eq!(on_disk(folder.path()), 1);
    let crashed = self::folder();
    fs::copy(folder.path().join("greylist"), crashed.path().join("greylist")).unwrap();
    let after = Greylist::open(settings(crashed.path())).unwrap();
    assert_eq!(ask(&after, &one, 60), 0, "the same key under the same secret");
}

#[test]
fn changes_are_written_by_themselves() {
    let folder = folder();
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    assert_eq!(
        greylist.ask(&triple(&greylist, "192.0.2.1", "", "postmaster")),
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
fn a_file_that_can_not_be_used_is_told_and_left_as_it_is() {
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
    let directory = error(folder.path());
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
fn a_damaged_file_is_refused_or_read_right_and_never_a_panic() {
    let folder = folder();
    let path = folder.path().join("greylist");
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    for number in 0..500 {
        ask(&greylist, &triple(&greylist, "192.0.2.1", &format!("{number}.test"), "u@here.test"), 0);
    }
    drop(greylist);
    let whole = fs::read(&path).unwrap();
    let used = whole.iter().rposition(|octet| *octet != 0).unwrap();
    let mut refused = 0;
    for at in (0..used).step_by(used / 60) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0xFF;
        fs::write(&path, &damaged).unwrap();
        match Greylist::open(settings(folder.path())) {
            // damage to the head leads back to an earlier commit, here the one that made the file
            Ok(greylist) => assert!(greylist.count() == (500, 0) || at < 4096, "at {at}"),
            Err(OpenError::Damaged { .. }) => refused += 1,
            Err(other) => panic!("at {at}: {other}"),
        }
    }
    assert!(refused > 5, "{refused}");
    for length in [0, 100, 4096, used / 2, used] {
        fs::write(&path, &whole[..length]).unwrap();
        match Greylist::open(settings(folder.path())) {
            Ok(greylist) => assert!(length == 0 || length == used, "{length}: {:?}", greylist.count()),
            Err(error) => assert!(!error.is_temporary(), "{error}"),
        }
    }
}

#[test]
fn a_disk_in_trouble_costs_nothing_but_what_it_holds() {
    let folder = folder();
    let path = folder.path().join("greylist");
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    let one = triple(&greylist, "192.0.2.1", "a.test", "u@here.test");
    ask(&greylist, &one, 0);
    greylist.flush();
    // as after an error of the disk, with the file away and a folder in its place
    lock(&greylist.store.shared.disk).as_mut().unwrap().disk.lose();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(ask(&greylist, &one, 60), 0);
    greylist.flush();
    assert!(lock(&greylist.store.shared.disk).as_ref().unwrap().failing);
    assert_eq!(ask(&greylist, &one, 61), 0);
    // the disk is well again: everything is written, by the same secret, though the file is a new one
    fs::remove_dir(&path).unwrap();
    let other = triple(&greylist, "192.0.2.1", "b.test", "u@here.test");
    ask(&greylist, &other, 61);
    greylist.flush();
    assert!(!lock(&greylist.store.shared.disk).as_ref().unwrap().failing);
    drop(greylist);
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    assert_eq!((ask(&greylist, &one, 62), ask(&greylist, &other, 121)), (0, 0));
}

#[test]
fn who_expired_goes_from_disk_too_by_the_settings_that_took_over() {
    let folder = folder();
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    ask(&greylist, &triple(&greylist, "192.0.2.1", "a.test", "u@here.test"), 0);
    greylist.store.shared.write(*START, true);
    assert_eq!(on_disk(folder.path()), 1);
    let shorter =
        greylist.with_settings(Settings { expire: Duration::from_secs(100), ..settings(folder.path()) });
    greylist.store.shared.write(*START + 200_000, true);
    assert_eq!(greylist.count(), (1, 0));
    shorter.take_over();
    greylist.store.shared.write(*START + 200_000, true);
    assert_eq!((greylist.count(), on_disk(folder.path())), ((0, 0), 0));
}

#[test]
fn many_threads_ask_at_once_and_one_triple_has_one_answer() {
    let folder = folder();
    let greylist = Greylist::open(settings(folder.path())).unwrap();
    let round = |at: u64, expected: u64| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..2_000 {
                        let domain = format!("{number}.test");
                        let triple = triple(&greylist, "192.0.2.1", &domain, "u@here.test");
                        assert_eq!(ask(&greylist, &triple, at), expected, "{number}");
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
