//! Samples: how long answers take, and what is asked for most, from every so many-th request.
//!
//! A worker looks closely at about 200 requests a second: at every one when there are fewer, at every 500th of 100,000. The
//! others pay a decrement and two comparisons. What a sample stands for is the number of requests since the last one, so sums
//! over samples are estimates for all. The gap is drawn at random, so no rhythm of a client's can hide from it.
//!
//! The time is the server's own: from the beginning of the turn in which a request's last byte was read until its answer began
//! to leave. What it waited behind others in that turn and on the disk is in it, the network and the kernel's queues are not.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use amped_runtime::Clock;
use amped_wire::status::Status;

use super::counters::Counters;
use super::histogram::Histogram;
use super::sketch::Sketch;

/// What one worker has seen, for others to read.
#[derive(Debug, Default)]
pub struct Samples {
    /// Times, each with the weight of its sample.
    pub times: Histogram,
    paths: Mutex<Sketch>,
    errors: Mutex<Sketch>,
}

/// The worker's side: who is looked at.
#[derive(Debug)]
pub struct Sampler {
    counters: Arc<Counters>,
    all: Rhythm,
    errors: Rhythm,
    random: Cell<u64>,
}

/// When the next sample is due.
#[derive(Debug)]
struct Rhythm {
    /// Requests to go.
    left: Cell<u32>,
    /// Requests since the last sample, once `left` is 0.
    gap: Cell<u32>,
    /// Between samples, on average.
    every: Cell<u32>,
    /// When the last sample was taken, in milliseconds.
    last: Cell<u64>,
    /// Samples of the present window, and when it began.
    taken: Cell<u32>,
    window: Cell<u64>,
}

/// What is kept of a request that has to wait for its answer.
#[derive(Debug)]
pub struct Sample {
    since: Instant,
    weight: Option<u64>,
    path: Box<[u8]>,
}

impl Samples {
    /// The paths asked for most, of late, and about how often.
    pub fn paths(&self) -> Vec<(String, u64)> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner).top()
    }

    /// Likewise answers with a status of 400 or more: `404 /path`.
    pub fn errors(&self) -> Vec<(String, u64)> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).top()
    }
}

impl Sampler {
    /// A worker's sampler.
    pub fn new(counters: &Arc<Counters>) -> Self {
        use std::hash::BuildHasher;
        let random = std::hash::RandomState::new().hash_one(0) | 1;
        Self { counters: Arc::clone(counters), all: Rhythm::new(), errors: Rhythm::new(), random: Cell::new(random) }
    }

    /// Takes note of an answer that is given at once. Above 0: how many requests it stands for; its time is wanted, see `took`.
    #[inline]
    pub fn answered(&self, path: Option<&[u8]>, status: Status, clock: &Clock) -> u64 {
        if status.code() >= 400 {
            self.error(path.unwrap_or_default(), status, clock);
        }
        let Some(weight) = self.all.due(clock.ticks(), &self.random) else { return 0 };
        self.path(path.unwrap_or_default(), weight, clock);
        weight
    }

    /// Records the time of answers of this turn, for which `answered` gave the weight.
    pub fn took(&self, weight: u64, clock: &Clock) {
        self.counters.samples.times.record(clock.now().elapsed(), weight);
    }

    /// Takes note of a request whose answer comes later, or may be an error: both are worth a copy of its path.
    pub fn asked(&self, path: Option<&[u8]>, known: Option<Status>, clock: &Clock) -> Option<Box<Sample>> {
        let weight = self.all.due(clock.ticks(), &self.random);
        if weight.is_none() && known.is_some_and(|status| status.code() < 400) {
            return None;
        }
        Some(Box::new(Sample { since: clock.now(), weight, path: path.unwrap_or_default().into() }))
    }

    /// The answer to such a request begins to leave.
    pub fn given(&self, asked: &Sample, status: Status, clock: &Clock) {
        if status.code() >= 400 {
            self.error(&asked.path, status, clock);
        }
        if let Some(weight) = asked.weight {
            self.path(&asked.path, weight, clock);
            self.counters.samples.times.record(asked.since.elapsed(), weight);
        }
    }

