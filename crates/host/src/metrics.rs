//! Numbers: one registry a service, rendered as Prometheus text 0.0.4 and as flat JSON.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::Collector;
use prometheus::proto::MetricType;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};

/// The media type of [`Metrics::text`].
pub const TEXT_TYPE: &str = "text/plain; version=0.0.4";

type Refresh = Box<dyn Fn() + Send + Sync>;

/// A service's registry. Cheap to clone. Names are given without the prefix `caracal_<service>_`.
#[derive(Clone)]
pub struct Metrics {
    prefix: Arc<str>,
    registry: Registry,
    refresh: Arc<Mutex<Vec<Refresh>>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Metrics({})", self.prefix)
    }
}

impl Metrics {
    /// An empty registry of a service (`gateway` gives names that begin with `caracal_gateway_`).
    pub fn new(service: &str) -> Self {
        Self { prefix: format!("caracal_{service}_").into(), registry: Registry::new(), refresh: Arc::default() }
    }

    /// A counter. By convention its name ends in `_total`.
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(self.full(name), help))
    }

    /// A counter with labels.
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(self.full(name), help), labels))
    }

    /// A gauge of whole numbers.
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(self.full(name), help))
    }

    /// A gauge of fractions.
    pub fn ratio(&self, name: &str, help: &str) -> Gauge {
        self.register(Gauge::new(self.full(name), help))
    }

    /// A histogram of seconds, from a quarter of a millisecond to half a minute.
    pub fn seconds(&self, name: &str, help: &str) -> Histogram {
        let buckets = vec![0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        self.register(Histogram::with_opts(HistogramOpts::new(self.full(name), help).buckets(buckets)))
    }

    /// Registers a collector under its own name, for what services share (`caracal_db_pool_..`).
    pub fn shared<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.register(Ok(collector))
    }

    /// Runs before each rendering: sets gauges that are cheaper to ask for than to keep.
    pub fn on_scrape(&self, refresh: impl Fn() + Send + Sync + 'static) {
        self.refresh.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(refresh));
    }

    /// Prometheus text 0.0.4.
    pub fn text(&self) -> String {
        self.refresh();
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// Counters and gauges without labels, as `(name, value)`: without the prefix and without `_total`; shared names are left out.
    pub fn flat(&self) -> Vec<(String, i64)> {
        self.refresh();
        let mut flat = Vec::new();
        for family in self.registry.gather() {
            let Some(name) = family.name().strip_prefix(&*self.prefix) else { continue };
            let name = name.strip_suffix("_total").unwrap_or(name).to_owned();
            let kind = family.get_field_type();
            for metric in family.get_metric().iter().filter(|m| m.get_label().is_empty()) {
                let value = match kind {
                    MetricType::COUNTER => metric.get_counter().get_value(),
                    MetricType::GAUGE => metric.get_gauge().get_value(),
                    _ => continue,
                };
                #[allow(clippy::cast_possible_truncation, reason = "counts and ages stay far below 2^53")]
                flat.push((name.clone(), value as i64));
            }
        }
        flat
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn refresh(&self) {
        for refresh in self.refresh.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            refresh();
        }
    }

    /// Names are constants of our own, so a wrong or doubled one is a defect that the first test of the service meets.
    #[allow(clippy::panic, reason = "see above")]
    fn register<C: Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> C {
        match collector.and_then(|c| self.registry.register(Box::new(c.clone())).map(|()| c)) {
            Ok(collector) => collector,
            Err(error) => panic!("metric of {}: {error}", self.prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_texts_and_flat_form() {
        let metrics = Metrics::new("gateway");
        let requests = metrics.counter("requests_total", "Calls begun.");
        let open = metrics.gauge("streams_open", "Open streams.");
        metrics.seconds("request_duration_seconds", "Duration.").observe(0.2);
        metrics.on_scrape(move || open.set(4));
        requests.inc_by(3);
        let text = metrics.text();
        assert!(text.contains("# TYPE caracal_gateway_requests_total counter\ncaracal_gateway_requests_total 3\n"), "{text}");
        assert!(text.contains("caracal_gateway_request_duration_seconds_bucket{le=\"0.25\"} 1"));
        assert_eq!(metrics.flat(), [("requests".to_owned(), 3), ("streams_open".to_owned(), 4)]);
    }
}
