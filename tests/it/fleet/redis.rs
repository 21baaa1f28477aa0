//! Redis servers of our own, on loopback and in temporary folders: single, as a cluster, watched by Sentinels. The one that a
//! package may have started isn't touched.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::support::process::{self, Run, SOON, eventually, free_port};

/// A running server. Dropping it kills it.
pub(crate) struct Redis {
    child: Child,
    folder: TempDir,
    port: u16,
    /// Before each command of `redis-cli`.
    cli: Vec<String>,
    arguments: Vec<String>,
}

impl Redis {
    /// `None` where Redis isn't installed.
    pub(crate) async fn start(arguments: &[&str]) -> Option<Self> {
        Self::start_at(free_port(), arguments).await
    }

    /// At this port of 127.0.0.1; a `{}` in the arguments is its folder.
    pub(crate) async fn start_at(port: u16, arguments: &[&str]) -> Option<Self> {
        let program = process::program("redis-server")?;
        let folder = tempfile::Builder::new().prefix("rmxd-redis-").tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let mut all: Vec<String> =
            ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", place]
                .map(str::to_owned)
                .into();
        all.extend(["--logfile".to_owned(), format!("{place}/log")]);
        if !arguments.contains(&"--port") {
            all.extend(["--port".to_owned(), port.to_string()]);
        }
        all.extend(arguments.iter().map(|argument| argument.replace("{}", place)));
        let child = spawn(&program, &all);
        let mut redis =
            Self { child, folder, port, cli: vec!["-p".to_owned(), port.to_string()], arguments: all };
        redis.listens().await;
        Some(redis)
    }

    /// The same over TLS alone.
    pub(crate) async fn start_over(tls: &Tls, arguments: &[&str]) -> Option<Self> {
        let port = free_port();
        let mut all = tls.arguments(port);
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let mut redis = Self::start_at(port, &all).await?;
        redis.cli.extend(tls.of_cli());
        Some(redis)
    }

    async fn start_maybe_over(tls: Option<&Tls>, arguments: &[&str]) -> Option<Self> {
        match tls {
            Some(tls) => Self::start_over(tls, arguments).await,
            None => Self::start(arguments).await,
        }
    }

    async fn listens(&mut self) {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        eventually("Redis listening", SOON, || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "Redis has ended: {}", self.log());
            TcpStream::connect(address).ok()
        })
        .await;
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn place(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.place("log")).unwrap_or_default()
    }

    /// Arguments for each further command of `redis-cli`, for a password and the like.
    pub(crate) fn asked_with(&mut self, arguments: &[&str]) {
        self.cli.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// What `redis-cli` prints for a command, without the line end.
    pub(crate) fn cli(&self, command: &[&str]) -> String {
        let mut program = process::command("redis-cli");
        let run = Run::of(program.args(&self.cli).args(command));
        assert_eq!(run.code, Some(0), "{command:?}: {run:?}");
        run.out.trim_end().to_owned()
    }

    /// The names of the keys, sorted.
    pub(crate) fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys: Vec<String> =
            self.cli(&["--raw", "KEYS", pattern]).lines().map(str::to_owned).collect();
        keys.sort();
        keys
    }

    /// Waits for a key.
    pub(crate) async fn has(&self, key: &str) {
        eventually(key, SOON, || (self.cli(&["EXISTS", key]) == "1").then_some(())).await;
    }

    pub(crate) fn signal(&self, name: &str) {
        process::signal(self.child.id(), name);
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// After [`Self::kill`]: the same server again, empty.
    pub(crate) async fn again(&mut self) {
        self.child = spawn(&process::program("redis-server").unwrap(), &self.arguments);
        self.listens().await;
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let first = log.lines().count().saturating_sub(20);
            eprintln!("--- the end of the log of Redis {}", self.port);
            log.lines().skip(first).for_each(|line| eprintln!("{line}"));
        }
    }
}

