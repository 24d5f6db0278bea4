//! Overload: what a worker gives up when more is asked of it than it can do, so that what it does keeps its pace.
//!
//! `worker::watch` measures ten times a second; here is what that means (`ladder`, `share`), and what every request asks: one
//! flag while all is well. Refused is what waits on the resource that has run out, and nothing else.

pub mod backlog;
pub mod clients;
pub mod ladder;
pub mod memory;
pub mod share;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

pub use self::clients::{Clients, Entrance, Ticket};
pub use self::ladder::{Ladder, Resource, Step};
use self::share::Share;
use crate::config::choice::Priority;
use crate::config::plan::Overload as Aims;
use crate::observe::counters::Counters;

/// A worker's state of overload. Its meters' tasks write it; requests read it.
#[derive(Debug)]
pub struct Gate {
    aims: Aims,
    /// Anything but `Step::Calm` somewhere: the one thing a request looks at.
    is_pressed: Cell<bool>,
    state: RefCell<State>,
    /// The kernel's queue of connections is kept short.
    has_short_queue: Cell<bool>,
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct State {
    on_loop: Ladder,
    connections: Ladder,
    memory: Ladder,
    share: Share,
}

/// How connections are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accepting {
    /// All, at once.
    #[default]
    AsTheyCome,
    /// From a queue that the kernel keeps short: it ignores who comes beyond that.
    FromShortQueue,
    /// None for now.
    None,
}

/// What was measured.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pressure {
    /// The loop's lag: the least of an interval, so that one long turn is none.
    pub lag: Duration,
    /// Connections as a part of what there may be.
    pub connections: f32,
    /// Memory, likewise.
    pub memory: f32,
}

impl Gate {
    /// A gate that is open.
    pub fn new(aims: &Aims, counters: &Arc<Counters>) -> Self {
        let state = State {
            on_loop: Ladder::new(Resource::Loop),
            connections: Ladder::new(Resource::Connections),
            memory: Ladder::new(Resource::Memory),
            share: Share::default(),
        };
        let counters = Arc::clone(counters);
        Self {
            aims: aims.clone(),
            is_pressed: Cell::new(false),
            state: RefCell::new(state),
            has_short_queue: Cell::new(false),
            counters,
        }
    }

    /// Takes note of what was measured at `now` (milliseconds), and says which step is the highest of all.
    pub fn feel(&self, pressure: Pressure, now: u64) -> Step {
        let mut state = self.state.borrow_mut();
        let before = state.highest();
        let lag = pressure.lag.as_secs_f32() / self.aims.loop_delay.as_secs_f32();
        state.share.adapt(lag);
        // Refusing may be enough: accepting is paused only when as little as possible is admitted and the lag is there still.
        let lag = if state.share.is_least() { lag } else { lag.min(1.0) };
        state.on_loop.feel(lag, now);
        state.connections.feel(pressure.connections, now);
        state.memory.feel(pressure.memory, now);
        let step = state.highest();
        self.is_pressed.set(step > Step::Calm || !state.share.is_whole());
        self.counters.ladder_step.set(step as u64);
        if step > before {
            self.counters.ladder_climbs.add(1);
        }
        step
    }

    /// Whether the longest-idle connections are to be ended.
    pub fn reaps(&self) -> bool {
        self.is_pressed.get() && self.state.borrow().on_connections() >= Step::Reap
    }

    /// Whether answers end their connections.
    pub fn closes(&self) -> bool {
        self.is_pressed.get() && self.state.borrow().on_connections() >= Step::Close
    }

    /// Whether work that nobody asked for is left out.
    pub fn trims(&self) -> bool {
        self.is_pressed.get() && self.state.borrow().on_work() >= Step::Trim
    }

    /// Whether connections are left in the kernel's queue.
    pub fn pauses(&self) -> bool {
        self.is_pressed.get() && self.state.borrow().on_work() >= Step::Pause
    }

    /// How connections are accepted now.
    pub fn accepting(&self) -> Accepting {
        match () {
            () if self.pauses() => Accepting::None,
            () if self.has_short_queue.get() => Accepting::FromShortQueue,
            () => Accepting::AsTheyCome,
        }
    }

    /// Takes note of whether the kernel's queue is kept short.
    pub fn keep_queue_short(&self, short: bool) {
        self.has_short_queue.set(short);
    }

