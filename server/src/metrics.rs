//! What `/metrics` shows, in the Prometheus text format.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use dispatch_runner::PoolState;
use dispatch_runner::egress::News;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    server: &'static str,
    route: String,
    method: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LatencyLabels {
    server: &'static str,
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RunLabels {
    organization: String,
    function: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FunctionLabels {
    organization: String,
    function: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolLabels {
    organization: String,
    function: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EgressLabels {
    organization: String,
    function: String,
    /// `connected`, or why it was refused.
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DirectionLabels {
    organization: String,
    function: String,
    direction: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LanguageLabels {
    language: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EventLabels {
    organization: String,
    /// `accepted` or `duplicate`.
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DeliveryLabels {
    organization: String,
    subscription: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DriverLabels {
    organization: String,
    driver: String,
}

/// What can become of a delivery's try, and of its reply.
const DELIVERY_OUTCOMES: [&str; 4] = ["delivered", "failed", "not-made", "no-reply"];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct QueueLabels {
    queue: String,
    state: &'static str,
}

/// 0.5 ms to 16 s.
fn latency() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0,
    ])
}

/// Counters of this server's life.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latencies: Family<LatencyLabels, Histogram, fn() -> Histogram>,
    runs: Family<RunLabels, Counter>,
    durations: Family<FunctionLabels, Histogram, fn() -> Histogram>,
    workers: Family<PoolLabels, Gauge>,
    waiting: Family<FunctionLabels, Gauge>,
    stems: Family<LanguageLabels, Gauge>,
    queues: Family<QueueLabels, Gauge>,
    events: Family<EventLabels, Counter>,
    deliveries: Family<DeliveryLabels, Counter>,
    driver_ends: Family<DriverLabels, Counter>,
    drivers: Gauge,
    connections: Family<EgressLabels, Counter>,
    bytes: Family<DirectionLabels, Counter>,
    dropped_log_bytes: Counter,
    unwritten: Gauge<i64, std::sync::atomic::AtomicI64>,
    scrapes: Counter<u64, AtomicU64>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        let mut registry = Registry::with_prefix("dispatch");
        let metrics = Metrics {
            requests: Family::default(),
            latencies: Family::new_with_constructor(latency),
            runs: Family::default(),
            durations: Family::new_with_constructor(latency),
            workers: Family::default(),
            waiting: Family::default(),
            stems: Family::default(),
            queues: Family::default(),
            events: Family::default(),
            deliveries: Family::default(),
            driver_ends: Family::default(),
            drivers: Gauge::default(),
            connections: Family::default(),
            bytes: Family::default(),
            dropped_log_bytes: Counter::default(),
            unwritten: Gauge::default(),
            scrapes: Counter::default(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "HTTP requests answered", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "From the request's head to the answer's",
            Unit::Seconds,
            metrics.latencies.clone(),
        );
        registry.register("runs", "Runs ended", metrics.runs.clone());
        registry.register_with_unit(
            "run_duration",
            "From accepting a run to its end",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("workers", "Workers by state", metrics.workers.clone());
        registry.register("waiting_calls", "Calls waiting for a worker", metrics.waiting.clone());
        registry.register(
            "stem_cells",
            "Processes that wait for a function, by language",
            metrics.stems.clone(),
        );
        registry.register("queued_jobs", "Durable jobs by state", metrics.queues.clone());
        registry.register("events", "Events sent to this server", metrics.events.clone());
        registry.register("deliveries", "Tries of deliveries", metrics.deliveries.clone());
        registry.register("drivers", "Event drivers that run", metrics.drivers.clone());
        registry.register(
            "driver_ends",
            "Ends of event drivers that nobody asked for",
            metrics.driver_ends.clone(),
        );
        registry.register(
            "egress_connections",
            "Connections of functions to the outside, made or refused",
            metrics.connections.clone(),
        );
        registry.register("egress_bytes", "Bytes of those that have ended", metrics.bytes.clone());
        registry.register(
            "dropped_log_bytes",
            "Bytes functions wrote beyond what a run keeps",
            metrics.dropped_log_bytes.clone(),
        );
        registry.register(
            "unwritten_runs",
            "Ended runs that are not in the store yet",
            metrics.unwritten.clone(),
        );
        registry.register("scrapes", "Answers of this page", metrics.scrapes.clone());
        Metrics { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts a request of the API. `route` is the pattern, such as `/v1/function/{name}`.
    pub fn api(&self, route: &str, method: &str, status: u16, elapsed: Duration) {
        self.request("api", route, method, status, elapsed);
    }

    /// Counts a request of the gateway; `endpoint` is empty where none matched.
    pub fn gateway(&self, org: &str, endpoint: &str, status: u16, elapsed: Duration) {
        let route = if endpoint.is_empty() { String::new() } else { format!("{org}/{endpoint}") };
        self.request("gateway", &route, "", status, elapsed);
    }

    fn request(
        &self,
        server: &'static str,
        route: &str,
        method: &str,
        status: u16,
        elapsed: Duration,
    ) {
        let labels =
            RequestLabels { server, route: route.to_owned(), method: method.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        let labels = LatencyLabels { server, route: route.to_owned() };
        self.latencies.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Counts a run that ended.
    pub fn run(&self, org: &str, function: &str, outcome: &'static str, elapsed: Duration) {
        let (organization, function) = (org.to_owned(), function.to_owned());
        let labels =
            RunLabels { organization: organization.clone(), function: function.clone(), outcome };
        self.runs.get_or_create(&labels).inc();
        let labels = FunctionLabels { organization, function };
        self.durations.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Counts events that were sent.
    pub fn events(&self, org: &str, accepted: u64, duplicates: u64) {
        for (outcome, count) in [("accepted", accepted), ("duplicate", duplicates)] {
            if count > 0 {
                let labels = EventLabels { organization: org.to_owned(), outcome };
                self.events.get_or_create(&labels).inc_by(count);
            }
        }
    }

    /// Counts a try of a delivery.
    pub fn delivery(&self, org: &str, subscription: &str, outcome: &'static str) {
        let (organization, subscription) = (org.to_owned(), subscription.to_owned());
        let labels = DeliveryLabels { organization, subscription, outcome };
        self.deliveries.get_or_create(&labels).inc();
    }

    /// Counts an end of a driver that nobody asked for.
    pub fn driver(&self, org: &str, driver: &str) {
        let labels = DriverLabels { organization: org.to_owned(), driver: driver.to_owned() };
        self.driver_ends.get_or_create(&labels).inc();
    }

    /// Says how many drivers run.
    pub fn drivers(&self, count: usize) {
        self.drivers.set(as_gauge(count));
    }

    /// Forgets the series of a driver that is gone.
    pub fn forget_driver(&self, org: &str, driver: &str) {
        let labels = DriverLabels { organization: org.to_owned(), driver: driver.to_owned() };
        self.driver_ends.remove(&labels);
    }

    /// Forgets the series of a subscription that is gone.
    pub fn forget_subscription(&self, org: &str, subscription: &str) {
        for outcome in DELIVERY_OUTCOMES {
            let (organization, subscription) = (org.to_owned(), subscription.to_owned());
            self.deliveries.remove(&DeliveryLabels { organization, subscription, outcome });
        }
    }

    /// Counts what a run wrote beyond its share.
    pub fn dropped(&self, bytes: u64) {
        self.dropped_log_bytes.inc_by(bytes);
    }

    /// Counts what a function did on the network.
    pub fn egress(&self, org: &str, function: &str, news: &News) {
        let outcomes = news.refused.iter().map(|(word, count)| (*word, *count));
        for (outcome, count) in outcomes.chain([("connected", news.connected)]) {
            let (organization, function) = (org.to_owned(), function.to_owned());
            if count > 0 {
                let labels = EgressLabels { organization, function, outcome };
                self.connections.get_or_create(&labels).inc_by(count);
            }
        }
        for (direction, count) in [("sent", news.sent), ("received", news.received)] {
            let (organization, function) = (org.to_owned(), function.to_owned());
            if count > 0 {
                let labels = DirectionLabels { organization, function, direction };
                self.bytes.get_or_create(&labels).inc_by(count);
            }
        }
    }

    /// Forgets the series of a function that is gone.
    pub fn forget(&self, org: &str, function: &str) {
        let (organization, function) = (org.to_owned(), function.to_owned());
        for outcome in crate::runs::OUTCOMES {
            self.runs.remove(&RunLabels {
                organization: organization.clone(),
                function: function.clone(),
                outcome,
            });
        }
        let words = dispatch_runner::egress::policy::WORDS.iter().copied();
        for outcome in words.chain(["connected"]) {
            let (organization, function) = (organization.clone(), function.clone());
            self.connections.remove(&EgressLabels { organization, function, outcome });
        }
        for direction in ["sent", "received"] {
            let (organization, function) = (organization.clone(), function.clone());
            self.bytes.remove(&DirectionLabels { organization, function, direction });
        }
        self.durations.remove(&FunctionLabels { organization, function });
    }

    /// The page, with the sizes of pools and queues as they are now.
    pub fn page(
        &self,
        pools: &[PoolState],
        stems: &[(String, usize)],
        queues: &[(String, i64, i64, i64)],
        unwritten: usize,
    ) -> String {
        self.scrapes.inc();
        self.workers.clear();
        self.waiting.clear();
        self.queues.clear();
        for pool in pools {
            let (organization, function) = (pool.organization.clone(), pool.function.clone());
            for (state, count) in
                [("idle", pool.idle), ("busy", pool.busy), ("starting", pool.starting)]
            {
                let (organization, function) = (organization.clone(), function.clone());
                let labels = PoolLabels { organization, function, state };
                self.workers.get_or_create(&labels).inc_by(as_gauge(count));
            }
            let labels = FunctionLabels { organization, function };
            self.waiting.get_or_create(&labels).inc_by(as_gauge(pool.queued));
        }
        for (language, count) in stems {
            let labels = LanguageLabels { language: language.clone() };
            self.stems.get_or_create(&labels).set(as_gauge(*count));
        }
        for (queue, waiting, running, dead) in queues {
            for (state, count) in [("waiting", waiting), ("running", running), ("dead", dead)] {
                let labels = QueueLabels { queue: queue.clone(), state };
                self.queues.get_or_create(&labels).set(*count);
            }
        }
        self.unwritten.set(as_gauge(unwritten));
        let mut page = String::new();
        if encode(&mut page, &self.registry).is_err() {
            tracing::error!("the metrics could not be written");
        }
        page
    }
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
