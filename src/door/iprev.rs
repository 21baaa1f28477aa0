//! The result of `iprev` (RFC 8601 2.7.3) for a client of a door.

use crate::gate::Client;
use crate::message::authentication_results::{Iprev, IprevResult};
use crate::reverse_mx::FcrdnsResult;

/// Once the names are known; `None` where the policy doesn't ask for them.
pub(super) async fn iprev(client: &Client) -> Option<Iprev> {
    let names = client.names().await?;
    let result = match &names.outcome {
        FcrdnsResult::Confirmed(_) => IprevResult::Pass,
        FcrdnsResult::NoPtr | FcrdnsResult::NotConfirmed(_) => IprevResult::Fail,
        FcrdnsResult::TempError(_) => IprevResult::TempError,
    };
    Some(Iprev { result, client: client.address() })
}
