//! A name server whose zone is a function, so that it can have no end; it remembers what it was asked.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Type {
    A,
    Aaaa,
    Mx,
    Ptr,
    Txt,
    Other,
}

/// What the zone says.
pub(super) enum Answer {
    Silence,
    NoData,
    A(Ipv4Addr),
    Mx(Vec<String>),
    Ptr(Vec<String>),
    Txt(String),
    /// An alias without what it leads to.
    Alias(String),
}

/// A running server; ends when it is dropped.
pub(super) struct Responder {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<HashSet<(String, Type)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Responder {
    pub(super) async fn start(zone: impl Fn(&str, Type) -> Answer + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let asked: Arc<Mutex<HashSet<_>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut packet = [0; 512];
            loop {
                let (length, client) = socket.recv_from(&mut packet).await.unwrap();
                let Some((name, rtype, end)) = question(&packet[..length]) else { continue };
                if name.ends_with(".test") || name.ends_with("-addr.arpa") && name != "1.0.0.127.in-addr.arpa"
                {
                    seen.lock().unwrap().insert((name.clone(), rtype));
                }
                if let Some(reply) = reply(&packet[..end], &zone(&name, rtype)) {
                    socket.send_to(&reply, client).await.ok();
                }
            }
        });
        Self { address, asked, task }
    }

    /// How many questions it was asked since the last call; a packet that is repeated is the same question.
    pub(super) fn count(&self) -> usize {
        std::mem::take(&mut *self.asked.lock().unwrap()).len()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The name in lower case, the type, and where the question ends.
fn question(packet: &[u8]) -> Option<(String, Type, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_ascii_lowercase());
        at += length;
    }
    let rtype = match packet.get(at..at + 2)? {
        [0, 1] => Type::A,
        [0, 28] => Type::Aaaa,
        [0, 15] => Type::Mx,
        [0, 12] => Type::Ptr,
        [0, 16] => Type::Txt,
        _ => Type::Other,
    };
    Some((labels.join("."), rtype, at + 4))
}

fn reply(asked: &[u8], answer: &Answer) -> Option<Vec<u8>> {
    let records: Vec<(u8, Vec<u8>)> = match answer {
        Answer::Silence => return None,
        Answer::NoData => Vec::new(),
        Answer::A(address) => vec![(1, address.octets().to_vec())],
        Answer::Mx(hosts) => {
            let host = |(at, host): (usize, &String)| {
                (15, [vec![0, u8::try_from(at).unwrap()], wire(host)].concat())
            };
            hosts.iter().enumerate().map(host).collect()
        }
        Answer::Ptr(names) => names.iter().map(|name| (12, wire(name))).collect(),
        Answer::Txt(text) => {
            let strings = text.as_bytes().chunks(255);
            let data = strings.flat_map(|it| [&[u8::try_from(it.len()).unwrap()], it].concat()).collect();
            vec![(16, data)]
        }
        Answer::Alias(name) => vec![(5, wire(name))],
    };
    let mut packet = asked.to_vec();
    packet[2] = 0x81;
    packet[3] = 0x80;
    packet[6..12].copy_from_slice(&[0, u8::try_from(records.len()).unwrap(), 0, 0, 0, 0]);
    for (rtype, data) in records {
        // For a minute, but the names of an address are new each time.
        packet.extend([0xc0, 12, 0, rtype, 0, 1, 0, 0, 0, if rtype == 12 { 0 } else { 60 }]);
        packet.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        packet.extend(data);
    }
    Some(packet)
}

fn wire(name: &str) -> Vec<u8> {
    let labels =
        name.split('.').flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    labels.chain([0]).collect()
}
