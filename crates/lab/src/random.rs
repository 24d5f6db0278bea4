//! Random numbers from a seed: small, fast, and the same in every run.
//!
//! SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): passes the usual tests, one multiplication chain a number.

use std::cell::Cell;

/// A stream of random numbers. Not for secrets.
#[derive(Debug)]
pub struct Random(Cell<u64>);

impl Random {
    /// The stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Cell::new(seed))
    }

    /// The next 64 bits.
    pub fn bits(&self) -> u64 {
        let state = self.0.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.0.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&self, limit: u32) -> u32 {
        // Lemire's multiplication; the bias of 2^-32 is no matter here.
        (((self.bits() >> 32) * u64::from(limit)) >> 32) as u32
    }

    /// From 0 up to, but not including, 1.
    pub fn unit(&self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(u32::try_from(last + 1).unwrap_or(u32::MAX));
            items.swap(last, other as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_is_the_same_stream_and_spreads() {
        let (one, two) = (Random::new(7), Random::new(7));
        let mut buckets = [0; 10];
        for _ in 0..10_000 {
            let value = one.below(10);
            assert_eq!(value, two.below(10));
            buckets[value as usize] += 1;
            assert!((0.0..1.0).contains(&one.unit()));
            two.unit();
        }
        assert!(buckets.iter().all(|&count| (850..1150).contains(&count)), "{buckets:?}");
    }

    #[test]
    fn a_shuffle_loses_nothing() {
        let mut items: Vec<u32> = (0..1000).collect();
        Random::new(3).shuffle(&mut items);
        assert!(items.iter().enumerate().any(|(at, &item)| at as u32 != item));
        items.sort_unstable();
        assert_eq!(items, (0..1000).collect::<Vec<_>>());
    }
}
