//! What came of the requests: counts, errors by kind, latencies in HDR histograms; and how processes tell each other.
//!
//! Recording is a few additions and one histogram slot. Once a second the tally is taken away whole as an interval; whoever
//! wants totals adds intervals up, so each request is recorded once.

use std::ops::AddAssign;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer as HistogramReader, Serializer as _, V2Serializer};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

/// How a request can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection was reset.
    Reset,
    /// The connection was closed before the first byte of the answer.
    Closed,
    /// Nothing came for the whole of `--timeout`, or an open loop ended before the answer.
    Timeout,
    /// What came was no HTTP/1 response.
    BadAnswer,
    /// The connection was closed within the answer.
    ShortBody,
    /// The answer is whole, but its status is not `--expect-status`, or without one 4xx or 5xx.
    Status,
}

/// Requests that failed, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Errors([u64; Failure::ALL.len()]);

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Complete answers, whatever their status.
    pub answers: u64,
    /// Bytes received: heads, bodies, framing.
    pub received: u64,
    /// Bytes of bodies of complete answers.
    pub bodies: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections that the server closed while nothing was asked.
    pub closed_idle: u64,
    /// Requests that a closed loop left without an answer when it ended.
    pub unfinished: u64,
    /// Answers by status. A list, as a run sees few, and nearly always the first.
    pub statuses: Vec<(u16, u64)>,
    /// Failures.
    pub errors: Errors,
}

/// Durations, to three digits, from 64 ns to an hour.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// Counts and latencies of one kind of client.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// The counts.
    pub counts: Counts,
    /// From when a request should have left until its answer was complete. Answers of a wrong status are not in it: how fast a
    /// server refuses says nothing of how fast it serves.
    pub latency: Latencies,
    /// From when it did leave. Only an open loop tells the two apart; empty otherwise.
    pub service: Option<Latencies>,
    /// Answers of a wrong status, from when the request did leave.
    pub refused: Latencies,
}

/// What happened in about a second.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Interval {
    /// Its number, from 0.
    pub index: u32,
    /// When it began, counted from the beginning of what is measured.
    pub start: Duration,
    /// How long it was.
    pub length: Duration,
    /// The clients that load the server.
    pub main: Tally,
    /// The idle crowd.
    pub crowd: Tally,
    /// Of the crowd, how many are connected now.
    pub idle_connected: u64,
    /// Processor time, user and system, of the load generator.
    pub processor: Duration,
}

impl Failure {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Connect, Self::Reset, Self::Closed, Self::Timeout, Self::BadAnswer, Self::ShortBody, Self::Status];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::BadAnswer => "bad answer",
            Self::ShortBody => "short body",
            Self::Status => "status",
        }
    }
}

impl Errors {
    /// Counts `count` failed requests.
    pub fn add(&mut self, kind: Failure, count: u64) {
        self.0[kind as usize] += count;
    }

    /// Failed requests of this kind.
    pub fn of(&self, kind: Failure) -> u64 {
        self.0[kind as usize]
    }

    /// Failed requests of any kind.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each kind that happened, and how often.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Failure::ALL.into_iter().map(|kind| (kind.name(), self.of(kind))).filter(|(_, count)| *count > 0)
    }
}

impl Counts {
    /// Counts a complete answer.
    pub fn answer(&mut self, status: u16, body: u64) {
        self.answers += 1;
        self.bodies += body;
        self.status(status, 1);
    }

    fn status(&mut self, status: u16, count: u64) {
        match self.statuses.iter_mut().find(|(known, _)| *known == status) {
            Some((_, sum)) => *sum += count,
            None => self.statuses.push((status, count)),
        }
    }
}

impl AddAssign<&Self> for Counts {
    fn add_assign(&mut self, other: &Self) {
        self.answers += other.answers;
        self.received += other.received;
        self.bodies += other.bodies;
        self.sent += other.sent;
        self.connections += other.connections;
        self.closed_idle += other.closed_idle;
        self.unfinished += other.unfinished;
        other.statuses.iter().for_each(|&(status, count)| self.status(status, count));
        self.errors.0.iter_mut().zip(other.errors.0).for_each(|(sum, more)| *sum += more);
    }
}

