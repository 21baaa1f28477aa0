//! Redis servers of our own, on loopback and in temporary folders: single, as a cluster, watched by Sentinels. The one that a
//! package may have started isn't touched.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

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

/// Three masters that are one cluster.
pub(crate) async fn cluster() -> Option<Vec<Redis>> {
    let mut nodes = Vec::new();
    for _ in 0..3 {
        let (port, bus) = (free_port(), free_port().to_string());
        let arguments =
            ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus];
        nodes.push(Redis::start_at(port, &arguments).await?);
    }
    let addresses: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let mut create = process::command("redis-cli");
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
}

impl Watched {
    pub(crate) async fn start() -> Option<Self> {
        let master = Redis::start(&[]).await?;
        let port = master.port().to_string();
        let replica = Redis::start(&["--replicaof", "127.0.0.1", &port]).await?;
        eventually("a replica", SOON, || {
            replica.cli(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        })
        .await;
        let file = tempfile::NamedTempFile::new().unwrap();
        let lines = format!(
            "sentinel monitor main 127.0.0.1 {port} 1\nsentinel down-after-milliseconds main 1000\n\
             sentinel failover-timeout main 3000\n"
        );
        std::fs::write(file.path(), lines).unwrap();
        let place = file.into_temp_path();
        let sentinel = Self::sentinel(&place).await;
        eventually("a Sentinel that knows the replica", SOON, || {
            sentinel.cli(&["SENTINEL", "MASTER", "main"]).contains("num-slaves\n1").then_some(())
        })
        .await;
        place.keep().ok();
        Some(Self { master, replica, sentinel })
    }

    async fn sentinel(configuration: &std::path::Path) -> Redis {
        let port = free_port();
        let folder = tempfile::Builder::new().prefix("rmxd-redis-").tempdir().unwrap();
        let own = folder.path().join("sentinel.conf");
        let log = folder.path().join("log");
        let head = format!(
            "port {port}\nbind 127.0.0.1\nlogfile {}\ndir {}\n",
            log.display(),
            folder.path().display()
        );
        std::fs::write(&own, head + &std::fs::read_to_string(configuration).unwrap()).unwrap();
        let arguments = vec![own.to_str().unwrap().to_owned(), "--sentinel".to_owned()];
        let child = spawn(&process::program("redis-server").unwrap(), &arguments);
        let mut redis =
            Redis { child, folder, port, cli: vec!["-p".to_owned(), port.to_string()], arguments };
        redis.listens().await;
        redis
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main", self.sentinel.port())
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
