//! The contract suite of logs, over a real Redis with two instances.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{Hub, log::contract};

/// A Redis server of one test. It ends, and its files go, when this value is dropped.
pub(crate) struct TestRedis {
    process: Child,
    port: u16,
    directory: PathBuf,
}

impl TestRedis {
    pub fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let directory = std::env::temp_dir().join(format!("fanfare-unit-{port}"));
        std::fs::create_dir_all(&directory).unwrap();
        let process = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--dir"])
            .arg(&directory)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed (scripts/test installs it)");
        Self { process, port, directory }
    }

    /// The value for `redis.url`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// All keys, sorted.
    pub async fn keys(&self) -> Vec<String> {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let keys = redis::cmd("KEYS").arg("*").query_async(&mut connection).await;
        let mut keys: Vec<String> = keys.unwrap();
        keys.sort_unstable();
        keys
    }
}

impl Drop for TestRedis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[actix_web::test]
async fn the_log_in_redis_keeps_every_promise() {
    let redis = TestRedis::start();
    let mut config = contract::config();
    config.redis.url = redis.url();
    let instances = [Hub::start(config.clone()).unwrap(), Hub::start(config).unwrap()];
    let start = Instant::now();
    while !instances.iter().all(Hub::is_ready) {
        assert!(start.elapsed() < Duration::from_secs(10), "not linked in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    contract::all(&instances).await;
}
