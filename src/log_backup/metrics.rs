//! What the log backup tells the host's metrics recorder, if it has one. Names are for ever: dashboards and alarms go by them.

use crate::log_backup::status::{LogBackupState, LogBackupStatus};
use metrics::{counter, describe_counter, describe_gauge, gauge};

/// All up to this sequence number is in the archive.
pub const SHIPPED_SEQUENCE: &str = "morphkv_log_shipped_sequence";
/// How long ago the last moment was that can be restored to, in seconds; 0 if all is shipped.
pub const LAG_SECONDS: &str = "morphkv_log_lag_seconds";
/// WAL bytes that are not shipped.
pub const LAG_BYTES: &str = "morphkv_log_lag_bytes";
/// Bytes of all WAL files.
pub const RETAINED_WAL_BYTES: &str = "morphkv_log_retained_wal_bytes";
/// 1 while the last pass succeeded, else 0.
pub const IS_SHIPPING: &str = "morphkv_log_is_shipping";
/// Segments stored.
pub const SEGMENTS: &str = "morphkv_log_segments_total";
/// Bytes of them.
pub const SEGMENT_BYTES: &str = "morphkv_log_segment_bytes_total";
/// Base snapshots taken.
pub const BASE_SNAPSHOTS: &str = "morphkv_log_base_snapshots_total";
/// Passes that failed.
pub const FAILURES: &str = "morphkv_log_failures_total";
/// Timelines begun because the log did not go on: history was lost.
pub const TIMELINES_BEGUN: &str = "morphkv_log_timelines_begun_total";

const LABEL: &str = "database";

/// Tells the recorder what each of them is.
pub(super) fn describe() {
    describe_gauge!(SHIPPED_SEQUENCE, "all up to this sequence number is in the archive");
    describe_gauge!(LAG_SECONDS, "how long ago the last moment was that can be restored to");
    describe_gauge!(LAG_BYTES, "WAL bytes that are not shipped");
    describe_gauge!(RETAINED_WAL_BYTES, "bytes of all WAL files");
    describe_gauge!(IS_SHIPPING, "1 while the last pass succeeded");
    describe_counter!(SEGMENTS, "segments stored");
    describe_counter!(SEGMENT_BYTES, "bytes of segments stored");
    describe_counter!(BASE_SNAPSHOTS, "base snapshots taken");
    describe_counter!(FAILURES, "passes that failed");
    describe_counter!(TIMELINES_BEGUN, "timelines begun because the log did not go on");
}

/// Tells what a pass has changed.
pub(super) fn tell(database: &str, before: &LogBackupStatus, now: &LogBackupStatus) {
    let set = |name: &'static str, value: u64| gauge!(name, LABEL => database.to_owned()).set(value as f64);
    set(SHIPPED_SEQUENCE, now.shipped_sequence);
    set(LAG_SECONDS, now.lag_seconds);
    set(LAG_BYTES, now.lag_bytes);
    set(RETAINED_WAL_BYTES, now.retained_wal_bytes);
    set(IS_SHIPPING, u64::from(now.state == LogBackupState::Shipping));
    let add = |name: &'static str, more: u64| counter!(name, LABEL => database.to_owned()).increment(more);
    add(SEGMENTS, now.segments.saturating_sub(before.segments));
    add(SEGMENT_BYTES, now.segment_bytes.saturating_sub(before.segment_bytes));
    add(BASE_SNAPSHOTS, now.base_snapshots.saturating_sub(before.base_snapshots));
    add(FAILURES, u64::from(now.failures > before.failures));
    add(TIMELINES_BEGUN, now.timelines_begun.saturating_sub(before.timelines_begun));
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::{
        Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    };
    use parking_lot::Mutex;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    type Values = Arc<Mutex<BTreeMap<String, f64>>>;

    struct Cell(String, Values);

    impl CounterFn for Cell {
        fn increment(&self, value: u64) {
            *self.1.lock().entry(self.0.clone()).or_default() += value as f64;
        }
        fn absolute(&self, value: u64) {
            self.1.lock().insert(self.0.clone(), value as f64);
        }
    }

    impl GaugeFn for Cell {
        fn increment(&self, value: f64) {
            *self.1.lock().entry(self.0.clone()).or_default() += value;
        }
        fn decrement(&self, value: f64) {
            *self.1.lock().entry(self.0.clone()).or_default() -= value;
        }
        fn set(&self, value: f64) {
            self.1.lock().insert(self.0.clone(), value);
        }
    }

    #[derive(Default)]
    struct Seen(Values, Mutex<Vec<String>>);

    impl Seen {
        fn cell(&self, key: &Key) -> Arc<Cell> {
            let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            Arc::new(Cell(format!("{} {}", key.name(), labels.join(",")), Arc::clone(&self.0)))
        }
    }

    impl Recorder for Seen {
        fn describe_counter(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
            self.1.lock().push(key.as_str().to_owned());
        }
        fn describe_gauge(&self, key: KeyName, _: Option<Unit>, _: SharedString) {
            self.1.lock().push(key.as_str().to_owned());
        }
        fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.cell(key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.cell(key))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::noop()
        }
    }

    #[test]
    fn what_is_told_adds_up_and_was_described() {
        let first = LogBackupStatus {
            state: LogBackupState::Shipping,
            shipped_sequence: 7,
            segments: 2,
            segment_bytes: 100,
            base_snapshots: 1,
            ..LogBackupStatus::default()
        };
        let failed = LogBackupStatus { state: LogBackupState::Failing, failures: 1, lag_bytes: 40, ..first.clone() };
        let later = LogBackupStatus { shipped_sequence: 9, segments: 3, segment_bytes: 150, ..first.clone() };
        let seen = Seen::default();
        metrics::with_local_recorder(&seen, || {
            describe();
            tell("/db", &LogBackupStatus::default(), &first);
            tell("/db", &first, &failed);
            tell("/db", &failed, &later);
        });
        let values = seen.0.lock();
        let of = |name: &str| values[&format!("{name} database=/db")];
        assert_eq!([SEGMENTS, SEGMENT_BYTES, BASE_SNAPSHOTS, FAILURES].map(of), [3.0, 150.0, 1.0, 1.0]);
        assert_eq!([SHIPPED_SEQUENCE, LAG_BYTES, IS_SHIPPING, TIMELINES_BEGUN].map(of), [9.0, 0.0, 1.0, 0.0]);
        let described = seen.1.lock();
        assert_eq!(described.len(), values.len());
        assert!(values.keys().all(|key| described.iter().any(|name| key.starts_with(&format!("{name} ")))));
    }
}
