//! Failures of a door's connection as those of a session.

use crate::tools::load::outcome::{Failure, FailureKind, Stage};
use crate::tools::mta;

/// The failure of a step.
pub(super) fn at(stage: Stage) -> impl Fn(mta::Failure) -> Failure {
    move |failure| {
        let kind = match failure {
            mta::Failure::NoSocket => FailureKind::NoSocket,
            mta::Failure::Refused => FailureKind::ConnectionRefused,
            mta::Failure::TimedOut => FailureKind::TimedOut,
            mta::Failure::Closed => FailureKind::Closed,
            mta::Failure::NoAnswer(_) => FailureKind::NoReply,
        };
        Failure { stage, kind }
    }
}
