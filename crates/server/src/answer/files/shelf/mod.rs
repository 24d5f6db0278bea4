//! The memory cache: entries by route and path, within a budget of bytes, shared by all workers.
//!
//! While there is room, everything is kept. Then whatever comes is compared with what would have to go for it: by how often each is asked
//! for, as far as that is known, and how much room it takes (`shard`). Of what was not kept a small table remembers when it was
//! asked for (`sights`), so a scan, which asks for everything once, displaces only what has not been asked for in a long time.

mod shard;
mod sights;
mod table;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use smallvec::SmallVec;

use self::shard::{Shard, cost};
use self::sights::{Sight, Sights};
use super::super::opening;
use super::STALE_LIMIT_MS;
use super::entry::{Content, Entry};
use super::load::Loaded;

/// The cache.
#[derive(Debug)]
pub struct Shelf {
    parts: Box<[Part]>,
    hasher: SeedableRandomState,
    sights: Sights,
    entries: AtomicUsize,
}

/// A part and its lock, in lines of memory of their own: workers that use different ones have nothing to wait for.
#[derive(Debug)]
#[repr(align(128))]
struct Part(RwLock<Shard>);

/// What an entry is found by. The path is normalized and begins with a slash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key<P> {
    /// The route's number, which it keeps over reloads that do not concern it.
    pub memory: u32,
    /// The path.
    pub path: P,
}

/// A key with a path of its own. A usual path lies in the entry itself: a heap allocation would be one more line of cold
/// memory to wait for in every hit (4% of the whole request, where the working set is larger than the processor's cache).
pub type OwnedKey = Key<SmallVec<[u8; INLINE_PATH]>>;

impl Shelf {
    /// A cache of at most `budget` bytes, heads and bookkeeping included, and about `files` large files that stay open; 0 bytes keep nothing.
    pub fn new(budget: u64, files: usize) -> Self {
        let parts = 1 << (budget / PART).clamp(1, MAX_PARTS).ilog2();
        let sights = (budget / SIGHT_FOR_EACH).clamp(8192, 1 << 20).next_power_of_two() as usize;
        // Seeds of its own, so that nobody outside can choose paths that collide. One cache a process: it is never given back.
        let seed = SharedSeed::from_u64(amped_runtime::process::random_seed());
        let hasher = SeedableRandomState::with_seed(amped_runtime::process::random_seed(), Box::leak(Box::new(seed)));
        let files = (files / parts as usize).clamp(1, MOST_FILES_OF_A_PART);
        Self {
            parts: (0..parts).map(|_| Part(RwLock::new(Shard::new(budget / parts, files)))).collect(),
            hasher,
            sights: Sights::new(sights),
            entries: AtomicUsize::new(0),
        }
    }

    /// The entry, if memory has one; `now` in the loop's ticks. Its answer begins with `opening` if that is worth anything and nobody
    /// else refers to it.
    pub fn get(&self, key: &Key<&[u8]>, now: u64, opening: &opening::Bytes) -> Option<Arc<Entry>> {
        let hash = self.hasher.hash_one(key);
        let part = self.part(hash);
        let entry =
            part.read().unwrap_or_else(PoisonError::into_inner).get(hash, |entry| entry.is_of(key), now as u32)?;
        if !entry.wants(opening, now) {
            return Some(entry);
        }
        // Nobody waits for others here: what has an older opening is copied.
        let mut shard = match part.try_write() {
            Ok(shard) => shard,
            Err(TryLockError::Poisoned(shard)) => shard.into_inner(),
            Err(TryLockError::WouldBlock) => return Some(entry),
        };
        Some(shard.reopen(hash, entry, opening))
    }

    /// Whether there is more in it than the processor has at hand.
    pub fn is_worth_fetching(&self) -> bool {
        self.entries() >= WORTH_FETCHING
    }

