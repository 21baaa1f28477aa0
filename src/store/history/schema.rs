//! The tables of the database, and the view `decisions`, which is documented in `src/admin/README.md` for the readers of other
//! programs.
//!
//! Enums are stored as their codes; the view has their names. A later version may add columns and views; where the meaning of
//! a column changes, [`VERSION`] does too.

use std::fmt::Write as _;

use rusqlite::{Connection, OptionalExtension as _};

use crate::policy::decide::Verdict;
use crate::policy::door::DoorName;
use crate::policy::identity::Identity;
use crate::policy::outcome::Outcome;
use crate::policy::reason::Reason;
use crate::policy::rule::{Action, Mode, Rule, Rung};
use crate::store::history::codes::Coded;
use crate::store::history::encode::tag;

/// `PRAGMA application_id`: "rmxd".
pub(super) const APPLICATION: i32 = 0x726d_7864;
/// `PRAGMA user_version`.
pub(super) const VERSION: i32 = 2;
/// The oldest version that is read, and taken over when it is opened for writing.
pub(super) const OLDEST: i32 = 1;

/// Octets of a page.
pub(super) const PAGE: u32 = 8192;

const TABLES: &str = "
CREATE TABLE rows (
    seq INTEGER PRIMARY KEY,
    at INTEGER NOT NULL,
    verdict INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    door INTEGER NOT NULL,
    outcome INTEGER,
    identity INTEGER,
    rule INTEGER,
    rung INTEGER,
    reason INTEGER,
    rcpts INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    dns_queries INTEGER NOT NULL,
    id TEXT,
    queue TEXT,
    tls TEXT,
    client TEXT NOT NULL,
    domain TEXT,
    domains TEXT,
    rcpt TEXT,
    recipients TEXT,
    tags TEXT,
    ptr TEXT,
    helo TEXT,
    mail_from TEXT,
    header_from TEXT,
    reply_to TEXT,
    relay_reply TEXT,
    findings TEXT NOT NULL,
    record BLOB NOT NULL
);
CREATE TABLE segments (
    segment INTEGER PRIMARY KEY,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    earliest INTEGER NOT NULL,
    latest INTEGER NOT NULL,
    rows INTEGER NOT NULL
);
CREATE TABLE keys (
    segment INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (segment, kind, key, seq)
) WITHOUT ROWID;
CREATE TABLE taken_over (file INTEGER PRIMARY KEY);
";

/// The keys of the segments that were closed since version 2; `keys` has those of version 1.
const BLOCKS: &str = "
CREATE TABLE blocks (
    segment INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    key TEXT NOT NULL,
    keys BLOB NOT NULL,
    PRIMARY KEY (segment, kind, key)
) WITHOUT ROWID;
";

/// Makes the tables of a new database.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(BLOCKS)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Makes the tables of version 1 those of this version; the rows stay as they are.
pub(super) fn take_over(connection: &Connection) -> rusqlite::Result<()> {
    let transaction = connection.unchecked_transaction()?;
    transaction.execute_batch(BLOCKS)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}

/// Makes the view, or makes it anew where that of another version differs.
pub(super) fn refresh_view(connection: &Connection) -> rusqlite::Result<()> {
    let known: Option<String> = connection
        .query_row("SELECT sql FROM sqlite_schema WHERE type = 'view' AND name = 'decisions'", [], |row| {
            row.get(0)
        })
        .optional()?;
    let wanted = view();
    if known.as_ref() != Some(&wanted) {
        let transaction = connection.unchecked_transaction()?;
        transaction.execute_batch("DROP VIEW IF EXISTS decisions")?;
        transaction.execute_batch(&wanted)?;
        transaction.commit()?;
    }
    Ok(())
}

fn view() -> String {
    let verdict = names("verdict", Verdict::TABLE, Verdict::name);
    let mode = names("mode", Mode::TABLE, Mode::name);
    let door = names("door", DoorName::TABLE, DoorName::name);
    let outcome = names("outcome", Outcome::TABLE, Outcome::name);
    let identity = names("identity", Identity::TABLE, Identity::name);
    let rule = names("rule", Rule::TABLE, Rule::name);
    let rung = names("rung", Rung::TABLE, Rung::name);
    let reason = names("reason", Reason::TABLE, Reason::name);
    let refused = format!("verdict <> {} AND mode = {}", Verdict::Accept.code(), Mode::Enforce.code());
    let findings = findings();
    format!(
        "CREATE VIEW decisions AS SELECT seq, strftime('%Y-%m-%dT%H:%M:%fZ', at / 1000.0, 'unixepoch') AS time, \
         id, {door} AS door, queue, tls, {verdict} AS verdict, {outcome} AS outcome, {mode} AS mode, \
         {refused} AS refused, {identity} AS identity, {rule} AS rule, {rung} AS rung, {reason} AS reason, \
         domain, client, ptr, helo, mail_from, rcpt, rcpts, \
         coalesce(recipients, CASE WHEN rcpt IS NULL THEN json_array() ELSE json_array(rcpt) END) AS recipients, \
         header_from, reply_to, tags, relay_reply, duration / 1000000.0 AS duration, dns_queries, \
         {findings} AS findings FROM rows"
    )
}

/// The findings as an array of objects.
fn findings() -> String {
    let at = |place: usize| format!("json_extract(value, '$[{place}]')");
    let identity = names(&at(0), Identity::TABLE, Identity::name);
    let rule = names(&at(1), Rule::TABLE, Rule::name);
    let (result, detail) = (at(2), at(3));
    let rung = names(&detail, Rung::TABLE, Rung::name);
    let reason = names(&detail, Reason::TABLE, Reason::name);
    let (pass, fail, temperror) = (tag::PASS, tag::FAIL, tag::TEMPERROR);
    let action = names(&at(4), Action::TABLE, Action::name);
    let domain = at(5);
    format!(
        "(SELECT json_group_array(json_object('identity', {identity}, 'rule', {rule}, 'result', \
         CASE {result} WHEN {pass} THEN 'pass' WHEN {fail} THEN 'fail' WHEN {temperror} THEN 'temperror' ELSE 'none' END, \
         'rung', CASE {result} WHEN {pass} THEN {rung} END, 'reason', CASE {result} WHEN {fail} THEN {reason} END, \
         'action', {action}, 'domain', {domain})) FROM json_each(findings))"
    )
}

/// An expression that gives the name for the code in a column.
fn names<T: Coded>(column: &str, table: &[T], name: fn(T) -> &'static str) -> String {
    let mut text = format!("CASE {column}");
    for variant in table {
        // Writing to a string can't fail.
        write!(text, " WHEN {} THEN '{}'", variant.code(), name(*variant)).ok();
    }
    text + " END"
}
