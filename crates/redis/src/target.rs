//! The Redis deployment: its URL, and the discovery of its nodes.

use std::{collections::BTreeMap, fmt, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError,
    Value, aio::MultiplexedConnection, from_redis_value,
};

/// Sentinel's name of the master if the URL gives none.
const DEFAULT_MASTER: &str = "mymaster";

/// The location of Redis, parsed from a URL.
#[derive(Clone)]
pub struct Target {
    kind: TargetKind,
    /// The first address of the URL, with user, password and database.
    info: ConnectionInfo,
    /// All addresses of the URL.
    seeds: Vec<Endpoint>,
    tls: Option<Authorities>,
}

/// The accepted certificate authorities (PEM); `None` for the system's.
#[derive(Clone)]
#[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "TLS is left out"))]
struct Authorities(Option<Vec<u8>>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum TargetKind {
    Standalone,
    Sentinel { master: String },
    Cluster,
}

/// The address of one node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Omits user and password: debug output reaches logs.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("kind", &self.kind).field("seeds", &self.seeds).finish()
    }
}

/// An invalid URL, or an unreadable certificate file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error(
        "expected redis://, rediss://, redis+sentinel:// or redis+cluster:// (rediss+… with TLS)"
    )]
    Scheme,
    #[error("expected host:port, or several separated by commas")]
    Address,
    #[error("{0}")]
    Url(String),
    #[error("the file of `redis.tls_ca` is unreadable: {0}")]
    Certificate(String),
}

impl Target {
    /// Parses `redis://[user:password@]host:port[/db]`, or with several addresses
    /// `redis+sentinel://…/master` or `redis+cluster://…`. With `rediss`, all connections use TLS.
    /// `tls_ca` is the path of a PEM file with the accepted certificate authorities; if it is
    /// empty, the system's apply.
    ///
    /// # Errors
    /// The URL is invalid, or the file of `tls_ca` is unreadable.
    pub fn parse(url: &str, tls_ca: &str) -> Result<Self, TargetError> {
        let (scheme, rest) = url.split_once("://").ok_or(TargetError::Scheme)?;
        let (tls, mode) = match scheme.split_once('+').unwrap_or((scheme, "")) {
            ("redis", mode) => (false, mode),
            ("rediss", mode) => (true, mode),
            _ => return Err(TargetError::Scheme),
        };
        let (login, rest) = rest.rsplit_once('@').map_or(("", rest), |(login, rest)| (login, rest));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let kind = match mode {
            "" => TargetKind::Standalone,
            "sentinel" if path.is_empty() => {
                TargetKind::Sentinel { master: DEFAULT_MASTER.to_owned() }
            }
            "sentinel" => TargetKind::Sentinel { master: path.to_owned() },
            "cluster" => TargetKind::Cluster,
            _ => return Err(TargetError::Scheme),
        };
        if kind == TargetKind::Standalone && hosts.contains(',') {
            return Err(TargetError::Address);
        }
        let default_port = if mode == "sentinel" { 26379 } else { 6379 };
        let seeds: Vec<Endpoint> = hosts
            .split(',')
            .map(|host| Endpoint::parse(host, default_port))
            .collect::<Result<_, _>>()?;
        let first = seeds.first().ok_or(TargetError::Address)?;
        let login = if login.is_empty() { String::new() } else { format!("{login}@") };
        let database = if kind == TargetKind::Standalone { path } else { "" };
        let scheme = if tls { "rediss" } else { "redis" };
        let info = format!("{scheme}://{login}{first}/{database}")
            .into_connection_info()
            .map_err(|error| TargetError::Url(error.to_string()))?;
        let tls = tls.then(|| read_certificates(tls_ca)).transpose()?;
        Ok(Self { kind, info, seeds, tls })
    }

    /// The number of the database in the URL.
    pub fn database(&self) -> i64 {
        self.info.redis_settings().db()
    }

    /// Whether the keys of one call must lie in one slot.
    pub fn is_cluster(&self) -> bool {
        self.kind == TargetKind::Cluster
    }

