//! The mail server's side of the milter protocol and of policy delegation, as Postfix 3.7 speaks them: for the load test,
//! the demo, tests and benches.
//!
//! [`Filter`], [`Event`] and [`Answer`], [`Request`] and [`Action`] are octets only. [`Milter`] and [`Policy`] are one
//! connection each. Recorded streams of a Postfix (`tests/blackbox/fixtures`) show that the octets are the same.

mod action;
mod answer;
mod event;
mod failure;
mod filter;
mod milter;
mod policy;
mod request;

pub use crate::tools::mta::action::{Action, BadAction};
pub use crate::tools::mta::answer::{Answer, BadAnswer, Edit, Final};
pub use crate::tools::mta::event::{Event, LARGEST_PIECE};
pub use crate::tools::mta::failure::{Failure, dial};
pub use crate::tools::mta::filter::{BadFilter, Filter, Stage};
pub use crate::tools::mta::milter::{Milter, Server};
pub use crate::tools::mta::policy::Policy;
pub use crate::tools::mta::request::Request;
