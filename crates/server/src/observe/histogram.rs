//! Times in buckets: four to a doubling, from a microsecond to half a minute. Two loads and two stores a time.

use std::time::Duration;

use super::counters::Counter;

/// How many of which length. One thread records.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BUCKETS],
    micros: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_| Counter::default()), micros: Counter::default() }
    }
}

impl Histogram {
    /// Records `weight` times of this length.
    pub fn record(&self, time: Duration, weight: u64) {
        let micros = time.as_micros() as u64;
        self.buckets[place(micros)].add(weight);
        self.micros.add(micros * weight);
    }

    /// Every bucket that is not empty: its upper bound in microseconds (exclusive), and its count.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let all = self.buckets.iter().enumerate().map(|(place, count)| (bound(place), count.get()));
        all.filter(|(_, count)| *count > 0)
    }

    /// All times together, in microseconds.
    pub fn micros(&self) -> u64 {
        self.micros.get()
    }
}

/// A time's bucket: its two highest bits after the first choose the quarter of its doubling.
fn place(micros: u64) -> usize {
    if micros < 4 {
        return micros as usize;
    }
    let doubling = micros.ilog2() as usize;
    let quarter = (micros >> (doubling - 2)) as usize & 3;
    ((doubling - 1) * 4 + quarter).min(BUCKETS - 1)
}

/// The first time beyond a bucket.
fn bound(place: usize) -> u64 {
    if place < 4 {
        return place as u64 + 1;
    }
    let (doubling, quarter) = (place / 4 + 1, place as u64 % 4);
    (4 + quarter + 1) << (doubling - 2)
}

/// The last one holds everything from 29 s up.
const BUCKETS: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_below_its_bound_and_not_below_the_one_before() {
        for micros in (0..5000).chain([1 << 20, (1 << 20) - 1, (1 << 24) + 12345]) {
            let place = place(micros);
            assert!(micros < bound(place), "{micros} in {place}");
            assert!(place == 0 || micros >= bound(place - 1), "{micros} in {place}");
        }
        assert_eq!(place(u64::MAX), BUCKETS - 1);
        assert!(bound(BUCKETS - 2) > 20_000_000 && bound(3) == 4 && bound(4) == 5 && bound(8) == 10);
    }

    #[test]
    fn doublings_are_bounds() {
        let bounds: Vec<u64> = (0..BUCKETS).map(bound).collect();
        assert!((0..24).all(|doubling| bounds.contains(&(1 << doubling))));
        assert!(bounds.is_sorted());
    }

    #[test]
    fn times_are_counted_with_their_weight() {
        let histogram = Histogram::default();
        histogram.record(Duration::from_micros(3), 10);
        histogram.record(Duration::from_millis(1), 1);
        assert_eq!(histogram.counts().collect::<Vec<_>>(), [(4, 10), (1024, 1)]);
        assert_eq!(histogram.micros(), 1030);
    }
}
