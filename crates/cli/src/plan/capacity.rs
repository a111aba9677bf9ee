//! The arithmetic of a capacity plan: from the requirements and the costs to the number of servers
//! and the limiting resource. Pure.

use serde::Serialize;

use super::constants as costs;

/// The requirements, and the size of one server.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PlanInput {
    pub connections: u64,
    /// Events per second of each topic.
    pub rate: f64,
    pub topics_per_connection: u64,
    pub payload_bytes: u64,
    /// Cores of one server; memory, open files and history are of one server too.
    pub cores: u64,
    pub memory_bytes: u64,
    pub open_files: u64,
    pub history_bytes: u64,
    /// The topics' tick; 0 if each event leaves at once.
    pub tick_seconds: f64,
    pub heartbeat_seconds: f64,
}

/// The costs and shares of the calculation.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Constants {
    pub bytes_per_stream: u64,
    pub bytes_per_further_topic: u64,
    pub bytes_per_server: u64,
    /// On a server with few streams, and with many.
    pub cpu_micros_per_delivery: [f64; 2],
    pub few_streams: u64,
    pub cpu_micros_per_idle_stream_second: f64,
    pub cpu_share: f64,
    pub memory_share: f64,
}

impl Default for Constants {
    fn default() -> Self {
        Self {
            bytes_per_stream: costs::BYTES_PER_STREAM,
            bytes_per_further_topic: costs::BYTES_PER_FURTHER_TOPIC,
            bytes_per_server: costs::BYTES_PER_SERVER,
            cpu_micros_per_delivery: [
                costs::CPU_MICROS_PER_DELIVERY_FEW_STREAMS,
                costs::CPU_MICROS_PER_DELIVERY_MANY_STREAMS,
            ],
            few_streams: costs::FEW_STREAMS,
            cpu_micros_per_idle_stream_second: costs::CPU_MICROS_PER_IDLE_STREAM_SECOND,
            cpu_share: costs::CPU_SHARE,
            memory_share: costs::MEMORY_SHARE,
        }
    }
}

/// The resource limiting the connections of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bound {
    Cores,
    Memory,
    OpenFiles,
}

/// The plan. Rates are of all servers together. Figures ending in `_per_server` are of one server,
/// with the streams spread evenly.
#[derive(Debug, Serialize)]
pub(super) struct CapacityPlan {
    pub servers: u64,
    pub decided_by: Bound,
    pub connections_per_server: u64,
    pub open_files_per_server: u64,
    pub memory_bytes_per_server: u64,
    /// Cores in use.
    pub cores_per_server: f64,
    pub deliveries_per_second: f64,
    /// Writes to sockets. All events of a stream in one tick share a write.
    pub writes_per_second: f64,
    pub cpu_micros_per_delivery: f64,
    pub bits_per_second: f64,
    pub bits_per_second_per_server: f64,
}

/// Why a server is too small for any plan.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Impossible {
    #[error("--open-files: must exceed {}, the files besides streams", costs::SPARE_FILES)]
    OpenFiles,
    #[error(
        "--memory: too small: a server with its history and one stream needs {needed_bytes} \
         bytes, and the plan uses {share_percent} % of the memory"
    )]
    Memory { needed_bytes: u64, share_percent: u64 },
    #[error("--cores: too few for a single stream")]
    Cores,
}

impl PlanInput {
    pub fn plan(&self, constants: &Constants) -> Result<CapacityPlan, Impossible> {
        let bounds = [
            (Bound::OpenFiles, self.streams_by_files()?),
            (Bound::Memory, self.streams_by_memory(constants)?),
            (Bound::Cores, self.streams_by_cores(constants)?),
        ];
        let (decided_by, most) =
            bounds.into_iter().min_by_key(|(_, streams)| *streams).expect("there are three bounds");
        let servers = self.connections.div_ceil(most).max(1);
        let connections_per_server = self.connections.div_ceil(servers);
        let cpu_micros = constants.cpu_of_delivery(connections_per_server);
        let bits_per_second = self.bytes_per_stream_second() * 8.0 * self.connections as f64;
        Ok(CapacityPlan {
            servers,
            decided_by,
            connections_per_server,
            open_files_per_server: connections_per_server + costs::SPARE_FILES,
            memory_bytes_per_server: self.memory_bytes(constants, connections_per_server),
            cores_per_server: self.cores_of_stream(constants, cpu_micros)
                * connections_per_server as f64,
            deliveries_per_second: self.deliveries_of_stream() * self.connections as f64,
            writes_per_second: self.writes_of_stream() * self.connections as f64,
            cpu_micros_per_delivery: cpu_micros,
            bits_per_second,
            bits_per_second_per_server: bits_per_second / servers as f64,
        })
    }

