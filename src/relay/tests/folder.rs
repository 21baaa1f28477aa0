//! A Maildir as next hop.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::timeout;

use crate::relay::tests::{IMPATIENCE, begin, deliver, permit, recipient, settings};
use crate::relay::{NextHop, Recipient, Relay, Settings};

/// The variable that names a folder on a tiny file system, for the process that fills it.
const TINY_DISK: &str = "RMXD_TEST_TINY_DISK";

fn maildir(path: &Path) -> Relay {
    Relay::new(settings(NextHop::Maildir(path.to_owned())))
}

fn files(path: &Path, folder: &str) -> Vec<PathBuf> {
    std::fs::read_dir(path.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn mail_is_stored_unstuffed_with_its_return_path_and_lf() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep/mail");
    let relay = maildir(&path);
    assert!(relay.probe().await.unwrap().eight_bit_mime);
    let reply = deliver(&relay, &[b"Subject: x\r", b"\n\r\n.", b".dot\r\n..\r\n", b"\xff\r\n"]).await;
    assert_eq!(reply, "END 250 2.0.0 Message stored");
    let mail = files(&path, "new");
    assert_eq!(mail.len(), 1);
    assert_eq!(
        std::fs::read(&mail[0]).unwrap(),
        b"Return-Path: <a@good.test>\nSubject: x\n\n.dot\n.\n\xff\n"
    );
    assert_eq!((mode(&mail[0]), mode(&path.join("new")), mode(&path)), (0o600, 0o700, 0o700));
    assert!(files(&path, "tmp").is_empty() && files(&path, "cur").is_empty());
    assert!(mail[0].file_name().unwrap().to_str().unwrap().ends_with(".gate.test"));
}

#[tokio::test]
async fn a_host_name_cannot_leave_the_folder() {
    let home = tempfile::tempdir().unwrap();
    let hop = NextHop::Maildir(home.path().to_owned());
    let relay = Relay::new(Settings { hostname: "../a:b".into(), ..settings(hop) });
    relay.probe().await.unwrap();
    assert_eq!(deliver(&relay, &[b"x\r\n"]).await, "END 250 2.0.0 Message stored");
    assert!(files(home.path(), "new")[0].to_str().unwrap().ends_with("...\\057a\\072b"));
}

#[tokio::test]
async fn large_mail_arrives_whole() {
    let home = tempfile::tempdir().unwrap();
    let relay = maildir(home.path());
    relay.probe().await.unwrap();
    let line = b"..0123456789\r\n".repeat(1000);
    let pieces: Vec<&[u8]> = line.chunks(777).cycle().take(line.chunks(777).len() * 100).collect();
    assert_eq!(deliver(&relay, &pieces).await, "END 250 2.0.0 Message stored");
    let expected = [b"Return-Path: <a@good.test>\n".to_vec(), b".0123456789\n".repeat(100_000)].concat();
    assert!(std::fs::read(&files(home.path(), "new")[0]).unwrap() == expected);
}

#[tokio::test]
async fn concurrent_mail_gets_a_file_each() {
    let home = tempfile::tempdir().unwrap();
    let relay = maildir(home.path());
    relay.probe().await.unwrap();
    let deliveries = (0..100).map(|number| {
        let relay = relay.clone();
        tokio::spawn(async move { deliver(&relay, &[format!("{number}\r\n").as_bytes()]).await })
    });
    for delivery in deliveries.collect::<Vec<_>>() {
        assert_eq!(delivery.await.unwrap(), "END 250 2.0.0 Message stored");
    }
    let mut stored: Vec<_> =
        files(home.path(), "new").iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    stored.sort_unstable();
    stored.dedup();
    assert_eq!(stored.len(), 100);
}

#[tokio::test]
async fn nothing_is_written_before_data_and_an_unfinished_message_is_removed() {
    let home = tempfile::tempdir().unwrap();
    let relay = maildir(home.path());
    relay.probe().await.unwrap();
    for pieces in 0..3 {
        let mut transaction = begin(&relay).await.unwrap();
        let path = recipient("v@relay.test");
        assert!(transaction.rcpt(permit(), Recipient::new(&path)).await.is_positive());
        assert!(files(home.path(), "tmp").is_empty());
        transaction.data().await.unwrap();
        assert_eq!(files(home.path(), "tmp").len(), 1);
        for _ in 0..pieces {
            transaction.write(&b"half\r\n".repeat(10_000)).await.unwrap();
        }
        match pieces {
            0 => transaction.abandon().await,
            1 => drop(transaction),
            _ => {
                transaction.write(b"no end of line").await.unwrap();
                assert_eq!(transaction.finish(permit()).await.reply.code(), 451);
            }
        }
        assert_emptied(home.path()).await;
    }
}

#[tokio::test]
async fn any_message_detects_that_the_folder_is_missing_or_back() {
    let home = tempfile::tempdir().unwrap();
    let relay = maildir(home.path());
    relay.probe().await.unwrap();
    let elsewhere = home.path().join("elsewhere");
    std::fs::rename(home.path().join("tmp"), &elsewhere).unwrap();
    assert!(deliver(&relay, &[b"x\r\n"]).await.starts_with("DATA 451"));
    let reach = relay.availability();
    assert!(!reach.ok && reach.detail.starts_with("the Maildir cannot be written"), "{reach:?}");
    std::fs::rename(elsewhere, home.path().join("tmp")).unwrap();
    assert_eq!(deliver(&relay, &[b"x\r\n"]).await, "END 250 2.0.0 Message stored");
    assert!(relay.availability().ok);
    assert!(relay.with_settings(relay.settings().clone()).availability().ok, "a reload knows it still");
    assert!(
        !relay.with_settings(settings(NextHop::Maildir("other".into()))).availability().ok,
        "of this folder only"
    );
}

/// The file is removed when the work that has it open ends, which may be a little later.
async fn assert_emptied(path: &Path) {
    for _ in 0..500 {
        if files(path, "tmp").is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(files(path, "tmp").is_empty() && files(path, "new").is_empty());
}

#[test]
fn a_message_with_a_dropped_write_cannot_be_finished() {
    let one_thread =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).enable_all().build();
    one_thread.unwrap().block_on(async {
        let home = tempfile::tempdir().unwrap();
        let relay = maildir(home.path());
        relay.probe().await.unwrap();
        let mut transaction = begin(&relay).await.unwrap();
        transaction.data().await.unwrap();
        // keeps the thread for file work busy, so that the write can't end
        let (release, busy) = std::sync::mpsc::channel::<()>();
        let occupied = tokio::task::spawn_blocking(move || busy.recv().is_err());
        let bytes = b"more\r\n".repeat(20_000);
        assert!(timeout(IMPATIENCE, transaction.write(&bytes)).await.is_err());
        drop(release);
        assert!(occupied.await.unwrap());
        assert_eq!(transaction.finish(permit()).await.reply.code(), 451);
        assert_emptied(home.path()).await;
    });
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_451_and_no_start() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("mail");
    std::fs::write(&path, "a file").unwrap();
    let relay = maildir(&path);
    assert!(relay.probe().await.is_err());
    assert_eq!(
        deliver(&relay, &[b"x\r\n"]).await,
        "DATA 451 4.3.0 The message cannot be stored, try again later"
    );

    // `new` is removed between DATA and the end
    let path = home.path().join("other");
    let relay = maildir(&path);
    relay.probe().await.unwrap();
    std::fs::remove_dir(path.join("new")).unwrap();
    assert_eq!(
        deliver(&relay, &[b"x\r\n"]).await,
        "END 451 4.3.0 The message cannot be stored, try again later"
    );
    assert!(files(&path, "tmp").is_empty());
}

/// The test runs itself once more, in a mount namespace with a file system of 32 KiB.
#[test]
fn a_full_disk_is_452_and_leaves_nothing() {
    if let Some(disk) = std::env::var_os(TINY_DISK) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        return runtime.block_on(fill(Path::new(&disk)));
    }
    let disk = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=32k none \"$0\" || exit 77; exec \"$@\"";
    let inner = Command::new("unshare")
        .args(["-m", "sh", "-c", mount])
        .arg(disk.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "relay::tests::folder::a_full_disk_is_452_and_leaves_nothing"])
        .env(TINY_DISK, disk.path())
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
}

async fn fill(disk: &Path) {
    let relay = maildir(disk);
    relay.probe().await.unwrap();
    let full = "452 4.3.1 Insufficient system storage, try again later";
    let line = b"0123456789abcdef\r\n".repeat(100);
    // the disk is full once within the message, and once only when its end is written from memory
    for (lines, expected) in [(200, format!("WRITE {full}")), (36, format!("END {full}"))] {
        let message = vec![line.as_slice(); lines];
        let reply = deliver(&relay, &message).await;
        assert_eq!(reply, expected);
        assert!(files(disk, "tmp").is_empty() && files(disk, "new").is_empty(), "{lines}");
    }
    assert_eq!(deliver(&relay, &[b"small\r\n"]).await, "END 250 2.0.0 Message stored");
}
