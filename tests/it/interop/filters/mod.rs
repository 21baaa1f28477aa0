//! rmxd as a milter of a real Postfix, beside other filters: what each of them sees, believes and adds, and the edits
//! of the header to the octet.

mod delivered;
mod edits;
mod forged;
mod logins;
mod opendkim_and_opendmarc;
mod sendmail;
mod signatures;
mod site;

use std::net::{IpAddr, Ipv4Addr};

/// The address of mail.good.test, which is the exchanger of good.test.
const EXCHANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 10));
/// A bot.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 12));