    /// Has the memory fetched that `get` will look at for these paths of one route, each step for all of them: to find an entry that is in
    /// no cache of the processor means to wait for one line after the other, which is a tenth of what a request costs.
    pub fn prefetch<'a>(&self, memory: u32, paths: impl Iterator<Item = &'a [u8]>, hashes: &mut Vec<u64>) {
        hashes.clear();
        hashes.extend(paths.map(|path| self.hasher.hash_one(Key { memory, path })));
        // Nobody waits for a lock here: what cannot be looked at is not fetched.
        let shard = |hash: &u64| -> Option<RwLockReadGuard<'_, Shard>> { self.part(*hash).try_read().ok() };
        for step in [Shard::prefetch_table, Shard::prefetch_entry, Shard::prefetch_content] {
            hashes.iter().for_each(|hash| _ = shard(hash).map(|shard| step(&shard, *hash)));
        }
    }

    /// Takes what a reading found: confirms `known`, or makes an entry, and keeps it if that is worth the room.
    pub fn keep(&self, key: &Key<&[u8]>, loaded: Loaded, known: Option<Arc<Entry>>, now: u64) -> Arc<Entry> {
        match (loaded, known) {
            (Loaded::Unchanged, Some(known)) => {
                known.confirm(now);
                known
            }
            (Loaded::Unchanged, None) => unreachable!("nothing known, so nothing unchanged"),
            (Loaded::New(content), known) => self.take(key, content, known.is_some(), now),
            // The machine's trouble, not the file's: memory goes on answering for it.
            (Loaded::Passing(_), Some(known)) if known.age(now) < STALE_LIMIT_MS => known,
            (Loaded::Passing(content), _) => Arc::new(Entry::new(key.into_owned(), content, now)),
        }
    }

    /// Bytes in use.
    pub fn used(&self) -> u64 {
        self.parts.iter().map(|part| part.0.read().unwrap_or_else(PoisonError::into_inner).used()).sum()
    }

    /// Entries kept.
    pub fn entries(&self) -> usize {
        self.entries.load(Relaxed)
    }

    fn take(&self, key: &Key<&[u8]>, content: Content, was_kept: bool, now: u64) -> Arc<Entry> {
        let hash = self.hasher.hash_one(key);
        let entry = Entry::new(key.into_owned(), content, now);
        let now = now as u32;
        let cost = if was_kept { 0 } else { self.cost(hash, &entry, now) };
        let part = self.part(hash);
        let admits = || part.read().unwrap_or_else(PoisonError::into_inner).admits(cost, &entry, now);
        if !was_kept && !admits() {
            return Arc::new(entry);
        }
        let entry = Arc::new(entry.into_kept());
        let mut shard = part.write().unwrap_or_else(PoisonError::into_inner);
        let before = shard.len();
        let gone = shard.insert(hash, Arc::clone(&entry), cost, now);
        self.entries.fetch_add(shard.len().wrapping_sub(before), Relaxed);
        drop(shard);
        drop(gone);
        entry
    }

    /// What it would cost to keep an entry that is not kept yet, by what is known of how often it is asked for. Asking counts as a sight.
    fn cost(&self, hash: u64, entry: &Entry, now: u32) -> u64 {
        let Sight { before, span } = self.sights.see(hash, now);
        let burden = entry.burden();
        if entry.representation().is_none() {
            // Anybody can ask for any number of paths that lead to no file, and twice for each.
            return before.map_or(u64::MAX, |interval| cost(interval.max(span).max(LEAST_FOR_NO_FILE_MS), burden));
        }
        // Two sights say little of what comes: one client may have asked twice.
        cost(before.map_or(span.saturating_mul(UNSEEN), |interval| interval.max(LEAST_INTERVAL_MS)), burden)
    }

    /// By bits that neither the part's own table nor the sights go by first.
    fn part(&self, hash: u64) -> &RwLock<Shard> {
        &self.parts[(hash >> 32) as usize & (self.parts.len() - 1)].0
    }
}

/// Milliseconds from `then` to `now`, both of a clock that wraps after 49 days; 0 when `then` is not yet, as for a loop whose turn began
/// before another's did.
fn since(then: u32, now: u32) -> u32 {
    now.wrapping_sub(then).wrapping_add(AHEAD_MS).saturating_sub(AHEAD_MS)
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

/// Longer paths are on the heap.
const INLINE_PATH: usize = 40;
/// What one part of the cache may hold at least, where the budget is larger; the largest entry is a sixty-fourth of it.
const PART: u64 = 4 * 1024 * 1024;
/// With more of them each would have room for too few open files.
const MAX_PARTS: u64 = 128;
/// All of them are looked at when one must go.
const MOST_FILES_OF_A_PART: usize = 128;
/// A place to remember a sight by for each so many bytes of the budget, eight bytes large and beside it: as many as half the usual
/// entries.
const SIGHT_FOR_EACH: u64 = 16 * 1024;
/// With fewer entries all that a look-up touches lies in the processor's second-level cache, more or less.
const WORTH_FETCHING: usize = 256;
/// What was seen twice is taken to be asked for at most once in so long. With a second, what has become popular comes in late.
const LEAST_INTERVAL_MS: u32 = 200;
/// Likewise of what leads to no file.
const LEAST_FOR_NO_FILE_MS: u32 = 10_000;
/// A turn is no longer than this, or the loop is stuck and is replaced.
const AHEAD_MS: u32 = 60_000;
/// What nobody is known to have asked for before is taken to be asked for so many times less often than what the sights
/// remember. With less a scan displaces more, with more the cache learns slower.
const UNSEEN: u32 = 4;

#[cfg(test)]
mod tests;
