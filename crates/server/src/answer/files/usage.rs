//! Whether the disk is in use, as all workers of a process see it.
//!
//! While it is, pages leave memory and others come: what was there a moment ago may be gone, and what seems to be there may still
//! be on its way, for another client or another worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What is known of the disk's use.
#[derive(Debug, Default)]
pub struct Usage {
    /// When something was last found not to be in memory, in the clock's ticks plus one; 0 before that.
    missed: AtomicU64,
    /// Helpers' jobs that have not ended. On a disk that is short they take longer than a miss is remembered.
    under_way: AtomicUsize,
}

/// A job that may read from the disk, until it is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Usage>);

impl Usage {
    /// Something was not in memory.
    pub fn note_miss(&self, now: u64) {
        self.missed.store(now + 1, Relaxed);
    }

    /// A job for the disk, to be dropped with it.
    pub fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Whether something is being read, or was missed not long ago. Other processes' reading is not known.
    pub fn is_in_use(&self, now: u64) -> bool {
        let missed = self.missed.load(Relaxed);
        missed != 0 && now.saturating_sub(missed - 1) < REMEMBERED_MS || self.under_way.load(Relaxed) != 0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// So long after a miss the disk counts as in use.
const REMEMBERED_MS: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_in_use_for_a_second_after_a_miss_and_while_a_job_lasts() {
        let usage = Arc::new(Usage::default());
        assert!(!usage.is_in_use(0));
        usage.note_miss(0);
        assert!(usage.is_in_use(999));
        assert!(!usage.is_in_use(1000));
        let jobs = (usage.begin(), usage.begin());
        drop(jobs.0);
        assert!(usage.is_in_use(5000), "one is left");
        drop(jobs.1);
        assert!(!usage.is_in_use(5000));
    }
}
