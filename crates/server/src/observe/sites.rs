//! Answers by site and status class: a table per worker and plan, a load and a store an answer.
//!
//! A plan names its sites, so no client can make the table grow. A reload makes a new table; those of plans that nobody serves
//! any more are added up by name, so a thousand reloads cost no memory and lose no count.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::counters::Counter;

/// The tables of one worker.
#[derive(Debug, Default)]
pub struct Sites(Mutex<Tables>);

/// Answers by class: 1xx to 5xx.
pub type Classes = [u64; 5];

#[derive(Debug, Default)]
struct Tables {
    present: Vec<Arc<Table>>,
    past: BTreeMap<String, Classes>,
}

/// The answers of one plan's sites. One thread counts.
#[derive(Debug)]
pub struct Table {
    names: Box<[String]>,
    /// By site; the last row is for what was refused before anybody knew whom it was for.
    rows: Box<[[Counter; 5]]>,
}

impl Sites {
    /// The table for a plan with these sites.
    pub fn table(&self, names: &[String]) -> Arc<Table> {
        let mut tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = tables.present.iter().find(|table| *table.names == *names) {
            return Arc::clone(same);
        }
        let Tables { present, past } = &mut *tables;
        present.retain(|table| {
            let in_use = Arc::strong_count(table) > 1;
            if !in_use {
                table.add_to(past);
            }
            in_use
        });
        let rows = (0..=names.len()).map(|_| Default::default()).collect();
        let table = Arc::new(Table { names: names.into(), rows });
        present.push(Arc::clone(&table));
        table
    }

    /// All answers so far, by the sites' names.
    pub fn read(&self) -> BTreeMap<String, Classes> {
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = tables.past.clone();
        tables.present.iter().for_each(|table| table.add_to(&mut sums));
        sums
    }
}

impl Table {
    /// Counts an answer of `site`; one that is not in the plan is nobody's.
    pub fn count(&self, site: u16, status: u16) {
        let nobody = self.rows.len() - 1;
        let row = &self.rows[usize::from(site).min(nobody)];
        row[usize::from(status / 100).clamp(1, 5) - 1].add(1);
    }

    fn add_to(&self, sums: &mut BTreeMap<String, Classes>) {
        let names = self.names.iter().map(String::as_str).chain([NOBODY]);
        for (name, row) in names.zip(&self.rows) {
            let sum = sums.entry(name.to_owned()).or_default();
            sum.iter_mut().zip(row).for_each(|(sum, count)| *sum += count.get());
        }
    }
}

/// The name under which requests are counted that were refused before their site was known.
pub const NOBODY: &str = "none";

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn answers_are_counted_where_they_belong() {
        let sites = Sites::default();
        let table = sites.table(&names(&["a", "b"]));
        for (site, status) in [(0, 200), (1, 404), (1, 503), (u16::MAX, 400), (7, 206), (0, 301)] {
            table.count(site, status);
        }
        let read = sites.read();
        assert_eq!(read["a"], [0, 1, 1, 0, 0]);
        assert_eq!(read["b"], [0, 0, 0, 1, 1]);
        assert_eq!(read[NOBODY], [0, 1, 0, 1, 0]);
    }

    #[test]
    fn reloads_lose_nothing_and_cost_nothing() {
        let sites = Sites::default();
        for round in 0..1000 {
            let table = sites.table(&names(&["a", if round % 2 == 0 { "b" } else { "c" }]));
            table.count(1, 200);
            table.count(0, 200);
        }
        let read = sites.read();
        assert_eq!((read["a"][1], read["b"][1], read["c"][1]), (1000, 500, 500));
        assert!(sites.0.lock().expect("nobody panicked").present.len() <= 2);
        let (one, same) = (sites.table(&names(&["x"])), sites.table(&names(&["x"])));
        assert!(Arc::ptr_eq(&one, &same), "the same sites, the same table");
    }
}
