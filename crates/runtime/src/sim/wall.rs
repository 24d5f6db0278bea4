//! Time as the world's processes read it: a monotonic clock that only goes forward, and a wall clock that may be stepped.

use std::time::{Duration, Instant};

use super::world::World;

impl World {
    /// clock_gettime(2), CLOCK_MONOTONIC.
    pub(crate) fn instant(&self) -> Instant {
        self.base + Duration::from_nanos(self.now)
    }

    /// The instant from which loops count their ticks.
    pub(crate) fn origin(&self) -> Instant {
        self.base
    }

    /// CLOCK_REALTIME.
    pub(crate) fn wall_time(&mut self) -> Duration {
        if self.random.chance(self.faults.clock_step) {
            let step = self.random.between(1, 7200 * SECOND) as i64;
            self.wall_step = if self.random.chance(500_000) { step } else { -step };
            self.note("the clock is stepped", step as u64, 0);
        }
        Duration::from_nanos(self.wall_nanos())
    }

    /// What the wall clock says, in nanoseconds.
    pub(super) fn wall_nanos(&self) -> u64 {
        (EPOCH + self.now).wrapping_add_signed(self.wall_step)
    }

    /// The second since the Unix epoch that the wall clock showed at this moment of virtual time, if it has never been stepped.
    pub fn wall_second(&self, at: u64) -> Option<u64> {
        (self.wall_step == 0).then_some((EPOCH + at) / SECOND)
    }

    /// A helper sleeps: its time is part of its job's.
    pub(crate) fn pause(&mut self, _: Duration) {}

    /// A machine of 1 GB, of which as much is in use as the scenario wants.
    pub(crate) fn machine_file(&self, path: &str) -> Option<String> {
        match path {
            "/proc/meminfo" => Some("MemTotal: 1000000 kB\n".into()),
            "/proc/self/statm" => Some(format!("0 {} 0 0 0 0 0", self.faults.memory)),
            _ => None,
        }
    }
}

pub(super) const SECOND: u64 = 1_000_000_000;
/// Some day in 2027.
const EPOCH: u64 = 1_800_000_000 * SECOND;
