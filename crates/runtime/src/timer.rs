//! A hierarchical timing wheel: deadlines for thousands of connections at a few bytes each.
//!
//! Four wheels of 64 slots, one tick a millisecond, reach 4.6 hours. Insertion is a push, expiry a drain; an entry moves down
//! at most three times in its life. Deadlines are lazy: a connection that is used again only stores its new deadline, and when
//! its old entry comes up the owner finds it early and inserts it anew (Varghese and Lauck, "Hashed and hierarchical timing
//! wheels", SOSP 1987).

/// A wheel of `(tick, key)` entries. Keys are opaque; a stale one is the owner's to recognise.
#[derive(Debug)]
pub struct Wheel {
    levels: [Level; LEVELS],
    now: u64,
    count: usize,
}

#[derive(Debug)]
struct Level {
    slots: [Vec<Entry>; SLOTS],
    /// Bit i is set when slot i holds an entry, so that the next deadline is found without looking at empty slots.
    occupied: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    tick: u64,
    key: u64,
}

impl Wheel {
    /// An empty wheel whose present is `now` (ticks).
    pub fn new(now: u64) -> Self {
        let levels = std::array::from_fn(|_| Level { slots: std::array::from_fn(|_| Vec::new()), occupied: 0 });
        Self { levels, now, count: 0 }
    }

    /// Lets `key` come up when `tick` has passed. A tick that is not in the future comes up at the next `advance`.
    pub fn insert(&mut self, tick: u64, key: u64) {
        self.count += 1;
        self.place(Entry { tick: tick.max(self.now + 1), key });
    }

    /// Moves the present to `now` and hands over every key whose tick has passed.
    pub fn advance(&mut self, now: u64, mut expired: impl FnMut(u64)) {
        if self.count == 0 {
            self.now = self.now.max(now);
            return;
        }
        while self.now < now {
            // An empty lowest wheel is crossed in one step, up to where a higher one must be emptied into it.
            if self.levels[0].occupied == 0 {
                let boundary = (self.now | (SLOTS as u64 - 1)).min(now - 1);
                self.now = boundary;
            }
            self.now += 1;
            self.cascade();
            for entry in self.take(0, slot(self.now, 0)) {
                debug_assert!(entry.tick <= self.now, "an entry in the lowest wheel is due when its slot comes up");
                self.count -= 1;
                expired(entry.key);
            }
        }
    }

    /// Ticks from now until something may come up; never later than the true deadline, possibly earlier.
    pub fn next(&self) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        (0..LEVELS).filter(|&level| self.levels[level].occupied != 0).map(|level| self.distance(level)).min()
    }

    fn distance(&self, level: usize) -> u64 {
        let width = 1u64 << (BITS * level as u32);
        let here = slot(self.now, level) as u32;
        // The next occupied slot at or after the one that follows the present.
        let ahead = self.levels[level].occupied.rotate_right((here + 1) % SLOTS as u32).trailing_zeros() as u64 + 1;
        let reached = ((self.now / width) + ahead) * width;
        reached - self.now
    }

    fn place(&mut self, entry: Entry) {
        let ahead = entry.tick - self.now;
        let level = (0..LEVELS - 1).find(|&level| ahead < 1 << (BITS * (level as u32 + 1))).unwrap_or(LEVELS - 1);
        let far = self.now + (1 << (BITS * LEVELS as u32)) - 1;
        let index = slot(entry.tick.min(far), level);
        self.levels[level].slots[index].push(entry);
        self.levels[level].occupied |= 1 << index;
    }

    /// When a wheel has come round, the next higher one's current slot is spread over those below.
    fn cascade(&mut self) {
        for level in 1..LEVELS {
            if self.now & ((1 << (BITS * level as u32)) - 1) != 0 {
                return;
            }
            for entry in self.take(level, slot(self.now, level)) {
                let due = Entry { tick: entry.tick.max(self.now), key: entry.key };
                self.place(due);
            }
        }
    }

    fn take(&mut self, level: usize, index: usize) -> Vec<Entry> {
        self.levels[level].occupied &= !(1 << index);
        std::mem::take(&mut self.levels[level].slots[index])
    }
}

fn slot(tick: u64, level: usize) -> usize {
    (tick >> (BITS * level as u32)) as usize & (SLOTS - 1)
}

