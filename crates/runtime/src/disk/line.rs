//! The line: jobs that wait, in the order in which they came; those for which more than one has asked, and those that are not
//! refused, for when it is too long.
//!
//! Whoever asks for what somebody waits for already says so by a message, not under the queue's lock: that is held by helpers, whom a
//! busy core may put aside for milliseconds (`helpers::NICE`), and no loop is to wait for them because many ask for one file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::helpers::Class;
use super::job::Work;
use crate::clock;

/// A job that waits.
pub(crate) struct Waiting {
    pub(super) since: Instant,
    pub(super) class: Class,
    pub(super) folder: usize,
    pub(super) work: Box<dyn Work>,
    /// How often the number of those who have asked for it has doubled.
    doublings: u32,
}

/// Jobs by their places: later ones are greater.
pub(super) struct Line {
    /// Those that may be refused.
    jobs: BTreeMap<u64, Waiting>,
    essential: BTreeMap<u64, Waiting>,
    last: u64,
    /// Those of `jobs` that have doubled: how often, and their places.
    popular: BTreeSet<(u32, u64)>,
    /// A message for each doubling: the job's place.
    doublings: Receiver<u64>,
    /// Whether the essential ones had the last turn of a line that is too long.
    was_essential: bool,
}

impl Waiting {
    pub(super) fn new(class: Class, folder: usize, work: Box<dyn Work>, since: Instant) -> Self {
        Self { since, class, folder, work, doublings: 0 }
    }

    /// An urgent one that any helper may do. What it has waited so far says nothing of their queue.
    pub(super) fn for_any_helper(self) -> Self {
        Self { class: Class::Serve, since: clock::read(), ..self }
    }
}