    /// Whoever reads the sketch holds its lock for microseconds; the loop does not wait even those.
    fn path(&self, path: &[u8], weight: u64, clock: &Clock) {
        if let Ok(mut sketch) = self.counters.samples.paths.try_lock() {
            sketch.add(path, weight, clock.ticks());
        }
    }

    fn error(&self, path: &[u8], status: Status, clock: &Clock) {
        let Some(weight) = self.errors.due(clock.ticks(), &self.random) else { return };
        if let Ok(mut sketch) = self.counters.samples.errors.try_lock() {
            let name = [status.code().to_string().as_bytes(), b" ", path].concat();
            sketch.add(&name, weight, clock.ticks());
        }
    }
}

impl Rhythm {
    fn new() -> Self {
        let number = || Cell::new(0);
        Self {
            left: number(),
            gap: Cell::new(1),
            every: Cell::new(1),
            last: Cell::default(),
            taken: number(),
            window: Cell::default(),
        }
    }

    /// How many requests this one stands for, if it is to be looked at.
    #[inline]
    fn due(&self, now: u64, random: &Cell<u64>) -> Option<u64> {
        let left = self.left.get();
        if left > 0 && now - self.last.get() < LONGEST_GAP_MS {
            self.left.set(left - 1);
            return None;
        }
        Some(self.take(left, now, random))
    }

    #[cold]
    fn take(&self, left: u32, now: u64, random: &Cell<u64>) -> u64 {
        let weight = self.gap.get() - left;
        let taken = self.taken.get() + 1;
        let mut every = self.every.get();
        if now - self.window.get() >= WINDOW_MS {
            // The pace follows the traffic down.
            every = if taken < WANTED / 2 { (every / 2).max(1) } else { every };
            self.window.set(now);
            self.taken.set(0);
        } else if taken >= WANTED {
            every = every.saturating_mul(2).min(RAREST);
            self.window.set(now);
            self.taken.set(0);
        } else {
            self.taken.set(taken);
        }
        self.every.set(every);
        self.last.set(now);
        // Uniform from 1 to 2 * every - 1: `every` on average.
        let gap = 1 + (next(random) % u64::from(2 * every - 1)) as u32;
        self.gap.set(gap);
        self.left.set(gap - 1);
        u64::from(weight)
    }
}

/// Xorshift (Marsaglia, 2003): enough to have no rhythm.
fn next(random: &Cell<u64>) -> u64 {
    let mut state = random.get();
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    random.set(state);
    state
}

/// Samples in a window, at most; with the window, from 100 to 200 a second.
const WANTED: u32 = 32;
const WINDOW_MS: u64 = 160;
/// Without a sample for so long the next request is one: traffic has ebbed.
const LONGEST_GAP_MS: u64 = 250;
const RAREST: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples and their weight, of `requests` a millisecond for two seconds.
    fn samples(requests: u64) -> (u64, u64) {
        let (rhythm, random) = (Rhythm::new(), Cell::new(42));
        let (mut taken, mut weight) = (0, 0);
        for now in 1..=2000 {
            for _ in 0..requests {
                if let Some(stands_for) = rhythm.due(now, &random) {
                    taken += 1;
                    weight += stands_for;
                }
            }
        }
        (taken, weight)
    }

    #[test]
    fn few_of_many_are_looked_at_and_stand_for_all() {
        for requests in [1, 10, 100, 1000] {
            let (taken, weight) = samples(requests);
            let all = requests * 2000;
            assert!((150..900).contains(&taken), "{taken} of {all}");
            assert!(weight <= all && weight > all * 8 / 10, "{weight} for {all}");
        }
    }

    #[test]
    fn when_there_are_few_all_are_looked_at() {
        let (rhythm, random) = (Rhythm::new(), Cell::new(42));
        (0..100).for_each(|request| assert_eq!(rhythm.due(request * 20, &random), Some(1), "{request}"));
    }

    #[test]
    fn after_a_rush_the_next_request_is_looked_at() {
        let (rhythm, random) = (Rhythm::new(), Cell::new(42));
        let taken = (0..1_000_000).filter_map(|request| rhythm.due(request / 1000, &random)).count();
        assert!(taken < 1000, "{taken}");
        assert!(rhythm.every.get() > 100);
        assert!(rhythm.due(5000, &random).is_some());
    }
}
