//! The report of a run: as a table, and as JSON with stable keys.

use std::{fmt, time::Duration};

use bytesize::ByteSize;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::{exchange::DeliveryDefaults, ledger::Loss, storm::Storm};

/// The whole report. A figure without a measurement is `null`, or `unknown` in the table.
#[derive(Debug, Serialize)]
pub(super) struct BenchReport {
    pub url: String,
    /// Measured time, without the warm-up.
    pub seconds: f64,
    pub payload_bytes: usize,
    pub topics: u32,
    pub topics_per_stream: u32,
    pub streams: StreamsReport,
    pub published: PublishReport,
    pub deliveries: Deliveries,
    pub loss: LossReport,
    pub latency_ms: LatencyReport,
    /// The hub's default policy: a part of the latency. None for another hub.
    pub delivery: Option<DeliveryDefaults>,
    pub reconnect: Option<Reconnect>,
    pub stalled: Option<StalledStreams>,
    pub server: ServerReport,
}

#[derive(Debug, Serialize)]
pub(super) struct StreamsReport {
    pub asked: u64,
    pub opened: u64,
    /// Streams ended before the end of the run, by the server or by a broken connection.
    pub ended: u64,
    pub first_end: Option<String>,
    pub seconds_to_open: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct PublishReport {
    /// None without a rate.
    pub asked_per_second: Option<f64>,
    pub per_second: f64,
    /// Events confirmed by the server, warm-up included.
    pub confirmed: u64,
    /// Events refused or not answered.
    pub unconfirmed: u64,
    pub first_refusal: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Deliveries {
    pub per_second: f64,
    /// Warm-up included.
    pub total: u64,
    /// One for each confirmed event and each stream on its topic.
    pub expected: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct LossReport {
    /// Whether missing numbers are losses. False if the hub conflated: conflation skips events.
    pub is_checked: bool,
    #[serde(flatten)]
    pub loss: Loss,
    /// Gap events of all streams.
    pub gaps: u64,
    /// Events delivered to streams of other topics.
    pub strays: u64,
    /// Deliveries conflated, by the hub's own count.
    pub conflated: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct LatencyReport {
    pub p50: Option<f64>,
    pub p95: Option<f64>,
    pub p99: Option<f64>,
    #[serde(rename = "p99.9")]
    pub p999: Option<f64>,
    pub max: Option<f64>,
}

/// A reconnect storm. Its times start with the first reconnect.
#[derive(Debug, Serialize)]
pub(super) struct Reconnect {
    /// Events of each topic, published while no stream was open.
    pub events: u64,
    /// Deliveries of these events, over all streams.
    pub missed: u64,
    pub seconds_to_open: f64,
    /// Until every stream had its missed events; null if one never had.
    pub seconds_to_catch_up: Option<f64>,
    pub cpu_micros_per_stream: Option<f64>,
    /// Of the whole machine, during the reconnects.
    pub syn_retransmissions: Option<u64>,
    pub listen_overflows: Option<u64>,
}

impl Reconnect {
    pub fn of(storm: &Storm, streams: u64) -> Self {
        let Storm { events, missed, to_open, to_catch_up, cpu, handshakes } = storm;
        Self {
            events: *events,
            missed: *missed,
            seconds_to_open: to_open.as_secs_f64(),
            seconds_to_catch_up: to_catch_up.map(|time| time.as_secs_f64()),
            cpu_micros_per_stream: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / streams.max(1) as f64),
            syn_retransmissions: handshakes.map(|it| it.syn_retransmissions),
            listen_overflows: handshakes.map(|it| it.listen_overflows),
        }
    }

    fn rows(&self) -> [(&'static str, String); 3] {
        let again = match (self.syn_retransmissions, self.listen_overflows) {
            (Some(syns), Some(overflows)) => {
                format!("{syns} SYN retries, {overflows} queue overflows")
            }
            _ => "SYNs unknown".to_owned(),
        };
        let caught_up =
            self.seconds_to_catch_up.map_or("never".to_owned(), |time| format!("{time:.2} s"));
        let Self { events, missed, .. } = self;
        [
            ("all back", format!("after {:.2} s, {again}", self.seconds_to_open)),
            (
                "all caught up",
                format!("after {caught_up}, {events} events a topic, {missed} deliveries"),
            ),
            (
                "server CPU a return",
                known(self.cpu_micros_per_stream, |micros| format!("{micros:.1} µs")),
            ),
        ]
    }
}

/// Streams opened and never read.
#[derive(Debug, Serialize)]
pub(super) struct StalledStreams {
    pub asked: u64,
    /// Ended by the server before the end of the run.
    pub ended: u64,
}

/// The kernel's figures about the server's processes.
#[derive(Debug, Default, Serialize)]
pub(super) struct ServerReport {
    pub pids: Vec<u32>,
    /// Pss with all streams open, before the first publish.
    pub memory_bytes: Option<u64>,
    /// Pss at the end of the run.
    pub memory_bytes_at_end: Option<u64>,
    pub memory_bytes_per_connection: Option<f64>,
    /// Percent of one core.
    pub cpu_percent: Option<f64>,
    /// CPU time of each connection per second.
    pub cpu_micros_per_connection: Option<f64>,
    pub cpu_micros_per_delivery: Option<f64>,
}

impl LatencyReport {
    pub fn of(micros: &Histogram<u64>) -> Self {
        let millis = |micros: u64| micros as f64 / 1000.0;
        let at =
            |quantile| (!micros.is_empty()).then(|| millis(micros.value_at_quantile(quantile)));
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

impl BenchReport {
    /// The failed checks, a line each. None if the run passed.
    pub fn failure(&self) -> Option<String> {
        let LossReport { is_checked, loss, gaps, strays, .. } = &self.loss;
        let mut problems = Vec::new();
        if self.streams.ended > 0 {
            let why = self.streams.first_end.as_deref().unwrap_or("unknown");
            problems.push(format!("{} streams ended early; the first: {why}", self.streams.ended));
        }
        if *is_checked && loss.lost > 0 {
            problems.push(format!("{} deliveries were lost", loss.lost));
        }
        let counts = [
            (loss.twice, "deliveries came twice"),
            (loss.out_of_order, "deliveries came out of order"),
            (*gaps, "gaps reported by the hub"),
            (*strays, "deliveries reached streams of other topics"),
        ];
        let counts = counts.into_iter().filter(|(count, _)| *count > 0);
        problems.extend(counts.map(|(count, what)| format!("{count} {what}")));
        (!problems.is_empty()).then(|| problems.join("\n"))
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = self.rows_of_streams();
        match &self.reconnect {
            Some(reconnect) => rows.extend(reconnect.rows()),
            None => rows.push(("published a second", self.published.to_string())),
        }
        rows.push(("published, not confirmed", self.published.unconfirmed.to_string()));
        rows.push(("deliveries a second", format!("{:.0}", self.deliveries.per_second)));
        rows.push(("loss", self.loss.to_string()));
        if self.reconnect.is_none() {
            rows.push(("latency", self.latency_ms.to_string()));
            rows.extend(self.delivery.as_ref().map(|it| ("of it, the tick", it.to_string())));
        }
        rows.extend(self.server.rows());
        rows
    }

    fn rows_of_streams(&self) -> Vec<(&'static str, String)> {
        let Self { streams, seconds, payload_bytes, .. } = self;
        let StreamsReport { asked, opened, ended, seconds_to_open, .. } = streams;
        let opened =
            format!("{opened} of {asked}, opened in {seconds_to_open:.2} s, {ended} ended early");
        let mut rows = vec![("connections", opened)];
        if let Some(StalledStreams { asked, ended }) = &self.stalled {
            rows.push(("stalled connections", format!("{asked}, {ended} ended by the server")));
        }
        rows.push(("topics", format!("{}, {} a stream", self.topics, self.topics_per_stream)));
        rows.push(("measured", format!("{seconds:.1} s, payload {payload_bytes} bytes")));
        rows
    }
}

impl ServerReport {
    fn rows(&self) -> [(&'static str, String); 5] {
        let kibibytes = |bytes| format!("{:.1} KiB", bytes / 1024.0);
        [
            ("server memory", known(self.memory_bytes, |bytes| ByteSize(bytes).to_string())),
            ("server memory a connection", known(self.memory_bytes_per_connection, kibibytes)),
            ("server CPU", known(self.cpu_percent, |share| format!("{share:.2} % of a core"))),
            (
                "server CPU a connection",
                known(self.cpu_micros_per_connection, |micros| format!("{micros:.2} µs a second")),
            ),
            (
                "server CPU a delivery",
                known(self.cpu_micros_per_delivery, |micros| format!("{micros:.2} µs")),
            ),
        ]
    }
}

fn known<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "unknown".to_owned(), text)
}

impl fmt::Display for BenchReport {
    /// A Markdown table with aligned columns.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [("measured at", self.url.clone())].into_iter().chain(self.rows());
        for (number, (name, value)) in rows.enumerate() {
            if number == 1 {
                writeln!(f, "|{:-<28}|{:-<60}|", "", "")?;
            }
            writeln!(f, "| {name:<26} | {value:<58} |")?;
        }
        Ok(())
    }
}

impl fmt::Display for PublishReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} ", self.per_second)?;
        match self.asked_per_second {
            Some(rate) => write!(f, "(asked {rate})"),
            None => f.write_str("(no rate limit)"),
        }
    }
}

impl fmt::Display for LossReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { loss: Loss { lost, twice, out_of_order }, gaps, .. } = self;
        if self.is_checked {
            write!(f, "{lost} lost, ")?;
        } else {
            let conflated = self.conflated.unwrap_or_default();
            write!(f, "not checked, the hub conflates ({conflated}; {lost} missing), ")?;
        }
        write!(f, "{twice} twice, {out_of_order} out of order, {gaps} gaps")
    }
}

