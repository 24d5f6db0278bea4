//! The loop's clock: read once a turn, asked as often as anyone likes.
//!
//! A read of the kernel's clock costs about 25 ns through the vDSO, as much as a cache lookup; a request asks for the time
//! three or four times. So the loop reads it when a turn begins and everything in that turn sees the same instant.

use std::cell::Cell;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Monotonic milliseconds since the process's first loop began (so all loops count alike), and wall-clock seconds for `Date` fields.
#[derive(Debug)]
pub struct Clock {
    origin: Instant,
    now: Cell<Instant>,
    ticks: Cell<u64>,
    wall: Cell<Duration>,
    wall_read: Cell<u64>,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let now = read();
        Self {
            origin: origin(now),
            now: Cell::new(now),
            ticks: Cell::new(0),
            wall: Cell::new(wall_time()),
            wall_read: Cell::new(0),
        }
    }

    /// Reads the kernel's clock. The loop calls this after each wait; nobody else needs to.
    pub(crate) fn advance(&self) -> Instant {
        let now = read();
        let ticks = now.duration_since(self.origin).as_millis() as u64;
        self.now.set(now);
        self.ticks.set(ticks);
        // A wall clock may be stepped, so it is read again rather than derived, but not in every turn.
        if ticks.wrapping_sub(self.wall_read.get()) >= WALL_PRECISION_MS {
            self.wall_read.set(ticks);
            self.wall.set(wall_time());
        }
        now
    }

    /// When this turn began.
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// Milliseconds from the process's first loop to this turn.
    pub fn ticks(&self) -> u64 {
        self.ticks.get()
    }

    /// Seconds since the Unix epoch, at most `WALL_PRECISION_MS` old.
    pub fn unix_seconds(&self) -> u64 {
        self.wall.get().as_secs()
    }

    /// Time since the Unix epoch, at most `WALL_PRECISION_MS` old.
    pub fn unix_time(&self) -> Duration {
        self.wall.get()
    }
}

/// The monotonic clock, read now: for what must not see the turn's instant.
pub fn read() -> Instant {
    simulated!(|world| world.instant());
    Instant::now()
}

fn origin(now: Instant) -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    simulated!(|world| world.origin());
    *ORIGIN.get_or_init(|| now)
}

/// The wall clock, read now: time since the Unix epoch.
pub fn wall_time() -> Duration {
    simulated!(|world| world.wall_time());
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

const WALL_PRECISION_MS: u64 = 50;
