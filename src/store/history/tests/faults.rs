//! Files that are damaged, of another version, moved or removed; folders that can't be written; a full disk.

use std::process::Command;

use super::*;

/// A history with a file that has some pages, closed.
fn closed() -> (TempDir, Settings) {
    let (folder, settings, history) = opened();
    (0..2_000).for_each(|number| history.record(refusal(number, &format!("d{number}.test"))));
    close(history);
    (folder, settings)
}

/// Whether the history works, and how many records it had.
fn works(settings: &Settings) -> usize {
    let history = History::open(settings).unwrap();
    let before =
        archive(settings).search(&Filter::default(), None, 10_000).map_or(0, |page| page.records.len());
    history.record(refusal(1, "works.test"));
    close(history);
    assert_eq!(
        domains(&archive(settings).search(&Filter::default(), None, 1).unwrap().records),
        ["works.test"]
    );
    before
}

#[test]
fn a_damaged_file_is_moved_aside_and_a_new_one_begins() {
    let damages: [fn(&mut Vec<u8>); 6] = [
        |octets| octets[8192..].fill(0xee),
        |octets| octets[..100].fill(0x55),
        |octets| octets.fill(0),
        |octets| octets.truncate(5_000),
        |octets| octets[100..8192].fill(0xee),
        |octets| *octets = b"not a database at all".to_vec(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let (folder, settings) = closed();
        let mut octets = fs::read(&settings.path).unwrap();
        damage(&mut octets);
        fs::write(&settings.path, &octets).unwrap();
        assert_eq!(works(&settings), 0, "damage {number}");
        assert_eq!(fs::read(folder.path().join("history.damaged")).unwrap(), octets, "damage {number}");
    }
}

#[tokio::test]
async fn damage_that_a_search_finds_is_moved_aside_by_the_writer() {
    use std::os::unix::fs::FileExt as _;
    let (folder, settings) = closed();
    let history = History::open(&settings).unwrap();
    let file = fs::File::options().write(true).open(&settings.path).unwrap();
    let middle = file.metadata().unwrap().len() / 2 / 8192 * 8192;
    file.write_all_at(&[0xee; 8192], middle).unwrap();
    let error = history.search(Filter::default(), None, 10_000).await.unwrap_err().to_string();
    assert!(error.contains("history: ") && error.contains("malformed"), "{error}");
    history.record(refusal(5_000, "later.test"));
    history.flush();
    let page = history.search(Filter::default(), None, 10_000).await.unwrap();
    assert_eq!(domains(&page.records), ["later.test"]);
    assert!(folder.path().join("history.damaged").exists());
}

#[tokio::test]
async fn a_row_with_a_time_past_the_year_9999_is_left_out() {
    let (_folder, settings) = closed();
    let connection = Connection::open(&settings.path).unwrap();
    let late: u64 = 253_402_300_800_000;
    let sql = "SELECT record FROM rows ORDER BY seq DESC LIMIT 1";
    let mut record: Vec<u8> = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    record[..8].copy_from_slice(&late.to_le_bytes());
    let sql = "UPDATE rows SET at = ?1, record = ?2 WHERE seq = (SELECT max(seq) FROM rows)";
    connection.execute(sql, (late, record)).unwrap();
    drop(connection);
    let page = archive(&settings).search(&Filter::default(), None, 1).unwrap();
    assert_eq!(domains(&page.records), ["d1998.test"]);
    let history = History::open(&settings).unwrap();
    let rows = history.brief(Scan::Before(None), 10_000).await.unwrap();
    assert_eq!(rows.len(), 1_999);
    close(history);
}

#[test]
fn a_file_of_a_later_version_is_moved_aside() {
    let (folder, settings) = closed();
    let connection = Connection::open(&settings.path).unwrap();
    connection.pragma_update(None, "user_version", 7).unwrap();
    drop(connection);
    let error = Archive::open(settings.clone()).unwrap_err().to_string();
    assert!(error.ends_with("it has version 7 of a later rmxd"), "{error}");
    assert_eq!(works(&settings), 0);
    assert!(folder.path().join("history.version-7").exists());
}

#[test]
fn a_file_that_is_not_of_rmxd_is_left_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path());
    let other = folder.path().join("other");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE others (name TEXT)").unwrap();
    for octets in [b"hostname = \"gate.test\"\n".to_vec(), fs::read(&other).unwrap()] {
        fs::write(&settings.path, &octets).unwrap();
        let error = History::open(&settings).unwrap_err();
        fs::remove_file(folder.path().join("history-lock")).unwrap();
        assert!(!error.is_temporary());
        let expected = "history: is not a file of rmxd: move it away, or name another";
        assert!(error.to_string().ends_with(expected), "{error}");
        assert_eq!(fs::read(&settings.path).unwrap(), octets);
    }
}

