//! `rmxd zone` with its sample zones: the only name server that the tests ask.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::peers;

/// A query for the MX of good.test, to see that the server is there.
const PROBE: &[u8] = b"\x52\x4d\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x04good\x04test\x00\x00\x0f\x00\x01";

/// A running name server. Dropping it ends it.
pub(crate) struct Zone {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Zone {
    /// Starts one and waits until it answers.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("rmxd-zone-").tempdir().unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, peers::free_port()));
        let log = File::create(folder.path().join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_rmxd"))
            .args(["zone", "--listen", &address.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut zone = Self { child, address, folder };
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        peers::eventually("an answer of rmxd zone", Duration::from_secs(15), || zone.answers(&socket)).await;
        zone
    }

    /// For `dns.servers`.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn answers(&mut self, socket: &UdpSocket) -> Option<()> {
        if let Some(status) = self.child.try_wait().unwrap() {
            let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            panic!("rmxd zone has ended with {status}: {log}");
        }
        let mut answer = [0; 512];
        socket.send_to(PROBE, self.address).ok()?;
        let (length, from) = socket.recv_from(&mut answer).ok()?;
        (from == self.address && length > PROBE.len()).then_some(())
    }
}

impl Drop for Zone {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
