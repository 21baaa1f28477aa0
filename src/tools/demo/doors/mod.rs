//! `rmxd demo --door milter` and `--door policy`: sessions as Postfix reports them, with the frames of the protocol as a
//! person reads them.
//!
//! No part of rmxd is simulated. Postfix's part is: [`crate::tools::mta`] speaks it as recorded, so that nothing has to be
//! installed.

mod frame;
mod guide;
mod judged;
mod milter;
mod packets;
mod page;
mod played;
mod policy;
mod requests;
mod scene;
mod stage;
mod tap;

use crate::console::colour::Colour;
use crate::console::folder::Folder;
use crate::console::{Exit, print};
use crate::policy::door::DoorName;
pub(super) use crate::tools::demo::doors::page::wrapped;
use crate::tools::demo::doors::played::Played;
pub(super) use crate::tools::demo::doors::stage::Stage;
use crate::tools::demo::{Args, Progress, Show, Toured};

impl Show for Stage {
    type What = DoorName;

    async fn start(folder: &Folder, door: DoorName) -> Result<Self, String> {
        Self::open(folder, door).await
    }

    async fn tour(&self, args: &Args) -> Toured {
        let (printed, all) = tour(self, args).await;
        let as_expected = !all.iter().any(Played::is_wrong);
        Toured { printed, as_expected, by_hand: guide::by_hand(self, &all) }
    }

    async fn stop(self) {
        self.close().await;
    }
}

/// Plays all sessions and prints each when it is over.
async fn tour(stage: &Stage, args: &Args) -> (Exit, Vec<Played>) {
    let colour = Colour::of_stdout();
    let scenes = scene::scenes();
    let mut progress = Progress { done: 0, total: scenes.len() };
    let print_text = |text: &str| if args.json { Exit::Done } else { print(text) };
    let mut last = print_text(&page::introduction(stage, colour));
    let mut all: Vec<Played> = Vec::new();
    for (scene, number) in scenes.into_iter().zip(1_u16..) {
        progress.done += 1;
        if scene.after_delay {
            let left = humantime::format_duration(stage::DELAY);
            progress.show(&format!("the delay of the greylist is {left}"));
            tokio::time::sleep(stage::OVER).await;
        }
        progress.show(scene.title);
        let played = played::play(stage, scene, number).await;
        Progress::clear();
        if last == Exit::Done {
            last = print_text(&page::session(&played, usize::from(number), stage.door, colour));
        }
        all.push(played);
    }
    if last == Exit::Done {
        last = print(&if args.json {
            page::json(&all, stage.door)
        } else {
            page::summary(&all, colour) + &guide::text(stage.door, colour)
        });
    }
    (last, all)
}