impl Line {
    /// An empty one, and where to send the place of a job when twice as many have asked for it as before.
    pub(super) fn new() -> (Self, Sender<u64>) {
        let (sender, doublings) = channel();
        let (jobs, essential, popular) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        (Self { jobs, essential, last: 0, popular, doublings, was_essential: false }, sender)
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len() + self.essential.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn push(&mut self, waiting: Waiting) {
        self.note_doublings();
        self.last += 1;
        waiting.work.takes(self.last);
        let jobs = if waiting.class == Class::Essential { &mut self.essential } else { &mut self.jobs };
        jobs.insert(self.last, waiting);
    }

    /// The oldest of those that may be refused.
    pub(super) fn oldest(&self) -> Option<&Waiting> {
        self.jobs.first_key_value().map(|(_, waiting)| waiting)
    }

    /// Takes it.
    pub(super) fn pop_oldest(&mut self) -> Option<Waiting> {
        let place = *self.jobs.first_key_value()?.0;
        self.remove(place)
    }

    /// Whom to refuse for want of room: the oldest for which one has asked, or else the oldest, or else an essential one.
    pub(super) fn pop_least_wanted(&mut self) -> Option<Waiting> {
        let unpopular = self.jobs.iter().find(|(_, waiting)| waiting.doublings == 0);
        let first = unpopular.or_else(|| self.jobs.first_key_value()).or_else(|| self.essential.first_key_value());
        let place = *first?.0;
        self.remove(place)
    }

    /// The first to come of those that `may` go.
    pub(super) fn pop_first(&mut self, may: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        let first =
            |jobs: &BTreeMap<u64, Waiting>| jobs.iter().find(|(_, waiting)| may(waiting)).map(|(place, _)| *place);
        let place = [first(&self.jobs), first(&self.essential)].into_iter().flatten().min();
        self.remove(place?)
    }

    /// Of those that `may` go the one for which the most have asked, the newest of several. Every other time the essential ones
    /// come before, in the order in which they came: few ask for the next part of a download, and it is not refused.
    pub(super) fn pop_most_wanted(&mut self, may: impl Fn(&Waiting) -> bool) -> Option<Waiting> {
        self.note_doublings();
        self.was_essential = !self.was_essential;
        let essential = || self.essential.iter().find(|(_, waiting)| may(waiting)).map(|(place, _)| *place);
        let wanted = || {
            let mut popular = self.popular.iter().rev().map(|(_, place)| *place);
            let place = popular.find(|place| self.jobs.get(place).is_some_and(&may));
            place.or_else(|| self.jobs.iter().rev().find(|(_, waiting)| may(waiting)).map(|(place, _)| *place))
        };
        let place = if self.was_essential { essential().or_else(wanted) } else { wanted().or_else(essential) };
        self.remove(place?)
    }

    /// All of them.
    pub(super) fn take(&mut self) -> impl Iterator<Item = Waiting> + use<> {
        self.popular.clear();
        let essential = std::mem::take(&mut self.essential);
        std::mem::take(&mut self.jobs).into_values().chain(essential.into_values())
    }

    fn remove(&mut self, place: u64) -> Option<Waiting> {
        let waiting = self.jobs.remove(&place).or_else(|| self.essential.remove(&place))?;
        if waiting.doublings > 0 {
            self.popular.remove(&(waiting.doublings, place));
        }
        Some(waiting)
    }

    /// Whenever a job comes: no more messages wait than there were jobs since then, times the few doublings of each.
    fn note_doublings(&mut self) {
        while let Ok(place) = self.doublings.try_recv() {
            // One that is not there any more has been begun or refused; the essential ones keep their order.
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

    fn waiting(class: Class, folder: usize) -> (Job<()>, Waiting) {
        let (job, work) = Job::new(|| ());
        (job, Waiting::new(class, folder, work, clock::read()))
    }

    fn line_of(count: usize) -> (Line, Vec<Job<()>>, Sender<u64>) {
        let (mut line, doubled) = Line::new();
        let jobs = (0..count).map(|folder| {
            let (job, waiting) = waiting(Class::Serve, folder);
            line.push(waiting);
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
    fn the_first_go_in_the_order_in_which_they_came_whoever_joins() {
        let (mut line, jobs, doubled) = line_of(4);
        join(&jobs[2], 5, &doubled);
        line.push(waiting(Class::Essential, 4).1);
        line.push(waiting(Class::Serve, 5).1);
        assert_eq!(line.pop_first(|waiting| waiting.folder % 2 == 1).map(|waiting| waiting.folder), Some(1));
        assert_eq!(emptied(|| line.pop_first(|_| true)), [0, 2, 3, 4, 5]);
        assert!(line.is_empty() && line.popular.is_empty());
    }

    #[test]
    fn the_most_wanted_go_by_doublings_and_the_newest_of_those() {
        let (mut line, jobs, doubled) = line_of(6);
        assert_eq!(join(&jobs[1], 1000, &doubled), 9, "2, 4, 8, ... 512 wait for it");
        assert_eq!(join(&jobs[3], 6, &doubled), 2);
        assert_eq!(join(&jobs[2], 3, &doubled), 2, "as many as for 3, to a power of two");
        assert_eq!(join(&jobs[0], 1, &doubled), 1);
        assert_eq!(emptied(|| line.pop_most_wanted(|waiting| waiting.folder != 2)), [1, 3, 0, 5, 4]);
        assert_eq!(emptied(|| line.pop_most_wanted(|_| true)), [2]);
        assert!(line.popular.is_empty());
    }

    #[test]
    fn who_joins_what_has_gone_or_was_never_let_in_changes_nothing() {
        let (mut line, jobs, doubled) = line_of(3);
        assert_eq!(line.pop_oldest().map(|waiting| waiting.folder), Some(0));
        join(&jobs[0], 9, &doubled);
        assert_eq!(join(&waiting(Class::Urgent, 0).0, 9, &doubled), 0, "nobody would read of it");
        assert_eq!(emptied(|| line.pop_most_wanted(|_| true)), [2, 1]);
        assert_eq!((line.len(), line.popular.len()), (0, 0));
    }

    #[test]
    fn essential_ones_have_every_other_turn_and_keep_their_order() {
        let (mut line, jobs, doubled) = line_of(4);
        let essential: Vec<_> = (10..13).map(|folder| waiting(Class::Essential, folder)).collect();
        let essential: Vec<_> = essential.into_iter().map(|(job, waiting)| (job, line.push(waiting))).collect();
        join(&jobs[0], 9, &doubled);
        join(&essential[2].0, 99, &doubled);
        assert_eq!(emptied(|| line.pop_most_wanted(|waiting| waiting.folder != 11)), [10, 0, 12, 3, 2, 1]);
        assert_eq!(line.oldest().map(|waiting| waiting.folder), None, "none that may be refused");
        assert_eq!(line.pop_first(|_| true).map(|waiting| waiting.folder), Some(11));
    }

    #[test]
    fn what_one_has_asked_for_makes_room_for_others() {
        let (mut line, jobs, doubled) = line_of(3);
        line.push(waiting(Class::Essential, 9).1);
        join(&jobs[0], 1, &doubled);
        join(&jobs[2], 1, &doubled);
        line.push(waiting(Class::Essential, 9).1);
        assert_eq!(emptied(|| line.pop_least_wanted()), [1, 0, 2, 9, 9]);
        assert!(line.is_empty());
    }

    #[test]
    fn messages_are_read_when_others_come() {
        let (mut line, jobs, doubled) = line_of(1);
        join(&jobs[0], 1, &doubled);
        line.push(waiting(Class::Serve, 7).1);
        assert!(line.doublings.try_recv().is_err());
        assert_eq!(line.take().map(|waiting| waiting.folder).collect::<Vec<_>>(), [0, 7]);
        assert_eq!((line.len(), line.popular.len()), (0, 0));
    }
}
