//! Zipf's law: the file of rank k is asked for in proportion to 1 / k^s, as web servers see it.
//!
//! Sampling is Vose's alias method: a table of 8 bytes a rank built once, then two memory accesses a sample however many
//! files there are (Vose, "A linear algorithm for generating random numbers with a given distribution", 1991).

use crate::random::Random;

/// A distribution over ranks 0, 1, 2 … of falling popularity.
#[derive(Debug)]
pub struct Zipf {
    places: Vec<Place>,
}

/// One place of the table: itself with this probability (of 2^32), else its alias.
#[derive(Clone, Copy, Debug)]
struct Place {
    own: u32,
    alias: u32,
}

impl Zipf {
    /// Zipf's law over `ranks` (at least 1) with this exponent; 0 is uniform.
    pub fn new(ranks: u32, exponent: f64) -> Self {
        let weights: Vec<f64> = (1..=ranks).map(|rank| f64::from(rank).powf(-exponent)).collect();
        let mean = weights.iter().sum::<f64>() / f64::from(ranks);
        let mut shares: Vec<f64> = weights.iter().map(|weight| weight / mean).collect();
        let mut places: Vec<Place> = (0..ranks).map(|rank| Place { own: u32::MAX, alias: rank }).collect();
        let (mut small, mut large): (Vec<u32>, Vec<u32>) = (0..ranks).partition(|&rank| shares[rank as usize] < 1.0);
        // Each place below its share is filled up by one above it. What rounding leaves over keeps its place for itself.
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            let share = shares[poor as usize];
            places[poor as usize] = Place { own: (share * 2f64.powi(32)) as u32, alias: rich };
            let left = &mut shares[rich as usize];
            *left -= 1.0 - share;
            if *left < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Self { places }
    }

    /// A rank, the most popular being 0.
    pub fn sample(&self, random: &Random) -> u32 {
        let at = random.below(self.places.len() as u32);
        let place = self.places[at as usize];
        if (random.bits() >> 32) as u32 <= place.own { at } else { place.alias }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_in_proportion() {
        for exponent in [0.0, 0.7, 1.0, 1.3] {
            let (zipf, random) = (Zipf::new(100, exponent), Random::new(11));
            let mut seen = [0u32; 100];
            const SAMPLES: u32 = 400_000;
            for _ in 0..SAMPLES {
                seen[zipf.sample(&random) as usize] += 1;
            }
            let whole: f64 = (1..=100).map(|rank| f64::from(rank).powf(-exponent)).sum();
            for rank in [1usize, 2, 3, 10, 50, 100] {
                let expected = (rank as f64).powf(-exponent) / whole * f64::from(SAMPLES);
                let difference = (f64::from(seen[rank - 1]) - expected).abs();
                // Five standard deviations: the seed is fixed, so this cannot fail by chance.
                assert!(difference < 5.0 * expected.sqrt() + 1.0, "rank {rank} at {exponent}: {}", seen[rank - 1]);
            }
        }
    }

    #[test]
    fn one_file_is_always_it() {
        let (zipf, random) = (Zipf::new(1, 1.0), Random::new(1));
        assert!((0..100).all(|_| zipf.sample(&random) == 0));
    }
}
