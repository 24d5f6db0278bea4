//! One part of the memory cache: who is in it, and who goes when another comes.
//!
//! What goes has been asked for long ago, for its hits, and takes much room: of a few neighbours that one whose `idle * weight /
//! (1 + hits)` is the largest, as in GreedyDual-Size-Frequency (Cherkasova, 1998), by samples as in Hyperbolic caching (Blankstein,
//! Sen and Freedman, 2017). A request for a small file costs as much as one for a larger one, so room is better spent on many small
//! ones. The samples are neighbours because they lie in the same lines of memory, and the hand that moves over them comes to everybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering::Relaxed};

use smallvec::SmallVec;

use super::super::super::opening;
use super::super::entry::Entry;
use super::since;
use super::table::{Place, Table};

/// Entries by their keys' hashes, within a budget of its own.
#[derive(Debug)]
pub struct Shard {
    table: Table,
    uses: Vec<Use>,
    budget: u64,
    used: u64,
    /// The hashes of those that keep a file open: descriptors are scarcer than memory.
    files: Vec<u64>,
    most_files: usize,
    /// Where the next to be compared begin.
    hand: AtomicUsize,
}

/// What decides how long an entry stays. Apart from the entry, so that those who are compared lie together.
#[derive(Debug)]
struct Use {
    hash: u64,
    /// What it takes of the budget.
    weight: u32,
    /// What it takes in comparisons.
    burden: u32,
    /// When it was last asked for, in milliseconds.
    last: AtomicU32,
    /// How often since it came, as far as it counts.
    hits: AtomicU8,
}

impl Shard {
    /// An empty part for at most `budget` bytes and `most_files` open files.
    pub fn new(budget: u64, most_files: usize) -> Self {
        let (table, uses, files, hand) = (Table::new(), Vec::new(), Vec::new(), AtomicUsize::new(0));
        Self { table, uses, budget, used: 0, files, most_files, hand }
    }

    /// The entry whose key has this hash and is the right one, asked for at `now`.
    pub fn get(&self, hash: u64, is_right: impl FnOnce(&Entry) -> bool, now: u32) -> Option<Arc<Entry>> {
        let place = self.table.get(hash).filter(|place| is_right(&place.entry))?;
        let of = &self.uses[place.at as usize];
        // Many workers may ask for it at once, some in turns that began earlier: what would not change is not written.
        if since(of.last.load(Relaxed), now) > 0 {
            of.last.store(now, Relaxed);
        }
        let hits = of.hits.load(Relaxed);
        if hits < MAX_HITS {
            of.hits.store(hits + 1, Relaxed);
        }
        Some(Arc::clone(&place.entry))
    }

    /// Lets answers from `entry`, which was found by this hash, begin with `opening`, unless somebody else refers to it.
    pub fn reopen(&mut self, hash: u64, entry: Arc<Entry>, opening: &opening::Bytes) -> Arc<Entry> {
        let Some(place) = self.table.get_mut(hash).filter(|place| Arc::ptr_eq(&place.entry, &entry)) else {
            return entry;
        };
        drop(entry);
        if let Some(entry) = Arc::get_mut(&mut place.entry) {
            entry.reopen(opening);
        }
        Arc::clone(&place.entry)
    }

    /// Has the first line fetched that a search for this hash will look at.
    pub fn prefetch_table(&self, hash: u64) {
        self.table.prefetch(hash);
    }

    /// Has fetched what the table leads to.
    pub fn prefetch_entry(&self, hash: u64) {
        if let Some(place) = self.table.get(hash) {
            amped_runtime::prefetch(&*place.entry);
            amped_runtime::prefetch(&self.uses[place.at as usize]);
        }
    }

    /// Has fetched what the entry leads to.
    pub fn prefetch_content(&self, hash: u64) {
        if let Some(place) = self.table.get(hash) {
            place.entry.prefetch_content();
        }
    }

