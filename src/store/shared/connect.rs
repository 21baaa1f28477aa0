//! A connection to what `cluster.redis` names. It tries nothing again: the breaker decides that.

use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelNodeConnectionInfo, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use crate::store::shared::failure::Failure;
use crate::store::shared::settings::{Host, Servers, Settings, Target};

/// Clones share one connection, on which many questions are under way at once.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    /// Connects within this time for each server.
    pub(super) async fn open(settings: &Settings, within: Duration) -> Result<Self, Failure> {
        Self::try_open(settings, within).await.map_err(|error| Failure::of(&error))
    }

    async fn try_open(settings: &Settings, within: Duration) -> Result<Self, RedisError> {
        let target = &settings.target;
        // The question's own time-out is shorter; it ends the wait.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(within))
            .set_response_timeout(Some(within));
        let login = login(target);
        match &target.servers {
            Servers::Tcp(_) | Servers::Tls(_) | Servers::Unix(_) => {
                let client = client(settings, login)?;
                Ok(Self::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
            }
            Servers::Sentinel(hosts, master) => {
                let hosts = hosts.iter().map(|host| info(plain(host), RedisConnectionInfo::default()));
                let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
                let node = SentinelNodeConnectionInfo::default().set_redis_connection_info(login);
                let mut client =
                    SentinelClient::build(hosts, master, Some(node), SentinelServerType::Master)?;
                Ok(Self::Single(client.get_async_connection_with_config(&config).await?))
            }
            Servers::Cluster(hosts) => {
                let hosts = hosts.iter().map(|host| info(plain(host), login.clone()));
                let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
                // Once, for a key that has moved to another node.
                let builder = ClusterClient::builder(hosts).retries(1).min_retry_wait(1).max_retry_wait(10);
                let client = builder.connection_timeout(within).response_timeout(within).build()?;
                Ok(Self::Cluster(client.get_async_connection().await?))
            }
        }
    }

    pub(super) async fn send(&mut self, command: &Cmd) -> Result<Value, Failure> {
        let value = match self {
            Self::Single(connection) => connection.req_packed_command(command).await,
            Self::Cluster(connection) => connection.req_packed_command(command).await,
        };
        match value.and_then(Value::extract_error) {
            Ok(value) => Ok(value),
            Err(error) => Err(Failure::of(&error)),
        }
    }

    /// Whether it is one server: then a lost connection means that all is away.
    pub(super) fn is_single(&self) -> bool {
        matches!(self, Self::Single(_))
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.is_single() { "Single" } else { "Cluster" })
    }
}

fn client(settings: &Settings, login: RedisConnectionInfo) -> Result<Client, RedisError> {
    match &settings.target.servers {
        Servers::Tls(Host { name, port }) => {
            let address =
                ConnectionAddr::TcpTls { host: name.clone(), port: *port, insecure: false, tls_params: None };
            let info = info(address, login)?;
            match &settings.ca {
                Some(ca) => {
                    let root_cert = Some(ca.octets().to_vec());
                    Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert })
                }
                None => Client::open(info),
            }
        }
        Servers::Unix(path) => Client::open(info(ConnectionAddr::Unix(path.clone()), login)?),
        Servers::Tcp(host) => Client::open(info(plain(host), login)?),
        Servers::Cluster(hosts) | Servers::Sentinel(hosts, _) => {
            let first = hosts.first().map_or_else(|| ConnectionAddr::Tcp(String::new(), 0), plain);
            Client::open(info(first, login)?)
        }
    }
}

fn plain(host: &Host) -> ConnectionAddr {
    ConnectionAddr::Tcp(host.name.clone(), host.port)
}

fn info(address: ConnectionAddr, login: RedisConnectionInfo) -> Result<ConnectionInfo, RedisError> {
    let info = address.into_connection_info()?;
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    Ok(info.set_redis_settings(login).set_tcp_settings(tcp))
}

fn login(target: &Target) -> RedisConnectionInfo {
    // CLIENT SETINFO would need a right that nothing else needs.
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(target.database);
    if !target.user.is_empty() {
        login = login.set_username(&target.user);
    }
    if let Some(password) =
        target.password.as_ref().and_then(|secret| std::str::from_utf8(secret.octets()).ok())
    {
        login = login.set_password(password);
    }
    login
}
