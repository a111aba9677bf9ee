//! A master, its replica, and three Sentinels promoting the replica in a failover.

use super::{Options, REDIS_DEADLINE, RedisServer};
use crate::support::{directory::Directory, ports::free_port, process::Process, until};

/// The master's name for Sentinels.
const NAME: &str = "mymaster";

const SENTINEL_COUNT: usize = 3;

/// Two servers watched by Sentinels. Dropping it ends all.
pub struct Sentinels {
    /// The first master and the first replica.
    pub servers: [RedisServer; 2],
    sentinels: Vec<Sentinel>,
}

struct Sentinel {
    port: u16,
    _process: Process,
    _directory: Directory,
}

impl Sentinels {
    /// Starts all and waits until every Sentinel knows the replica and the other Sentinels.
    pub async fn start() -> Self {
        let master = RedisServer::start(Options::append_only()).await;
        let replica = Options { replica_of: Some(master.port()), ..Options::append_only() };
        let replica = RedisServer::start(replica).await;
        until(REDIS_DEADLINE, "the replica follows", async || {
            let link = replica.field(&["INFO", "replication"], "master_link_status").await;
            link.as_deref() == Some("up")
        })
        .await;
        let sentinels = (0..SENTINEL_COUNT).map(|_| Sentinel::start(master.port())).collect();
        let watched = Self { servers: [master, replica], sentinels };
        for sentinel in &watched.sentinels {
            until(REDIS_DEADLINE, "the Sentinels know each other", async || {
                watched.knows_all(sentinel).await
            })
            .await;
        }
        watched
    }

    /// The URL for `--redis`.
    pub fn url(&self) -> String {
        let ports = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port));
        format!("redis+sentinel://{}/{NAME}", ports.collect::<Vec<_>>().join(","))
    }

    /// Waits until every Sentinel names this server as the master, and it has this role itself.
    pub async fn until_master(&self, index: usize) {
        let server = &self.servers[index];
        let wanted = server.port().to_string();
        for sentinel in &self.sentinels {
            until(REDIS_DEADLINE, "the Sentinels name the new master", async || {
                let address = self.ask(sentinel, &["SENTINEL", "get-master-addr-by-name", NAME]);
                address.await.lines().nth(1) == Some(wanted.as_str())
            })
            .await;
        }
        self.until_role(index, "master").await;
    }

    /// Waits until this server reports this role: `master` or `slave`.
    pub async fn until_role(&self, index: usize, role: &str) {
        let server = &self.servers[index];
        until(REDIS_DEADLINE, "the server has its role", async || {
            server.field(&["INFO", "replication"], "role").await.as_deref() == Some(role)
        })
        .await;
    }

    async fn knows_all(&self, sentinel: &Sentinel) -> bool {
        let known = self.ask(sentinel, &["SENTINEL", "master", NAME]).await;
        let lines: Vec<&str> = known.lines().collect();
        let has = |field: &str, value: &str| lines.windows(2).any(|pair| pair == [field, value]);
        has("num-slaves", "1") && has("num-other-sentinels", "2") && has("flags", "master")
    }

    /// A Sentinel's answer; empty if there is none.
    async fn ask(&self, sentinel: &Sentinel, words: &[&str]) -> String {
        let mut command = tokio::process::Command::new("redis-cli");
        command.args(["-p", &sentinel.port.to_string()]).args(words).kill_on_drop(true);
        let output = command.output().await.expect("redis-cli is there");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Sentinel {
    fn start(master: u16) -> Self {
        let port = free_port();
        let directory = Directory::new("sentinel");
        let settings = format!(
            "port {port}\n\
             bind 127.0.0.1\n\
             dir {}\n\
             logfile log\n\
             sentinel monitor {NAME} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {NAME} 1000\n\
             sentinel failover-timeout {NAME} 3000\n",
            directory.path().display()
        );
        let file = directory.write("sentinel.conf", &settings);
        let arguments = [file.display().to_string(), "--sentinel".to_owned()];
        let process = Process::start("redis-server", &arguments);
        Self { port, _process: process, _directory: directory }
    }
}