const BITS: u32 = 6;
const SLOTS: usize = 1 << BITS;
const LEVELS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    fn expired(wheel: &mut Wheel, now: u64) -> Vec<u64> {
        let mut keys = Vec::new();
        wheel.advance(now, |key| keys.push(key));
        keys
    }

    #[test]
    fn comes_up_exactly_when_due() {
        for start in [0, 1, 63, 64, 4095, 4096, 262_143, 999_999] {
            for delay in [1, 2, 63, 64, 65, 127, 4095, 4096, 5000, 262_144, 300_000] {
                let mut wheel = Wheel::new(start);
                wheel.insert(start + delay, 7);
                assert_eq!(expired(&mut wheel, start + delay - 1), [], "start {start} delay {delay}: early");
                assert_eq!(expired(&mut wheel, start + delay), [7], "start {start} delay {delay}: late");
                assert_eq!(wheel.next(), None);
            }
        }
    }

    #[test]
    fn next_is_never_late() {
        let mut wheel = Wheel::new(1000);
        for (key, tick) in [(1, 1003), (2, 1900), (3, 70_000), (4, 400_000)] {
            wheel.insert(tick, key);
        }
        let mut seen = Vec::new();
        let mut now = 1000;
        while let Some(wait) = wheel.next() {
            assert!(wait > 0);
            now += wait;
            wheel.advance(now, |key| seen.push((key, now)));
        }
        assert_eq!(seen, [(1, 1003), (2, 1900), (3, 70_000), (4, 400_000)]);
    }

    #[test]
    fn a_past_tick_comes_up_at_once() {
        let mut wheel = Wheel::new(50);
        wheel.insert(10, 9);
        assert_eq!(wheel.next(), Some(1));
        assert_eq!(expired(&mut wheel, 51), [9]);
    }

    #[test]
    fn beyond_the_horizon_is_not_lost() {
        let mut wheel = Wheel::new(0);
        let far = 1 << 25;
        wheel.insert(far, 3);
        assert_eq!(expired(&mut wheel, far - 1), []);
        assert_eq!(expired(&mut wheel, far), [3]);
    }

    /// Insertions and advances in random order, with steps and delays of every size, against a list.
    #[test]
    fn a_wheel_is_a_sorted_list() {
        let mut seed = 1u64;
        let mut random = move |below: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 20) % below
        };
        for start in [0, 4095, 1 << 24, (1 << 40) + 12_345] {
            let (mut wheel, mut model, mut now) = (Wheel::new(start), Vec::new(), start);
            for key in 0..4000 {
                for _ in 0..random(3) {
                    let width = 1 + random(26);
                    let delay = random(1 << width);
                    wheel.insert(now + delay, key);
                    model.push(((now + delay).max(now + 1), key));
                }
                // Often exactly as far as the wheel says, as the loop does.
                let width = random(18);
                let step = if random(2) == 0 { wheel.next().unwrap_or(1) } else { random(1 << width) };
                let earliest = model.iter().map(|&(tick, _)| tick).min();
                assert_eq!(wheel.next().is_some(), earliest.is_some());
                if let (Some(next), Some(earliest)) = (wheel.next(), earliest) {
                    assert!(next > 0 && now + next <= earliest, "never later than the true deadline");
                }
                now += step;
                let mut due: Vec<u64> =
                    model.extract_if(.., |&mut (tick, _)| tick <= now).map(|(_, key)| key).collect();
                let mut seen = expired(&mut wheel, now);
                due.sort_unstable();
                seen.sort_unstable();
                assert_eq!(seen, due, "from {start}, at {now}");
            }
        }
    }

    #[test]
    fn many_random_deadlines_come_up_once_each_and_on_time() {
        let mut wheel = Wheel::new(0);
        let mut seed = 42u64;
        let mut due = Vec::new();
        for key in 0..5000 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let tick = 1 + (seed >> 33) % 600_000;
            wheel.insert(tick, key);
            due.push(tick);
        }
        let mut seen = vec![false; due.len()];
        for now in (0..=600_000).step_by(37) {
            wheel.advance(now, |key| {
                assert!(!seen[key as usize], "twice");
                assert!(due[key as usize] <= now && due[key as usize] + 37 > now);
                seen[key as usize] = true;
            });
        }
        wheel.advance(600_001, |key| seen[key as usize] = true);
        assert!(seen.iter().all(|&seen| seen));
    }
}
