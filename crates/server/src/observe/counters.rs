//! Counters: one set per worker, written by its loop alone, read by anyone and added up then.
//!
//! A count is a load and a store on a line no other core writes: about a nanosecond. A line in the table at the end of this file
//! is all a new one needs: `/status`, `/metrics` and the dashboard show every counter there is.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::samples::Samples;
use super::sites::Sites;

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

    /// Counts `by` less, for what comes and goes. As `add`.
    pub fn sub(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).saturating_sub(by), Relaxed);
    }

    /// The count so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// How a counter is shown.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Its name in `/status`.
    pub name: &'static str,
    /// Its metric; several counters may be one metric, told apart by a label.
    pub metric: &'static str,
    /// The label and its value, if it needs one.
    pub label: Option<(&'static str, &'static str)>,
    /// What it counts.
    pub help: &'static str,
}

macro_rules! counters {
    (@metric $name:ident) => { concat!("amped_", stringify!($name), "_total") };
    (@metric $name:ident $metric:literal) => { $metric };
    (@label) => { None };
    (@label $label:literal $value:literal) => { Some(($label, $value)) };
    ($(#[doc = $doc:literal] $name:ident $(=> $metric:literal $([$label:literal = $value:literal])?)?,)+) => {
        /// What one worker has counted.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(#[doc = $doc] pub $name: Counter,)+
            /// Answers by site and status class.
            pub sites: Sites,
            /// Connections by what they wait for: places in `STATES`, but for the idle ones.
            pub waiting: [Counter; STATES.len()],
            /// What every so many-th request was about, and how long it took.
            pub samples: Samples,
        }

        /// Every counter.
        pub const KNOWN: &[Known] = &[
            $(Known {
                name: stringify!($name),
                metric: counters!(@metric $name $($metric)?),
                label: counters!(@label $($($label $value)?)?),
                help: $doc,
            },)+
        ];

        impl Counters {
            /// Every name and its sum over all workers; answers by status are derived from the sites' table.
            pub fn sums<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Vec<(&'static str, u64)> {
                let mut sums = vec![$((stringify!($name), all.clone().map(|one| one.$name.get()).sum()),)+];
                let [mut requests, mut client_errors, mut server_errors] = [0; 3];
                for (_, classes) in all.flat_map(|one| one.sites.read()) {
                    requests += classes.iter().sum::<u64>();
                    client_errors += classes[3];
                    server_errors += classes[4];
                }
                sums.extend([("requests", requests), ("client_errors", client_errors), ("server_errors", server_errors)]);
                sums
            }
        }
    };
}

/// What a connection may be doing; `idle` is whatever none of the others is.
pub const STATES: [&str; 6] = ["idle", "reading_head", "reading_body", "waiting_for_disk", "sending", "closing"];

// The name, and its metric if that is not `amped_NAME_total`. The first line of the comment is the metric's help.
counters! {
    /// Connections accepted.
    accepted => "amped_connections_accepted_total",
    /// Connections handed to a less loaded worker.
    handed_on => "amped_connections_handed_on_total",
    /// Connections closed because there were too many.
    turned_away => "amped_shed_total" ["reason" = "connections"],
    /// Accept failed for want of descriptors or memory.
    accept_shortages,
    /// Requests that the parser refused.
    refused_requests,
    /// Bytes of answers handed to the kernel.
    bytes_sent => "amped_sent_bytes_total",
    /// Look-ups that memory answered.
    hits => "amped_cache_lookups_total" ["result" = "hit"],
    /// Look-ups of paths that memory did not know.
    misses => "amped_cache_lookups_total" ["result" = "miss"],
    /// Look-ups of entries that had to be confirmed.
    revalidations => "amped_cache_lookups_total" ["result" = "revalidation"],
    /// Entries served although the disk was late in confirming them.
    stale => "amped_cache_stale_total",
    /// Look-ups that needed a helper.
    not_in_memory => "amped_helper_lookups_total",
    /// Transfers ended because the file changed or shrank under them.
    broken_transfers,
    /// Requests that ended in a panic, and conversations that did.
    panics,
    /// Connections closed by a deadline.
    timeouts => "amped_connection_timeouts_total",
    /// Keep-alive connections ended to make room.
    reaped,
    /// Answers that ended their connection to make room.
    closed_to_save,
    /// Requests refused because of their route's priority.
    shed_sheddable => "amped_shed_total" ["reason" = "priority"],
    /// Requests refused because the loop could not keep up.
    shed_loop => "amped_shed_total" ["reason" = "loop"],
    /// Requests refused because memory was short.
    shed_memory => "amped_shed_total" ["reason" = "memory"],
    /// Requests refused because the disk could not keep up.
    shed_disk => "amped_shed_total" ["reason" = "disk"],
    /// Times at which connections were left in the kernel's queue.
    accept_pauses,
    /// Times at which a higher step of the overload ladder was taken.
    ladder_climbs,
    /// The present step of the overload ladder, 0 (calm) to 5 (pause), summed over the workers.
    ladder_step,
    /// Connections refused because their client had as many as it may.
    client_connections_refused => "amped_shed_total" ["reason" = "client_connections"],
    /// Requests answered 429 because their client had asked too often.
    client_requests_refused => "amped_shed_total" ["reason" = "client_requests"],
    /// Clients that were too slow: head, body or answer did not keep its least pace.
    too_slow,
    /// Lines of the access log that were dropped rather than waited for.
    log_lines_dropped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_over_all_workers() {
        let (one, two) = (Counters::default(), Counters::default());
        one.hits.add(2);
        two.hits.add(3);
        one.sites.table(&["a".to_owned()]).count(0, 200);
        two.sites.table(&["a".to_owned()]).count(0, 404);
        let sums = Counters::sums([&one, &two].into_iter());
        for expected in [("hits", 5), ("timeouts", 0), ("requests", 2), ("client_errors", 1), ("server_errors", 0)] {
            assert!(sums.contains(&expected), "{expected:?}: {sums:?}");
        }
    }

    #[test]
    fn every_counter_has_a_metric_of_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for known in KNOWN {
            assert!(known.metric.starts_with("amped_") && known.metric.ends_with("_total"), "{known:?}");
            assert!(seen.insert((known.metric, known.label)), "twice: {known:?}");
        }
        let default = KNOWN.iter().find(|known| known.name == "accept_shortages").expect("it is there");
        assert_eq!((default.metric, default.label), ("amped_accept_shortages_total", None));
        assert_eq!(default.help.trim(), "Accept failed for want of descriptors or memory.");
    }
}