    /// The present masters, each with its partitions in ascending order.
    ///
    /// # Errors
    /// No seed answers, or the answer lacks a partition.
    pub async fn discover(
        &self,
        partitions: u16,
        timeout: Duration,
    ) -> Result<BTreeMap<Endpoint, Vec<u16>>, RedisError> {
        match &self.kind {
            TargetKind::Standalone => {
                Ok(BTreeMap::from([(self.seeds[0].clone(), (0..partitions).collect())]))
            }
            TargetKind::Sentinel { master } => {
                let address = self.first_answer(timeout, async |mut seed| {
                    let mut command = redis::cmd("SENTINEL");
                    command.arg("GET-MASTER-ADDR-BY-NAME").arg(master);
                    command.query_async::<Option<(String, u16)>>(&mut seed).await
                });
                let missing = (redis::ErrorKind::MasterNameNotFoundBySentinel, "no such master");
                let (host, port) = address.await?.ok_or(missing)?;
                Ok(BTreeMap::from([(Endpoint { host, port }, (0..partitions).collect())]))
            }
            TargetKind::Cluster => {
                self.first_answer(timeout, async |mut seed| cluster(&mut seed, partitions).await)
                    .await
            }
        }
    }

    /// Opens a connection to a node, by RESP3: pushes need it.
    ///
    /// # Errors
    /// Connection, TLS handshake or login failed.
    pub async fn connect(
        &self,
        endpoint: &Endpoint,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        let settings = self.info.redis_settings().clone();
        let settings = settings.set_protocol(redis::ProtocolVersion::RESP3);
        self.open(endpoint, settings, config).await
    }

    async fn open(
        &self,
        endpoint: &Endpoint,
        settings: redis::RedisConnectionInfo,
        config: &AsyncConnectionConfig,
    ) -> Result<MultiplexedConnection, RedisError> {
        let address = match self.info.addr() {
            ConnectionAddr::TcpTls { .. } => ConnectionAddr::TcpTls {
                host: endpoint.host.clone(),
                port: endpoint.port,
                insecure: false,
                tls_params: None,
            },
            _ => ConnectionAddr::Tcp(endpoint.host.clone(), endpoint.port),
        };
        let info = self.info.clone().set_addr(address).set_redis_settings(settings);
        let client = match &self.tls {
            #[cfg(feature = "tls")]
            Some(Authorities(root_cert)) => {
                let root_cert = root_cert.clone();
                let certificates = redis::TlsCertificates { client_tls: None, root_cert };
                Client::build_with_tls(info, certificates)?
            }
            _ => Client::open(info)?,
        };
        client.get_multiplexed_async_connection_with_config(config).await
    }