    /// Whether an entry that costs so much to keep may come: there is room, or what would go first costs clearly more.
    pub fn admits(&self, cost: u64, entry: &Entry, now: u32) -> bool {
        let weight = entry.weight();
        let is_worth = |worst: u64| worst > cost.saturating_mul(CLEARLY);
        if !self.has_place(entry) && weight <= self.budget {
            return self.worst_file(now).is_some_and(|(worst, _)| is_worth(worst));
        }
        self.has_room(weight)
            || weight <= self.budget && self.sample(now).is_some_and(|(worst, _)| is_worth(worst))
            || {
                self.advance();
                false
            }
    }

    /// Takes an entry in, in place of the one with the same hash if there is one. Others go until there is room for it, but none that
    /// costs no more than `cost` to keep; where too few are found, or none could be enough, it is not taken. Whoever goes is given back, to
    /// be dropped when nobody waits for this part of the cache any more.
    pub fn insert(&mut self, hash: u64, entry: Arc<Entry>, cost: u64, now: u32) -> Gone {
        let weight = entry.weight();
        let mut gone = Gone::new();
        let hits = self.remove(hash, &mut gone);
        if !self.has_place(&entry)
            && weight <= self.budget
            && let Some((worst, its)) = self.worst_file(now)
            && worst > cost
        {
            self.remove(its, &mut gone);
        }
        let mut windows = if weight <= self.budget && self.has_place(&entry) { MAX_WINDOWS } else { 0 };
        while windows > 0 && !self.has_room(weight) {
            match self.sample(now) {
                Some((worst, at)) if worst > cost => _ = self.remove(self.uses[at].hash, &mut gone),
                _ => windows -= 1,
            }
            self.advance();
        }
        if windows > 0 {
            let (at, burden) = (self.uses.len() as u32, entry.burden() as u32);
            let hits = hits.unwrap_or(0).into();
            if entry.holds_descriptor() {
                self.files.push(hash);
            }
            self.uses.push(Use { hash, weight: weight as u32, burden, last: now.into(), hits });
            self.table.insert(hash, Place { entry, at });
            self.used += weight;
        }
        gone
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// Entries.
    pub fn len(&self) -> usize {
        self.uses.len()
    }

    /// Lets the entry with this hash go; says how often it was asked for.
    fn remove(&mut self, hash: u64, gone: &mut Gone) -> Option<u8> {
        let Place { entry, at } = self.table.remove(hash)?;
        if entry.holds_descriptor() {
            self.files.retain(|file| *file != hash);
        }
        gone.push(entry);
        let its = self.uses.swap_remove(at as usize);
        if let Some(moved) = self.uses.get(at as usize)
            && let Some(place) = self.table.get_mut(moved.hash)
        {
            place.at = at;
        }
        self.used -= u64::from(its.weight);
        Some(its.hits.into_inner())
    }

    /// Of the open files the one to go: what it costs to keep it, and its hash.
    fn worst_file(&self, now: u32) -> Option<(u64, u64)> {
        let cost = |hash: &u64| Some((self.uses[self.table.get(*hash)?.at as usize].cost(now), *hash));
        self.files.iter().filter_map(cost).max()
    }

    /// Whether one more file may stay open, if the entry is one.
    fn has_place(&self, entry: &Entry) -> bool {
        !entry.holds_descriptor() || self.files.len() < self.most_files
    }

    fn has_room(&self, weight: u64) -> bool {
        self.used + weight <= self.budget
    }

    fn advance(&self) {
        self.hand.store(self.hand.load(Relaxed).wrapping_add(SAMPLE), Relaxed);
    }

    /// Of the entries under the hand the one to go, and what it costs to keep it.
    fn sample(&self, now: u32) -> Option<(u64, usize)> {
        let all = self.uses.len();
        let hand = self.hand.load(Relaxed).checked_rem(all)?;
        let window = (hand..hand + SAMPLE.min(all)).map(|at| if at < all { at } else { at - all });
        window.map(|at| (self.uses[at].cost(now), at)).max()
    }
}

impl Use {
    fn cost(&self, now: u32) -> u64 {
        cost(since(self.last.load(Relaxed), now), self.burden.into()) / (1 + u64::from(self.hits.load(Relaxed)))
    }
}

/// What it costs to keep something of this burden that is asked for every `interval` milliseconds.
pub fn cost(interval: u32, burden: u64) -> u64 {
    u64::from(interval.max(1)) * burden
}

/// Entries that are no longer kept.
pub type Gone = SmallVec<[Arc<Entry>; 4]>;

/// More candidates are hardly better, fewer are a little worse: in a simulation of 200,000 files with a budget of 256 MB 8, 16 and 32 of
/// them let 44.2, 44.9 and 45.4% of a uniform load hit.
const SAMPLE: usize = 16;
/// Hits that count. With many more, what was popular once stays for long after.
const MAX_HITS: u8 = 15;
/// So many times more than a newcomer costs who makes way for it. To exchange one entry for a hardly better one costs more than it brings: with
/// 1 a tenth of all requests of a uniform load did so and a twentieth with 4, while as many hit (45.9 and 45.4% in the simulation above).
const CLEARLY: u64 = 4;
/// Neighbourhoods in which nobody costs enough, before a newcomer that needs more room than one leaves is given up.
const MAX_WINDOWS: usize = 8;

#[cfg(test)]
mod tests {
    use amped_wire::status::Status;

