//! The loop: run what is ready, wait for what comes, keep the time of every turn.
//!
//! One loop per thread. A turn is everything between two waits; its length is what a request can be delayed by another one,
//! so the longest is kept, with what it was doing, and a histogram of all.

use std::cell::{RefCell, RefMut};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::buffer::Pool;
use crate::clock::Clock;
use crate::driver::{self, Arrivals, Driver, Token};
use crate::executor::{self, Inbox};
use crate::meter::Meter;

/// One thread's loop. Not `Send`; other threads reach it through wakers only.
#[derive(Debug)]
pub struct Runtime {
    kind: driver::Kind,
    driver: RefCell<Driver>,
    clock: Clock,
    meter: Arc<Meter>,
    pool: Rc<Pool>,
    inbox: Arc<Inbox>,
    /// The inbox's eventfd, in the driver's care.
    arrivals: Token,
    foresight: Foresight,
}

/// See `Runtime::on_arrivals`.
#[derive(Default)]
struct Foresight(RefCell<Option<(Box<IsWanted>, Box<Look>)>>);

type IsWanted = dyn Fn() -> bool;
type Look = dyn Fn(&Arrivals<'_>);

impl fmt::Debug for Foresight {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Foresight")
    }
}

impl Runtime {
    /// Sets a loop up on this thread.
    ///
    /// # Errors
    /// What the kernel says to the driver's set-up.
    pub fn new(kind: driver::Kind) -> io::Result<Rc<Self>> {
        let clock = Clock::new();
        clock.advance();
        let inbox = Inbox::new()?;
        let mut driver = Driver::new(kind, clock.ticks())?;
        let arrivals = driver.attach_inbox(inbox.event().as_fd().try_clone_to_owned()?);
        Ok(Rc::new(Self {
            kind,
            driver: RefCell::new(driver),
            clock,
            meter: Arc::default(),
            pool: Rc::default(),
            inbox,
            arrivals,
            foresight: Foresight::default(),
        }))
    }

    /// Runs `main` and everything it spawns until `main` ends; then drops every other task.
    ///
    /// # Errors
    /// When waiting fails, which would mean a broken driver.
    ///
    /// # Panics
    /// When another loop runs on this thread; when `main` or another vital task does.
    pub fn run<T: 'static>(self: &Rc<Self>, main: impl Future<Output = T> + 'static) -> io::Result<T> {
        let entered = executor::enter(&self.inbox);
        let outcome = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&outcome);
        self.spawn_vital(async move { *slot.borrow_mut() = Some(main.await) });
        self.listen_to_inbox();
        self.meter.belongs_here();
        // What came before was preparation: nobody waited for a turn of this loop.
        self.meter.turn_began(self.clock.advance());
        let result = loop {
            self.run_ready();
            // Before the wait: nothing may come any more that would end it.
            if let Some(value) = outcome.borrow_mut().take() {
                break Ok(value);
            }
            if let Err(error) = self.wait() {
                break Err(error);
            }
        };
        // Tasks that wait hold streams, and the streams hold this loop: let go of them, or nothing would ever be freed.
        let wakers = self.driver().take_wakers();
        drop(wakers);
        drop(entered);
        result
    }

    /// Starts a task on this loop; it runs to its end unless the loop ends before. If it panics, it ends, and nothing else does.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        executor::spawn(&self.inbox, false, future);
    }

    /// Starts a task without which the loop is of no use: a panic in it goes through `run`.
    pub fn spawn_vital(&self, future: impl Future<Output = ()> + 'static) {
        executor::spawn(&self.inbox, true, future);
    }

    /// Tasks that ended by a panic.
    pub fn panics(&self) -> u64 {
        executor::panics()
    }

    /// The loop's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The loop's turn times.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// The driver in use.
    pub fn kind(&self) -> driver::Kind {
        self.kind
    }

    /// Descriptors in the loop's care.
    pub fn descriptors(&self) -> usize {
        self.driver().len()
    }

    /// Events that came for descriptors closed before: harmless, and recognised.
    pub fn late_events(&self) -> u64 {
        self.driver().late_events()
    }

    /// How often reports were lost and everything was looked at instead: `sigio`'s queue was full (RLIMIT_SIGPENDING).
    pub fn overflows(&self) -> u64 {
        self.driver().overflows()
    }

    /// Ends after `delay`, counted from the beginning of this turn and rounded up to milliseconds.
    pub fn sleep(self: &Rc<Self>, delay: Duration) -> Sleep {
        let millis = u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        let token = self.driver().sleep(millis);
        Sleep { runtime: Rc::clone(self), token }
    }

    /// Lets `look` see what has come for several idle connections at once (`Stream::idle_for`), before their tasks do: to have memory
    /// fetched that they will need. In turns for which it is not wanted each receives for itself. Both may use nothing of this loop but the
    /// clock. A driver that blocks has nothing to show.
    pub fn on_arrivals(&self, is_wanted: impl Fn() -> bool + 'static, look: impl Fn(&Arrivals<'_>) + 'static) {
        *self.foresight.0.borrow_mut() = Some((Box::new(is_wanted), Box::new(look)));
    }

    /// Ends the wait of every idle stream, as if its time had come.
    pub fn end_idle(&self) {
        self.driver().end_idle();
    }

    /// Ends the wait of the `count` streams that have idled longest, of those that may idle for at most `left` more; says how many.
    pub fn end_longest_idle(&self, count: usize, left: Duration) -> usize {
        self.driver().end_longest_idle(count, u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn driver(&self) -> RefMut<'_, Driver> {
        self.driver.borrow_mut()
    }

    pub(crate) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    fn run_ready(&self) {
        let tasks = executor::run_ready();
        self.meter.turn_ended(self.clock.now(), tasks);
    }

    fn wait(&self) -> io::Result<()> {
        // Tasks woken meanwhile get another turn, but events are looked at in between, without waiting.
        let at_once = executor::has_ready();
        self.meter.beat();
        self.driver().wait(at_once, self.clock.now())?;
        self.meter.beat();
        if self.kind == driver::Kind::Sigio {
            self.meter.overflowed(self.driver().overflows());
        }
        let now = self.clock.advance();
        // A thread that serves one connection has nobody whom a long turn keeps waiting: it spares the call.
        if self.kind != driver::Kind::Blocking {
            self.meter.turn_began(now);
        }
        let mut driver = self.driver();
        driver.expire(self.clock.ticks());
        if let Some((is_wanted, look)) = &*self.foresight.0.borrow()
            && (self.kind.is_simulated() || is_wanted())
            && let Some(arrivals) = driver.arrivals(SEVERAL)
        {
            look(&arrivals);
        }
        Ok(())
    }

    /// A task that moves in what other threads have left. It ends with the loop.
    fn listen_to_inbox(self: &Rc<Self>) {
        let this = Rc::clone(self);
        self.spawn_vital(async move {
            while poll_fn(|context| this.driver().readable(this.arrivals, context)).await.is_ok() {
                this.inbox.collect();
            }
        });
    }
}

/// The future of `Runtime::sleep`.
#[derive(Debug)]
pub struct Sleep {
    runtime: Rc<Runtime>,
    token: Token,
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.runtime.driver().slept(self.token, context)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.runtime.driver().forget_sleeper(self.token);
    }
}

/// With fewer there is nothing to be fetched meanwhile.
const SEVERAL: usize = 3;
