//! `rmxd config check` and `rmxd config show`.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use crate::cli::readable::{self, Wanted};
use crate::config::{DRAIN, Entry, Loaded, Row, Settings, Value};
use crate::console::{ConfigSource, Exit, print};
use crate::daemon::relay_addresses;
use crate::net::OwnListener;
use crate::tls::Acceptor;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Validate the configuration: print "ok" with remarks, or one line for each problem with exit code 78.
    Check(Check),
    /// Print every key with its effective value and the origin of the value.
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Check {
    #[command(flatten)]
    source: ConfigSource,
}

#[derive(Debug, clap::Args)]
struct Show {
    #[command(flatten)]
    source: ConfigSource,
    /// Print a JSON array of {key, value, origin}.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> ExitCode {
    let done = match args.what {
        What::Check(Check { source }) => check(&source),
        What::Show(Show { source, json }) => source.load(DRAIN).map(|loaded| {
            let entries: Vec<Entry> = loaded.entries.into_iter().map(masked).collect();
            print(&if json { as_json(&entries) } else { as_toml(&entries) })
        }),
    };
    done.unwrap_or_else(|exit: Exit| exit).into()
}

/// Reads the certificate as well, since a missing file or a wrong key would prevent the start of the daemon.
fn check(source: &ConfigSource) -> Result<Exit, Exit> {
    let loaded = source.load(DRAIN)?;
    let mut notes = loaded.settings.notes();
    if let Some(own) = own_relay(&loaded.settings)? {
        eprintln!("relay.next_hop: {own}");
        return Err(Exit::Config);
    }
    match loaded.settings.tls.clone().map(Acceptor::load) {
        Some(Ok(acceptor)) => notes.extend(acceptor.certificate(SystemTime::now()).faults),
        Some(Err(error)) => {
            eprintln!("{error}");
            return Err(Exit::Config);
        }
        None => {}
    }
    notes.extend(readable::notes(&files(source, &loaded)));
    let file = source.file().map_or("built-in defaults".to_owned(), |path| path.display().to_string());
    let notes: String = notes.iter().map(|note| format!("note: {note}\n")).collect();
    Ok(print(&format!("{file}: ok\n{notes}")))
}

/// The listener of rmxd itself that the next hop leads to by its name.
fn own_relay(settings: &Settings) -> Result<Option<OwnListener>, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        eprintln!("rmxd: the runtime can't be started: {error}");
        Exit::Temporary
    })?;
    let addresses = runtime.block_on(relay_addresses(&settings.relay.next_hop));
    // A name that isn't found is looked up by a thread that can't be stopped.
    runtime.shutdown_background();
    Ok(settings.own_relay(&addresses))
}

/// The files that the service reads at a start.
fn files(source: &ConfigSource, loaded: &Loaded) -> Vec<Wanted> {
    let mut files = Vec::new();
    let file = source.file();
    let folder = file.as_deref().and_then(Path::parent).unwrap_or(Path::new(""));
    let exempt = loaded.entries.iter().find(|entry| entry.key == "exempt.files").map(|entry| &entry.value);
    if let Some(Value::List(names)) = exempt {
        files.extend(names.iter().map(|name| Wanted { key: "exempt.files", path: folder.join(name) }));
    }
    let cluster = loaded.settings.cluster.as_ref();
    for key in ["cluster.secret", "cluster.password", "cluster.ca"].into_iter().filter(|_| cluster.is_some())
    {
        let named = loaded.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
        if let Some(Value::Text(name)) = named
            && !name.is_empty()
        {
            files.push(Wanted { key, path: folder.join(name) });
        }
    }
    if let Some(tls) = &loaded.settings.tls {
        files.push(Wanted { key: "tls.certificate", path: tls.certificate.clone() });
        files.push(Wanted { key: "tls.key", path: tls.key.clone() });
    }
    files.extend(file.clone().map(|path| Wanted { key: "the configuration", path }));
    files
}

const MASK: &str = "***";

/// Hides the token and the password in a URL.
fn masked(mut entry: Entry) -> Entry {
    if let Value::Text(text) = &mut entry.value
        && !text.is_empty()
    {
        match entry.key.as_str() {
            "admin.token" => MASK.clone_into(text),
            "cluster.redis" => *text = without_password(text),
            _ => {}
        }
    }
    entry
}