    use super::super::super::entry::Content;
    use super::super::Key;
    use super::*;

    const FILES: usize = 2;

    fn entry(path: &str) -> Arc<Entry> {
        let key = Key { memory: 0, path: path.as_bytes() }.into_owned();
        Arc::new(Entry::new(key, Content::Refused(Status::NOT_FOUND), 0))
    }

    fn insert(shard: &mut Shard, hash: u64, cost: u64, now: u32) -> usize {
        shard.insert(hash, entry("/"), cost, now).len()
    }

    fn has(shard: &Shard, hash: u64, now: u32) -> bool {
        shard.get(hash, |_| true, now).is_some()
    }

    #[test]
    fn a_turn_that_began_earlier_takes_nobody_for_idle() {
        let weight = entry("/").weight();
        let mut shard = Shard::new(weight * 4, FILES);
        (0..4).for_each(|hash| assert_eq!(insert(&mut shard, hash, 0, 100), 0));
        for hash in 1..4 {
            assert!(has(&shard, hash, 2000));
        }
        // Another loop asked a moment ago, by a clock that this one has not read yet: 0 has idled, not they.
        assert!(has(&shard, 2, 1995), "which does not make it older");
        assert_eq!(insert(&mut shard, 9, 0, 1995), 1);
        assert!(!has(&shard, 0, 1995));
        assert!((1..4).all(|hash| has(&shard, hash, 1995)));
    }

    #[test]
    fn nobody_goes_for_what_is_worth_less() {
        let weight = entry("/").weight();
        let mut shard = Shard::new(weight * 40, FILES);
        (0..40).for_each(|hash| _ = insert(&mut shard, hash, 0, 1000));
        assert!(!shard.admits(cost(2000, weight), &entry("/"), 2000));
        assert_eq!(insert(&mut shard, 99, cost(2000, weight), 2000), 0);
        assert!(!has(&shard, 99, 2000));
        assert!(!shard.admits(cost(500, weight), &entry("/"), 2000), "not for what is hardly worth more");
        assert!(shard.admits(cost(200, weight), &entry("/"), 2000));
        assert_eq!(insert(&mut shard, 99, cost(500, weight), 2000), 1);
        assert!(has(&shard, 99, 2000));
        assert_eq!((shard.len(), shard.used()), (40, weight * 40));
    }

    #[test]
    fn an_entry_may_take_the_place_of_the_last() {
        let weight = entry("/").weight();
        let mut shard = Shard::new(weight, FILES);
        assert!(shard.admits(u64::MAX, &entry("/"), 0));
        for hash in 0..5 {
            assert_eq!(insert(&mut shard, hash, 0, hash as u32), usize::from(hash > 0));
            assert!(has(&shard, hash, hash as u32));
        }
        assert!(!Shard::new(weight - 1, FILES).admits(0, &entry("/"), 0));
    }
}
