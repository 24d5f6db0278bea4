//! The parts of `/status` that are sums over workers. Reads what the loops write; costs them nothing.
//!
//! Numbers stand in objects, so that the documents of several processes can be added up name by name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::counters::{Counters, STATES};

/// Connections by what they are doing, of `open` that there are.
pub fn states<'a>(all: impl Iterator<Item = &'a Counters> + Clone, open: u64) -> Value {
    let sum = |place: usize| all.clone().map(|counters| counters.waiting[place].get()).sum::<u64>();
    let mut states: BTreeMap<_, _> = (1..STATES.len()).map(|place| (STATES[place], sum(place))).collect();
    states.insert(STATES[0], open.saturating_sub(states.values().sum()));
    json!(states)
}

/// Answers by site and class of status.
pub fn sites<'a>(all: impl Iterator<Item = &'a Counters>) -> Value {
    let mut sites: BTreeMap<String, BTreeMap<&str, u64>> = BTreeMap::new();
    for (name, classes) in all.flat_map(|counters| counters.sites.read()) {
        let site = sites.entry(name).or_default();
        for (class, count) in CLASSES.iter().zip(classes) {
            *site.entry(class).or_default() += count;
        }
    }
    json!(sites)
}

/// Sampled times: counts by upper bound in microseconds, and all together.
pub fn latency<'a>(all: impl Iterator<Item = &'a Counters>) -> Value {
    let (mut buckets, mut micros) = (BTreeMap::<u64, u64>::new(), 0);
    for times in all.map(|counters| &counters.samples.times) {
        times.counts().for_each(|(bound, count)| *buckets.entry(bound).or_default() += count);
        micros += times.micros();
    }
    json!({ "buckets": named(buckets), "micros": micros })
}

/// What was asked for most, of late, and what failed most.
pub fn top<'a>(all: impl Iterator<Item = &'a Counters> + Clone) -> Value {
    let paths = all.clone().flat_map(|counters| counters.samples.paths());
    json!({ "paths": first(paths), "errors": first(all.flat_map(|counters| counters.samples.errors())) })
}

/// Counts of which number i is of times below 2^i microseconds.
pub fn doublings(counts: &[u64]) -> Value {
    let pairs = counts.iter().enumerate().map(|(place, count)| (1 << place, *count));
    json!(named(pairs.filter(|(_, count)| *count > 0)))
}

fn named(pairs: impl IntoIterator<Item = (u64, u64)>) -> BTreeMap<String, u64> {
    pairs.into_iter().map(|(bound, count)| (bound.to_string(), count)).collect()
}

/// The most frequent names of several lists.
fn first(pairs: impl Iterator<Item = (String, u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::<String, u64>::new();
    pairs.for_each(|(name, count)| *sums.entry(name).or_default() += count);
    let mut sorted: Vec<_> = sums.into_iter().collect();
    sorted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    sorted.into_iter().take(SHOWN).collect()
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
const SHOWN: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_busy_is_idle() {
        let counters = [Counters::default(), Counters::default()];
        counters[0].waiting[4].add(2);
        counters[1].waiting[1].add(1);
        let states = states(counters.iter(), 10);
        assert_eq!((&states["idle"], &states["sending"], &states["reading_head"]), (&json!(7), &json!(2), &json!(1)));
        assert_eq!(super::states(counters.iter(), 1)["idle"], 0, "a moment between two reads");
    }

    #[test]
    fn lists_are_bounded() {
        let many = (0..1000).map(|number| (format!("/{number}"), number));
        let first = first(many);
        assert_eq!((first.len(), first.get("/999")), (SHOWN, Some(&999)));
    }
}
