//! What was asked for and not kept: when, as far back as a small table remembers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::since;

/// The table. Races lose a sight, no more.
#[derive(Debug)]
pub struct Sights {
    /// By the low bits of a path's hash: 32 other bits of it, and when it was seen, in milliseconds.
    places: Box<[AtomicU64]>,
    /// How long ago what is forgotten was seen, on average, times `SMOOTHING`.
    span: AtomicU64,
}

/// What is known of a path that has been seen again, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// How long ago it was seen before, if that is remembered.
    pub before: Option<u32>,
    /// How far the table remembers: what it does not know is at least as long ago.
    pub span: u32,
}

impl Sights {
    /// A table of `places`, a power of two.
    pub fn new(places: usize) -> Self {
        Self { places: (0..places).map(|_| AtomicU64::new(0)).collect(), span: AtomicU64::new(0) }
    }

    /// Notes a sight at `now`.
    pub fn see(&self, hash: u64, now: u32) -> Sight {
        let place = &self.places[hash as usize & (self.places.len() - 1)];
        let tag = hash & TAG | 1 << 32;
        let before = place.load(Relaxed);
        place.store(tag | u64::from(now), Relaxed);
        let age = since(before as u32, now);
        if before & TAG == tag & TAG {
            return Sight { before: Some(age), span: self.span() };
        }
        // Where a path is seen again and again, nothing is forgotten for it.
        let span = self.span.load(Relaxed);
        self.span.store(span - span / SMOOTHING + u64::from(age), Relaxed);
        Sight { before: None, span: self.span() }
    }

    fn span(&self) -> u32 {
        (self.span.load(Relaxed) / SMOOTHING) as u32
    }
}

const TAG: u64 = !0 << 32;
const SMOOTHING: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sight_is_remembered_until_another_takes_its_place() {
        let sights = Sights::new(64);
        assert_eq!(sights.see(7 << 32 | 3, 100).before, None);
        assert_eq!(sights.see(7 << 32 | 3, 130).before, Some(30));
        assert_eq!(sights.see(9 << 32 | 3, 140).before, None);
        assert_eq!(sights.see(7 << 32 | 3, 150).before, None);
    }

    #[test]
    fn it_says_how_far_it_remembers() {
        let sights = Sights::new(64);
        // Every place is taken anew after 64 milliseconds.
        let see = |at: u64, now: u64| sights.see(at << 33 | at, now as u32).span;
        (0..100_000).for_each(|now| _ = see(now, now));
        assert!((60..=68).contains(&see(100_000, 100_000)));
        // Half of the turns began a moment earlier than those of other loops.
        (100_000..200_000).for_each(|now| _ = see(now, now - now % 2 * 100));
        assert!((60..=140).contains(&see(200_000, 200_000)));
    }
}
