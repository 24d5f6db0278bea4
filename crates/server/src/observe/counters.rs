//! Counters: one set per worker, written by its loop alone, read by anyone and added up then.
//!
//! A count is a load and a store on a line no other core writes: about a nanosecond.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that one thread counts and others may read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `by` more. Only the owning thread may call this: there is no read-modify-write here.
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Relaxed) + by, Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// What one worker has counted.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: Counter,)+
        }

        impl Counters {
            /// Every name and its sum over all workers.
            pub fn sums<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), all.clone().map(|one| one.$name.get()).sum()),)+]
            }
        }
    };
}

counters! {
    /// Connections accepted.
    accepted,
    /// Connections handed to a less loaded worker.
    handed_on,
    /// Connections closed because there were too many.
    turned_away,
    /// Accept failed for want of descriptors or memory.
    accept_shortages,
    /// Requests answered.
    requests,
    /// Answers with a status of 400 to 499.
    client_errors,
    /// Answers with a status of 500 to 599.
    server_errors,
    /// Requests that the parser refused.
    refused_requests,
    /// Bytes of answers handed to the kernel.
    bytes_sent,
    /// Look-ups that memory answered.
    hits,
    /// Look-ups of paths that memory did not know.
    misses,
    /// Look-ups of entries that had to be confirmed.
    revalidations,
    /// Entries served although the disk was late in confirming them.
    stale,
    /// Look-ups that needed a helper.
    not_in_memory,
    /// Transfers ended because the file changed or shrank under them.
    broken_transfers,
    /// Requests that ended in a panic, and conversations that did.
    panics,
    /// Connections closed by a deadline.
    timeouts,
    /// Lines of the access log that were dropped rather than waited for.
    log_lines_dropped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_over_all_workers() {
        let (one, two) = (Counters::default(), Counters::default());
        one.requests.add(2);
        two.requests.add(3);
        let sums = Counters::sums([&one, &two].into_iter());
        assert!(sums.contains(&("requests", 5)));
        assert!(sums.contains(&("timeouts", 0)));
    }
}
