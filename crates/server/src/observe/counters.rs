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

    /// Replaces the number, which is a state and no count. Only the owning thread may call this.
    pub fn set(&self, to: u64) {
        self.0.store(to, Relaxed);
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
    /// Keep-alive connections ended to make room.
    reaped,
    /// Answers that ended their connection to make room.
    closed_to_save,
    /// Requests refused because of their route's priority.
    shed_sheddable,
    /// Requests refused because the loop could not keep up.
    shed_loop,
    /// Requests refused because memory was short.
    shed_memory,
    /// Requests refused because the disk could not keep up.
    shed_disk,
    /// Times at which connections were left in the kernel's queue.
    accept_pauses,
    /// Times at which a higher step of the overload ladder was taken.
    ladder_climbs,
    /// The present step of the overload ladder, 0 (calm) to 5 (pause), summed over the workers.
    ladder_step,
    /// Connections refused because their client had as many as it may.
    client_connections_refused,
    /// Requests answered 429 because their client had asked too often.
    client_requests_refused,
    /// Clients that were too slow: head, body or answer did not keep its least pace.
    too_slow,
    /// Answers refused for want of descriptors or memory.
    file_shortages,
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
