//! What a run came to: the sum, the seconds it is made of, and the ways to tell of it.

pub mod hdr;
mod json;
mod text;

use std::time::Duration;

use serde::Serialize;

pub use self::json::json;
pub use self::text::{show_count, show_duration, text};
use crate::cli::Arguments;
use crate::plan::Plan;
use crate::tally::{Interval, Tally};

/// All of a run.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// What was asked for.
    pub shape: Shape,
    /// The sum of all intervals.
    pub total: Interval,
    /// Each interval in a line.
    pub series: Vec<Second>,
}

/// What was asked for, as a program that compares runs wants to know it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Shape {
    /// The URL as typed.
    pub url: String,
    /// The run in a few words.
    pub description: String,
    /// `closed` or `open`.
    #[serde(rename = "loop")]
    pub kind: &'static str,
    /// Requests per second of an open loop.
    pub rate: Option<f64>,
    /// Whether they come at random.
    pub poisson: bool,
    /// Connections of the load.
    pub connections: usize,
    /// Requests under way on each.
    pub pipeline: usize,
    /// Requests after which a connection is closed.
    pub requests_per_connection: Option<u64>,
    /// Connections that ask now and then.
    pub idle: usize,
    /// How often, in seconds.
    pub idle_every_seconds: f64,
    /// Bits per second a connection reads.
    pub modem_bits_per_second: Option<u64>,
    /// Between two bytes of a request.
    pub trickle_ms: Option<f64>,
    /// Load before the measure.
    pub warm_up_seconds: f64,
    /// Processes.
    pub processes: u16,
    /// The loop's driver.
    pub driver: &'static str,
}

/// An interval in a line.
#[derive(Clone, Debug, Serialize)]
pub struct Second {
    /// When it began, in seconds from the beginning of the measure.
    pub at: f64,
    /// Its length.
    pub seconds: f64,
    /// Answers of the load.
    pub requests: u64,
    /// Failed requests, the crowd's included.
    pub errors: u64,
    /// Bytes received by the load.
    pub bytes_received: u64,
    /// Latency.
    pub p50_ms: f64,
    /// Latency.
    pub p99_ms: f64,
    /// Latency.
    pub max_ms: f64,
    /// Answers to the crowd.
    pub idle_requests: u64,
    /// Members of the crowd that were connected at the end of it.
    pub idle_connected: u64,
}

impl Summary {
    /// Nothing yet.
    pub fn new(arguments: &Arguments, plan: &Plan) -> Self {
        let shape = Shape {
            url: arguments.url.clone(),
            description: plan.describe(),
            kind: if plan.rate.is_some() { "open" } else { "closed" },
            rate: plan.rate,
            poisson: plan.poisson,
            connections: plan.connections,
            pipeline: plan.pipeline,
            requests_per_connection: plan.per_connection,
            idle: plan.idle,
            idle_every_seconds: plan.idle_every.as_secs_f64(),
            modem_bits_per_second: plan.modem,
            trickle_ms: plan.trickle.map(millis),
            warm_up_seconds: plan.warm_up.as_secs_f64(),
            processes: plan.processes(),
            driver: plan.driver.name(),
        };
        Self { shape, ..Self::default() }
    }

    /// One more interval.
    pub fn add(&mut self, interval: &Interval) {
        let latency = &interval.main.latency;
        self.series.push(Second {
            at: interval.start.as_secs_f64(),
            seconds: interval.length.as_secs_f64(),
            requests: interval.main.counts.answers,
            errors: interval.main.counts.errors.total() + interval.crowd.counts.errors.total(),
            bytes_received: interval.main.counts.received,
            p50_ms: millis(latency.quantile(0.5)),
            p99_ms: millis(latency.quantile(0.99)),
            max_ms: millis(latency.max()),
            idle_requests: interval.crowd.counts.answers,
            idle_connected: interval.idle_connected,
        });
        self.total.extend(interval);
    }

    /// Answers to the load and to the crowd.
    pub fn answers(&self) -> u64 {
        self.total.main.counts.answers + self.total.crowd.counts.answers
    }

    /// Failed requests of the load and of the crowd.
    pub fn errors(&self) -> u64 {
        self.total.main.counts.errors.total() + self.total.crowd.counts.errors.total()
    }

    /// Requests there were: answered, or failed without a whole answer.
    pub fn requests(&self) -> u64 {
        let unanswered =
            |tally: &Tally| tally.counts.errors.total() - tally.counts.errors.of(crate::tally::Failure::Status);
        self.answers() + unanswered(&self.total.main) + unanswered(&self.total.crowd)
    }

    /// Answers per second to the load.
    pub fn rate(&self) -> f64 {
        per(self.total.main.counts.answers as f64, self.total.length)
    }

    /// Requests per second of the generator's processor time, when that is long enough to divide by.
    pub fn per_processor_second(&self) -> Option<f64> {
        let enough = self.total.processor >= Duration::from_millis(100);
        enough.then(|| per(self.answers() as f64, self.total.processor))
    }
}

fn per(count: f64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { count / time.as_secs_f64() }
}

fn millis(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}
