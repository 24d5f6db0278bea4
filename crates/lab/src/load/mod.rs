//! One process's load: connections on one loop, a beginning, a measure, an end.
//!
//! ```text
//! connect the crowd and the load ─► Ready ─► told to begin ─► warm-up ─► an Interval a second ─► drain (open loop) ─► over
//! ```
//!
//! A closed loop ends where it stands, as its connections would go on for ever. An open loop waits for what was due before
//! the end, up to the timeout; what has no answer then is counted as timed out, and not forgotten.

mod client;
pub mod control;
mod gate;
mod line;
mod schedule;

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use amped_runtime::Runtime;
use amped_runtime::net::{ConnectOptions, Stream};
use serde::{Deserialize, Serialize};

use self::client::{Client, Role};
use self::control::{Control, processor_time};
use self::gate::{Gate, Notice};
use self::schedule::{Course, Schedule};
use crate::plan::{Plan, is_loopback, loopback};
use crate::random::Random;
use crate::tally::{Failure, Interval, Tally};

/// What a load tells while it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Event {
    /// So many connections have been made or have failed, of so many.
    Connecting(usize, usize),
    /// It waits to be told to begin.
    Ready,
    /// Another second.
    Interval(Box<Interval>),
    /// It is over.
    Over,
}

/// What all connections of a load share.
#[derive(Debug)]
struct Load {
    runtime: Rc<Runtime>,
    plan: Plan,
    random: Random,
    stats: RefCell<Stats>,
    schedule: Option<Rc<Schedule>>,
    gate: Gate,
    start: Notice,
    /// Which source address the next connection takes: a place in the plan's list, or on loopback a number.
    source: Cell<u32>,
    /// Requests a closed loop may still begin.
    left: Cell<u64>,
    /// Requests begun and neither answered nor failed.
    under_way: Cell<u64>,
    /// Requests begun earlier are part of the warm-up.
    measured_from: Cell<Instant>,
    /// Connections that have been made or have failed.
    settled: Cell<usize>,
    /// Members of the crowd that are connected.
    idle_connected: Cell<u64>,
    /// The task that watches over the whole.
    watcher: RefCell<Option<Waker>>,
}

/// What has been counted since the last interval.
#[derive(Debug)]
struct Stats {
    main: Tally,
    crowd: Tally,
}

/// Runs a load to its end on this thread; `sink` is told what happens.
///
/// # Errors
/// When the loop cannot be set up or breaks, or the sink does not want to hear more.
pub fn run(
    plan: Plan,
    control: Arc<Control>,
    sink: impl FnMut(&Event) -> Result<(), String> + 'static,
) -> Result<(), String> {
    let broken = |error: std::io::Error| format!("the event loop failed: {error}");
    let runtime = Runtime::new(plan.driver).map_err(broken)?;
    let load = Rc::new(Load::new(&runtime, plan));
    runtime.run(watch(load, control, Box::new(sink))).map_err(broken)?
}

type Sink = Box<dyn FnMut(&Event) -> Result<(), String>>;

/// The course of a run.
async fn watch(load: Rc<Load>, control: Arc<Control>, mut sink: Sink) -> Result<(), String> {
    poll_fn(|context| {
        control.watch(context.waker());
        *load.watcher.borrow_mut() = Some(context.waker().clone());
        Poll::Ready(())
    })
    .await;
    let all = load.spawn_connections();
    while load.settled.get() < all && !control.is_stopped() {
        load.until(Instant::now() + TICK, || load.settled.get() == all || control.is_stopped()).await;
        sink(&Event::Connecting(load.settled.get(), all))?;
    }
    sink(&Event::Ready)?;
    while !control.has_begun() && !control.is_stopped() {
        load.until(Instant::now() + TICK, || control.has_begun() || control.is_stopped()).await;
    }
    load.begin();
    let is_over = || control.is_stopped() || load.is_done();
    load.until(load.measured_from.get(), is_over).await;
    let mut second = Second::begin(&load);
    let end = load.plan.duration.map(|duration| load.measured_from.get() + duration);
    while !is_over() && end.is_none_or(|end| Instant::now() < end) {
        // A run of whole seconds has as many intervals, and what is left over goes into the last one.
        let tick = second.since + TICK;
        let next = end.filter(|end| *end < tick + TICK / 2).unwrap_or(tick);
        load.until(next, is_over).await;
        if !is_over() && Some(next) != end {
            sink(&second.take(&load))?;
        }
    }
    match &load.schedule {
        Some(schedule) => {
            schedule.cut(Instant::now());
            let patience = Instant::now() + load.plan.timeout;
            // The last answers come a moment after the last second, and belong to it.
            let mut tick = second.since + TICK + TICK / 2;
            while !load.is_done() && Instant::now() < patience {
                load.until(patience.min(tick), || load.is_done()).await;
                if !load.is_done() {
                    sink(&second.take(&load))?;
                    tick = second.since + TICK;
                }
            }
            let unanswered = load.under_way.get() + schedule.waiting(Instant::now());
            load.stats.borrow_mut().main.counts.errors.add(Failure::Timeout, unanswered);
        }
        None => load.stats.borrow_mut().main.counts.unfinished += load.under_way.get(),
    }
    sink(&second.take(&load))?;
    sink(&Event::Over)
}

