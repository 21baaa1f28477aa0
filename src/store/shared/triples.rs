//! The shared greylist: what the other nodes know of a triple, by one script on the server's clock.
//!
//! A value is `W` and the milliseconds of the first attempt, or `P`; anything else counts as absent. What comes back is a
//! [`Relief`], which can only shorten a wait: nothing that Redis holds makes a refusal (contract 8, promise a).

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{Cmd, Script, Value};
use tokio::time::Instant;

use crate::metrics::ClusterOp;
use crate::store::shared::failure::Failure;
use crate::store::shared::keys::Keys;
use crate::store::shared::link::Link;

/// Of new triples, of early retries and of passed ones, each: so many of one node go to Redis in a second. A flood of
/// invented triples fills no memory that all nodes share, and a flood of retries takes no time that all share.
pub(super) const PER_SECOND: u64 = 200;

/// KEYS: the triple. ARGV: delay, expire, how long ago this node saw its first attempt; all in milliseconds.
/// Returns `P`, `W` with the rest in milliseconds, `N` for a new one, or `?` for a value that isn't one; behind it the error
/// of a write. A longer value isn't read.
const CHECK: &str = r"
local value = redis.call('GETRANGE', KEYS[1], 0, 20)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local delay, expire, age = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local function write(new)
  local done = redis.pcall('SET', KEYS[1], new, 'PX', expire)
  if type(done) == 'table' and done.err then return done.err end
  return ''
end
if value == '' then
  return {'N', 0, write('W' .. string.format('%.0f', now - age))}
end
if value == 'P' then
  return {'P', 0, write('P')}
end
local since = tonumber(string.match(value, '^W(%d+)$'))
if not since or #value > 20 then
  return {'?', 0, ''}
end
local rest = since + delay - now
if rest > 0 then
  return {'W', string.format('%.0f', rest), ''}
end
return {'P', 0, write('P')}
";

/// What the other nodes know in favour of a sender. Without it a node does as it would alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relief(Known);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It has passed somewhere, or its delay is over.
    Passes,
    /// It waits for so long at most.
    Waits(Duration),
}

impl Relief {
    /// The wait that is left of one that this node asks for; `None` = it passes. Never longer.
    #[must_use]
    pub fn shorten(self, wait: Duration) -> Option<Duration> {
        match self.0 {
            Known::Passes => None,
            Known::Waits(rest) => Some(rest.min(wait)).filter(|rest| !rest.is_zero()),
        }
    }
}

/// A triple as Redis has it, and the times of this node.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    pub hash: &'a [u8; 16],
    pub delay: Duration,
    pub expire: Duration,
    /// How long ago this node saw its first attempt; zero for a new one.
    pub age: Duration,
}

/// Asks about a triple that waits here, up to this time. `None` = as alone.
pub(super) async fn check(link: &Link, keys: &Keys, asked: Question<'_>, end: Instant) -> Option<Relief> {
    let key = keys.triple(asked.hash);
    let answer = match ask(link, &key, &asked, end).await {
        Ok(value) => read(&value),
        Err(Failure::Away) => {
            link.metrics().cluster_dropped(ClusterOp::Greylist);
            return None;
        }
        // Of another type.
        Err(Failure::Refused(_)) => None,
        Err(_logged) => return None,
    };
    let Some(Answer { known, written, error }) = answer else {
        link.note_nonsense(ClusterOp::Greylist, &key);
        return None;
    };
    if written {
        let error = (!error.is_empty()).then(|| Failure::of_script(&error));
        link.note_write(ClusterOp::Greylist, error.as_ref());
    }
    known.map(Relief)
}

async fn ask(link: &Link, key: &str, asked: &Question<'_>, end: Instant) -> Result<Value, Failure> {
    match link.ask_until(end, ClusterOp::Greylist, &call("EVALSHA", &HASH, key, asked)).await {
        // Only the first question after a start of Redis.
        Err(Failure::NoScript) => {
            link.ask_until(end, ClusterOp::Greylist, &call("EVAL", CHECK, key, asked)).await
        }
        other => other,
    }
}

