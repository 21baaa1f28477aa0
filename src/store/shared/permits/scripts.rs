//! The permits of the fleet in Redis: a hash of sealed permits, and a number that each change raises. All is read and written
//! by scripts, which look at lengths before they read: somebody may have written huge names and values, and many of them.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Cmd, Script, Value};

use crate::metrics::ClusterOp;
use crate::store::permits::LONGEST_TEXT;
use crate::store::shared::failure::Failure;
use crate::store::shared::keys::{FIELD, Keys, SEAL};
use crate::store::shared::link::Link;

/// Fields that are read: all permits and removals that there can be, and those that are over.
const MOST_FIELDS: usize = 32_768;
/// Octets of a value that is read.
const LONGEST_VALUE: usize = LONGEST_TEXT + SEAL;
/// Octets of the number that are read.
const LONGEST_NUMBER: usize = 31;
/// How long the hash stays without a gate, in milliseconds: each of them has all of it.
const TTL: u64 = 24 * 3600 * 1000;
/// Of what is only tried.
const MOMENT: &str = "1000";

/// KEYS: the hash, the number. ARGV: how many fields, the octets of a name, milliseconds to live.
/// Returns the number, the server's time in seconds and microseconds, how many fields there are (`-1`: it is no hash), and the
/// names of this length behind each other; those of another length aren't a permit's. Both keys live on.
const NAMES: &str = r"
local number = redis.pcall('GETRANGE', KEYS[2], 0, 31)
if type(number) ~= 'string' then number = '' end
local time = redis.call('TIME')
local count = redis.pcall('HLEN', KEYS[1])
if type(count) ~= 'number' then
  if type(count) == 'table' and count.err and string.find(count.err, 'WRONGTYPE', 1, true) then
    return {number, time[1], time[2], -1, ''}
  end
  return count
end
if count > tonumber(ARGV[1]) then
  return {number, time[1], time[2], count, ''}
end
local names = {}
local length = tonumber(ARGV[2])
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if #name == length then names[#names + 1] = name end
end
redis.pcall('PEXPIRE', KEYS[1], ARGV[3])
redis.pcall('PEXPIRE', KEYS[2], ARGV[3])
return {number, time[1], time[2], count, table.concat(names)}
";

/// KEYS: the hash. ARGV: the octets of a value, then names. Returns their values, an empty one where it is longer.
const VALUES: &str = r"
local values = {}
local longest = tonumber(ARGV[1])
for place = 2, #ARGV do
  if redis.call('HSTRLEN', KEYS[1], ARGV[place]) > longest then
    values[place - 1] = ''
  else
    values[place - 1] = redis.call('HGET', KEYS[1], ARGV[place])
  end
end
return values
";

/// KEYS: the hash, the number. ARGV: milliseconds to live, then names and values in turn.
/// Returns the number before and after it. A hash that is none is removed.
const WRITE: &str = r"
local function failed(done) return type(done) == 'table' and done.err end
local function put() return redis.pcall('HSET', KEYS[1], unpack(ARGV, 2)) end
local done = put()
if failed(done) and string.find(done.err, 'WRONGTYPE', 1, true) then
  redis.pcall('UNLINK', KEYS[1])
  done = put()
end
if not failed(done) then done = redis.pcall('PEXPIRE', KEYS[1], ARGV[1]) end
if failed(done) then return done end
local before = redis.pcall('GETRANGE', KEYS[2], 0, 31)
if type(before) ~= 'string' then before = '' end
local number = string.match(before, '^%d+$') and #before < 16 and tonumber(before)
if not number then
  local time = redis.call('TIME')
  number = time[1] * 1000 + math.floor(time[2] / 1000)
end
local after = string.format('%.0f', number + 1)
done = redis.pcall('SET', KEYS[2], after, 'PX', ARGV[1])
if failed(done) then return done end
return {before, after}
";

/// KEYS: the hash. ARGV: the octets of a name. Removes fields with other names.
const SWEEP: &str = r"
local length = tonumber(ARGV[1])
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if #name ~= length then redis.call('HDEL', KEYS[1], name) end
end
return 0
";

static HASHES: LazyLock<[(&str, String); 4]> = LazyLock::new(|| {
    [NAMES, VALUES, WRITE, SWEEP].map(|script| (script, Script::new(script).get_hash().to_owned()))
});

/// The name of a field.
pub(super) type Field = [u8; FIELD];

/// What is in the hash.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) number: Vec<u8>,
    /// By the server's clock.
    pub(super) time: SystemTime,
    /// `None`: it is no hash, or has more fields than it can have.
    pub(super) fields: Option<Vec<Field>>,
    /// There are names of another length.
    pub(super) odd: bool,
}

/// The two keys.
#[derive(Debug)]
pub(super) struct Place {
    hash: String,
    number: String,
}

impl Place {
    pub(super) fn of(keys: &Keys) -> Self {
        Self { hash: keys.permits(), number: keys.permits_number() }
    }

