//! The metrics of the log on disk.

use std::time::Duration;

use super::{
    SharedHistogram, histogram, record,
    table::{Row, Value},
};

/// Upper bounds of the buckets of a sync's duration, in seconds.
const SYNC_BUCKETS: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// Upper bounds of the buckets of records in a group.
const GROUP_BUCKETS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 25.0, 100.0, 250.0, 1000.0, 10_000.0];

const MICROS: f64 = 1_000_000.0;

/// Histograms of the written groups. The writer's thread records, a scrape reads.
#[derive(Debug)]
pub(crate) struct DiskMetrics {
    syncs: SharedHistogram,
    groups: SharedHistogram,
}

/// The state of the log at a scrape.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DiskGauges {
    /// Whether the log takes records.
    pub is_up: bool,
    pub bytes: u64,
    pub segment_count: u64,
    pub queued_bytes: u64,
    pub record_count: u64,
    pub written_bytes: u64,
    pub copied_bytes: u64,
    /// Damaged places found at the start.
    pub damage_count: usize,
    /// The time of reading the log at the start.
    pub recovery: Duration,
}

impl Default for DiskMetrics {
    fn default() -> Self {
        Self { syncs: histogram().into(), groups: histogram().into() }
    }
}

#[cfg_attr(not(feature = "log"), allow(dead_code, reason = "only a log on disk has groups"))]
impl DiskMetrics {
    /// Counts a written group, and its sync if it had one.
    pub fn count_group(&self, record_count: u64, sync: Option<Duration>) {
        record(&self.groups, record_count);
        if let Some(sync) = sync {
            record(&self.syncs, sync.as_micros() as u64);
        }
    }

    pub(super) fn rows(&self, gauges: &DiskGauges) -> Vec<Row> {
        let row = |metric, stat, value, help| Row { metric, help, stat, value };
        let gauge = |level: u64| Value::Gauge(level as i64);
        let histogram = |recorded: &SharedHistogram, bounds, unit| Value::Histogram {
            recorded: recorded.lock().clone(),
            bounds,
            unit,
        };
        vec![
            row(
                "fanfare_log_up",
                Some("logUp"),
                Value::Gauge(i64::from(gauges.is_up)),
                "Whether the log on disk takes records",
            ),
            row(
                "fanfare_log_bytes",
                Some("logBytes"),
                gauge(gauges.bytes),
                "Size of the log on disk",
            ),
            row("fanfare_log_segments", None, gauge(gauges.segment_count), "Files of the log"),
            row(
                "fanfare_log_queued_bytes",
                None,
                gauge(gauges.queued_bytes),
                "Bytes waiting for the disk",
            ),
            row(
                "fanfare_log_records",
                None,
                Value::Counter(gauges.record_count),
                "Records written, copies included",
            ),
            row(
                "fanfare_log_written_bytes",
                None,
                Value::Counter(gauges.written_bytes),
                "Bytes written to the log, copies included",
            ),
            row(
                "fanfare_log_copied_bytes",
                None,
                Value::Counter(gauges.copied_bytes),
                "Bytes copied from old files before their removal",
            ),
            row(
                "fanfare_log_sync_seconds",
                Some("logSyncMs"),
                histogram(&self.syncs, SYNC_BUCKETS, MICROS),
                "Duration of a sync before answers",
            ),
            row(
                "fanfare_log_group_records",
                None,
                histogram(&self.groups, GROUP_BUCKETS, 1.0),
                "Records written together",
            ),
            row(
                "fanfare_log_recovery_seconds",
                None,
                Value::Seconds(gauges.recovery.as_secs_f64()),
                "Time of reading the log at the start",
            ),
            row(
                "fanfare_log_damaged_places",
                Some("logDamagedPlaces"),
                gauge(gauges.damage_count as u64),
                "Damaged places found in the log at the start",
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_syncs_are_recorded() {
        let metrics = DiskMetrics::default();
        metrics.count_group(3, Some(Duration::from_micros(500)));
        metrics.count_group(5, None);
        let rows = metrics.rows(&DiskGauges::default());
        let count = |name: &str| match &rows.iter().find(|row| row.metric == name).unwrap().value {
            Value::Histogram { recorded, .. } => recorded.len(),
            _ => panic!("{name} is a histogram"),
        };
        assert_eq!((count("fanfare_log_group_records"), count("fanfare_log_sync_seconds")), (2, 1));
    }
}