    /// Queries one seed after the other. Returns the first answer, or the last seed's error.
    async fn first_answer<T>(
        &self,
        timeout: Duration,
        ask: impl AsyncFn(MultiplexedConnection) -> Result<T, RedisError>,
    ) -> Result<T, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(timeout))
            .set_response_timeout(Some(timeout));
        // The URL's login is for the Redis nodes. A Sentinel has its own logins, so it gets none.
        let settings = match self.kind {
            TargetKind::Sentinel { .. } => redis::RedisConnectionInfo::default(),
            _ => self.info.redis_settings().clone(),
        };
        let mut last = RedisError::from((redis::ErrorKind::Client, "no address to ask"));
        for seed in &self.seeds {
            let answer = async { ask(self.open(seed, settings.clone(), &config).await?).await };
            match answer.await {
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl Endpoint {
    fn parse(text: &str, default_port: u16) -> Result<Self, TargetError> {
        // Brackets enclose an IPv6 address: it has colons of its own.
        let (host, rest) = match text.strip_prefix('[') {
            Some(text) => text.split_once(']').ok_or(TargetError::Address)?,
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match rest.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| TargetError::Address)?,
            None if rest.is_empty() => default_port,
            None => return Err(TargetError::Address),
        };
        if host.is_empty() {
            return Err(TargetError::Address);
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

fn read_certificates(path: &str) -> Result<Authorities, TargetError> {
    let read = |path| std::fs::read(path).map_err(|e| TargetError::Certificate(e.to_string()));
    let root_cert = (!path.is_empty()).then(|| read(path)).transpose()?;
    Ok(Authorities(root_cert))
}

/// Queries a cluster node for the master of each partition's slot.
async fn cluster(
    seed: &mut MultiplexedConnection,
    partitions: u16,
) -> Result<BTreeMap<Endpoint, Vec<u16>>, RedisError> {
    // The hash tag alone gives a key's slot, and the tag of all keys of a partition is its number.
    let mut slots = redis::pipe();
    for partition in 0..partitions {
        slots.cmd("CLUSTER").arg("KEYSLOT").arg(partition.to_string());
    }
    let slots: Vec<u16> = slots.query_async(seed).await?;
    let ranges: Vec<Value> = redis::cmd("CLUSTER").arg("SLOTS").query_async(seed).await?;
    let ranges: Vec<(u16, u16, Endpoint)> = ranges.into_iter().filter_map(range).collect();
    let mut nodes: BTreeMap<Endpoint, Vec<u16>> = BTreeMap::new();
    for (partition, slot) in (0..partitions).zip(slots) {
        let holds = |range: &&(u16, u16, Endpoint)| (range.0..=range.1).contains(&slot);
        let missing = (redis::ErrorKind::ClusterConnectionNotFound, "a slot is not served");
        let (_, _, endpoint) = ranges.iter().find(holds).ok_or(missing)?;
        nodes.entry(endpoint.clone()).or_default().push(partition);
    }
    Ok(nodes)
}

/// Parses a line of `CLUSTER SLOTS`: first and last slot, then the master and its replicas. Ignores
/// the replicas.
fn range(line: Value) -> Option<(u16, u16, Endpoint)> {
    let Value::Array(line) = line else { return None };
    let mut line = line.into_iter();
    let first = from_redis_value(line.next()?).ok()?;
    let last = from_redis_value(line.next()?).ok()?;
    let Value::Array(master) = line.next()? else { return None };
    let mut master = master.into_iter();
    let host = from_redis_value(master.next()?).ok()?;
    let port = from_redis_value(master.next()?).ok()?;
    Some((first, last, Endpoint { host, port }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<(TargetKind, Vec<String>), TargetError> {
        let target = Target::parse(url, "")?;
        Ok((target.kind, target.seeds.iter().map(ToString::to_string).collect()))
    }

    #[test]
    fn a_url_says_of_what_kind_redis_is_and_where() {
        assert_eq!(parse("redis://r"), Ok((TargetKind::Standalone, vec!["r:6379".into()])));
        assert_eq!(parse("redis://u:p@r:1/2"), Ok((TargetKind::Standalone, vec!["r:1".into()])));
        assert_eq!(parse("redis://[::1]:2"), Ok((TargetKind::Standalone, vec!["[::1]:2".into()])));
        let nodes = vec!["a:1".to_owned(), "b:6379".to_owned()];
        assert_eq!(parse("redis+cluster://u:p@a:1,b"), Ok((TargetKind::Cluster, nodes)));
        let nodes = vec!["a:26379".to_owned(), "b:2".to_owned()];
        let kind = TargetKind::Sentinel { master: "main".into() };
        assert_eq!(parse("redis+sentinel://a,b:2/main"), Ok((kind, nodes)));
    }

    #[test]
    fn other_urls_are_refused() {
        for url in [
            "",
            "r:6379",
            "http://r",
            "redis+other://r",
            "redis://a,b",
            "redis://:1",
            "redis://[::1",
        ] {
            assert!(parse(url).is_err(), "{url}");
        }
        assert!(matches!(parse("redis://r:port"), Err(TargetError::Address)));
        let missing = Target::parse("rediss://r", "/there/is/no/such/file");
        assert!(matches!(missing, Err(TargetError::Certificate(_))));
    }

    #[test]
    fn a_password_is_not_shown() {
        let target = Target::parse("redis://user:secret@r", "").unwrap();
        assert!(!format!("{target:?}").contains("secret"));
    }
}
