//! Patience with a slow peer: what it has left of it, and what its progress earns. Pure.
//!
//! A peer begins with the whole patience, waiting for it uses it up, and every byte earns a part of it back: whoever keeps the
//! least rate never runs out, whoever stops does after the whole patience, and a byte now and then only puts that off a little.

use std::time::Duration;

use crate::config::plan::Limits;

/// One peer's patience, in milliseconds, and the bytes it has moved so far.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    left: u32,
    /// When waiting began, and the bytes at that moment.
    since: u64,
    bytes: u64,
}

/// What is asked of a peer.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// How long it may stop, in milliseconds.
    pub patience: u32,
    /// Bytes a second that it must keep in the long run; 0 when any progress will do.
    pub rate: u64,
}

impl Demand {
    /// What is asked of a peer that takes answers.
    pub fn of_reader(limits: &Limits) -> Self {
        Self::new(limits.write_timeout, limits.min_send_rate)
    }

    /// What is asked of a peer that sends a body.
    pub fn of_sender(limits: &Limits) -> Self {
        Self::new(limits.body_timeout, limits.min_body_rate)
    }

    fn new(patience: Duration, rate: u64) -> Self {
        Self { patience: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX), rate }
    }
}

impl Pace {
    /// A peer of whom nothing is known yet, which has moved `bytes` before it is waited for.
    pub fn new(demand: Demand, now: u64, bytes: u64) -> Self {
        Self { left: demand.patience, since: now, bytes }
    }

    /// Accounts for the time since the last call, all of it spent waiting, and for the bytes moved by now. What is left, in
    /// milliseconds; 0 when patience has run out.
    pub fn note(&mut self, demand: Demand, now: u64, bytes: u64) -> u32 {
        let waited = u32::try_from(now.saturating_sub(self.since)).unwrap_or(u32::MAX);
        let moved = bytes.saturating_sub(self.bytes);
        let earned = match demand.rate {
            0 if moved > 0 => demand.patience,
            0 => 0,
            rate => u32::try_from(moved.saturating_mul(1000) / rate).unwrap_or(u32::MAX),
        };
        self.left = self.left.saturating_add(earned).saturating_sub(waited).min(demand.patience);
        (self.since, self.bytes) = (now, self.bytes.max(bytes));
        self.left
    }

    /// What was left at the last call, in milliseconds.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Whether the last call was a moment ago: a fast peer need not be looked at each time.
    pub fn is_recent(&self, now: u64) -> bool {
        self.left > 0 && now.saturating_sub(self.since) < RECENT_MS.min(u64::from(self.left / 2))
    }
}

/// The kernel is asked about a reader at most so often, unless its patience is nearly out.
const RECENT_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    const DEMAND: Demand = Demand { patience: 10_000, rate: 1000 };

    /// For how many seconds a peer is borne that moves `bytes` each second, a minute at most.
    fn borne(demand: Demand, bytes: u64) -> u64 {
        let mut pace = Pace::new(demand, 0, 0);
        (1..=60).find(|second| pace.note(demand, second * 1000, second * bytes) == 0).unwrap_or(61)
    }

    #[test]
    fn who_keeps_the_rate_is_borne_for_ever() {
        assert_eq!(borne(DEMAND, 1000), 61);
        assert_eq!(borne(DEMAND, 50_000), 61);
    }

    #[test]
    fn who_stops_is_borne_for_the_patience_and_who_dribbles_little_longer() {
        assert_eq!(borne(DEMAND, 0), 10);
        assert!((10..=11).contains(&borne(DEMAND, 1)));
        assert_eq!(borne(DEMAND, 500), 20);
        assert_eq!(borne(Demand { rate: 0, ..DEMAND }, 1), 61, "without a rate any byte will do");
    }

    #[test]
    fn a_fast_start_buys_no_hours() {
        let mut pace = Pace::new(DEMAND, 0, 0);
        assert_eq!(pace.note(DEMAND, 1000, 1 << 40), 10_000);
        assert_eq!(pace.note(DEMAND, 11_000, 1 << 40), 0);
    }
}
