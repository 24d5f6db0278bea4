//! The most frequent of many, in bounded memory: Space-Saving (Metwally, Agrawal and El Abbadi, ICDT 2005).
//!
//! A newcomer takes the place of the least frequent and inherits its count, so whatever clients send, `PLACES` names are kept, and
//! anything with more than 1/`PLACES` of all is among them. Counts are halved as time goes by: the list is about now.

/// Names and how often they were seen, of late.
#[derive(Debug, Default)]
pub struct Sketch {
    entries: Vec<Entry>,
    /// The half-life that has begun, in milliseconds.
    since: u64,
}

#[derive(Debug)]
struct Entry {
    name: Box<[u8]>,
    count: u64,
    /// How much of the count may be others'.
    inherited: u64,
}

impl Sketch {
    /// Counts a name `weight` times, at a time in milliseconds.
    pub fn add(&mut self, name: &[u8], weight: u64, now: u64) {
        self.forget(now);
        let name = &name[..name.len().min(LONGEST)];
        if let Some(entry) = self.entries.iter_mut().find(|entry| *entry.name == *name) {
            entry.count += weight;
        } else if self.entries.len() < PLACES {
            self.entries.push(Entry { name: name.into(), count: weight, inherited: 0 });
        } else if let Some(least) = self.entries.iter_mut().min_by_key(|entry| entry.count) {
            *least = Entry { name: name.into(), count: least.count + weight, inherited: least.count };
        }
    }

    /// The names that were certainly seen, the most frequent first, with at least so many sights of each.
    pub fn top(&self) -> Vec<(String, u64)> {
        let sure = |entry: &Entry| (String::from_utf8_lossy(&entry.name).into_owned(), entry.count - entry.inherited);
        let mut top: Vec<_> = self.entries.iter().map(sure).filter(|(_, count)| *count > 0).collect();
        top.sort_by(|(one, many), (other, more)| more.cmp(many).then_with(|| one.cmp(other)));
        top
    }

    /// Halves what is older than a half-life.
    pub fn forget(&mut self, now: u64) {
        let lives = now.saturating_sub(self.since) / HALF_LIFE_MS;
        if lives == 0 {
            return;
        }
        self.since = now;
        let shift = lives.min(63);
        for entry in &mut self.entries {
            entry.count >>= shift;
            entry.inherited = (entry.inherited >> shift).min(entry.count);
        }
        self.entries.retain(|entry| entry.count > 0);
    }
}

const PLACES: usize = 64;
/// Longer names are cut: two that differ only beyond are one.
const LONGEST: usize = 200;
/// A minute.
pub const HALF_LIFE_MS: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frequent_are_found_among_any_number_of_others() {
        let mut sketch = Sketch::default();
        for turn in 0..100_000_u64 {
            sketch.add(format!("/once/{turn}").as_bytes(), 1, 0);
            if turn % 4 == 0 {
                sketch.add(b"/often", 1, 0);
            }
            if turn % 20 == 0 {
                sketch.add(b"/less", 1, 0);
            }
        }
        let top = sketch.top();
        assert!(top.len() <= PLACES);
        assert_eq!((top[0].0.as_str(), top[1].0.as_str()), ("/often", "/less"));
        assert!((20_000..=25_000).contains(&top[0].1), "{}", top[0].1);
    }

    #[test]
    fn what_was_yesterday_is_forgotten() {
        let mut sketch = Sketch::default();
        sketch.add(b"/a", 100, 0);
        sketch.add(b"/b", 1, HALF_LIFE_MS);
        assert_eq!(sketch.top(), [("/a".to_owned(), 50), ("/b".to_owned(), 1)]);
        sketch.forget(100 * HALF_LIFE_MS);
        assert!(sketch.top().is_empty());
    }

    #[test]
    fn a_name_is_cut_and_never_invalid() {
        let mut sketch = Sketch::default();
        sketch.add(&[0xff; 10_000], 1, 0);
        assert!(sketch.top()[0].0.chars().count() <= LONGEST);
    }
}
