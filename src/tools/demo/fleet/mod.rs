//! `rmxd demo --fleet`: two gates that share what they know in Redis, and what happens when Redis goes away.
//!
//! Redis is a real one, started by the demo where it is installed: nobody would believe a simulated one.

mod page;
mod server;
mod stage;
mod step;
mod tour;

use std::path::PathBuf;

use crate::console::colour::Colour;
use crate::console::folder::Folder;
use crate::console::{Exit, print};
use crate::tools::demo::by_hand::{program, quoted};
pub(super) use crate::tools::demo::fleet::server::program as redis_program;
pub(super) use crate::tools::demo::fleet::stage::Stage;
use crate::tools::demo::fleet::step::Step;
use crate::tools::demo::{Args, Progress, Show, Toured};

/// Why there is no tour where Redis isn't installed.
pub(super) const WITHOUT_REDIS: &str = "--fleet starts a Redis server of its own, and there is neither redis-server nor \
     valkey-server on this machine: apt install redis-server (Debian), or install Valkey";

impl Show for Stage {
    /// The program of Redis.
    type What = PathBuf;

    async fn start(folder: &Folder, redis: PathBuf) -> Result<Self, String> {
        Self::open(folder, redis).await
    }

    async fn tour(&self, args: &Args) -> Toured {
        let (printed, steps) = tour(self, args).await;
        let as_expected = !steps.iter().any(Step::is_wrong);
        Toured { printed, as_expected, by_hand: by_hand(self, &steps) }
    }

    async fn stop(self) {
        self.close().await;
    }
}

/// Plays all steps and prints each when it is over.
async fn tour(stage: &Stage, args: &Args) -> (Exit, Vec<Step>) {
    let colour = Colour::of_stdout();
    let mut progress = Progress { done: 0, total: 6 };
    let mut steps: Vec<Step> = Vec::new();
    let mut last = if args.json { Exit::Done } else { print(&page::introduction(stage, colour)) };
    let mut shown = |step: Step, steps: &mut Vec<Step>| {
        Progress::clear();
        if last == Exit::Done && !args.json {
            last = print(&page::step(&step, steps.len() + 1, colour));
        }
        steps.push(step);
    };
    progress.next("a client that no gate knows");
    let (first, id) = tour::greylisted(stage).await;
    shown(first, &mut steps);
    progress.next(&format!("the delay of the greylist is {}", humantime::format_duration(stage::DELAY)));
    tokio::time::sleep(stage::OVER).await;
    shown(tour::passed(stage).await, &mut steps);
    progress.next("explain at the other gate");
    shown(tour::explained(stage, id.as_deref()).await, &mut steps);
    progress.next("a permit");
    shown(tour::permit(stage).await, &mut steps);
    progress.next("Redis is killed");
    shown(tour::away(stage).await, &mut steps);
    progress.next("Redis starts again");
    shown(tour::back(stage).await, &mut steps);
    if last == Exit::Done {
        last = print(&if args.json { page::json(&steps) } else { page::summary(&steps, colour) });
    }
    (last, steps)
}

/// How the running demo can be tried.
fn by_hand(stage: &Stage, steps: &[Step]) -> String {
    let [one, two] = &stage.gates;
    let (rmxd, folder) = (program(), quoted(&stage.folder));
    let texts = steps.iter().flat_map(|step| &step.frames).map(|frame| frame.text.as_str());
    let id = texts.filter_map(crate::tools::demo::observed::id).next().unwrap_or_else(|| "ID".to_owned());
    let port = |gate: &stage::Gate| gate.smtp().map_or(0, |address| address.port());
    let socket = quoted(&server::socket(&stage.folder));
    format!(
        "
{title}

  the dashboards in a browser, each with the decisions of both gates; the token is {token}
    {first}
    {second}
  a client that no gate knows, at gate 1 and after {delay} at gate 2, with swaks:
    swaks --server 127.0.0.1:{port_one} --local-interface 127.0.2.78 --from ann@good.test --to me@demo.test
    swaks --server 127.0.0.1:{port_two} --local-interface 127.0.2.78 --from ann@good.test --to me@demo.test
  a decision of gate 1, asked at gate 2:
    {rmxd} explain {id} --config {folder}/{file_two}
  the decisions of both gates:
    {rmxd} history --fleet --config {folder}/{file_one}
  what Redis holds; without it (redis-cli shutdown), mail goes on (the log is {folder}/log):
    redis-cli -s {socket} keys '*'
",
        title = Colour::of_stdout()
            .bold("The demo keeps running until Ctrl-C. Try it by hand in another terminal:"),
        token = stage.token,
        first = one.dashboard(),
        second = two.dashboard(),
        delay = humantime::format_duration(stage::DELAY),
        port_one = port(one),
        port_two = port(two),
        file_one = one.file(),
        file_two = two.file(),
    )
}