#[tokio::test]
async fn a_moved_or_removed_file_is_not_written_to_any_more() {
    let (folder, settings, history) = opened();
    let away = folder.path().join("away");
    let ways: [&dyn Fn(); 2] =
        [&|| fs::remove_file(&settings.path).unwrap(), &|| fs::rename(&settings.path, &away).unwrap()];
    for (way, number) in ways.into_iter().zip([1, 3]) {
        history.record(refusal(number, "before.test"));
        history.flush();
        way();
        history.record(refusal(number + 1, "after.test"));
        history.flush();
        let found = archive(&settings).find(Id::nth(number + 1)).unwrap();
        assert_eq!(domains(&found), ["after.test"]);
        assert_eq!(history.find(Id::nth(number)).await.unwrap(), []);
        assert!(archive(&settings).is_live());
    }
    drop(history);
    let moved = archive(&Settings { path: away, ..settings });
    assert_eq!(moved.find(Id::nth(3)).unwrap().len(), 1, "the moved file is whole");
}

#[tokio::test]
async fn decisions_wait_in_memory_while_the_file_can_not_be_written() {
    let (folder, settings, history) = opened();
    history.record(refusal(1, "a.test"));
    history.flush();
    let away = folder.path().join("away");
    fs::rename(&settings.path, &away).unwrap();
    fs::create_dir(&settings.path).unwrap();
    fs::write(settings.path.join("in the way"), "").unwrap();
    history.record(refusal(2, "b.test"));
    history.flush();
    fs::remove_dir_all(&settings.path).unwrap();
    fs::rename(&away, &settings.path).unwrap();
    let page = history.search(Filter::default(), None, 9).await.unwrap();
    assert_eq!(domains(&page.records), ["b.test", "a.test"]);
    assert_eq!(archive(&settings).find(Id::nth(2)).unwrap(), []);
    history.flush();
    assert_eq!(archive(&settings).find(Id::nth(2)).unwrap().len(), 1);
    assert_eq!(history.search(Filter::default(), None, 9).await.unwrap().records.len(), 2);
}

/// The name of a folder with the file system of a test that runs once more, in a mount namespace of its own.
const DISK: &str = "RMXD_TEST_HISTORY_DISK";

/// Runs a test of this module once more, on a file system that these options of mount(8) make; `false` in that run.
fn on_disk_of_its_own(test: &str, options: &str) -> bool {
    if std::env::var_os(DISK).is_some() {
        return false;
    }
    let disk = tempfile::tempdir().unwrap();
    let mount = format!("mount -t tmpfs -o {options} none \"$0\" || exit 77; exec \"$@\"");
    let inner = Command::new("unshare")
        .args(["-m", "sh", "-c", &mount])
        .arg(disk.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("store::history::tests::faults::{test}")])
        .env(DISK, disk.path())
        .output();
    match inner {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        }
        Ok(output) if output.status.code() == Some(101) => {
            panic!("{}", String::from_utf8_lossy(&output.stdout));
        }
        other => {
            assert!(std::env::var_os("RMXD_REQUIRE_PEERS").is_none(), "{other:?}");
            eprintln!("skipped: no tmpfs of one's own ({other:?})");
        }
    }
    true
}

fn disk() -> PathBuf {
    std::env::var_os(DISK).expect("a disk").into()
}

#[test]
fn a_full_disk_loses_no_written_decision_and_damages_nothing() {
    if on_disk_of_its_own("a_full_disk_loses_no_written_decision_and_damages_nothing", "size=2m") {
        return;
    }
    let settings = settings(&disk());
    let history = History::open(&settings).unwrap();
    let ballast = disk().join("ballast");
    let mut written = 0;
    for round in 0..3 {
        // In the last rounds it takes all that is left.
        fs::write(&ballast, vec![0; 900 << 10]).ok();
        let failed = (0..200).find(|batch| {
            (0..100)
                .for_each(|number| history.record(refusal(round * 100_000 + batch * 100 + number, "a.test")));
            history.flush();
            let count = usize::try_from(rows(&settings)).unwrap();
            let failed = count < written + 100;
            written = count;
            failed
        });
        assert!(failed.is_some(), "the disk was never full");
        fs::remove_file(&ballast).unwrap();
        // What waited in memory comes at the next write.
        history.flush();
        let recorded = history.count().recorded;
        assert_eq!((rows(&settings), history.count().dropped), (recorded, 0));
        written = usize::try_from(recorded).unwrap();
        let connection = file::open_for_reading(&settings.path).unwrap();
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok");
    }
}

#[test]
fn a_folder_that_can_not_be_written_leaves_the_history_in_memory() {
    if on_disk_of_its_own("a_folder_that_can_not_be_written_leaves_the_history_in_memory", "ro") {
        return;
    }
    let settings = settings(&disk());
    let history = History::open(&settings).unwrap();
    history.record(refusal(1, "a.test"));
    history.flush();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(history.find(Id::nth(1))).unwrap().len(), 1);
    let remounted = Command::new("mount").args(["-o", "remount,rw"]).arg(disk()).status().unwrap();
    assert!(remounted.success());
    history.flush();
    assert_eq!(archive(&settings).find(Id::nth(1)).unwrap().len(), 1);
}
