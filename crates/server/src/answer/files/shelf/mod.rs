//! The memory cache: entries by route and path, within a budget of bytes, shared by all workers.
//!
//! While there is room, everything is kept. Then whatever comes is compared with what would have to go for it: by how often each is asked
//! for, as far as that is known, and how much room it takes (`shard`). Of what was not kept a small table remembers when it was
//! asked for (`sights`), so a scan, which asks for everything once, displaces only what has not been asked for in a long time.

mod shard;
mod sights;
mod table;

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use foldhash::fast::FixedState;
use smallvec::SmallVec;

use self::shard::{Shard, cost};
use self::sights::Sights;
use super::STALE_LIMIT_MS;
use super::entry::{Content, Entry};
use super::load::Loaded;

/// The cache.
#[derive(Debug)]
pub struct Shelf {
    shards: Box<[RwLock<Shard>]>,
    hasher: FixedState,
    sights: Sights,
    /// What is kept has outgrown the processor's caches once.
    is_large: AtomicBool,
}

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
    /// A cache of at most `budget` bytes, heads and bookkeeping included; 0 keeps nothing.
    pub fn new(budget: u64) -> Self {
        let shards = (budget / SHARD).clamp(1, MAX_SHARDS).next_power_of_two();
        let sights = (budget / SIGHT_FOR_EACH).clamp(8192, 1 << 20).next_power_of_two() as usize;
        Self {
            shards: (0..shards).map(|_| RwLock::new(Shard::new(budget / shards))).collect(),
            // A seed of its own, so that nobody outside can choose paths that collide.
            hasher: FixedState::with_seed(amped_runtime::process::random_seed()),
            sights: Sights::new(sights),
            is_large: AtomicBool::new(false),
        }
    }

    /// The entry, if memory has one; `now` in the loop's ticks.
    pub fn get(&self, key: &Key<&[u8]>, now: u64) -> Option<Arc<Entry>> {
        let hash = self.hasher.hash_one(key);
        let shard = self.shard(hash).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(hash, |entry| entry.is_of(key), now as u32)
    }

    /// Has the memory fetched that `get` will look at for these paths of one route, each step for all of them: to find an entry that is in
    /// no cache of the processor means to wait for one line after the other, which is a tenth of what a request costs.
    pub fn prefetch<'a>(&self, memory: u32, paths: impl Iterator<Item = &'a [u8]>, hashes: &mut Vec<u64>) {
        hashes.clear();
        if !self.is_large.load(Relaxed) {
            return;
        }
        hashes.extend(paths.map(|path| self.hasher.hash_one(Key { memory, path })));
        // Nobody waits for a lock here: what cannot be looked at is not fetched.
        let shard = |hash: &u64| -> Option<RwLockReadGuard<'_, Shard>> { self.shard(*hash).try_read().ok() };
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
        self.sum(Shard::used)
    }

    /// Entries kept.
    pub fn entries(&self) -> usize {
        self.sum(|shard| shard.len() as u64) as usize
    }

    fn take(&self, key: &Key<&[u8]>, content: Content, is_kept: bool, now: u64) -> Arc<Entry> {
        let hash = self.hasher.hash_one(key);
        let entry = Entry::new(key.into_owned(), content, now);
        if !is_kept && !self.admits(hash, &entry, now as u32) {
            return Arc::new(entry);
        }
        let entry = Arc::new(entry.into_kept());
        let mut shard = self.shard(hash).write().unwrap_or_else(PoisonError::into_inner);
        shard.insert(hash, Arc::clone(&entry), now as u32);
        if shard.used() * self.shards.len() as u64 > PROCESSOR_CACHE && !self.is_large.load(Relaxed) {
            self.is_large.store(true, Relaxed);
        }
        entry
    }

    /// Whether an entry that is not kept yet is worth its room. Asking counts as a sight.
    fn admits(&self, hash: u64, entry: &Entry, now: u32) -> bool {
        let weight = entry.weight();
        let cost = match self.sights.see(hash, now) {
            Ok(interval) => cost(interval, weight),
            // Anybody can ask for any number of files that are not there.
            Err(_) if entry.representation().is_none() => u64::MAX,
            Err(span) => cost(span.saturating_mul(UNSEEN), weight),
        };
        self.shard(hash).read().unwrap_or_else(PoisonError::into_inner).admits(cost, weight, now)
    }

    /// By bits that neither the shard's own table nor the sights go by first.
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[(hash >> 32) as usize & (self.shards.len() - 1)]
    }

    fn sum(&self, of: impl Fn(&Shard) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(&shard.read().unwrap_or_else(PoisonError::into_inner))).sum()
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

/// Longer paths are on the heap.
const INLINE_PATH: usize = 40;
/// What one part of the cache may hold: the largest entry is a thirtieth of it, and its table grows within a turn's time.
const SHARD: u64 = 8 * 1024 * 1024;
const MAX_SHARDS: u64 = 1024;
/// A place to remember a sight by for each so many bytes of the budget, eight bytes large and beside it: as many as half the usual
/// entries.
const SIGHT_FOR_EACH: u64 = 16 * 1024;
/// Smaller than the second-level cache of most processors, of which others take their part.
const PROCESSOR_CACHE: u64 = 512 * 1024;
/// What nobody is known to have asked for before is taken to be asked for so many times less often than what the sights
/// remember. With less a scan displaces more, with more the cache learns slower.
const UNSEEN: u32 = 4;

#[cfg(test)]
mod tests;
