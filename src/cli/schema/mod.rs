//! `rmxd schema`: the JSON Schema of what another command prints with `--json`, and of the log.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::admin;
use crate::console::{Exit, print};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Print the JSON Schema of a command's --json, or of the log
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The command, or `log` for a decision in the log with log.format = "json"
    #[arg(value_enum)]
    name: Name,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Name {
    Allow,
    Audit,
    Check,
    /// `rmxd config show`
    Config,
    Demo,
    Explain,
    /// `rmxd history --would --config FILE`
    Hindsight,
    History,
    Load,
    Log,
    Replay,
    Status,
    /// One line of `rmxd tail`
    Tail,
    /// `rmxd history --would`
    Would,
    /// `rmxd zone --list`
    Zone,
}

pub fn run(args: &Args) -> ExitCode {
    match schema(args.name) {
        Ok(schema) => print(&format!("{schema:#}\n")).into(),
        Err(error) => {
            eprintln!("rmxd schema: {error}");
            Exit::Temporary.into()
        }
    }
}

fn schema(name: Name) -> serde_json::Result<Value> {
    match name {
        Name::Allow => {
            let schema: Value = serde_json::from_str(include_str!("allow.json"))?;
            of_api("rmxd allow --json", &schema)
        }
        Name::Audit => of_api("rmxd audit --json", &json!({"$ref": "#/components/schemas/Audit"})),
        Name::Check => of_api("rmxd check --json", &json!({"$ref": "#/components/schemas/Decision"})),
        Name::Explain => of_api("rmxd explain --json", &json!({"$ref": "#/components/schemas/Decision"})),
        Name::Hindsight => of_api(
            "rmxd history --would --config FILE --json",
            &json!({"$ref": "#/components/schemas/Hindsight"}),
        ),
        Name::History => of_api(
            "rmxd history --json",
            &json!({"type": "array", "items": {"$ref": "#/components/schemas/Summary"}}),
        ),
        Name::Status => {
            let schema: Value = serde_json::from_str(include_str!("status.json"))?;
            of_api("rmxd status --json", &schema)
        }
        Name::Tail => of_api("rmxd tail --json", &json!({"$ref": "#/components/schemas/Summary"})),
        Name::Would => of_api("rmxd history --would --json", &json!({"$ref": "#/components/schemas/Would"})),
        Name::Replay => {
            let schema: Value = serde_json::from_str(include_str!("replay.json"))?;
            of_api("rmxd replay --json", &schema)
        }
        Name::Config => serde_json::from_str(include_str!("config.json")),
        Name::Demo => serde_json::from_str(include_str!("demo.json")),
        Name::Load => serde_json::from_str(include_str!("load.json")),
        Name::Log => serde_json::from_str(include_str!("log.json")),
        Name::Zone => serde_json::from_str(include_str!("zone.json")),
    }
}

/// A schema that refers to the components of the API's document.
fn of_api(title: &str, schema: &Value) -> serde_json::Result<Value> {
    let document: Value = serde_json::from_str(admin::OPENAPI)?;
    let schemas = document.pointer("/components/schemas").unwrap_or(&Value::Null);
    let mut all = json!({"$schema": DIALECT, "title": title, "components": {"schemas": schemas}});
    if let (Value::Object(all), Value::Object(schema)) = (&mut all, schema) {
        all.extend(schema.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    Ok(all)
}