/// `redis://user:secret@host` becomes `redis://user:***@host`. The last `@` counts, since a password may contain one.
fn without_password(url: &str) -> String {
    let split = url.split_once("://").and_then(|(scheme, rest)| {
        let (login, host) = rest.rsplit_once('@')?;
        let user = login.split_once(':').map_or(login, |(user, _)| user);
        Some(format!("{scheme}://{user}:{MASK}@{host}"))
    });
    split.unwrap_or_else(|| url.to_owned())
}

/// A file that can be loaded again, with each origin in a comment.
fn as_toml(entries: &[Entry]) -> String {
    let mut lines: Vec<(String, String, String)> = Vec::new();
    for Entry { key, value, origin } in entries {
        let (table, name) = key.rsplit_once('.').unwrap_or(("", key));
        let origin = origin.source();
        let line = |name: &str, value| format!("{name} = {}", toml_value(value));
        match value {
            Value::Tables(rows) => {
                for (nth, row) in rows.iter().enumerate() {
                    let header = format!("[[{key}]]{}", " ".repeat(nth)); // blanks tell two of them apart
                    let row =
                        row.iter().map(|(name, value)| (header.clone(), line(name, value), origin.clone()));
                    lines.extend(row);
                }
            }
            Value::Text(_) | Value::Number(_) | Value::List(_) => {
                let header = if table.is_empty() { String::new() } else { format!("[{table}]") };
                lines.push((header, line(name, value), origin));
            }
        }
    }
    let width = lines.iter().map(|(_, line, _)| line.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    let mut open = "";
    for (header, line, origin) in &lines {
        if *header != open {
            out.push_str(&format!("\n{}\n", header.trim_end()));
            open = header;
        }
        let origin = crate::smtp::escape::OneLine(origin);
        out.push_str(&format!("{line:width$}  # {origin}\n"));
    }
    out
}

pub(super) fn toml_value(value: &Value) -> String {
    match value {
        Value::Text(text) => toml::Value::from(text.as_str()),
        Value::Number(number) => toml::Value::from(*number),
        Value::List(items) => toml::Value::from(items.clone()),
        Value::Tables(rows) => {
            let inline = |(name, value): &(String, Value)| format!("{name} = {}", toml_value(value));
            let row = |row: &Row| format!("{{ {} }}", row.iter().map(inline).collect::<Vec<_>>().join(", "));
            return format!("[{}]", rows.iter().map(row).collect::<Vec<_>>().join(", "));
        }
    }
    .to_string()
}

fn as_json(entries: &[Entry]) -> String {
    let rows = entries.iter().map(|Entry { key, value, origin }| {
        serde_json::json!({ "key": key, "value": json_value(value), "origin": origin.source() })
    });
    format!("{:#}\n", serde_json::Value::Array(rows.collect()))
}

fn json_value(value: &Value) -> serde_json::Value {
    match value {
        Value::Text(text) => serde_json::json!(text),
        Value::Number(number) => serde_json::json!(number),
        Value::List(items) => serde_json::json!(items),
        Value::Tables(rows) => {
            let row = |row: &Row| -> serde_json::Map<String, serde_json::Value> {
                row.iter().map(|(name, value)| (name.clone(), json_value(value))).collect()
            };
            rows.iter().map(row).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Origin;

    #[test]
    fn secrets_are_not_shown() {
        let rows = [
            ("admin.token", "s3cret", "***"),
            ("admin.token", "", ""),
            ("cluster.redis", "redis://u:p@ss@host:6379/1", "redis://u:***@host:6379/1"),
            ("cluster.redis", "redis://:pass@host", "redis://:***@host"),
            ("cluster.redis", "redis://host:6379", "redis://host:6379"),
            ("reply.help_url", "https://u:p@host", "https://u:p@host"),
        ];
        for (key, value, shown) in rows {
            let entry =
                Entry { key: key.to_owned(), value: Value::Text(value.to_owned()), origin: Origin::Default };
            assert_eq!(masked(entry).value, Value::Text(shown.to_owned()), "{key} {value}");
        }
    }
}