impl fmt::Display for DeliveryDefaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { flush, tick_ms } = self;
        match flush.as_str() {
            "immediate" => write!(f, "none (flush {flush})"),
            "leading" => {
                write!(f, "none in quiet topics, up to {tick_ms} ms in busy ones (flush {flush})")
            }
            _ => write!(f, "up to {tick_ms} ms (flush {flush})"),
        }
    }
}

impl fmt::Display for LatencyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Some(p50), Some(p95), Some(p99), Some(p999)) =
            (self.p50, self.p95, self.p99, self.p999)
        else {
            return f.write_str("unknown");
        };
        write!(f, "p50 {p50:.1} ms, p95 {p95:.1} ms, p99 {p99:.1} ms, p99.9 {p999:.1} ms")
    }
}

/// The server's CPU time within the window, and the counts to divide it by.
pub(super) struct Cost {
    pub cpu: Option<Duration>,
    pub window: Duration,
    pub streams: u64,
    pub deliveries: u64,
}

impl Cost {
    /// Fills in the CPU figures; they stay unknown without a CPU time.
    pub fn put_into(&self, server: &mut ServerReport) {
        let Some(cpu) = self.cpu.filter(|_| !self.window.is_zero()) else {
            return;
        };
        let share = cpu.as_secs_f64() / self.window.as_secs_f64();
        let micros = cpu.as_secs_f64() * 1e6;
        server.cpu_percent = Some(share * 100.0);
        server.cpu_micros_per_connection = Some(share * 1e6 / self.streams.max(1) as f64);
        server.cpu_micros_per_delivery =
            (self.deliveries > 0).then(|| micros / self.deliveries as f64);
    }
}
