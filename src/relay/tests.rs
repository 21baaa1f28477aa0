//! The next hops from outside: a client driven as the door drives it, against scripted relays and real folders.

mod dialogue;
mod faults;
mod folder;
mod pool;
mod robot;
mod script;
mod shares;
mod starttls;

use std::time::Duration;

use crate::gate::Permit;
use crate::relay::{
    ClientIdentity, ClientInfo, ClientLease, ClientName, Envelope, HopReply, NextHop, Recipient, Relay,
    Settings, Transaction,
};
use crate::smtp::address::{DomainName, ForwardPath, ReversePath};

/// Timeout for peers that reply, long enough for a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Timeout for peers that never reply.
const IMPATIENCE: Duration = Duration::from_millis(500);

fn permit() -> Permit {
    Permit::of_a_test()
}

pub(super) fn settings(next_hop: NextHop) -> Settings {
    Settings {
        next_hop,
        identity: ClientIdentity::Auto,
        max_connections: 4,
        messages_per_connection: 100,
        data_rate: 1024,
        message_time: Duration::from_secs(600),
        connect_timeout: PATIENCE,
        reply_timeout: PATIENCE,
        xclient_required: false,
        hostname: "gate.test".into(),
        tls: crate::relay::Tls::None,
    }
}

fn client() -> ClientInfo {
    ClientInfo {
        address: "192.0.2.7:4321".parse().unwrap(),
        name: ClientName::Confirmed(DomainName::parse("mx.good.test").unwrap()),
        helo: "helo.good.test".into(),
        esmtp: true,
    }
}

fn sender(path: &str) -> ReversePath {
    ReversePath::parse(path).unwrap()
}

fn recipient(path: &str) -> ForwardPath {
    ForwardPath::parse(path).unwrap()
}

/// Begins a transaction of [`client`] with MAIL and RCPT, in a lease of its own.
async fn begin(relay: &Relay) -> Result<Transaction, HopReply> {
    begin_as(&relay.lease(), &client()).await
}

async fn begin_as(lease: &ClientLease, client: &ClientInfo) -> Result<Transaction, HopReply> {
    let reverse_path = &sender("a@good.test");
    begin_with(lease, Envelope::new(client, reverse_path, "4KXN7Q2M")).await
}

async fn begin_with(lease: &ClientLease, envelope: Envelope<'_>) -> Result<Transaction, HopReply> {
    let path = recipient("u@relay.test");
    let (transaction, reply) = lease.begin(permit(), envelope, Recipient::new(&path)).await?;
    assert!(reply.is_positive(), "{reply}");
    Ok(transaction)
}

/// Sends one message to one recipient as the door does. Returns the last step and the client's reply.
async fn deliver(relay: &Relay, message: &[&[u8]]) -> String {
    deliver_as(&relay.lease(), &client(), message).await
}

async fn deliver_as(lease: &ClientLease, client: &ClientInfo, message: &[&[u8]]) -> String {
    let (reverse_path, path) = (&sender("a@good.test"), recipient("u@relay.test"));
    let envelope = Envelope::new(client, reverse_path, "4KXN7Q2M");
    let (mut transaction, reply) = match lease.begin(permit(), envelope, Recipient::new(&path)).await {
        Ok(begun) => begun,
        Err(reply) => return format!("MAIL {reply}"),
    };
    if !reply.is_positive() {
        transaction.abandon().await;
        return format!("RCPT {reply}");
    }
    if let Err(reply) = transaction.data().await {
        transaction.abandon().await;
        return format!("DATA {reply}");
    }
    for piece in message {
        if let Err(reply) = transaction.write(piece).await {
            assert_eq!(transaction.write(b"more\r\n").await, Err(reply.clone()), "a failure stays");
            assert_eq!(transaction.finish(permit()).await, reply, "and is the answer to the whole");
            return format!("WRITE {reply}");
        }
    }
    format!("END {}", transaction.finish(permit()).await)
}

#[test]
fn a_lease_wants_the_clients_name_where_the_relay_may_get_it() {
    let smtp = || NextHop::Smtp { host: "relay.test".into(), port: 25 };
    let rows = [
        (smtp(), ClientIdentity::Auto, false, true),
        (smtp(), ClientIdentity::Xclient, true, true),
        (smtp(), ClientIdentity::Xforward, false, true),
        (smtp(), ClientIdentity::ProxyV2, false, false),
        (smtp(), ClientIdentity::None, false, false),
        (smtp(), ClientIdentity::None, true, true),
        (NextHop::Maildir("mail".into()), ClientIdentity::Auto, false, false),
    ];
    for (next_hop, identity, xclient_required, expected) in rows {
        let relay = Relay::new(Settings { identity, xclient_required, ..settings(next_hop) });
        assert_eq!(relay.lease().wants_name(), expected, "{identity:?} {xclient_required}");
    }
}