    fn streams_by_files(&self) -> Result<u64, Impossible> {
        let streams = self.open_files.saturating_sub(costs::SPARE_FILES);
        if streams == 0 { Err(Impossible::OpenFiles) } else { Ok(streams) }
    }

    fn streams_by_memory(&self, constants: &Constants) -> Result<u64, Impossible> {
        let usable = (self.memory_bytes as f64 * constants.memory_share) as u64;
        let fixed = self.memory_bytes(constants, 0);
        let one = (self.memory_bytes(constants, 1) - fixed).max(1);
        match usable.saturating_sub(fixed) / one {
            0 => Err(Impossible::Memory {
                needed_bytes: fixed + one,
                share_percent: (constants.memory_share * 100.0).round() as u64,
            }),
            streams => Ok(streams),
        }
    }

    /// A delivery costs less on a server with few streams. The figure for few streams counts only
    /// if it allows more streams than the figure for many.
    fn streams_by_cores(&self, constants: &Constants) -> Result<u64, Impossible> {
        let usable = self.cores as f64 * constants.cpu_share;
        let [few, many] = constants.cpu_micros_per_delivery;
        let streams = |cpu_micros| (usable / self.cores_of_stream(constants, cpu_micros)) as u64;
        match (streams(many), streams(few).min(constants.few_streams)) {
            (0, 0) => Err(Impossible::Cores),
            (with_many, with_few) => Ok(with_many.max(with_few)),
        }
    }

    fn memory_bytes(&self, constants: &Constants, streams: u64) -> u64 {
        let further =
            constants.bytes_per_further_topic * self.topics_per_connection.saturating_sub(1);
        let fixed = constants.bytes_per_server + self.history_bytes;
        fixed + streams * (constants.bytes_per_stream + further)
    }

    fn deliveries_of_stream(&self) -> f64 {
        self.rate * self.topics_per_connection as f64
    }

    /// Events arrive at random, and events in the same tick share a write. Writes per second are
    /// therefore the ticks with at least one event.
    fn writes_of_stream(&self) -> f64 {
        let deliveries = self.deliveries_of_stream();
        if self.tick_seconds <= 0.0 {
            return deliveries;
        }
        -(-deliveries * self.tick_seconds).exp_m1() / self.tick_seconds
    }

    fn cores_of_stream(&self, constants: &Constants, cpu_micros: f64) -> f64 {
        let delivering = self.deliveries_of_stream() * cpu_micros;
        (delivering + constants.cpu_micros_per_idle_stream_second) / 1e6
    }

    /// Bytes on the wire, sent by the server. A heartbeat counts only without other writes.
    fn bytes_per_stream_second(&self) -> f64 {
        let heartbeats =
            if self.heartbeat_seconds > 0.0 { 1.0 / self.heartbeat_seconds } else { 0.0 };
        let writes = self.writes_of_stream();
        let quiet = (heartbeats - writes).max(0.0);
        let heartbeat = (costs::HEARTBEAT_BYTES
            + costs::HTTP_BYTES_PER_WRITE
            + costs::NETWORK_BYTES_PER_PACKET) as f64;
        let events =
            self.deliveries_of_stream() * (self.payload_bytes + costs::SSE_BYTES_PER_EVENT) as f64;
        let data = events + writes * costs::HTTP_BYTES_PER_WRITE as f64;
        let packets = writes.max(data / costs::PACKET_DATA_BYTES as f64);
        data + packets * costs::NETWORK_BYTES_PER_PACKET as f64 + quiet * heartbeat
    }
}