    /// Whether a request of this priority is looked at at all: memory's answers cost no more than a refusal, so only what the
    /// configuration calls sheddable is refused so early.
    pub fn lets_in(&self, priority: Priority) -> bool {
        if !self.is_pressed.get() || priority != Priority::Sheddable {
            return true;
        }
        let state = self.state.borrow();
        let lets_in = state.share.is_whole() && state.on_work() < Step::Refuse;
        self.counters.shed_sheddable.add(u64::from(!lets_in));
        lets_in
    }

    /// Whether a request that memory cannot answer is worked on; one that is not is refused, and counted so.
    pub fn admits(&self, priority: Priority) -> bool {
        let admits = self.has_time(priority);
        if !admits {
            let is_out_of_memory = self.state.borrow().memory.step() >= Step::Refuse;
            let counter = if is_out_of_memory { &self.counters.shed_memory } else { &self.counters.shed_loop };
            counter.add(1);
        }
        admits
    }

    /// Whether there is time for work beyond what memory holds; each question takes its turn in the admitted share.
    pub fn has_time(&self, priority: Priority) -> bool {
        if !self.is_pressed.get() || priority == Priority::Essential {
            return true;
        }
        let mut state = self.state.borrow_mut();
        state.memory.step() < Step::Refuse && (state.share.is_whole() || state.share.admits())
    }

    /// How long a connection may idle, which is `usual` while there are few.
    pub fn idle_timeout(&self, usual: Duration) -> Duration {
        if self.closes() { usual.min(self.aims.reap_idle) } else { usual }
    }

    /// How long a connection has idled at least before it is reaped.
    pub fn reap_idle(&self) -> Duration {
        self.aims.reap_idle
    }
}

impl State {
    fn highest(&self) -> Step {
        self.on_work().max(self.on_connections())
    }

    /// What is given up of connections: too many of them, or of the memory they cost.
    fn on_connections(&self) -> Step {
        self.connections.step().max(self.memory.step())
    }

    /// What is given up of work.
    fn on_work(&self) -> Step {
        self.on_loop.step().max(self.memory.step())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(&Aims::default(), &Arc::default())
    }

    fn press(gate: &Gate, pressure: Pressure, ticks: std::ops::Range<u64>) -> Step {
        ticks.map(|tick| gate.feel(pressure, tick * 100)).last().expect("some ticks")
    }

    #[test]
    fn connections_cost_connections_and_no_request() {
        let gate = gate();
        assert_eq!(press(&gate, Pressure { connections: 0.95, ..Pressure::default() }, 1..2), Step::Close);
        assert!(gate.reaps() && gate.closes() && !gate.trims() && !gate.pauses());
        assert!((0..1000).all(|_| gate.admits(Priority::Normal) && gate.lets_in(Priority::Sheddable)));
        assert_eq!(gate.idle_timeout(Duration::from_secs(60)), gate.reap_idle());
    }

    #[test]
    fn a_drowned_loop_refuses_by_priority_and_keeps_connections() {
        let gate = gate();
        let lag = Aims::default().loop_delay * 2;
        assert_eq!(press(&gate, Pressure { lag, ..Pressure::default() }, 1..40), Step::Refuse);
        assert!(!gate.reaps() && !gate.closes() && gate.trims() && !gate.pauses());
        let admitted = (0..1000).filter(|_| gate.admits(Priority::Normal)).count();
        assert!(admitted > 0 && admitted < 100, "{admitted}");
        assert!((0..1000).all(|_| gate.admits(Priority::Essential) && gate.lets_in(Priority::Normal)));
        assert!((0..1000).all(|_| !gate.lets_in(Priority::Sheddable)));
        let lag = Aims::default().loop_delay * 10;
        assert_eq!(press(&gate, Pressure { lag, ..Pressure::default() }, 40..80), Step::Pause);
        assert!(gate.pauses());
    }

    #[test]
    fn all_is_well_again_after_a_while() {
        let gate = gate();
        press(&gate, Pressure { lag: Duration::from_secs(1), connections: 1.0, memory: 0.99 }, 1..50);
        assert!(gate.pauses() && gate.closes() && !gate.admits(Priority::Normal));
        assert_eq!(press(&gate, Pressure::default(), 50..250), Step::Calm);
        assert!(!gate.is_pressed.get() && gate.admits(Priority::Normal));
    }
}