    /// The number of the last change; empty without one.
    pub(super) async fn number(&self, link: &Link) -> Result<Vec<u8>, Failure> {
        let mut get = redis::cmd("GETRANGE");
        get.arg(&self.number).arg(0).arg(LONGEST_NUMBER);
        match link.ask(ClusterOp::Permits, &get).await {
            Ok(Value::BulkString(number)) => Ok(number),
            // Of another type: the next change replaces it.
            Ok(_) | Err(Failure::Refused(_)) => Ok(Vec::new()),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn names(&self, link: &Link) -> Result<Names, Failure> {
        let keys = [&self.hash, &self.number];
        let answer = call(link, NAMES, &keys, |script| {
            script.arg(MOST_FIELDS).arg(FIELD).arg(TTL);
        });
        names(&answer.await?).ok_or_else(strange)
    }

    /// The values of these fields: `None` for one that is gone, empty for one that is too long.
    pub(super) async fn values(
        &self,
        link: &Link,
        fields: &[Field],
    ) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let keys = [&self.hash];
        let answer = call(link, VALUES, &keys, |script| {
            script.arg(LONGEST_VALUE);
            for field in fields {
                script.arg(field.as_slice());
            }
        });
        let Value::Array(values) = answer.await? else { return Err(strange()) };
        let values = values.into_iter().map(|value| match value {
            Value::BulkString(octets) => Ok(Some(octets)),
            Value::Nil => Ok(None),
            _ => Err(strange()),
        });
        values.collect()
    }

    /// Writes these fields; the number before and after it.
    pub(super) async fn write(
        &self,
        link: &Link,
        fields: &[(Field, Vec<u8>)],
    ) -> Result<(Vec<u8>, Vec<u8>), Failure> {
        let keys = [&self.hash, &self.number];
        let answer = call(link, WRITE, &keys, |script| {
            script.arg(TTL);
            for (field, value) in fields {
                script.arg(field.as_slice()).arg(value.as_slice());
            }
        });
        let answer = answer.await;
        link.note_write(ClusterOp::Permits, answer.as_ref().err());
        written(&answer?).ok_or_else(strange)
    }

    /// Removes these fields.
    pub(super) async fn remove(&self, link: &Link, fields: &[Field]) -> Result<(), Failure> {
        let mut remove = redis::cmd("HDEL");
        remove.arg(&self.hash);
        for field in fields {
            remove.arg(field.as_slice());
        }
        link.ask(ClusterOp::Permits, &remove).await.map(drop)
    }

    /// Removes fields whose names can't be those of permits.
    pub(super) async fn sweep(&self, link: &Link) -> Result<(), Failure> {
        let length = |script: &mut Cmd| {
            script.arg(FIELD);
        };
        call(link, SWEEP, &[&self.hash], length).await.map(drop)
    }

    /// Removes all.
    pub(super) async fn clear(&self, link: &Link) -> Result<(), Failure> {
        link.ask(ClusterOp::Permits, redis::cmd("UNLINK").arg(&self.hash).arg(&self.number)).await.map(drop)
    }
}

/// What Redis refuses of all that: each command by itself, since a script's error doesn't name it. Gone at once.
pub(in crate::store::shared) async fn try_rights(link: &Link, keys: &Keys) -> Result<(), Failure> {
    let hash = format!("{}:{}", keys.permits(), rand::random::<u64>());
    let commands: [(&str, &[&str]); 8] = [
        ("HSET", &["0", ""]),
        ("PEXPIRE", &[MOMENT]),
        ("HLEN", &[]),
        ("HKEYS", &[]),
        ("HSTRLEN", &["0"]),
        ("HGET", &["0"]),
        ("HDEL", &["0"]),
        ("UNLINK", &[]),
    ];
    for (name, arguments) in commands {
        let mut command = redis::cmd(name);
        command.arg(&hash).arg(arguments);
        link.ask(ClusterOp::Permits, &command).await?;
    }
    Ok(())
}

/// Runs a script as one question.
async fn call(
    link: &Link,
    script: &'static str,
    keys: &[&String],
    arguments: impl Fn(&mut Cmd),
) -> Result<Value, Failure> {
    let command = |how: &str, script: &str| {
        let mut command = redis::cmd(how);
        command.arg(script).arg(keys.len()).arg(keys);
        arguments(&mut command);
        command
    };
    let end = link.deadline();
    let hash = HASHES.iter().find(|(text, _)| *text == script).map_or("", |(_, hash)| hash);
    match link.ask_until(end, ClusterOp::Permits, &command("EVALSHA", hash)).await {
        // Only the first question after a start of Redis.
        Err(Failure::NoScript) => link.ask_until(end, ClusterOp::Permits, &command("EVAL", script)).await,
        other => other,
    }
}

pub(super) fn names(answer: &Value) -> Option<Names> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(number), seconds, micros, Value::Int(count), Value::BulkString(names)] =
        parts.as_slice()
    else {
        return None;
    };
    let (seconds, micros): (u64, u64) = (decimal(seconds)?, decimal(micros)?);
    let time = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?;
    let time = UNIX_EPOCH.checked_add(time)?;
    let fields = usize::try_from(*count).ok().filter(|count| *count <= MOST_FIELDS).map(|_| {
        let (fields, _rest) = names.as_chunks::<FIELD>();
        fields.to_vec()
    });
    let odd =
        fields.as_ref().is_some_and(|fields| i64::try_from(fields.len()).is_ok_and(|fields| fields < *count));
    Some(Names { number: number.clone(), time, fields, odd })
}

pub(super) fn written(answer: &Value) -> Option<(Vec<u8>, Vec<u8>)> {
    let Value::Array(parts) = answer else { return None };
    let [Value::BulkString(before), Value::BulkString(after)] = parts.as_slice() else { return None };
    Some((before.clone(), after.clone()))
}

fn decimal(value: &Value) -> Option<u64> {
    let Value::BulkString(octets) = value else { return None };
    std::str::from_utf8(octets).ok()?.parse().ok()
}

fn strange() -> Failure {
    Failure::Refused("an answer that the script never gives".to_owned())
}
