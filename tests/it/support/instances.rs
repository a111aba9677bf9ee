//! Several `fanfare serve` processes as one hub over Redis.

use std::net::SocketAddr;

use super::{Launch, Server, ports::free_port, redis::REDIS_DEADLINE, wait::until};

/// A setting: its key as in `fanfare.toml`, and its value.
pub type Setting<'a> = (&'a str, &'a str);

/// Running instances; dropping them kills them.
pub struct Instances {
    pub servers: Vec<Server>,
}

impl Instances {
    /// Starts one instance per Redis URL and waits until all are ready.
    pub async fn start(urls: &[impl AsRef<str>], settings: &[Setting<'_>]) -> Self {
        let mut servers = Vec::new();
        for url in urls {
            servers.push(Self::spawn(url.as_ref(), settings).await);
        }
        let instances = Self { servers };
        instances.until_ready().await;
        instances
    }

    /// Starts one instance and waits until it listens, with or without Redis.
    pub async fn spawn(redis: &str, settings: &[Setting<'_>]) -> Server {
        // A port of its own, so a restart can use the same one.
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        Server::spawn_on(addr, launch(redis, settings)).await
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.addr).collect()
    }

    /// The address of one instance.
    pub fn addr(&self, index: usize) -> SocketAddr {
        self.servers[index].addr
    }

    /// Waits until all are ready.
    pub async fn until_ready(&self) {
        self.until_all("ready", async |server| server.is_ready().await).await;
    }

    /// Waits until none is ready.
    pub async fn until_not_ready(&self) {
        self.until_all("not ready", async |server| !server.is_ready().await).await;
    }

    /// Waits until the condition is true for every instance.
    pub async fn until_all(&self, what: &str, mut is_so: impl AsyncFnMut(&Server) -> bool) {
        for server in &self.servers {
            until(REDIS_DEADLINE, &format!("{} is {what}", server.addr), async || {
                is_so(server).await
            })
            .await;
        }
    }

    /// Kills one instance with SIGKILL and restarts it on the same port.
    pub async fn restart(&mut self, index: usize) {
        let server = self.servers.remove(index).restart().await;
        self.servers.insert(index, server);
    }

    /// The sum of a metric over all instances.
    pub async fn metric(&self, name: &str) -> f64 {
        let mut sum = 0.0;
        for server in &self.servers {
            sum += server.metric(name).await;
        }
        sum
    }
}

fn launch(redis: &str, settings: &[Setting<'_>]) -> Launch {
    let variable = |(key, value): &Setting<'_>| {
        let name = format!("FANFARE__{}", key.replace('.', "__").to_uppercase());
        (name, (*value).to_owned())
    };
    Launch {
        args: ["--redis", redis, "--no-demo"].map(str::to_owned).to_vec(),
        environment: settings.iter().map(variable).collect(),
        ..Launch::default()
    }
}
