//! What a server has done, as Prometheus reads it. Nothing here depends on what texts say.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use frostbert::internals::{
    doctor::process_memory::rss_bytes,
    server::engine::{Engine, EngineTotals},
};

/// The upper ends of the buckets in which times are counted, in seconds.
const BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The requests that were answered so far.
#[derive(Default)]
pub(super) struct RequestCounts {
    by_path: Mutex<BTreeMap<&'static str, PathCounts>>,
}

/// The requests for one path.
#[derive(Default)]
struct PathCounts {
    by_status: BTreeMap<u16, u64>,
    /// Number of requests in each bucket, and in the last those that took longer.
    buckets: [u64; BUCKETS.len() + 1],
    seconds: f64,
}

impl RequestCounts {
    pub(super) fn add(&self, path: &'static str, status: u16, time: Duration) {
        let seconds = time.as_secs_f64();
        let mut by_path = self.lock();
        let counts = by_path.entry(path).or_default();
        *counts.by_status.entry(status).or_default() += 1;
        let bucket = BUCKETS.iter().position(|end| seconds <= *end).unwrap_or(BUCKETS.len());
        counts.buckets[bucket] += 1;
        counts.seconds += seconds;
    }

    /// Number of requests that were answered, whatever the answer.
    pub(super) fn total(&self) -> u64 {
        self.lock().values().flat_map(|counts| counts.by_status.values()).sum()
    }

    /// Returns all numbers in Prometheus' text format.
    pub(super) fn text(&self, engine: &Engine) -> String {
        let mut text = String::new();
        self.put_requests(&mut text);
        let EngineTotals { texts, tokens, truncated, batches, failed } = engine.totals();
        for (name, kind, help, value) in [
            ("texts_total", "counter", "Texts, pairs and questions that were encoded.", texts),
            ("tokens_total", "counter", "Tokens that were encoded.", tokens),
            ("truncated_total", "counter", "Inputs whose end was cut off.", truncated),
            ("batches_total", "counter", "Times that texts were encoded together.", batches),
            ("failed_texts_total", "counter", "Texts that could not be encoded.", failed),
            ("waiting_texts", "gauge", "Texts that wait for a model.", engine.waiting() as u64),
            ("resident_memory_bytes", "gauge", "Memory of the process.", rss_bytes()),
        ] {
            put_head(&mut text, name, kind, help);
            put(&mut text, format_args!("frostbert_{name} {value}"));
        }
        text
    }

    fn put_requests(&self, text: &mut String) {
        let by_path = self.lock();
        put_head(text, "requests_total", "counter", "Answered requests by path and status.");
        for (path, counts) in &*by_path {
            for (status, n) in &counts.by_status {
                put(
                    text,
                    format_args!(
                        "frostbert_requests_total{{path=\"{path}\",status=\"{status}\"}} {n}"
                    ),
                );
            }
        }
        put_head(
            text,
            "request_seconds",
            "histogram",
            "Time from the head of a request to its answer.",
        );
        for (path, counts) in &*by_path {
            let ends = BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_string()]);
            let mut total = 0;
            for (end, n) in ends.zip(counts.buckets) {
                total += n;
                put(
                    text,
                    format_args!(
                        "frostbert_request_seconds_bucket{{path=\"{path}\",le=\"{end}\"}} {total}"
                    ),
                );
            }
            let seconds = counts.seconds;
            put(text, format_args!("frostbert_request_seconds_sum{{path=\"{path}\"}} {seconds}"));
            put(text, format_args!("frostbert_request_seconds_count{{path=\"{path}\"}} {total}"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, PathCounts>> {
        self.by_path.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put_head(text: &mut String, name: &str, kind: &str, help: &str) {
    put(text, format_args!("# HELP frostbert_{name} {help}\n# TYPE frostbert_{name} {kind}"));
}

fn put(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = writeln!(text, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_path_status_and_time() {
        let counts = RequestCounts::default();
        for (status, milliseconds) in [(200, 2), (200, 4), (429, 0), (200, 60_000)] {
            counts.add("/predict", status, Duration::from_millis(milliseconds));
        }
        assert_eq!(counts.total(), 4);
        let mut text = String::new();
        counts.put_requests(&mut text);
        for line in [
            "# TYPE frostbert_requests_total counter",
            "frostbert_requests_total{path=\"/predict\",status=\"200\"} 3",
            "frostbert_requests_total{path=\"/predict\",status=\"429\"} 1",
            "frostbert_request_seconds_bucket{path=\"/predict\",le=\"0.001\"} 1",
            "frostbert_request_seconds_bucket{path=\"/predict\",le=\"0.0025\"} 2",
            "frostbert_request_seconds_bucket{path=\"/predict\",le=\"10\"} 3",
            "frostbert_request_seconds_bucket{path=\"/predict\",le=\"+Inf\"} 4",
            "frostbert_request_seconds_sum{path=\"/predict\"} 60.006",
            "frostbert_request_seconds_count{path=\"/predict\"} 4",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
