//! The view `decisions`, as another program sees it, and the keys of closed segments.

use std::collections::BTreeMap;

use rusqlite::types::Value as Cell;
use serde_json::{Value, json};

use super::*;

/// The rows that a query gives, each by its columns.
fn query(settings: &Settings, sql: &str) -> Vec<BTreeMap<String, Cell>> {
    let connection = file::open_for_reading(&settings.path).unwrap();
    let mut statement = connection.prepare(sql).unwrap();
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let rows = statement.query_map([], |row| {
        names.iter().enumerate().map(|(at, name)| Ok((name.clone(), row.get(at)?))).collect()
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn text(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

#[test]
fn the_view_has_names_for_all_and_the_findings_as_json() {
    let (_folder, settings, history) = opened();
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(now_in_milliseconds());
    history.record(DecisionRecord { at, ..refusal(1, "spoof.test") });
    history.record(DecisionRecord { at, ..richest() });
    history.flush();
    let rows = query(&settings, "SELECT * FROM decisions ORDER BY seq");
    let [plain, rich] = rows.as_slice() else { panic!("{rows:#?}") };
    let time = humantime::format_rfc3339_millis(at).to_string();
    let expected = [
        ("time", text(&time)),
        ("id", text(Id::nth(1).as_str())),
        ("door", text("smtp")),
        ("queue", Cell::Null),
        ("tls", Cell::Null),
        ("verdict", text("reject")),
        ("outcome", Cell::Null),
        ("mode", text("enforce")),
        ("refused", Cell::Integer(1)),
        ("identity", text("mail_from")),
        ("rule", text("exists")),
        ("rung", Cell::Null),
        ("reason", text("no_mx")),
        ("domain", text("spoof.test")),
        ("client", text("192.0.2.7")),
        ("ptr", Cell::Null),
        ("helo", text("mail.example.test")),
        ("mail_from", text("<user@spoof.test>")),
        ("rcpt", text("user@here.test")),
        ("rcpts", Cell::Integer(0)),
        ("recipients", text("[\"user@here.test\"]")),
        ("header_from", Cell::Null),
        ("reply_to", Cell::Null),
        ("tags", Cell::Null),
        ("relay_reply", Cell::Null),
        ("duration", Cell::Real(0.004_321)),
        ("dns_queries", Cell::Integer(0)),
    ];
    for (name, value) in expected {
        assert_eq!(plain[name], value, "{name}");
    }
    assert_eq!(plain.len(), 29, "{plain:#?}");
    let expected = [
        ("door", text("policy")),
        ("queue", text("4jcGdd1D05z1VcKC")),
        ("tls", text("TLSv1.3")),
        ("verdict", text("defer")),
        ("outcome", text("relay_failed")),
        ("refused", Cell::Integer(0)),
        ("reason", text("greylisted")),
        ("client", text("2001:db8::7")),
        ("ptr", text("a.rich.test")),
        ("rcpts", Cell::Integer(300)),
        ("recipients", text("[\"user@here.test\",\"two@here.test\",\"Three@here.test\"]")),
        ("header_from", text("a@rich.test, b@rich.test")),
        ("relay_reply", text("421 4.3.2 bye")),
    ];
    for (name, value) in expected {
        assert_eq!(rich[name], value, "{name}");
    }
    let Cell::Text(findings) = &rich["findings"] else { panic!("{rich:#?}") };
    let findings: Value = serde_json::from_str(findings).unwrap();
    assert_eq!(findings.as_array().unwrap().len(), 5);
    let of = |identity: &str, result: &str, rung: Option<&str>, reason: Option<&str>, action: &str| {
        json!({
            "identity": identity, "rule": "exists", "result": result, "rung": rung, "reason": reason,
            "action": action, "domain": "rich.test",
        })
    };
    assert_eq!(findings[0], of("helo", "temperror", None, None, "reject"));
    assert_eq!(findings[2], of("mail_from", "fail", None, Some("not_an_exchanger"), "reject"));
    assert_eq!(findings[3], of("from", "pass", Some("dkim"), None, "dmarc"));
    assert_eq!(findings[4], of("reply_to", "none", None, None, "reject"));
}

fn now_in_milliseconds() -> u64 {
    encode::milliseconds(SystemTime::now())
}

/// A history of closed segments and an open one.
fn in_segments() -> (TempDir, Settings, History, u64) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { size: 16 << 20, ..settings(folder.path()) };
    let history = History::open(&settings).unwrap();
    let count = 19_500;
    for number in 0..count {
        let record = refusal(number, &format!("d{}.sub{}.test", number, number % 7));
        history.record(DecisionRecord {
            client: format!("192.{}.{}.{}", number / 62_500, number / 250 % 250, number % 250)
                .parse()
                .unwrap(),
            queue: format_compact!("Q{number}"),
            rcpt: format_compact!("user{number}@here.test"),
            recipients: vec![format_compact!("Other{}@here.test", number % 1000)],
            ..record
        });
        if number % 1000 == 0 {
            history.flush();
        }
    }
    history.flush();
    (folder, settings, history, count)
}

#[tokio::test]
async fn keys_find_what_a_scan_finds_in_closed_segments_and_in_the_open_one() {
    let (_folder, settings, history, count) = in_segments();
    let segments = query(&settings, "SELECT * FROM segments");
    assert!(segments.len() >= 2, "{segments:?}");
    assert!(query(&settings, "SELECT * FROM rows WHERE seq > (SELECT max(last) FROM segments)").len() > 100);
    history.record(DecisionRecord { queue: "Q1".into(), ..refusal(count, "d1.sub1.test") });
    for number in [0, 1, 8191, 9_000, 9_001, count - 1] {
        let rows: [(&str, String, usize); 8] = [
            ("queue", format!("Q{number}"), if number == 1 { 2 } else { 1 }),
            ("rcpt", format!("USER{number}@here.test"), 1),
            ("rcpt", format!("other{}@here.test", number % 1000), if number % 1000 < 500 { 20 } else { 19 }),
            ("client", format!("192.0.{}.{}", number / 250, number % 250), 1),
            ("client", format!("192.0.{}.0/24", number / 250), 250),
            ("domain", format!("d{number}.sub{}.test", number % 7), if number == 1 { 2 } else { 1 }),
            ("domain", format!("sub{}.test", number % 7), 2785),
            ("outcome", "delivered".to_owned(), 0),
        ];
        for (key, value, expected) in rows {
            let mut filter = Filter::default();
            filter.set(key, &value, SystemTime::now()).unwrap();
            let found = history.fold(filter, 0, |count, _| *count += 1).await.unwrap();
            // One of sub1.test is pending.
            let near = if expected == 2785 { 3 } else { 0 };
            assert!((expected..=expected + near).contains(&found), "{key} {value}: {found}");
        }
        assert_eq!(history.find(Id::nth(number)).await.unwrap().len(), 1, "{number}");
    }
    assert_eq!(history.find(Id::nth(count + 1)).await.unwrap(), []);
}

#[test]
fn searches_use_the_keys_and_the_positions() {
    let (_folder, settings, _history, _count) = in_segments();
    let connection = file::open_for_reading(&settings.path).unwrap();
    let plan = |sql: &str| -> Vec<String> {
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let count = statement.parameter_count();
        let values = vec![Cell::Integer(1); count];
        let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(3)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let keyed = plan(&read::keyed(" AND r.verdict = ?"));
    assert_eq!(keyed[0], "SCAN k VIRTUAL TABLE INDEX 1:", "{keyed:#?}");
    assert!(!keyed.iter().any(|step| step.contains("TEMP B-TREE")), "{keyed:#?}");
    let wanted = "SEARCH blocks USING PRIMARY KEY (segment=? AND kind=? AND key>? AND key<?)";
    let blocks = plan(segment::BLOCKS);
    assert!(blocks.iter().any(|step| step == wanted), "{blocks:#?}");
    let wanted = "SEARCH keys USING PRIMARY KEY (segment=? AND kind=? AND key>? AND key<?)";
    assert_eq!(plan(segment::KEYS), [wanted]);
    let rows = "SEARCH r USING INTEGER PRIMARY KEY (rowid=?)";
    assert!(keyed.iter().any(|step| step == rows), "{keyed:#?}");
    let scanning = plan(&read::scanning(" AND r.at >= ? AND r.verdict = ?"));
    assert_eq!(scanning, ["SEARCH r USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]);
    let since = plan("SELECT id, findings FROM decisions WHERE seq > ?1 AND verdict = 'reject'");
    assert_eq!(since[0], "SEARCH rows USING INTEGER PRIMARY KEY (rowid>?)", "{since:#?}");
}

#[test]
fn the_keys_of_removed_rows_are_removed() {
    let (_folder, settings, history, _count) = in_segments();
    history.set_limits(&Settings { size: 4 << 20, ..settings.clone() });
    (0..4).for_each(|_| history.flush());
    let lost = "SELECT count(*) AS lost FROM segments WHERE last < (SELECT min(seq) FROM rows)";
    assert_eq!(query(&settings, lost)[0]["lost"], Cell::Integer(0));
    let orphans = "SELECT count(*) AS lost FROM blocks WHERE segment NOT IN (SELECT segment FROM segments)";
    assert_eq!(query(&settings, orphans)[0]["lost"], Cell::Integer(0));
    let left = query(&settings, "SELECT segment, rows FROM segments");
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn the_view_of_another_version_is_replaced() {
    let (_folder, settings, history) = opened();
    history.record(refusal(1, "a.test"));
    close(history);
    let connection = Connection::open(&settings.path).unwrap();
    connection.execute_batch("DROP VIEW decisions; CREATE VIEW decisions AS SELECT 1 AS one").unwrap();
    drop(connection);
    let _history = History::open(&settings).unwrap();
    assert_eq!(query(&settings, "SELECT * FROM decisions")[0]["domain"], text("a.test"));
}

/// Makes the file one of version 1: a row for each key, and no blocks.
fn back_to_version_1(settings: &Settings) {
    let connection = Connection::open(&settings.path).unwrap();
    let sql = format!(
        "SELECT {}, segment FROM segments JOIN rows ON seq BETWEEN first AND last",
        kind::KEY_COLUMNS
    );
    let transaction = connection.unchecked_transaction().unwrap();
    let mut statement = connection.prepare(&sql).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (seq, segment): (i64, i64) = (row.get(0).unwrap(), row.get(8).unwrap());
        let insert = |kind: kind::Kind, text: &str| {
            let key = kind.key(text).unwrap();
            let values = rusqlite::params![segment, kind.code(), key.as_str(), seq];
            connection.execute("INSERT OR IGNORE INTO keys VALUES (?1, ?2, ?3, ?4)", values).unwrap();
        };
        kind::key_texts(row, insert).unwrap();
    }
    drop(rows);
    drop(statement);
    transaction.commit().unwrap();
    connection.execute_batch("DROP TABLE blocks; PRAGMA user_version = 1").unwrap();
}

#[test]
fn a_file_of_version_1_is_read_and_goes_on_as_one_of_this_version() {
    let (_folder, settings, history, count) = in_segments();
    close(history);
    let of_queue = |number: u64| {
        let mut filter = Filter::default();
        filter.set("queue", &format!("Q{number}"), SystemTime::now()).unwrap();
        archive(&settings).search(&filter, None, 10).unwrap().records.len()
    };
    let version = || query(&settings, "PRAGMA user_version")[0]["user_version"].clone();
    back_to_version_1(&settings);
    // As `rmxd history` reads it before a daemon of this version has opened it.
    assert_eq!((version(), of_queue(9_000), of_queue(count - 1)), (Cell::Integer(1), 1, 1));
    let keys = query(&settings, "SELECT count(*) AS keys FROM keys")[0]["keys"].clone();
    let history = History::open(&Settings { size: 24 << 20, ..settings.clone() }).unwrap();
    for number in count..count + 11_500 {
        history
            .record(DecisionRecord { queue: format_compact!("Q{number}"), ..refusal(number, "later.test") });
    }
    history.flush();
    assert_eq!(version(), Cell::Integer(2));
    for number in [1, 8_191, 9_000, count - 1, count, count + 11_499] {
        assert_eq!(of_queue(number), 1, "{number}");
        assert_eq!(archive(&settings).find(Id::nth(number)).unwrap().len(), 1, "{number}");
    }
    assert_eq!(query(&settings, "SELECT count(*) AS keys FROM keys")[0]["keys"], keys);
    assert!(query(&settings, "SELECT * FROM blocks WHERE kind = 1").len() > 10);
}
