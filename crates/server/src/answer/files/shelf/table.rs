//! Entries by hash: open addressing with linear probes and no tombstones, as in Knuth's Algorithms L and R (volume 3, section 6.4).
//!
//! A library's table does not tell where it would look, and so cannot be fetched ahead; here that is one line of memory, or two.

use std::sync::Arc;

use super::super::entry::Entry;

/// The table; it doubles when it is three quarters full.
#[derive(Debug)]
pub struct Table {
    /// A power of two of them.
    buckets: Vec<Bucket>,
    len: usize,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    hash: u64,
    place: Option<Place>,
}

/// An entry, and the number of its `Use`.
#[derive(Clone, Debug)]
pub struct Place {
    pub entry: Arc<Entry>,
    pub at: u32,
}

impl Table {
    /// An empty table.
    pub fn new() -> Self {
        Self { buckets: vec![Bucket::default(); LEAST], len: 0 }
    }

    /// The place of the entry with this hash.
    pub fn get(&self, hash: u64) -> Option<&Place> {
        self.buckets[self.search(hash)].place.as_ref()
    }

    /// Likewise, to be changed.
    pub fn get_mut(&mut self, hash: u64) -> Option<&mut Place> {
        let at = self.search(hash);
        self.buckets[at].place.as_mut()
    }

    /// Puts a place under a hash that is not in the table.
    pub fn insert(&mut self, hash: u64, place: Place) {
        if self.len >= self.buckets.len() / 4 * 3 {
            self.grow();
        }
        let at = self.search(hash);
        debug_assert!(self.buckets[at].place.is_none());
        self.buckets[at] = Bucket { hash, place: Some(place) };
        self.len += 1;
    }

    /// Takes what has this hash.
    pub fn remove(&mut self, hash: u64) -> Option<Place> {
        let mut hole = self.search(hash);
        let removed = self.buckets[hole].place.take()?;
        self.len -= 1;
        let mut next = self.after(hole);
        while self.buckets[next].place.is_some() {
            // Whoever was pushed past the hole moves into it: those whose home is not between the hole and where they are.
            let home = self.home(self.buckets[next].hash);
            if self.distance(home, next) >= self.distance(hole, next) {
                self.buckets.swap(hole, next);
                hole = next;
            }
            next = self.after(next);
        }
        Some(removed)
    }

    /// Has the line fetched where the search for this hash begins.
    pub fn prefetch(&self, hash: u64) {
        amped_runtime::prefetch(&self.buckets[self.home(hash)]);
    }

    fn grow(&mut self) {
        let larger = vec![Bucket::default(); self.buckets.len() * 2];
        for bucket in std::mem::replace(&mut self.buckets, larger) {
            if bucket.place.is_some() {
                let at = self.search(bucket.hash);
                self.buckets[at] = bucket;
            }
        }
    }

    /// The bucket with this hash, or the empty one where it would be.
    fn search(&self, hash: u64) -> usize {
        let mut at = self.home(hash);
        while self.buckets[at].place.is_some() && self.buckets[at].hash != hash {
            at = self.after(at);
        }
        at
    }

    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.buckets.len() - 1)
    }
}

const LEAST: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use amped_wire::status::Status;

    use super::super::super::entry::Content;
    use super::super::Key;
    use super::*;

    /// Against the library's map, with hashes that collide in their low bits.
    #[test]
    fn it_is_a_map() {
        let key = Key { memory: 0, path: &b"/"[..] }.into_owned();
        let entry = Arc::new(Entry::new(key, Content::Refused(Status::NOT_FOUND), 0));
        let (mut table, mut model) = (Table::new(), HashMap::new());
        let mut seed = 7u64;
        for step in 0..60_000u32 {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let hash = ((seed >> 33) % 800 * 0x1_0000_0003) & !0x38;
            match seed >> 60 {
                0..8 => assert_eq!(table.remove(hash).map(|place| place.at), model.remove(&hash)),
                _ if model.contains_key(&hash) => {
                    table.get_mut(hash).expect("the model has it").at = step;
                    model.insert(hash, step);
                }
                _ => {
                    table.insert(hash, Place { entry: Arc::clone(&entry), at: step });
                    model.insert(hash, step);
                }
            }
            table.prefetch(hash);
            assert_eq!(table.len, model.len());
            if step % 512 == 0 {
                assert!(model.iter().all(|(hash, at)| table.get(*hash).map(|place| place.at) == Some(*at)));
                assert_eq!(table.buckets.iter().filter(|bucket| bucket.place.is_some()).count(), model.len());
            }
        }
        assert!(model.len() > 100);
        model.keys().for_each(|hash| assert!(table.remove(*hash).is_some()));
        assert_eq!(Arc::strong_count(&entry), 1);
    }
}
