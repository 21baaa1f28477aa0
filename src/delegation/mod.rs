//! The words of Postfix's policy delegation (SMTPD_POLICY_README), pure: requests and the answers to them.
//!
//! Each [`Request`] of a connection gets one [`Answer`], in the same order.

mod answer;
mod reader;
mod request;

pub use crate::delegation::answer::Answer;
pub use crate::delegation::reader::{Malformed, Reader};
pub use crate::delegation::request::{Request, State};