/// What Redis refuses of that.
pub(super) async fn try_rights(link: &Link, keys: &Keys, asked: Question<'_>) -> Option<Failure> {
    match ask(link, &keys.triple(asked.hash), &asked, link.deadline()).await {
        Ok(value) => {
            let error = read(&value).map(|answer| answer.error).filter(|error| !error.is_empty())?;
            Some(Failure::of_script(&error))
        }
        Err(failure) => Some(failure),
    }
}

/// Says that a triple has passed here.
pub(super) async fn passed(link: &Link, keys: &Keys, hash: &[u8; 16], expire: Duration) {
    let key = keys.triple(hash);
    let mut set = redis::cmd("SET");
    set.arg(&key).arg("P").arg("PX").arg(milliseconds(expire));
    let answer = link.ask(ClusterOp::Greylist, &set).await;
    link.note_write(ClusterOp::Greylist, answer.as_ref().err());
}

static HASH: LazyLock<String> = LazyLock::new(|| Script::new(CHECK).get_hash().to_owned());

fn call(how: &str, script: &str, key: &str, Question { delay, expire, age, .. }: &Question<'_>) -> Cmd {
    let mut command = redis::cmd(how);
    command.arg(script).arg(1).arg(key);
    command.arg(milliseconds(*delay)).arg(milliseconds(*expire).max(1)).arg(milliseconds(*age));
    command
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX >> 16)
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    known: Option<Known>,
    /// The script tried to write.
    written: bool,
    error: String,
}

/// `None` for what the script never returns, and for a value that isn't one.
fn read(value: &Value) -> Option<Answer> {
    let Value::Array(parts) = value else { return None };
    let [kind, rest, error] = parts.as_slice() else { return None };
    let (kind, error) = (text(kind)?, text(error)?);
    let known = match kind {
        "N" => None,
        "P" => Some(Known::Passes),
        "W" => Some(Known::Waits(Duration::from_millis(text(rest)?.parse().ok()?))),
        _ => return None,
    };
    Some(Answer { known, written: kind != "W", error: error.to_owned() })
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(octets) => std::str::from_utf8(octets).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

/// At most so many triples of one kind in each second.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// The second in the upper bits, and the count in it.
    state: AtomicU64,
}

const COUNT_BITS: u32 = 16;

impl Share {
    /// Whether one more may go to Redis in this second.
    pub(super) fn admit(&self, second: u64) -> bool {
        let next = |state: u64| {
            let (then, count) = (state >> COUNT_BITS, state & ((1 << COUNT_BITS) - 1));
            let count = if then == second { count } else { 0 };
            (count < PER_SECOND).then_some(second << COUNT_BITS | (count + 1))
        };
        self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(parts: &[&str]) -> Value {
        Value::Array(parts.iter().map(|part| Value::BulkString(part.as_bytes().to_vec())).collect())
    }

    #[test]
    fn whatever_comes_back_only_shortens_a_wait() {
        let wait = Duration::from_secs(60);
        let answers = [
            array(&["P", "0", ""]),
            array(&["W", "1000", ""]),
            array(&["W", "99999999999999", ""]),
            array(&["W", "0", ""]),
            array(&["N", "0", ""]),
            array(&["?", "0", ""]),
            array(&["W", "-1", ""]),
            array(&["reject", "550", ""]),
            array(&["P"]),
            array(&[]),
            Value::Nil,
            Value::Int(550),
            Value::BulkString(vec![0xff; 9]),
            Value::Array(vec![Value::Array(Vec::new()); 3]),
        ];
        let mut waits = Vec::new();
        for answer in &answers {
            let relief = read(answer).and_then(|answer| answer.known).map(Relief);
            let left = relief.map_or(Some(wait), |relief| relief.shorten(wait));
            assert!(left.is_none_or(|left| left <= wait), "{answer:?}: {left:?}");
            waits.push(left.map(|left| left.as_secs()));
        }
        assert_eq!(waits[..5], [None, Some(1), Some(60), None, Some(60)]);
        assert!(waits[5..].iter().all(|left| *left == Some(60)), "{waits:?}");
    }

    #[test]
    fn a_second_has_its_share_of_triples() {
        let share = Share::default();
        let admitted = |second| (0..1000).filter(|_| share.admit(second)).count();
        assert_eq!([admitted(7), admitted(7), admitted(8)], [200, 0, 200]);
    }
}
