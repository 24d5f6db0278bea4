//! The line: jobs that wait, in the order in which they came, and those of them that more than one waits for.
//!
//! Whoever asks for what somebody waits for already says so by a message, not under the queue's lock: that is held by helpers, whom a
//! busy core may put aside for milliseconds (`helpers::NICE`), and no loop is to wait for them because many ask for one file. (Under
//! the lock a hit's 99th percentile beside a drowned disk was 5.7 ms, by messages 0.2.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::helpers::Class;
use super::job::Work;

/// A job that waits.
pub(crate) struct Waiting {
    pub(super) since: Instant,
    pub(super) class: Class,
    pub(super) folder: usize,
    pub(super) work: Box<dyn Work>,
    /// How often those who wait for it have doubled.
    doublings: u32,
}

pub(super) struct Line {
    /// By places: later ones are greater.
    jobs: BTreeMap<u64, Waiting>,
    last: u64,
    /// Those that have doubled, how often, and their places.
    popular: BTreeSet<(u32, u64)>,
    /// Places of jobs that have.
    doubled: Receiver<u64>,
}

impl Waiting {
    pub(super) fn new(class: Class, folder: usize, work: Box<dyn Work>, since: Instant) -> Self {
        Self { since, class, folder, work, doublings: 0 }
    }
}

impl Line {
    /// An empty one, and where to send the places of jobs for which twice as many wait as before.
    pub(super) fn new() -> (Self, Sender<u64>) {
        let (double, doubled) = channel();
        (Self { jobs: BTreeMap::new(), last: 0, popular: BTreeSet::new(), doubled }, double)
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.note_doublings();
        self.last += 1;
        waiting.work.takes(self.last);
        self.jobs.insert(self.last, waiting);
    }

    pub(super) fn oldest(&self) -> Option<&Waiting> {
        self.jobs.first_key_value().map(|(_, waiting)| waiting)
    }

    pub(super) fn pop_oldest(&mut self) -> Option<Waiting> {
        let place = *self.jobs.first_key_value()?.0;
        self.remove(place)
    }

    /// The oldest of those that `may` go.
    pub(super) fn pop_oldest_that(&mut self, may: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        let place = *self.jobs.iter().find(|(_, waiting)| may(waiting))?.0;
        self.remove(place)
    }

    /// Of those that `may` go the one for which the most wait, the newest of several.
    pub(super) fn pop_most_wanted_that(&mut self, may: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        self.note_doublings();
        let mut popular = self.popular.iter().rev().map(|(_, place)| place);
        let place = popular.find(|place| self.jobs.get(place).is_some_and(&may));
        let place = place.or_else(|| self.jobs.iter().rev().find(|(_, waiting)| may(waiting)).map(|(place, _)| place));
        self.remove(*place?)
    }

    /// All of them.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Waiting> + use<> {
        self.popular.clear();
        std::mem::take(&mut self.jobs).into_values()
    }

    fn remove(&mut self, place: u64) -> Option<Waiting> {
        let waiting = self.jobs.remove(&place)?;
        if waiting.doublings > 0 {
            self.popular.remove(&(waiting.doublings, place));
        }
        Some(waiting)
    }

    /// Done often enough that no more messages wait than the jobs there are have doublings.
    fn note_doublings(&mut self) {
        while let Ok(place) = self.doubled.try_recv() {
            // One that is not there any more has been begun or refused.
            let Some(waiting) = self.jobs.get_mut(&place) else { continue };
            self.popular.remove(&(waiting.doublings, place));
            waiting.doublings += 1;
            self.popular.insert((waiting.doublings, place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::job::Job;
    use super::*;
    use crate::clock;

    fn line_of(count: usize) -> (Line, Vec<Job<()>>, Sender<u64>) {
        let (mut line, doubled) = Line::new();
        let jobs = (0..count).map(|folder| {
            let (job, work) = Job::new(|| ());
            line.push(Waiting::new(Class::Serve, folder, work, clock::read()));
            job
        });
        let jobs = jobs.collect();
        (line, jobs, doubled)
    }

    fn join(job: &Job<()>, times: usize, doubled: &Sender<u64>) -> usize {
        let places: Vec<_> = (0..times).filter_map(|_| job.join()).collect();
        places.iter().for_each(|place| doubled.send(*place).expect("a line"));
        places.len()
    }

    fn emptied(mut pop: impl FnMut() -> Option<Waiting>) -> Vec<usize> {
        std::iter::from_fn(|| pop().map(|waiting| waiting.folder)).collect()
    }

    #[test]
    fn the_oldest_go_in_the_order_in_which_they_came_whoever_joins() {
        let (mut line, jobs, doubled) = line_of(4);
        join(&jobs[2], 5, &doubled);
        assert_eq!(line.pop_oldest_that(|waiting| waiting.folder % 2 == 1).map(|waiting| waiting.folder), Some(1));
        assert_eq!(emptied(|| line.pop_oldest()), [0, 2, 3]);
        assert!(line.is_empty() && line.popular.is_empty());
    }

    #[test]
    fn the_most_wanted_go_by_doublings_and_the_newest_of_those() {
        let (mut line, jobs, doubled) = line_of(6);
        assert_eq!(join(&jobs[1], 1000, &doubled), 9, "2, 4, 8, ... 512 wait for it");
        assert_eq!(join(&jobs[3], 6, &doubled), 2);
        assert_eq!(join(&jobs[2], 3, &doubled), 2, "as many as for 3, to a power of two");
        assert_eq!(join(&jobs[0], 1, &doubled), 1);
        assert_eq!(emptied(|| line.pop_most_wanted_that(|waiting| waiting.folder != 2)), [1, 3, 0, 5, 4]);
        assert_eq!(emptied(|| line.pop_most_wanted_that(|_| true)), [2]);
        assert!(line.popular.is_empty());
    }

    #[test]
    fn who_joins_what_has_gone_or_was_never_let_in_changes_nothing() {
        let (mut line, jobs, doubled) = line_of(3);
        assert_eq!(line.pop_oldest().map(|waiting| waiting.folder), Some(0));
        join(&jobs[0], 9, &doubled);
        join(&Job::new(|| ()).0, 9, &doubled);
        assert_eq!(emptied(|| line.pop_most_wanted_that(|_| true)), [2, 1]);
        assert_eq!((line.len(), line.popular.len()), (0, 0));
    }

    #[test]
    fn messages_are_read_when_others_come() {
        let (mut line, jobs, doubled) = line_of(1);
        join(&jobs[0], 1, &doubled);
        line.push(Waiting::new(Class::Serve, 7, Job::new(|| ()).1, clock::read()));
        assert!(line.doubled.try_recv().is_err());
        assert_eq!(line.take().map(|waiting| waiting.folder).collect::<Vec<_>>(), [0, 7]);
        assert_eq!((line.len(), line.popular.len()), (0, 0));
    }
}
