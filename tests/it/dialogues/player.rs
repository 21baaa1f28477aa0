//! Plays one script; see `dialogues.rs` for its lines.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::client::Client;
use crate::support::log::Log;
use crate::support::relay::Relay;
use crate::support::{self, pattern};

/// For anything that is expected; far more than it takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// What may be under way between the client and rmxd.
const PIPE: usize = 1 << 20;

struct Player {
    relay: Relay,
    client: Client<DuplexStream>,
    log: Log,
    found: pattern::Found,
    /// `R< ...` was the last line about the relay.
    pass_over: bool,
}

/// Plays a script; the error begins with the number of the line.
pub(super) async fn play(script: &str, dns: SocketAddr) -> Result<(), String> {
    let relay = Relay::start().await;
    let of =
        |sign: &'static str| script.lines().filter_map(move |line| line.strip_prefix(sign)).map(str::trim);
    let next_hop = format!("relay.next_hop=smtp://{}", relay.address);
    let settings = support::settings(of("=").chain([next_hop.as_str()]));
    let client = SocketAddr::new(of("@").next().unwrap_or("127.0.0.10").parse().unwrap(), 40_000);
    let door = support::door(&settings, dns);

    let (near, far) = tokio::io::duplex(PIPE);
    let log = Log::default();
    let guard = log.start();
    let served = async move { door.serve(far, client, CancellationToken::new()).await };
    let mut player =
        Player { relay, client: Client::over(near), log, found: pattern::Found::new(), pass_over: false };
    let played = async {
        let result = player.lines(script).await;
        player.leave().await; // so that rmxd ends too
        (player, result)
    };
    // one task: the log is the thread's
    let ((), (player, result)) = tokio::join!(served, played);
    drop(guard);
    result.map_err(|what| format!("{what}\n    log: {}", player.log.text().replace('\n', "\n         ")))
}

impl Player {
    async fn lines(&mut self, script: &str) -> Result<(), String> {
        for (at, line) in script.lines().enumerate() {
            let done = timeout(PATIENCE, self.line(line)).await;
            done.unwrap_or_else(|_elapsed| Err("nothing came".to_owned()))
                .map_err(|what| format!("{}: {what}", at + 1))?;
        }
        timeout(PATIENCE, self.end())
            .await
            .unwrap_or_else(|_elapsed| Err("no end".to_owned()))
            .map_err(|what| format!("at the end: {what}"))
    }

    async fn line(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with(['#', '=', '@']) {
            return Ok(());
        }
        let (sign, text) = line.split_once(' ').unwrap_or((line, ""));
        match (sign, text) {
            ("R:", rule) => {
                let (line, reply) = rule.split_once(" => ").ok_or("no => in a rule")?;
                self.relay.rules.lock().unwrap().push((line.to_owned(), unescape(reply)));
            }
            ("R<", "...") => self.pass_over = true,
            ("R<", expected) => return self.relay_gets(expected).await,
            ("S:", "...") => while self.reads().await?.as_bytes().get(3) == Some(&b'-') {},
            ("S:", expected) => {
                let line = self.reads().await?;
                if !pattern::matches(&unescape(expected), &line, &mut self.found) {
                    return Err(format!("expected {expected}, got {line}"));
                }
            }
            ("L:", fields) => return self.log.has(fields, &self.found),
            ("C:", "(gone)") => {
                self.leave().await;
            }
            ("C|", text) => return self.sends(&unescape(text)).await,
            ("C:", text) => return self.sends(&(unescape(text) + "\r\n")).await,
            _ => {
                let times = sign.strip_prefix("C*").and_then(|rest| rest.strip_suffix(':'));
                let times: usize =
                    times.and_then(|times| times.parse().ok()).ok_or("not a line of a script")?;
                return self.sends(&(unescape(text) + "\r\n").repeat(times)).await;
            }
        }
        Ok(())
    }

    /// Octets 80 to FF are characters of the script; it has no others beyond ASCII.
    async fn sends(&mut self, text: &str) -> Result<(), String> {
        let octets: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        self.client.try_send(octets).await.map_err(|error| error.to_string())
    }

    async fn leave(&mut self) {
        self.client.shut_down().await.ok();
    }

    async fn reads(&mut self) -> Result<String, String> {
        match self.client.line().await {
            Ok(line) => String::from_utf8(line).map_err(|error| error.to_string()),
            Err(so_far) if so_far.is_empty() => Ok("(close)".to_owned()),
            Err(so_far) => Err(format!("no CRLF: {}", so_far.escape_ascii())),
        }
    }

    async fn relay_gets(&mut self, expected: &str) -> Result<(), String> {
        let mut passed = Vec::new();
        loop {
            let next = timeout(PATIENCE / 2, self.relay.seen.recv()).await.ok().flatten();
            let Some(next) = next else {
                return Err(format!("the relay got no {expected}, but {passed:?}"));
            };
            if pattern::matches(expected, &next, &mut self.found) {
                self.pass_over = false;
                return Ok(());
            }
            if !self.pass_over {
                return Err(format!("the relay got {next}, not {expected}"));
            }
            passed.push(next);
        }
    }

    /// Nothing else comes.
    async fn end(&mut self) -> Result<(), String> {
        self.leave().await;
        match self.reads().await?.as_str() {
            "(close)" => {}
            more => return Err(format!("rmxd also said {more}")),
        }
        // what the relay has still to read comes after our end
        while self.pass_over {
            match timeout(Duration::from_millis(20), self.relay.seen.recv()).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return Ok(()),
            }
        }
        match timeout(Duration::from_millis(20), self.relay.seen.recv()).await {
            Ok(Some(more)) => Err(format!("the relay also got {more}")),
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// `\r \n \t \0 \\ \xNN`.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        out.push(match (character, character == '\\') {
            (_, false) => character,
            (_, true) => match rest.next() {
                Some('r') => '\r',
                Some('n') => '\n',
                Some('t') => '\t',
                Some('0') => '\0',
                Some('x') => {
                    let digits: String = rest.by_ref().take(2).collect();
                    char::from(u8::from_str_radix(&digits, 16).unwrap())
                }
                Some(other) => other,
                None => panic!("a backslash at the end of {text}"),
            },
        });
    }
    out
}