impl Load {
    fn new(runtime: &Rc<Runtime>, plan: Plan) -> Self {
        let schedule =
            plan.rate.map(|rate| Rc::new(Schedule::new(rate, plan.poisson.then_some(plan.seed ^ 0xA221_7A15))));
        let service = schedule.is_some();
        Self {
            runtime: Rc::clone(runtime),
            random: Random::new(plan.seed ^ 0xC0FF_EE00),
            stats: RefCell::new(Stats { main: Tally::new(service), crowd: Tally::default() }),
            schedule,
            gate: Gate::new(CONNECTS_AT_ONCE),
            start: Notice::default(),
            source: Cell::new(0),
            left: Cell::new(plan.limit.unwrap_or(u64::MAX)),
            under_way: Cell::new(0),
            measured_from: Cell::new(Instant::now() + FAR),
            settled: Cell::new(0),
            idle_connected: Cell::new(0),
            watcher: RefCell::new(None),
            plan,
        }
    }

    /// Starts everybody's task; says how many they are.
    fn spawn_connections(self: &Rc<Self>) -> usize {
        for _ in 0..self.plan.idle {
            self.runtime.spawn(Client::new(self, Role::Crowd, 0).live());
        }
        for number in 0..self.plan.connections {
            let role = if self.schedule.is_some() { Role::Open } else { Role::Closed };
            self.runtime.spawn(Client::new(self, role, number as u32).live());
        }
        self.plan.idle + self.plan.connections
    }

    /// The first request is due.
    fn begin(self: &Rc<Self>) {
        let now = Instant::now();
        let measured_from = now + self.plan.warm_up;
        self.measured_from.set(measured_from);
        if let Some(schedule) = &self.schedule {
            schedule.begin(Course {
                start: now + self.plan.phase,
                measured_from,
                end: self.plan.duration.map(|duration| measured_from + duration),
                limit: self.plan.limit.unwrap_or(u64::MAX),
            });
            let pacing = Rc::clone(schedule).pace(Rc::clone(&self.runtime));
            self.runtime.spawn(async move { pacing.await.expect("a timer for the schedule") });
        }
        self.start.give();
    }

    /// A connection is made, or cannot be made.
    fn settle(&self) {
        self.settled.set(self.settled.get() + 1);
        if self.settled.get() == self.plan.idle + self.plan.connections {
            self.wake_watcher();
        }
    }

    /// Whether a closed loop may begin another request; if so, it is begun.
    fn take_closed(&self, now: Instant) -> bool {
        let left = self.left.get();
        if left > 0 && now >= self.measured_from.get() {
            self.left.set(left - 1);
        }
        left > 0
    }

    /// Takes the next request of the schedule that is due and has not waited for a connection for longer than anybody waits
    /// for an answer; those that have are timed out. Else what is offered beyond a server's capacity would be a queue that
    /// grows without end, and nothing that is answered would be of the time that is measured.
    fn take_open(&self, now: Instant) -> Option<Instant> {
        let schedule = self.schedule.as_ref()?;
        let given_up = now.checked_sub(self.plan.timeout).map_or(0, |then| schedule.give_up(then));
        let taken = schedule.take(now);
        if given_up > 0 {
            self.stats.borrow_mut().main.counts.errors.add(Failure::Timeout, given_up);
        }
        if taken.is_none() && given_up > 0 && self.is_done() {
            self.wake_watcher();
        }
        taken
    }

