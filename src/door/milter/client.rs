//! The client of a session, as the milter protocol tells of it.

use std::net::{IpAddr, Ipv4Addr};

use crate::door::milter::MilterDoor;
use crate::gate;
use crate::milter::Client;
use crate::policy::door::DoorName;

/// The client of the session.
pub(super) struct SmtpClient {
    pub(super) gate: gate::Client,
    /// Nothing is known of it, not even its address.
    pub(super) unknown: bool,
    /// The same, once it has logged in.
    pub(super) user: Option<gate::Client>,
}

impl SmtpClient {
    pub(super) fn new(door: &MilterDoor, client: Client) -> Self {
        let (gate, unknown) = match client {
            Client::Host { address, .. } => (door.gate.client_at(DoorName::Milter, address), false),
            Client::ThisMachine => (exempt(door, Ipv4Addr::LOCALHOST.into()), false),
            Client::Unknown => (exempt(door, Ipv4Addr::UNSPECIFIED.into()), true),
        };
        Self { gate, unknown, user: None }
    }

    /// The client as the gate sees it.
    pub(super) fn of(&mut self, logged_in: bool, door: &MilterDoor, helo: &str) -> &mut gate::Client {
        if !logged_in {
            return &mut self.gate;
        }
        self.user.get_or_insert_with(|| {
            let mut user = exempt(door, self.gate.address());
            user.helo(helo);
            user.set_tls(self.gate.tls());
            user
        })
    }
}

fn exempt(door: &MilterDoor, address: IpAddr) -> gate::Client {
    door.gate.user_at(DoorName::Milter, address)
}
