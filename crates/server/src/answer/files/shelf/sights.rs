//! What was asked for and not kept: when, as far back as a small table remembers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The table. Races lose a sight, no more.
#[derive(Debug)]
pub struct Sights {
    /// By the low bits of a path's hash: 32 other bits of it, and when it was seen, in milliseconds.
    places: Box<[AtomicU64]>,
    /// How long ago what is overwritten was seen, on average, times `SMOOTHING`.
    span: AtomicU64,
}

impl Sights {
    /// A table of `places`, a power of two.
    pub fn new(places: usize) -> Self {
        Self { places: (0..places).map(|_| AtomicU64::new(0)).collect(), span: AtomicU64::new(0) }
    }

    /// Notes a sight at `now`. Says how long ago the one before was, or, if the table knows of none, how far it remembers:
    /// `Err`, for it is at least as long ago as that.
    pub fn see(&self, hash: u64, now: u32) -> Result<u32, u32> {
        let place = &self.places[hash as usize & (self.places.len() - 1)];
        let tag = hash & TAG | 1 << 32;
        let before = place.load(Relaxed);
        place.store(tag | u64::from(now), Relaxed);
        let age = now.wrapping_sub(before as u32);
        let span = self.span.load(Relaxed);
        let span = span - span / SMOOTHING + u64::from(age);
        self.span.store(span, Relaxed);
        if before & TAG | 1 << 32 == tag && before != 0 { Ok(age) } else { Err((span / SMOOTHING) as u32) }
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
        assert!(sights.see(7 << 32 | 3, 100).is_err());
        assert_eq!(sights.see(7 << 32 | 3, 130), Ok(30));
        assert!(sights.see(9 << 32 | 3, 140).is_err());
        assert!(sights.see(7 << 32 | 3, 150).is_err());
    }

    #[test]
    fn it_says_how_far_it_remembers() {
        let sights = Sights::new(64);
        // Every place is taken anew after 64 milliseconds.
        let last = (0..100_000u64).map(|now| sights.see(now << 33 | now, now as u32)).last();
        assert!(matches!(last, Some(Err(60..=68))), "{last:?}");
    }
}