fn spawn(program: &std::path::Path, arguments: &[String]) -> Child {
    let mut command = process::command(program);
    // A server that the tests stop must not outlive them.
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// An authority of one's own, and a certificate of it for 127.0.0.1, in files.
pub(crate) struct Tls(TempDir);

impl Tls {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("rmxd-tls-").tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Of another name than the server's certificate, which OpenSSL would take for one of its own authority.
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority");
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let own = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        assert_eq!(server.subject_alt_names, [rcgen::SanType::IpAddress(Ipv4Addr::LOCALHOST.into())]);
        let server = server.signed_by(&own, &issuer).unwrap();
        let files = [("ca", ca.pem()), ("certificate", server.pem()), ("key", own.serialize_pem())];
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    /// The file of the authority's certificate.
    pub(crate) fn ca(&self) -> String {
        self.place("ca")
    }

    fn place(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// What a server is configured with.
    fn settings(&self, port: u16) -> [(&'static str, String); 7] {
        [
            ("port", "0".to_owned()),
            ("tls-port", port.to_string()),
            ("tls-cert-file", self.place("certificate")),
            ("tls-key-file", self.place("key")),
            ("tls-ca-cert-file", self.ca()),
            ("tls-auth-clients", "no".to_owned()),
            ("tls-replication", "yes".to_owned()),
        ]
    }

    fn arguments(&self, port: u16) -> Vec<String> {
        self.settings(port).into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
    }

    fn of_cli(&self) -> [String; 3] {
        ["--tls".to_owned(), "--cacert".to_owned(), self.ca()]
    }
}

/// Three masters that are one cluster.
pub(crate) async fn cluster(tls: Option<&Tls>) -> Option<Vec<Redis>> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let bus = free_port().to_string();
        let mut arguments =
            vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus];
        if tls.is_some() {
            arguments.extend(["--tls-cluster", "yes"]);
        }
        nodes.push(Redis::start_maybe_over(tls, &arguments).await?);
    }
    let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut create = process::command("redis-cli");
    create.args(tls.map(Tls::of_cli).into_iter().flatten());
    create.args(["--cluster", "create"]).args(&addresses).arg("--cluster-yes");
    let run = Run::of(&mut create);
    assert_eq!(run.code, Some(0), "{run:?}");
    let is_ready = |node: &Redis| node.cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok");
    eventually("a cluster", SOON, || nodes.iter().all(is_ready).then_some(())).await;
    Some(nodes)
}

/// A master, a replica, and a Sentinel that watches them as `main`; alone it is the majority.
pub(crate) struct Watched {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    pub(crate) sentinel: Redis,
    tls: bool,
}

impl Watched {
    pub(crate) async fn start(tls: Option<&Tls>) -> Option<Self> {
        let master = Redis::start_maybe_over(tls, &[]).await?;
        let port = master.port().to_string();
        let replica = Redis::start_maybe_over(tls, &["--replicaof", "127.0.0.1", &port]).await?;
        eventually("a replica", SOON, || {
            replica.cli(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        })
        .await;
        let lines = format!(
            "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n"
        );
        let sentinel = Self::sentinel(tls, &lines).await;
        eventually("a Sentinel that knows the replica", SOON, || {
            sentinel.cli(&["SENTINEL", "MASTER", "main"]).contains("num-slaves\n1").then_some(())
        })
        .await;
        Some(Self { master, replica, sentinel, tls: tls.is_some() })
    }

    async fn sentinel(tls: Option<&Tls>, lines: &str) -> Redis {
        let port = free_port();
        let folder = tempfile::Builder::new().prefix("rmxd-redis-").tempdir().unwrap();
        let place = folder.path().display();
        let mut text = format!("bind 127.0.0.1\nlogfile {place}/log\ndir {place}\n{lines}");
        match tls {
            Some(tls) => tls.settings(port).iter().for_each(|(name, value)| {
                text.push_str(&format!("{name} {value}\n"));
            }),
            None => text.push_str(&format!("port {port}\n")),
        }
        let own = folder.path().join("sentinel.conf");
        std::fs::write(&own, text).unwrap();
        let arguments = vec![own.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        let child = spawn(&process::program("redis-server").unwrap(), &arguments);
        let mut cli = vec!["-p".to_owned(), port.to_string()];
        cli.extend(tls.map(Tls::of_cli).into_iter().flatten());
        let mut redis = Redis { child, folder, port, cli, arguments };
        redis.listens().await;
        redis
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}+sentinel://127.0.0.1:{}/main", self.sentinel.port())
    }

    /// Waits until the Sentinel has made the replica the master.
    pub(crate) async fn failed_over(&self) {
        let new = self.replica.port().to_string();
        let asked = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"];
        let has_moved = || {
            let is_named = self.sentinel.cli(&asked).contains(&new);
            (is_named && self.replica.cli(&["ROLE"]).starts_with("master")).then_some(())
        };
        eventually("a failover", Duration::from_secs(60), has_moved).await;
    }
}
