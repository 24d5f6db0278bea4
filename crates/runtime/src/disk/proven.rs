//! Which parts of a file could be read without waiting, and when that was seen.
//!
//! To find out takes eight calls for a megabyte (`Held::warm_until`), a fourteenth of what it costs to send it, so all who send the
//! file share what was found. A second is long enough for a file that several fetch, and short for the kernel to drop what has just
//! been sent, and to be reading it again; that it is there is asked every time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The file is looked at in parts of this many bytes, from its beginning.
pub const UNIT: u64 = 1024 * 1024;

/// What is remembered of one file. Nothing is allocated before there is something to remember.
#[derive(Debug, Default)]
pub struct Proven(OnceLock<Box<Table>>);

#[derive(Debug)]
struct Table {
    /// What the times are counted from.
    since: Instant,
    /// The unit's number, from 1, and the millisecond in which it was proven. Units that are far apart share a place.
    units: [AtomicU64; PLACES],
}

impl Proven {
    /// Whether this unit was proven lately.
    pub fn holds(&self, unit: u64, now: Instant) -> bool {
        self.0.get().is_some_and(|table| {
            let noted = table.units[unit as usize % PLACES].load(Relaxed);
            noted >> 32 == unit + 1 && table.millisecond(now).wrapping_sub(noted as u32) <= LATELY
        })
    }

    /// The unit is proven at `now`.
    pub fn note(&self, unit: u64, now: Instant) {
        let empty = || Box::new(Table { since: now, units: [const { AtomicU64::new(0) }; PLACES] });
        let table = self.0.get_or_init(empty);
        table.units[unit as usize % PLACES].store((unit + 1) << 32 | u64::from(table.millisecond(now)), Relaxed);
    }

    /// Nothing is proven any more.
    pub fn forget(&self) {
        if let Some(table) = self.0.get() {
            table.units.iter().for_each(|place| place.store(0, Relaxed));
        }
    }
}

impl Table {
    /// Wraps after 49 days.
    fn millisecond(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.since).as_millis() as u32
    }
}

/// 2 KB for a file that several fetch at once.
const PLACES: usize = 256;
/// Milliseconds.
const LATELY: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_was_proven_lately_holds() {
        let (proven, start) = (Proven::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert!(!proven.holds(0, start), "nothing was asked yet");
        proven.note(0, start);
        proven.note(7, at(100));
        assert!(proven.holds(0, at(1000)) && !proven.holds(0, at(1001)));
        assert!(proven.holds(7, at(1100)) && !proven.holds(7, at(1101)));
        assert!(!proven.holds(1, at(100)));
        assert!(!proven.holds(7, start), "by another thread, whose turn began before that: asked again");
        proven.note(7, at(1 << 32));
        assert!(proven.holds(7, at((1 << 32) + 1000)) && !proven.holds(7, at((1 << 32) + 1001)), "a wrapped clock");
    }

    #[test]
    fn units_that_share_a_place_are_told_apart() {
        let (proven, now) = (Proven::default(), Instant::now());
        proven.note(3, now);
        assert!(!proven.holds(3 + PLACES as u64, now));
        proven.note(3 + PLACES as u64, now);
        assert!(proven.holds(3 + PLACES as u64, now) && !proven.holds(3, now));
    }

    #[test]
    fn a_read_from_the_disk_ends_it() {
        let (proven, now) = (Proven::default(), Instant::now());
        proven.forget();
        proven.note(0, now);
        proven.forget();
        assert!(!proven.holds(0, now));
    }
}
