//! What a connection waits for, as a number that others may read. Costs four loads and stores when that changes; an idle
//! connection, and one whose every answer memory knows, never changes it.

use std::rc::Rc;

use super::Context;
use crate::observe::counters::STATES;

/// Counts one connection in one of the states while it lives.
pub struct Standing {
    context: Rc<Context>,
    place: usize,
}

/// The states that are counted, as places in `STATES`; whoever is in none of them is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Waits for the rest of a head.
    ReadingHead = 1,
    /// Waits for the rest of a body.
    ReadingBody,
    /// Waits for a helper.
    WaitingForDisk,
    /// Waits for room in the socket.
    Sending,
    /// Waits for its last words to leave.
    Closing,
}

impl Standing {
    /// Counts a connection that is doing this.
    pub fn new(context: &Rc<Context>, doing: Doing) -> Self {
        let place = doing as usize;
        context.counters.waiting[place].add(1);
        Self { context: Rc::clone(context), place }
    }

    /// The connection is doing something else now.
    pub fn change(&mut self, doing: Doing) {
        self.context.counters.waiting[self.place].sub(1);
        self.place = doing as usize;
        self.context.counters.waiting[self.place].add(1);
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.context.counters.waiting[self.place].sub(1);
    }
}

const _: () = assert!(Doing::Closing as usize + 1 == STATES.len());
