//! How long to wait before the next attempt: not at all at first, then twice as long each time, up to a ceiling, never giving up.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Attempts that came to nothing in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A server process has ended that had served for so long; says how long to wait before the next one is started.
    pub fn after(&mut self, served: Duration) -> Duration {
        if served >= LONG_LIFE {
            self.failures = 0;
        }
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => FIRST.saturating_mul(1 << (failures - 1).min(16)).min(CEILING),
        };
        self.failures = self.failures.saturating_add(1);
        jittered(pause)
    }

    /// Attempts in a row so far.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

/// A quarter more or less, so that servers which fell together do not rise together.
fn jittered(pause: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) % 512;
    pause * (768 + random as u32) / 1024
}

/// Longer than this, and what killed it is not what kills the next one.
const LONG_LIFE: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_millis(50);
const CEILING: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_ceiling_and_start_over() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.after(Duration::from_secs(60)), Duration::ZERO);
        let mut expected = FIRST;
        for _ in 0..40 {
            let pause = backoff.after(Duration::ZERO);
            assert!(pause >= expected * 3 / 4 && pause <= expected * 5 / 4, "{pause:?} for {expected:?}");
            expected = (expected * 2).min(CEILING);
        }
        assert_eq!(expected, CEILING);
        assert_eq!(backoff.after(LONG_LIFE), Duration::ZERO);
        assert_eq!(backoff.failures(), 1);
    }
}
