//! A connection to what `cluster.redis` names. It tries nothing again: the breaker decides that.

use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo as _,
    RedisConnectionInfo, RedisError, ServerErrorKind, TlsCertificates, TlsMode, Value,
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
            Servers::Single(host) => {
                let info = info(address(host, target.tls), login)?;
                let client = match certificates(settings) {
                    Some(certificates) => Client::build_with_tls(info, certificates)?,
                    None => Client::open(info)?,
                };
                Ok(Self::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
            }
            Servers::Unix(path) => {
                let client = Client::open(info(ConnectionAddr::Unix(path.clone()), login)?)?;
                Ok(Self::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
            }
            Servers::Sentinel(hosts, master) => {
                let mut sentinels = sentinels(settings, hosts, master)?;
                let found = match sentinels.async_get_client().await {
                    Err(error) if is_down(&error, &mut sentinels, master).await => return Err(no_master()),
                    found => found?,
                };
                let client = Client::open(found.get_connection_info().clone().set_redis_settings(login))?;
                Ok(Self::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
            }
            Servers::Cluster(hosts) => {
                let hosts = hosts.iter().map(|host| info(address(host, target.tls), login.clone()));
                let hosts = hosts.collect::<Result<Vec<_>, _>>()?;
                // Once, for a key that has moved to another node.
                let mut builder =
                    ClusterClient::builder(hosts).retries(1).min_retry_wait(1).max_retry_wait(10);
                if let Some(certificates) = certificates(settings) {
                    builder = builder.certs(certificates);
                }
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

/// What asks the Sentinels for the master. TLS is the same to both; user and password are for the master only.
fn sentinels(settings: &Settings, hosts: &[Host], master: &str) -> Result<SentinelClient, RedisError> {
    let target = &settings.target;
    let addresses = hosts.iter().map(|host| address(host, target.tls));
    let mut builder = SentinelClientBuilder::new(addresses, master, SentinelServerType::Master)?
        .set_client_to_redis_db(target.database)
        .set_client_to_redis_tcp_settings(tcp());
    if target.tls {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates(settings) {
        builder = builder
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    if !target.user.is_empty() {
        builder = builder.set_client_to_redis_username(&target.user);
    }
    if let Some(password) = password(target) {
        builder = builder.set_client_to_redis_password(password);
    }
    builder.build()
}

/// Whether the Sentinels know a master of this name, and none that is up.
async fn is_down(error: &RedisError, sentinels: &mut SentinelClient, master: &str) -> bool {
    if error.kind() != ErrorKind::MasterNameNotFoundBySentinel {
        return false;
    }
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
    let asked = async {
        let sentinel = sentinels.async_get_sentinel_client().await?;
        sentinel.get_multiplexed_async_connection().await?.req_packed_command(&ask).await
    };
    matches!(asked.await, Ok(Value::Array(_)))
}

fn no_master() -> RedisError {
    let why = "the Sentinels know no master that is up".to_owned();
    (ErrorKind::Server(ServerErrorKind::MasterDown), "no master", why).into()
}

/// `None` = those of the system.
fn certificates(settings: &Settings) -> Option<TlsCertificates> {
    let ca = settings.ca.as_ref().filter(|_| settings.target.tls)?;
    Some(TlsCertificates { client_tls: None, root_cert: Some(ca.octets().to_vec()) })
}

fn address(host: &Host, tls: bool) -> ConnectionAddr {
    let Host { name, port } = host.clone();
    if tls {
        ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(name, port)
    }
}

fn info(address: ConnectionAddr, login: RedisConnectionInfo) -> Result<ConnectionInfo, RedisError> {
    let info = address.into_connection_info()?;
    Ok(info.set_redis_settings(login).set_tcp_settings(tcp()))
}

fn tcp() -> TcpSettings {
    TcpSettings::default().set_nodelay(true)
}

fn login(target: &Target) -> RedisConnectionInfo {
    // CLIENT SETINFO would need a right that nothing else needs.
    let mut login = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(target.database);
    if !target.user.is_empty() {
        login = login.set_username(&target.user);
    }
    if let Some(password) = password(target) {
        login = login.set_password(password);
    }
    login
}

fn password(target: &Target) -> Option<&str> {
    std::str::from_utf8(target.password.as_ref()?.octets()).ok()
}