impl Latencies {
    /// Records one.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_nanos() as u64);
    }

    /// The latency that this share of requests (0 to 1) did not exceed; zero when there is none.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.0.value_at_quantile(share).min(self.0.max()))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.0.max())
    }

    /// The shortest.
    pub fn min(&self) -> Duration {
        Duration::from_nanos(self.0.min())
    }

    /// The mean.
    pub fn mean(&self) -> Duration {
        Duration::from_nanos(self.0.mean() as u64)
    }

    /// The standard deviation.
    pub fn deviation(&self) -> Duration {
        Duration::from_nanos(self.0.stdev() as u64)
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The histogram itself, in nanoseconds.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.0
    }

    fn encode(&self) -> Result<String, String> {
        let mut bytes = Vec::new();
        V2Serializer::new().serialize(&self.0, &mut bytes).map_err(|error| error.to_string())?;
        Ok(STANDARD.encode(bytes))
    }

    fn decode(text: &str) -> Result<Self, String> {
        let bytes = STANDARD.decode(text).map_err(|error| error.to_string())?;
        let read = HistogramReader::new().deserialize(&mut bytes.as_slice());
        let read: Histogram<u64> = read.map_err(|error| error.to_string())?;
        // What was read has bounds of its own; adding it keeps ours.
        let mut this = Self::default();
        this.0.add(&read).map_err(|error| error.to_string())?;
        Ok(this)
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(LOWEST, HIGHEST, DIGITS).expect("constant bounds in order"))
    }
}

impl AddAssign<&Self> for Latencies {
    fn add_assign(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }
}

impl Serialize for Latencies {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.encode().map_err(ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for Latencies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::decode(&text).map_err(de::Error::custom)
    }
}

impl Tally {
    /// An empty one; with `service`, also for the time from sending.
    pub fn new(service: bool) -> Self {
        Self { service: service.then(Latencies::default), ..Self::default() }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.counts = Counts::default();
        self.latency.0.reset();
        self.refused.0.reset();
        if let Some(service) = &mut self.service {
            service.0.reset();
        }
    }
}

impl AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.counts += &other.counts;
        self.latency += &other.latency;
        self.refused += &other.refused;
        if let Some(service) = &other.service {
            *self.service.get_or_insert_default() += service;
        }
    }
}

impl Interval {
    /// Adds what another process saw in the same second.
    pub fn join(&mut self, other: &Self) {
        self.main += &other.main;
        self.crowd += &other.crowd;
        self.idle_connected += other.idle_connected;
        self.processor += other.processor;
        self.length = self.length.max(other.length);
    }

    /// Adds the second that follows.
    pub fn extend(&mut self, next: &Self) {
        let idle_connected = next.idle_connected;
        let length = self.length + next.length;
        self.join(next);
        (self.idle_connected, self.length) = (idle_connected, length);
    }
}

/// Finer than any network; a power of two, as the histogram counts in them.
const LOWEST: u64 = 64;
const HIGHEST: u64 = 3600 * 1_000_000_000;
const DIGITS: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(millis: &[u64]) -> Tally {
        let mut tally = Tally::new(true);
        for &millis in millis {
            tally.counts.answer(200, 10);
            tally.latency.record(Duration::from_millis(millis));
            tally.service.as_mut().unwrap().record(Duration::from_micros(millis));
        }
        tally.counts.errors.add(Failure::Reset, 2);
        tally
    }

    #[test]
    fn an_interval_survives_its_way_between_processes() {
        let sent = Interval { index: 3, main: tally(&[1, 2, 500]), idle_connected: 7, ..Interval::default() };
        let line = serde_json::to_string(&sent).unwrap();
        assert!(!line.contains('\n') && line.len() < 20_000, "{} bytes a second", line.len());
        let seen: Interval = serde_json::from_str(&line).unwrap();
        assert_eq!((seen.index, seen.idle_connected, seen.main.counts), (3, 7, sent.main.counts));
        assert_eq!(seen.main.latency.histogram(), sent.main.latency.histogram());
        assert_eq!(seen.main.service.unwrap().max(), sent.main.service.unwrap().max());
        assert_eq!(seen.crowd.latency.count(), 0);
    }

    #[test]
    fn sums_are_sums() {
        let mut sum = Interval { main: tally(&[1, 1, 1]), length: Duration::from_secs(1), ..Interval::default() };
        sum.join(&Interval { main: tally(&[9]), idle_connected: 5, ..Interval::default() });
        sum.extend(&Interval { idle_connected: 4, length: Duration::from_secs(2), ..Interval::default() });
        assert_eq!((sum.main.counts.answers, sum.main.counts.statuses[0], sum.main.counts.bodies), (4, (200, 4), 40));
        assert_eq!((sum.main.counts.errors.total(), sum.main.counts.errors.of(Failure::Reset)), (4, 4));
        assert_eq!((sum.idle_connected, sum.length), (4, Duration::from_secs(3)));
        assert_eq!(sum.main.latency.count(), 4);
        let near = |seen: Duration, millis: f64| (seen.as_secs_f64() * 1000.0 / millis - 1.0).abs() < 0.002;
        assert!(near(sum.main.latency.quantile(0.5), 1.0) && near(sum.main.latency.max(), 9.0));
        assert!(near(sum.main.latency.mean(), 3.0), "{:?}", sum.main.latency.mean());
    }

    #[test]
    fn every_status_is_counted_by_itself() {
        let mut counts = Counts::default();
        [200, 503, 200, 999].into_iter().for_each(|status| counts.answer(status, 0));
        assert_eq!(counts.statuses, [(200, 2), (503, 1), (999, 1)]);
    }
}