impl Constants {
    fn cpu_of_delivery(&self, streams: u64) -> f64 {
        self.cpu_micros_per_delivery[usize::from(streams > self.few_streams)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> PlanInput {
        PlanInput {
            connections: 100_000,
            rate: 1.0,
            topics_per_connection: 1,
            payload_bytes: 100,
            cores: 4,
            memory_bytes: 8 << 30,
            open_files: 500_000,
            history_bytes: 256 << 20,
            tick_seconds: 0.0,
            heartbeat_seconds: 15.0,
        }
    }

    fn constants() -> Constants {
        Constants {
            bytes_per_stream: 10_000,
            bytes_per_further_topic: 100,
            bytes_per_server: 1_000_000,
            cpu_micros_per_delivery: [5.0, 10.0],
            few_streams: 1000,
            cpu_micros_per_idle_stream_second: 0.0,
            cpu_share: 0.5,
            memory_share: 0.5,
        }
    }

    fn plan(wanted: &PlanInput) -> CapacityPlan {
        wanted.plan(&constants()).unwrap()
    }

    #[test]
    fn cores_decide_where_events_are_many() {
        // Two cores of each server, 10 µs a delivery: 200,000 a second.
        let plan = plan(&PlanInput { rate: 10.0, ..wanted() });
        assert_eq!((plan.servers, plan.decided_by), (5, Bound::Cores));
        assert_eq!(plan.connections_per_server, 20_000);
        assert!((plan.cores_per_server - 2.0).abs() < 1e-9);
        assert!((plan.deliveries_per_second - 1e6).abs() < 1e-6);
    }

    #[test]
    fn memory_decides_where_it_is_small() {
        let memory_bytes = 2 * (1_000_000 + 10_000 * 25_000);
        let plan = plan(&PlanInput { memory_bytes, history_bytes: 0, ..wanted() });
        assert_eq!((plan.servers, plan.decided_by), (4, Bound::Memory));
        assert_eq!(plan.memory_bytes_per_server, memory_bytes / 2);
    }

    #[test]
    fn open_files_decide_where_they_are_few() {
        let plan = plan(&PlanInput { open_files: 1024, ..wanted() });
        assert_eq!((plan.servers, plan.decided_by), (122, Bound::OpenFiles));
        assert!(plan.open_files_per_server <= 1024);
        assert!((plan.cpu_micros_per_delivery - 5.0).abs() < 1e-9, "few streams a server");
    }

    #[test]
    fn one_server_is_the_least() {
        let plan = plan(&PlanInput { connections: 1, rate: 0.0, ..wanted() });
        assert_eq!((plan.servers, plan.connections_per_server), (1, 1));
    }

    #[test]
    fn further_topics_cost_memory_and_deliveries() {
        let one = plan(&wanted());
        let ten = plan(&PlanInput { topics_per_connection: 10, ..wanted() });
        assert!((ten.deliveries_per_second - 10.0 * one.deliveries_per_second).abs() < 1e-3);
        let per_stream = |plan: &CapacityPlan| {
            (plan.memory_bytes_per_server - 1_000_000 - (256 << 20)) / plan.connections_per_server
        };
        assert_eq!((per_stream(&one), per_stream(&ten)), (10_000, 10_900));
    }

    #[test]
    fn a_tick_has_one_write_at_most() {
        let of = |rate, tick_seconds| {
            plan(&PlanInput { connections: 1, rate, tick_seconds, ..wanted() }).writes_per_second
        };
        assert!((of(7.0, 0.0) - 7.0).abs() < 1e-9);
        assert!(of(1.0, 0.1) < 1.0 && of(1.0, 0.1) > 0.9);
        assert!(of(10_000.0, 0.1) <= 10.0);
    }

    #[test]
    fn bandwidth_counts_every_layer() {
        let of = |rate| plan(&PlanInput { connections: 1, rate, ..wanted() }).bits_per_second;
        // 100 bytes, and 120 + 8 + 90 around them.
        assert!((of(1.0) - 318.0 * 8.0).abs() < 1e-6);
        // Only heartbeats: 110 bytes in 15 s.
        assert!((of(0.0) - 110.0 * 8.0 / 15.0).abs() < 1e-6);
    }

    #[test]
    fn machines_that_are_too_small_are_told() {
        let error = |wanted: PlanInput| wanted.plan(&constants()).unwrap_err();
        assert_eq!(error(PlanInput { open_files: 200, ..wanted() }), Impossible::OpenFiles);
        let small = error(PlanInput { memory_bytes: 1 << 20, ..wanted() });
        assert!(small.to_string().starts_with("--memory"), "{small}");
        assert_eq!(error(PlanInput { rate: 1e9, ..wanted() }), Impossible::Cores);
    }
}
