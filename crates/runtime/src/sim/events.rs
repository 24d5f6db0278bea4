//! What happens next: events by time and order of their making, and the wait of the loop that lets them happen.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::helper;
use super::world::World;
use crate::driver::{Flags, Report};
use crate::executor;

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// Somebody of the crowd acts.
    Act(u32),
    /// The crowd looks at the server.
    Look,
    /// A connection's first packet comes to the listener, for the first time or again.
    Knock(usize, u32),
    /// A connection has been silent for as long as it may be before it is reported.
    Overdue(usize),
    /// What is due towards the server arrives.
    Segment(usize),
    /// Some of what the server has sent arrives.
    Transit(usize),
    /// A client hears of its connection's reset.
    Reset(usize),
    /// A helper is woken, or has done its job.
    Help(usize),
}

#[derive(Debug, Default)]
pub(super) struct Events {
    heap: BinaryHeap<Reverse<(u64, u64, Event)>>,
    made: u64,
    /// What may have something to report, each once.
    pub pending: Vec<Who>,
}

/// Whose readiness may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Listener,
    Connection(usize),
}

enum Next {
    /// There is something to report, or the time is over.
    Return,
    Help(usize),
    Look,
    Again,
}

impl World {
    /// Lets `event` happen at `time`.
    pub(super) fn at(&mut self, time: u64, event: Event) {
        self.events.made += 1;
        self.events.heap.push(Reverse((time, self.events.made, event)));
    }

    /// Calls `who` of the crowd at `time` (virtual nanoseconds).
    pub fn call_at(&mut self, time: u64, who: u32) {
        self.at(time, Event::Act(who));
    }

    /// Has the crowd look at the server at `time`.
    pub fn look_at(&mut self, time: u64) {
        self.at(time, Event::Look);
    }

    /// Lets the next thing happen that is due by `end`.
    fn step(&mut self, end: Option<u64>) -> Next {
        let due = self.events.heap.peek().map(|Reverse((time, ..))| *time);
        match (due, end) {
            (Some(due), Some(end)) if due > end => self.now = self.now.max(end),
            (None, Some(end)) => self.now = self.now.max(end),
            (None, None) => panic!("the loop waits for ever, and nothing is left to happen"),
            _ => {
                let Some(Reverse((time, _, event))) = self.events.heap.pop() else { return Next::Return };
                self.now = self.now.max(time);
                match event {
                    Event::Act(who) => self.act(who),
                    Event::Look => return Next::Look,
                    Event::Knock(connection, attempt) => self.knock(connection, attempt),
                    Event::Overdue(connection) => self.offer(connection),
                    Event::Segment(connection) => self.segment_arrives(connection),
                    Event::Transit(connection) => self.transit(connection),
                    Event::Reset(connection) => self.reset_arrives(connection),
                    Event::Help(helper) => return Next::Help(helper),
                }
                return Next::Again;
            }
        }
        Next::Return
    }

    /// The server is no more: lets everything arrive that is under way.
    pub fn settle(&mut self) {
        let end = self.now + SETTLED;
        self.look_for_closed();
        while matches!(self.step(Some(end)), Next::Again | Next::Help(_) | Next::Look) {}
    }

    pub(super) fn act(&mut self, who: u32) {
        if let Some(mut crowd) = self.crowd.take() {
            crowd.act(self, who);
            self.crowd = Some(crowd);
        }
    }

    /// What is ready now, for whom it was asked, in any order.
    fn reports(&mut self, reports: &mut Vec<Report>) {
        let late = std::mem::take(&mut self.late);
        reports.extend(late.into_iter().map(|token| Report { token, ready: Flags::READABLE }));
        let mut pending = std::mem::take(&mut self.events.pending);
        while !pending.is_empty() {
            let place = self.random.below(pending.len() as u64) as usize;
            let report = match pending.swap_remove(place) {
                Who::Listener => self.listener_report(),
                Who::Connection(connection) => self.connection_report(connection),
            };
            if let Some(report) = report {
                self.note("report", u64::from(report.token.index), report.ready.bits());
                reports.push(report);
            }
        }
    }
}

/// Outside of the world, since what is looked at may ask it for the time.
fn look() {
    if let Some(mut crowd) = super::ask(|world| world.crowd.take()).flatten() {
        crowd.look();
        super::ask(|world| world.crowd = Some(crowd));
    }
}

/// Longer than anybody waits for anything, in nanoseconds.
const SETTLED: u64 = 600_000_000_000;

/// The selector's wait: lets the world go on until there is something to report, a task to run, or `timeout` is over.
pub(crate) fn wait(timeout: Option<Duration>, reports: &mut Vec<Report>) {
    const ALONE: &str = "a simulated loop waits in its world";
    let ask = |end: &mut Option<u64>, reports: &mut Vec<Report>| {
        super::ask(|world| {
            world.look_for_closed();
            *end = timeout.map(|timeout| world.now + timeout.as_nanos() as u64);
            world.call();
            // What is due by now has happened while the loop was at work.
            world.reports(reports);
        })
    };
    let mut end = None;
    ask(&mut end, reports).expect(ALONE);
    if timeout.is_some_and(|timeout| timeout.is_zero()) {
        end = super::ask(|world| world.now);
    }
    loop {
        // With something to report, what is due by now may still come into the same batch.
        let is_found = !reports.is_empty() || executor::has_ready();
        let end = if is_found { super::ask(|world| world.now) } else { end };
        match super::ask(|world| world.step(end)).expect(ALONE) {
            Next::Return => break,
            Next::Help(helper) => helper::step(helper),
            Next::Look => look(),
            Next::Again => {}
        }
        super::ask(|world| world.reports(reports)).expect(ALONE);
    }
}
