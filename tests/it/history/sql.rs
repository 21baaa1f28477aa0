//! The history as other programs read it: the recipes of the documentation, beside a running daemon.

use std::net::{IpAddr, Ipv4Addr};

use rusqlite::{Connection, OpenFlags};

use super::{id, run, send, start};
use crate::support::client::Client;
use crate::support::process::{SOON, eventually, free_address};
use crate::support::zone::Zone;

const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12));
const DOCUMENT: &str = include_str!("../../../src/admin/README.md");

/// The queries of the document, each on one line.
fn recipes() -> Vec<String> {
    let lines = DOCUMENT.replace("\n  ", " ");
    let commands = lines.lines().filter(|line| line.starts_with("sqlite3 -readonly "));
    commands.map(|line| line.split('"').nth(1).unwrap().to_owned()).collect()
}

/// The columns that the document describes.
fn described() -> Vec<String> {
    let table = DOCUMENT.split("| column | what it has |\n| --- | --- |\n").nth(1).unwrap();
    let rows = table.lines().take_while(|line| line.starts_with("| "));
    let names = rows.map(|row| row.split('|').nth(1).unwrap());
    names.flat_map(|names| names.split(',')).map(|name| name.trim().trim_matches('`').to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipes_of_the_document_work_beside_a_daemon_and_its_columns_are_those_of_the_view() {
    let (zone, address) = (Zone::start(), free_address());
    let daemon = start(zone.address(), address, "").await;
    let refused = send(STRANGER, address, "a@nomx.test", "a@nomx.test").await;
    let mut client = Client::greeted(EXCHANGER, address, "mail.good.test").await;
    for line in ["MAIL FROM:<a@good.test>", "RCPT TO:<one@here.test>", "RCPT TO:<two@here.test>", "DATA"] {
        client.command(line).await;
    }
    client.send(b"From: a@good.test\r\n\r\nx\r\n.\r\n").await;
    assert_eq!(client.reply().await.code, 250);
    // waits until it is written
    assert_eq!(run(daemon.home(), &format!("explain {}", id(&refused))).code, Some(0));
    let found = || {
        let found = run(daemon.home(), "history --json --rcpt TWO@here.test").json();
        (found != serde_json::json!([])).then_some(found)
    };
    let delivered = eventually("the decision in the history", SOON, found).await;
    assert_eq!(delivered[0]["recipients"], serde_json::json!(["one@here.test", "two@here.test"]));
    let explained = run(daemon.home(), &format!("explain {}", delivered[0]["id"].as_str().unwrap()));
    assert!(
        explained.out.contains("\nrcpt:      one@here.test\nrcpt:      two@here.test\n"),
        "{}",
        explained.out
    );

    let path = daemon.home().path().join("decisions");
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let recipes = recipes();
    assert!(recipes.len() >= 2, "{recipes:?}");
    for recipe in &recipes {
        let mut statement = connection.prepare(recipe).unwrap_or_else(|error| panic!("{recipe}: {error}"));
        statement.query_map([], |_row| Ok(())).unwrap().for_each(Result::unwrap);
    }
    let count: (String, u32) =
        connection.query_row(&recipes[0], [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(count, ("no_mx".to_owned(), 1));
    let statement = connection.prepare("SELECT * FROM decisions").unwrap();
    let mut columns: Vec<String> = statement.column_names().map(str::to_owned).collect();
    columns.sort_unstable();
    let mut described = described();
    described.sort_unstable();
    assert_eq!(columns, described);
}
