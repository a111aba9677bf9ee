//! A Redis Cluster: three masters with a replica each.

use std::process::Stdio;

use tokio::process::Command;

use super::{Options, REDIS_DEADLINE, RedisServer};
use crate::support::until;

/// Three masters, then three replicas.
const NODE_COUNT: usize = 6;

/// Keys moved per command.
const KEYS_AT_ONCE: &str = "100";

/// A running cluster; dropping it kills every node.
pub struct Cluster {
    nodes: Vec<RedisServer>,
}

impl Cluster {
    /// Starts the nodes, forms the cluster, and waits until each node reports it as complete.
    pub async fn start() -> Self {
        let mut nodes = Vec::new();
        for _ in 0..NODE_COUNT {
            let options = Options { is_cluster_node: true, ..Options::append_only() };
            nodes.push(RedisServer::start(options).await);
        }
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|node| node.addr().to_string()));
        create.args(["--cluster-replicas", "1", "--cluster-yes"]).stdin(Stdio::null());
        let output = create.output().await.expect("redis-cli is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let cluster = Self { nodes };
        cluster.until_whole().await;
        cluster
    }

    /// The URL for `--redis`. Any two nodes are enough.
    pub fn url(&self) -> String {
        format!("redis+cluster://{},{}", self.nodes[0].addr(), self.nodes[NODE_COUNT - 1].addr())
    }

    pub fn node_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.nodes[index]
    }

    /// The slot of a partition's keys: the partition is their hash tag.
    pub async fn slot_of_partition(&self, partition: u64) -> u16 {
        let slot =
            self.nodes[0].command(&["CLUSTER", "KEYSLOT", &format!("{{{partition}}}")]).await;
        slot.parse().expect("a slot")
    }

    /// The slot of the first key matching this pattern.
    pub async fn slot_of_key(&self, pattern: &str) -> u16 {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            if let Some(key) = node.lines(&["KEYS", pattern]).await.first() {
                let slot = node.command(&["CLUSTER", "KEYSLOT", key]).await;
                return slot.parse().expect("a slot");
            }
        }
        panic!("no node has {pattern}");
    }

    /// The index of the master of this slot, by the view of the first running node.
    pub async fn owner(&self, slot: u16) -> usize {
        let known = self.known().await;
        let owner = known.iter().find(|node| node.is_master && node.has_slot(slot));
        self.index_of(owner.unwrap_or_else(|| panic!("nobody has slot {slot}")))
    }

    /// Moves a slot with its keys to another master during use by clients.
    pub async fn migrate(&self, slot: u16, target: usize) {
        let source = self.owner(slot).await;
        let (from, to) = (&self.nodes[source], &self.nodes[target]);
        let (from_id, to_id) = (my_id(from).await, my_id(to).await);
        let slot = slot.to_string();
        to.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await;
        from.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await;
        loop {
            let keys = from.lines(&["CLUSTER", "GETKEYSINSLOT", &slot, KEYS_AT_ONCE]).await;
            if keys.is_empty() {
                break;
            }
            let port = to.port().to_string();
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            from.command(&words).await;
        }
        // The new owner first: the other order leaves the slot without an owner for a moment.
        to.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
        from.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await;
    }

    /// Waits until another node replaces a dead master. Returns its index.
    pub async fn until_taken_over(&self, slot: u16, dead: usize) -> usize {
        until(REDIS_DEADLINE, "the replica takes over", async || self.owner(slot).await != dead)
            .await;
        self.owner(slot).await
    }

    /// Waits until every running node reports all slots as served.
    pub async fn until_whole(&self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            until(REDIS_DEADLINE, "the cluster is whole", async || {
                let info = async |name| node.field(&["CLUSTER", "INFO"], name).await;
                info("cluster_state").await.as_deref() == Some("ok")
                    && info("cluster_slots_ok").await.as_deref() == Some("16384")
                    && is_linked(node).await
            })
            .await;
        }
    }

    async fn known(&self) -> Vec<Known> {
        let node = self.nodes.iter().find(|node| node.is_running()).expect("a node lives");
        node.lines(&["CLUSTER", "NODES"]).await.iter().map(|line| Known::parse(line)).collect()
    }

    fn index_of(&self, known: &Known) -> usize {
        let index = self.nodes.iter().position(|node| node.port() == known.port);
        index.expect("a node of this cluster")
    }
}

async fn my_id(node: &RedisServer) -> String {
    node.command(&["CLUSTER", "MYID"]).await
}

/// Whether it is a master, or a replica linked to its master.
async fn is_linked(node: &RedisServer) -> bool {
    let replication = ["INFO", "replication"];
    node.field(&replication, "role").await.as_deref() == Some("master")
        || node.field(&replication, "master_link_status").await.as_deref() == Some("up")
}

/// A line of `CLUSTER NODES`: a node's knowledge about one node.
struct Known {
    port: u16,
    is_master: bool,
    slots: Vec<(u16, u16)>,
}

impl Known {
    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let address = words[1].split(['@', ',']).next().expect("split yields one");
        // Brackets mark a slot being moved.
        let ranges = words[8..].iter().filter(|word| !word.starts_with('['));
        let slots = ranges.map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse().expect("a slot"), last.parse().expect("a slot"))
        });
        Self {
            port: address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port"),
            is_master: words[2].split(',').any(|flag| flag == "master"),
            slots: slots.collect(),
        }
    }

    fn has_slot(&self, slot: u16) -> bool {
        self.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
    }
}
