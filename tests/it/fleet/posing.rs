//! A server that speaks the protocol of Redis (RESP 2), and answers each command as a test says.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub(crate) struct Posing {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    answers: HashMap<String, String>,
    asked: HashMap<String, usize>,
    /// The time before each answer to this command.
    slow: HashMap<String, Duration>,
}

impl Posing {
    /// Until a test says otherwise: empty values, and a time.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::<Mutex<Shared>>::default();
        let posing = Self { address, shared: Arc::clone(&shared) };
        posing.answers("PING", "+PONG\r\n");
        posing.answers("GETRANGE", "$0\r\n\r\n");
        posing.answers("TIME", "*2\r\n$10\r\n1700000000\r\n$1\r\n0\r\n");
        posing.answers("EVALSHA", "*3\r\n$1\r\nN\r\n$1\r\n0\r\n$0\r\n\r\n");
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(&stream.unwrap(), &shared));
            }
        });
        posing
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on this is the whole reply to this command, as it is on the wire.
    pub(crate) fn answers(&self, command: &str, reply: &str) {
        self.shared.lock().unwrap().answers.insert(command.to_owned(), reply.to_owned());
    }

    /// From now on each answer to this command takes so long.
    pub(crate) fn slows(&self, command: &str, time: Duration) {
        self.shared.lock().unwrap().slow.insert(command.to_owned(), time);
    }

    /// How often a command has been asked.
    pub(crate) fn asked(&self, command: &str) -> usize {
        self.shared.lock().unwrap().asked.get(command).copied().unwrap_or_default()
    }
}

/// `None` at the end of the connection.
#[expect(clippy::disallowed_methods, reason = "each connection has a thread of its own")]
fn serve(stream: &TcpStream, shared: &Mutex<Shared>) -> Option<()> {
    let (mut input, mut output) = (BufReader::new(stream), stream);
    loop {
        let words = number(&mut input, '*')?;
        let mut command = String::new();
        for word in 0..words {
            let mut octets = vec![0; number(&mut input, '$')? + 2];
            input.read_exact(&mut octets).ok()?;
            if word == 0 {
                command = String::from_utf8_lossy(&octets).trim_end().to_uppercase();
            }
        }
        let (reply, time) = {
            let mut shared = shared.lock().unwrap();
            *shared.asked.entry(command.clone()).or_default() += 1;
            (shared.answers.get(&command).cloned(), shared.slow.get(&command).copied())
        };
        std::thread::sleep(time.unwrap_or_default());
        output.write_all(reply.as_deref().unwrap_or("+OK\r\n").as_bytes()).ok()?;
    }
}

fn number(input: &mut impl BufRead, kind: char) -> Option<usize> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(kind)?.parse().ok()
}
