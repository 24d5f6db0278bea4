//! The memory cache: entries by route and path, within a budget of bytes, shared by all workers.
//!
//! quick_cache keeps what is asked for again and lets a scan pass through. Once the budget is nearly used up, an entry must be
//! asked for twice before it is kept at all: a first sight costs a slot in a small table instead of evicting something.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use foldhash::fast::FixedState;
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{Equivalent, Weighter};
use smallvec::SmallVec;

use super::STALE_LIMIT_MS;
use super::entry::Entry;
use super::load::Loaded;

/// The cache.
#[derive(Debug)]
pub struct Shelf {
    cache: Cache<OwnedKey, Arc<Entry>, ByBytes, FixedState>,
    hasher: FixedState,
    budget: u64,
    /// The budget is nearly used up. Once it is, it stays so: what goes makes room for what comes.
    is_full: AtomicBool,
    /// Hashes of paths seen once, by their low bits; see `SEEN_FOR_EACH`. Races lose a sight, no more.
    seen: Box<[AtomicU32]>,
}

/// What an entry is found by. The path is normalized and begins with a slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<P> {
    /// The route's number, which it keeps over reloads that do not concern it.
    pub memory: u32,
    /// The path.
    pub path: P,
}

/// A key with a path of its own. A usual path lies in the cache's own slot: a heap allocation would be one more line of cold
/// memory to wait for in every hit (4% of the whole request, where the working set is larger than the processor's cache).
pub type OwnedKey = Key<SmallVec<[u8; INLINE_PATH]>>;

#[derive(Clone, Copy, Debug)]
struct ByBytes;

