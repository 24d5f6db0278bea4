//! Whether the disk is in use, as all workers of a process see it.
//!
//! While it is, pages leave memory and others come: what was there a moment ago may be gone, and what seems to be there may still
//! be on its way, for another client or another worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// What is known of the disk's use.
#[derive(Debug, Default)]
pub struct Usage {
    /// When something was last found not to be in memory, or came, in the clock's ticks plus one; 0 before that.
    missed: AtomicU64,
    /// Helpers' jobs that have not ended. On a disk that is short they take longer than a miss is remembered.
    under_way: AtomicUsize,
}

/// A job that may read from the disk, until it is dropped.
#[derive(Debug)]
pub struct UnderWay(Arc<Usage>);

impl Usage {
    /// Something was not in memory at `now`, or has come from the disk: the kernel may be reading more of it.
    pub fn note_miss(&self, now: u64) {
        self.missed.store(now + 1, Relaxed);
    }

    /// Something is not in memory, and a job is to read it: the answer is to be dropped with that job.
    pub fn begin(self: &Arc<Self>, now: u64) -> UnderWay {
        self.note_miss(now);
        self.under_way.fetch_add(1, Relaxed);
        UnderWay(Arc::clone(self))
    }

    /// Whether something is being read, or was missed not long ago. Other processes' reading is not known.
    pub fn is_in_use(&self, now: u64) -> bool {
        let missed = self.missed.load(Relaxed);
        let within = |most| missed != 0 && now.saturating_sub(missed - 1) < most;
        within(REMEMBERED_MS) || within(LONGEST_MS) && self.under_way.load(Relaxed) != 0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

/// So long after a miss the disk counts as in use.
const REMEMBERED_MS: u64 = 1000;
/// A job that nothing has followed for so long is stuck, and reads nothing.
const LONGEST_MS: u64 = 60_000;

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
        let jobs = (usage.begin(2000), usage.begin(2000));
        drop(jobs.0);
        assert!(usage.is_in_use(7000), "one is left");
        drop(jobs.1);
        assert!(!usage.is_in_use(7000));
        usage.note_miss(7000);
        assert!(usage.is_in_use(7999), "what has just come");
    }

    #[test]
    fn a_job_that_never_ends_is_forgotten() {
        let usage = Arc::new(Usage::default());
        let _stuck = usage.begin(0);
        assert!(usage.is_in_use(59_999));
        assert!(!usage.is_in_use(60_000));
    }
}
