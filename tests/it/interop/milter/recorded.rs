//! What a stock Postfix sends to rmxd on rmxd's own terms, beside what the load test and the demo make of the same events.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rmxd::milter::Packet as Octets;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::super::beside_postfix::{EXCHANGER, STRANGER, Site};
use crate::streams::{Connection, Packet, mail_server};
use crate::support::process::{SOON, eventually};

/// Octets of one connection, with the side that sent them.
type Recording = Arc<Mutex<Vec<(bool, Vec<u8>)>>>;

/// Passes connections on, and keeps what was sent.
async fn between(listener: UnixListener, behind: PathBuf, recordings: Arc<Mutex<Vec<Recording>>>) {
    while let Ok((front, _)) = listener.accept().await {
        let recording = Recording::default();
        recordings.lock().unwrap().push(Arc::clone(&recording));
        let (from_postfix, to_postfix) = front.into_split();
        let (from_rmxd, to_rmxd) = UnixStream::connect(&behind).await.unwrap().into_split();
        tokio::spawn(pass(from_postfix, to_rmxd, true, Arc::clone(&recording)));
        tokio::spawn(pass(from_rmxd, to_postfix, false, recording));
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    postfix: bool,
    recording: Recording,
) -> Option<()> {
    let mut octets = vec![0; 1 << 17];
    loop {
        let length = from.read(&mut octets).await.ok().filter(|length| *length > 0)?;
        recording.lock().unwrap().push((postfix, octets[..length].to_vec()));
        to.write_all(&octets[..length]).await.ok()?;
    }
}

/// The packets in their order; those that came in several pieces are put together.
fn packets(recording: &Recording) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut rest = [Vec::new(), Vec::new()];
    for (postfix, octets) in recording.lock().unwrap().iter() {
        let rest = &mut rest[usize::from(*postfix)];
        rest.extend_from_slice(octets);
        while let Some((_, length)) = Octets::first(rest).unwrap() {
            let octets = rest.drain(..length).collect();
            packets.push(Packet { from_postfix: *postfix, octets, called: String::new() });
        }
    }
    packets
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_sends_what_the_load_test_and_the_demo_send() {
    let Some(site) = Site::with_milter(|guide| guide) else { return };
    let _rmxd = site.rmxd(&[]).await;
    let front = site.socket();
    let behind = front.with_file_name("behind");
    fs::rename(&front, &behind).unwrap();
    let listener = UnixListener::bind(&front).unwrap();
    fs::set_permissions(&front, fs::Permissions::from_mode(0o666)).unwrap();
    let recordings = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(between(listener, behind, Arc::clone(&recordings)));

    let mut client = site.client(EXCHANGER).await;
    let large = format!("From: a@good.test\r\nSubject:  x\r\n\ty\r\n\r\n{}", "Hello\r\n".repeat(20_000));
    for message in ["From: a@good.test\r\n\r\nHello\r\n", "From: b@nowhere.test\r\n\r\nHello\r\n", &large] {
        assert_eq!(client.command("MAIL FROM:<a@good.test> SIZE=1000").await.code, 250);
        for recipient in ["user@relay.test", "other@relay.test"] {
            assert_eq!(client.command(&format!("RCPT TO:<{recipient}>")).await.code, 250);
        }
        assert_eq!(client.command("DATA").await.code, 354);
        client.send(format!("{message}.\r\n").as_bytes()).await;
        let expected = if message.contains("nowhere") { 550 } else { 250 };
        assert_eq!(client.reply().await.code, expected);
    }
    client.command("QUIT").await;
    site.send(STRANGER, "a@nowhere.test", "From: a@nowhere.test\r\n\r\nHello\r\n").await;

    let ended = || {
        let recordings = recordings.lock().unwrap();
        let quit = |recording: &Recording| {
            packets(recording).last().is_some_and(|packet| packet.octets.ends_with(b"\0\0\0\x01Q"))
        };
        (recordings.len() == 2 && recordings.iter().all(quit)).then_some(())
    };
    eventually("QUIT of both sessions", SOON, ended).await;
    for (number, recording) in recordings.lock().unwrap().iter().enumerate() {
        let connection = Connection { name: format!("session {number}"), packets: packets(recording) };
        let events = mail_server::written_again(&connection);
        assert!(events > if number == 0 { 25 } else { 5 }, "{events}");
    }
}