impl Shelf {
    /// A cache of at most `budget` bytes, heads and bookkeeping included; 0 keeps nothing.
    pub fn new(budget: u64) -> Self {
        // A seed of its own, so that nobody outside can choose paths that collide.
        let hasher = FixedState::with_seed(amped_runtime::process::random_seed());
        let entries = (budget / EXPECTED_ENTRY).clamp(64, 1 << 22) as usize;
        let seen = (budget / SEEN_FOR_EACH).clamp(8192, 1 << 20).next_power_of_two() as usize;
        let lifecycle = DefaultLifecycle::default();
        Self {
            cache: Cache::with(entries, budget, ByBytes, hasher.clone(), lifecycle),
            hasher,
            budget,
            is_full: AtomicBool::new(false),
            seen: (0..seen).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    /// The entry, if memory has one.
    pub fn get(&self, key: &Key<&[u8]>) -> Option<Arc<Entry>> {
        self.cache.get(key)
    }

    /// Takes what a reading found: confirms `known`, or makes an entry and keeps it if it is worth keeping.
    pub fn keep(&self, key: &Key<&[u8]>, loaded: Loaded, known: Option<Arc<Entry>>, now: u64) -> Arc<Entry> {
        match (loaded, known) {
            (Loaded::Unchanged, Some(known)) => {
                known.confirm(now);
                known
            }
            (Loaded::Unchanged, None) => unreachable!("nothing known, so nothing unchanged"),
            (Loaded::New(content), _) => {
                let entry = Arc::new(Entry::new(content, now));
                self.cache.insert(key.into_owned(), Arc::clone(&entry));
                entry
            }
            // The machine's trouble, not the file's: memory goes on answering for it.
            (Loaded::Passing(_), Some(known)) if known.age(now) < STALE_LIMIT_MS => known,
            (loaded @ Loaded::Passing(_), _) => Self::pass(loaded, now),
        }
    }

    /// An entry for what was found, which is not kept.
    pub fn pass(loaded: Loaded, now: u64) -> Arc<Entry> {
        match loaded {
            Loaded::New(content) | Loaded::Passing(content) => Arc::new(Entry::new(content, now)),
            Loaded::Unchanged => unreachable!("nothing known, so nothing unchanged"),
        }
    }

    /// Whether an entry for this path would be kept: there is room, or the path has been asked for before. Asking counts.
    pub fn wants(&self, key: &Key<&[u8]>) -> bool {
        self.has_room() || self.seen_before(key)
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.cache.weight()
    }

    /// Entries kept.
    pub fn entries(&self) -> usize {
        self.cache.len()
    }

    fn has_room(&self) -> bool {
        if self.is_full.load(Relaxed) {
            return false;
        }
        // Every part of the cache is asked for its weight.
        let has_room = self.cache.weight() < self.budget / 16 * 15;
        self.is_full.store(!has_room, Relaxed);
        has_room
    }

    fn seen_before(&self, key: &Key<&[u8]>) -> bool {
        let hash = self.hasher.hash_one(key);
        let slot = &self.seen[hash as usize % self.seen.len()];
        let tag = (hash >> 32) as u32 | 1;
        slot.load(Relaxed) == tag || {
            slot.store(tag, Relaxed);
            false
        }
    }
}

impl Key<&[u8]> {
    /// The key with a path of its own.
    pub fn into_owned(self) -> OwnedKey {
        Key { memory: self.memory, path: self.path.into() }
    }
}

impl OwnedKey {
    /// The key with a borrowed path.
    pub fn as_ref(&self) -> Key<&[u8]> {
        Key { memory: self.memory, path: &self.path }
    }
}

// `[u8]` and `SmallVec` hash alike, so the derived `Hash` of both keys agrees.
impl Equivalent<OwnedKey> for Key<&[u8]> {
    fn equivalent(&self, key: &OwnedKey) -> bool {
        self.memory == key.memory && *self.path == *key.path
    }
}

impl Weighter<OwnedKey, Arc<Entry>> for ByBytes {
    fn weight(&self, key: &OwnedKey, entry: &Arc<Entry>) -> u64 {
        entry.weight(key.path.len())
    }
}

/// Longer paths are on the heap.
const INLINE_PATH: usize = 40;
/// What an entry is expected to weigh, for sizing the map.
const EXPECTED_ENTRY: u64 = 8 * 1024;
/// A place to remember a path by for each so many bytes of the budget, four bytes large and beside it: half as many as there are usual
/// entries. Of W places, a path that is asked for once in d others is recognised W / (W + d) times: at once if it is popular, sooner or
/// later if it is not, and what is kept in its stead has then been the better choice for as long. 65,536 places for 256 MB keep a
/// quarter of the misses of a load that is uniform over 200,000 files, where no entry is better than another; with what is copied, allocated
/// and freed for it, all of it cold, that was about 6% of the processor time in a profile.
const SEEN_FOR_EACH: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::super::entry::Content;
    use super::*;
    use amped_wire::status::Status;

    fn key(path: &str) -> Key<&[u8]> {
        Key { memory: 0, path: path.as_bytes() }
    }

    fn absent() -> Loaded {
        Loaded::New(Content::Refused(Status::NOT_FOUND))
    }

    #[test]
    fn borrowed_and_owned_keys_find_each_other() {
        let shelf = Shelf::new(1 << 20);
        shelf.keep(&key("/a"), absent(), None, 5);
        assert!(shelf.get(&key("/a")).is_some());
        assert!(shelf.get(&key("/b")).is_none());
        assert!(shelf.get(&Key { memory: 1, ..key("/a") }).is_none());
    }

    #[test]
    fn a_confirmation_renews_the_entry_in_place() {
        let shelf = Shelf::new(1 << 20);
        let entry = shelf.keep(&key("/a"), absent(), None, 5);
        assert_eq!(entry.age(1005), 1000);
        let same = shelf.keep(&key("/a"), Loaded::Unchanged, Some(Arc::clone(&entry)), 1000);
        assert!(Arc::ptr_eq(&entry, &same));
        assert_eq!(entry.age(1005), 5);
    }

    #[test]
    fn the_budget_holds_and_a_scan_does_not_evict_what_is_used() {
        let shelf = Shelf::new(1 << 20);
        for round in 0..3 {
            shelf.keep(&key("/hot"), absent(), None, round);
        }
        for number in 0..100_000 {
            let path = format!("/scan/{number}");
            if shelf.wants(&key(&path)) {
                shelf.keep(&key(&path), absent(), None, 0);
            }
            shelf.get(&key("/hot"));
        }
        assert!(shelf.used() <= 1 << 20);
        assert!(shelf.get(&key("/hot")).is_some());
    }

    #[test]
    fn once_full_it_keeps_what_comes_again_soon() {
        let shelf = Shelf::new(1 << 20);
        let path = |number: u64| format!("/{number}");
        (0..).find(|number| {
            shelf.keep(&key(&path(*number)), absent(), None, 0);
            !shelf.has_room()
        });
        let wants = |number: u64| usize::from(shelf.wants(&key(&path(number))));
        // Lehmer's generator: as good as independent. 8,192 / (8,192 + 200,000) of them are recognised.
        let mut state = 17;
        let mut draw = || {
            state = state * 16807 % 2_147_483_647;
            state
        };
        (0..100_000).for_each(|_| _ = wants(draw() % 200_000));
        let kept: usize = (0..50_000).map(|_| wants(draw() % 200_000)).sum();
        assert!((1_000..3_500).contains(&kept), "{kept} of 50,000 of a uniform load");
        let mut popular = 0;
        for _ in 0..125 {
            popular += wants(200_000);
            (0..399).for_each(|_| _ = wants(draw() % 200_000));
        }
        assert!(popular > 100, "{popular} of 125 that came again after 399 others");
    }

    #[test]
    fn passing_trouble_is_not_remembered() {
        let shelf = Shelf::new(1 << 20);
        shelf.keep(&key("/a"), Loaded::Passing(Content::Refused(Status::SERVICE_UNAVAILABLE)), None, 0);
        assert!(shelf.get(&key("/a")).is_none());
    }

    #[test]
    fn passing_trouble_does_not_hide_what_is_known() {
        let shelf = Shelf::new(1 << 20);
        let trouble = || Loaded::Passing(Content::Refused(Status::SERVICE_UNAVAILABLE));
        let known = shelf.keep(&key("/a"), absent(), None, 5);
        let entry = shelf.keep(&key("/a"), trouble(), Some(Arc::clone(&known)), 2000);
        assert!(Arc::ptr_eq(&known, &entry));
        assert_eq!(entry.age(2005), 2000, "nothing was confirmed");
        let entry = shelf.keep(&key("/a"), trouble(), Some(Arc::clone(&known)), 5 + STALE_LIMIT_MS);
        assert!(!Arc::ptr_eq(&known, &entry), "not for ever");
    }
}
