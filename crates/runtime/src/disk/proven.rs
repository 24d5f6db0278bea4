//! Which parts of a file could be read without waiting, and when that was seen.
//!
//! To find out takes nine calls for a megabyte or more (`Held::warm_until`), a tenth of what it costs to send it, so all who send
//! the file share what was found. A second is long enough for a file that several fetch, and short for the kernel to drop what
//! has just been sent, and to be reading it again; that it is there is asked every time, but not in the tenth of a second in
//! which somebody asked last: to ask is one part in 25 of sending. While files come into memory it is asked all the same, since others
//! leave it. Where somebody drops these very pages in that time (POSIX_FADV_DONTNEED), a send waits for the disk, and the meter says so.

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
    /// Units that are far apart share a place.
    units: [Unit; PLACES],
}

/// When a unit was last known to be readable; each is the unit's number, from 1, and a millisecond.
#[derive(Debug)]
struct Unit {
    /// Every part of it was read.
    proven: AtomicU64,
    /// The kernel said that it is all there.
    seen: AtomicU64,
}

impl Proven {
    /// Whether this unit was proven lately.
    pub fn holds(&self, unit: u64, now: Instant) -> bool {
        self.is_within(unit, now, LATELY, |place| &place.proven)
    }

    /// Whether this unit was seen a moment ago: it need not be asked for.
    pub fn trusts(&self, unit: u64, now: Instant) -> bool {
        self.is_within(unit, now, A_MOMENT, |place| &place.seen)
    }

    fn is_within(&self, unit: u64, now: Instant, most: u32, time: impl Fn(&Unit) -> &AtomicU64) -> bool {
        self.0.get().is_some_and(|table| {
            let noted = time(&table.units[unit as usize % PLACES]).load(Relaxed);
            noted >> 32 == unit + 1 && table.millisecond(now).wrapping_sub(noted as u32) <= most
        })
    }

    /// The unit is proven at `now`, and so seen.
    pub fn note(&self, unit: u64, now: Instant) {
        let empty = || Box::new(Table { since: now, units: [const { Unit::new() }; PLACES] });
        let table = self.0.get_or_init(empty);
        let noted = table.at(unit, now);
        let place = &table.units[unit as usize % PLACES];
        place.proven.store(noted, Relaxed);
        place.seen.store(noted, Relaxed);
    }

    /// The unit, which has been proven, is all there at `now`.
    pub fn note_seen(&self, unit: u64, now: Instant) {
        if let Some(table) = self.0.get().filter(|_| self.holds(unit, now)) {
            table.units[unit as usize % PLACES].seen.store(table.at(unit, now), Relaxed);
        }
    }

    /// Nothing is proven any more.
    pub fn forget(&self) {
        if let Some(table) = self.0.get() {
            table.units.iter().flat_map(|place| [&place.proven, &place.seen]).for_each(|time| time.store(0, Relaxed));
        }
    }
}

impl Unit {
    const fn new() -> Self {
        Self { proven: AtomicU64::new(0), seen: AtomicU64::new(0) }
    }
}

impl Table {
    fn at(&self, unit: u64, now: Instant) -> u64 {
        (unit + 1) << 32 | u64::from(self.millisecond(now))
    }

    /// Wraps after 49 days.
    fn millisecond(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.since).as_millis() as u32
    }
}

/// 4 KB for a file that several fetch at once.
const PLACES: usize = 256;
/// Milliseconds.
const LATELY: u32 = 1000;
const A_MOMENT: u32 = 100;

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
    fn what_was_seen_is_trusted_for_a_moment() {
        let (proven, start) = (Proven::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        proven.note_seen(0, start);
        assert!(!proven.trusts(0, start), "it was never proven");
        proven.note(0, start);
        proven.note_seen(1, start);
        assert!(!proven.trusts(1, start), "nor was this one");
        assert!(proven.trusts(0, at(100)) && !proven.trusts(0, at(101)) && !proven.trusts(1, start));
        proven.note_seen(0, at(500));
        assert!(proven.trusts(0, at(600)) && !proven.trusts(0, at(601)));
        assert!(!proven.holds(0, at(1001)), "to be seen is no proof");
        proven.forget();
        assert!(!proven.trusts(0, at(500)));
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