    /// A request of the load is under way.
    fn begun(&self) {
        self.under_way.set(self.under_way.get() + 1);
    }

    /// `count` requests of the load have been answered or have failed.
    fn ended(&self, count: u64) {
        let under_way = self.under_way.get() - count;
        self.under_way.set(under_way);
        if under_way == 0 && self.is_done() {
            self.wake_watcher();
        }
    }

    /// Whether all requests there are have been answered or have failed.
    fn is_done(&self) -> bool {
        let no_more = self.schedule.as_ref().map_or(self.left.get() == 0, |schedule| schedule.is_exhausted());
        self.under_way.get() == 0 && no_more && self.plan.connections > 0
    }

    fn count(&self, role: Role, what: impl FnOnce(&mut Tally)) {
        let stats = &mut *self.stats.borrow_mut();
        what(if role == Role::Crowd { &mut stats.crowd } else { &mut stats.main });
    }

    /// A new connection. On loopback, when one address has no port left the next one is used.
    async fn connect(&self) -> io::Result<Stream> {
        let plan = &self.plan;
        loop {
            let options = ConnectOptions {
                source: self.source(),
                receive_buffer: plan.receive_buffer,
                patience: Some(plan.timeout),
            };
            match Stream::connect_with(&self.runtime, plan.address, &options).await {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && self.has_more_addresses() => {
                    self.source.set(self.source.get() + 1);
                }
                outcome => return outcome,
            }
        }
    }

    /// The address to connect from: of those asked for each in turn, else the kernel's choice until its ports are out.
    fn source(&self) -> Option<IpAddr> {
        let turn = self.source.get();
        if self.plan.sources.is_empty() {
            return (turn > 0).then(|| loopback(turn));
        }
        self.source.set(turn.wrapping_add(1));
        Some(self.plan.sources[turn as usize % self.plan.sources.len()])
    }

    fn has_more_addresses(&self) -> bool {
        self.plan.sources.is_empty() && is_loopback(self.plan.address) && self.source.get() < MOST_LOOPBACK
    }

    fn wake_watcher(&self) {
        if let Some(waker) = &*self.watcher.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Waits until `time`, or until `condition` holds; whoever makes it hold wakes the watcher.
    async fn until(self: &Rc<Self>, time: Instant, condition: impl Fn() -> bool) {
        let mut sleep = self.runtime.sleep(time.saturating_duration_since(self.runtime.clock().now()));
        poll_fn(|context| {
            if condition() || Instant::now() >= time {
                return Poll::Ready(());
            }
            Pin::new(&mut sleep).poll(context)
        })
        .await;
    }
}

/// The present interval: since when, and what the processor's time was then.
struct Second {
    began: Instant,
    index: u32,
    since: Instant,
    processor: Duration,
}

impl Second {
    /// The measure begins; what was counted before is forgotten, but for the connections that are there.
    fn begin(load: &Load) -> Self {
        let now = Instant::now();
        let stats = &mut *load.stats.borrow_mut();
        for tally in [&mut stats.main, &mut stats.crowd] {
            let connections = tally.counts.connections;
            tally.clear();
            tally.counts.connections = connections;
        }
        Self { began: now, index: 0, since: now, processor: processor_time() }
    }

    /// Takes what was counted, and begins the next interval.
    fn take(&mut self, load: &Load) -> Event {
        let (now, processor) = (Instant::now(), processor_time());
        let stats = &mut *load.stats.borrow_mut();
        let interval = Interval {
            index: self.index,
            start: self.since - self.began,
            length: now - self.since,
            main: stats.main.clone(),
            crowd: stats.crowd.clone(),
            idle_connected: load.idle_connected.get(),
            processor: processor.saturating_sub(self.processor),
        };
        stats.main.clear();
        stats.crowd.clear();
        *self = Self { began: self.began, index: self.index + 1, since: now, processor };
        Event::Interval(Box::new(interval))
    }
}

const TICK: Duration = Duration::from_secs(1);
const FAR: Duration = Duration::from_secs(365 * 24 * 3600);
/// 127.0.0.1 and these: some seven million connections.
const MOST_LOOPBACK: u32 = 250;
/// Well below the listen queue of any server (128 in old ones).
const CONNECTS_AT_ONCE: usize = 100;
