//! The disk's helpers in virtual time: the pool's own queues and rules, and instead of threads jobs that take their time and
//! are run, on this thread, when it is over.

use std::sync::Arc;

use super::events::Event;
use super::world::World;
use crate::disk::{Class, Pool, Waiting};

/// One helper, and what it does.
pub(super) struct Helper {
    pool: Arc<Pool>,
    class: Class,
    number: usize,
    state: State,
}

enum State {
    /// Will look for a job soon; whether it slept before.
    Waking(bool),
    Idle,
    Busy(Waiting),
    Gone,
    /// Out of the world while it takes its step.
    Away,
}

impl Helper {
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.state, State::Busy(_))
    }
}

impl World {
    /// A thread is started for a helper.
    pub(crate) fn start_helper(&mut self, pool: &Arc<Pool>, class: Class, number: usize) -> std::io::Result<()> {
        if self.random.chance(self.faults.thread_error) {
            self.note("no thread", number as u64, 0);
            return Err(std::io::Error::from_raw_os_error(libc::EAGAIN));
        }
        self.helpers.push(Helper { pool: Arc::clone(pool), class, number, state: State::Waking(false) });
        self.note("helper", number as u64, 0);
        self.wake(self.helpers.len() - 1);
        Ok(())
    }

    /// One sleeping helper is woken, or all.
    pub(crate) fn call_helpers(&mut self, is_urgent: bool, all: bool) {
        let sleeps =
            |helper: &Helper| matches!(helper.state, State::Idle) && (helper.class == Class::Urgent) == is_urgent;
        let sleeping: Vec<usize> = (0..self.helpers.len()).filter(|at| sleeps(&self.helpers[*at])).collect();
        let one = if sleeping.is_empty() { None } else { Some(self.random.pick(&sleeping)) };
        for helper in sleeping.into_iter().filter(|helper| all || Some(*helper) == one) {
            self.helpers[helper].state = State::Waking(true);
            self.wake(helper);
        }
    }

    fn wake(&mut self, helper: usize) {
        let time = self.now + self.random.below(100_000);
        self.at(time, Event::Help(helper));
    }

    fn job_time(&mut self) -> u64 {
        if self.random.chance(self.faults.hang) {
            let time = self.random.below(self.faults.hang_time.max(1));
            self.note("hang", time, 0);
            return time;
        }
        let (least, most) = self.faults.disk_time;
        self.random.between(least, most)
    }
}

/// A helper takes its next step. Outside of the world, since jobs ask it things.
pub(super) fn step(at: usize) {
    let taken = super::ask(|world| {
        let helper = &mut world.helpers[at];
        let state = std::mem::replace(&mut helper.state, State::Away);
        (Arc::clone(&helper.pool), helper.class, helper.number, state)
    });
    let Some((pool, class, number, state)) = taken else { return };
    let ends = match state {
        State::Busy(waiting) => {
            super::ask(|world| world.files.in_helper = true);
            let ends = pool.run(class, number, waiting);
            super::ask(|world| world.files.in_helper = false);
            ends
        }
        State::Waking(slept) => {
            if slept {
                pool.wakes(class);
            }
            false
        }
        State::Idle | State::Gone | State::Away => return,
    };
    let next = if ends { State::Gone } else { pool.try_next(class).map_or(State::Idle, State::Busy) };
    if let State::Busy(waiting) = &next {
        pool.begins(number, waiting);
    }
    let is_busy = matches!(next, State::Busy(_));
    super::ask(|world| {
        let how = match next {
            State::Busy(_) => 1,
            State::Idle => 0,
            _ => 2,
        };
        world.note("step of helper", at as u64, how);
        world.helpers[at].state = next;
        if is_busy {
            let time = world.now + world.job_time();
            world.at(time, Event::Help(at));
        }
    });
}

/// Ends the helpers' threads as the end of a process does. Within the world, since what their jobs hold is closed.
pub fn end_helpers() {
    let helpers = super::ask(|world| std::mem::take(&mut world.helpers));
    drop(helpers);
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::super::{Faults, within};
    use super::*;
    use crate::disk::{Helpers, Refused};

    /// Found by the first seeds: the job waited for a helper that nobody would ever start, and whoever asked for the same file
    /// waited with it.
    #[test]
    fn a_job_is_refused_when_there_is_no_helper_and_none_can_be_started() {
        let world = World::new(1, Faults { thread_error: 1_000_000, ..Faults::none() });
        within(world, || {
            let helpers = Helpers::new(4, 8);
            for class in [Class::Serve, Class::Essential, Class::Urgent] {
                let mut job = pin!(helpers.submit(class, || 1));
                let outcome = job.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert_eq!(outcome, Poll::Ready(Err(Refused)), "{class:?}");
            }
            assert_eq!((helpers.stats().queued, helpers.stats().threads), (0, 0));
        });
    }
}
