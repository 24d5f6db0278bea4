//! Tasks on one thread: a run queue, and a way in for other threads.
//!
//! A wake on the loop's own thread is a push to a local queue; a wake from elsewhere goes through a locked inbox and one write
//! to an eventfd, however many wakes come before the loop looks. The task cell is async-task's: a task costs its future and
//! about 80 bytes, 20 of which let the end of a loop find it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::{fmt, io, mem, thread};

use crate::interrupt::Sleeper;

/// A task that is to run, and the way into its loop.
type Runnable = async_task::Runnable<Arc<Inbox>>;

thread_local! {
    static TASKS: RefCell<Tasks> = const { RefCell::new(Tasks { places: Vec::new(), free: Vec::new(), cancelled: 0 }) };
    static QUEUE: RefCell<VecDeque<Runnable>> = const { RefCell::new(VecDeque::new()) };
    /// Tasks of this thread that ended by a panic.
    static PANICS: Cell<u64> = const { Cell::new(0) };
    /// The inbox of the loop that runs on this thread, as an address.
    static LOOP: Cell<*const Inbox> = const { Cell::new(std::ptr::null()) };
}

/// The way into a loop from other threads: anything woken through it runs on that loop.
pub(crate) struct Inbox {
    runnables: Mutex<Vec<Runnable>>,
    /// Set from the first remote wake until the loop has emptied the inbox, so that one write to the eventfd suffices.
    notified: AtomicBool,
    event: OwnedFd,
    /// The loop's sleep where no eventfd ends it.
    sleeper: Sleeper,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        use rustix::event::{EventfdFlags, eventfd};
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Self {
            runnables: Mutex::default(),
            notified: AtomicBool::new(false),
            event,
            sleeper: Sleeper::default(),
        }))
    }

    /// The descriptor that becomes readable when another thread has left something.
    pub(crate) fn event(&self) -> impl AsFd {
        self.event.as_fd()
    }

    fn schedule(runnable: Runnable) {
        if LOOP.get() == Arc::as_ptr(runnable.metadata()) {
            QUEUE.with_borrow_mut(|queue| queue.push_back(runnable));
            return;
        }
        let inbox = Arc::clone(runnable.metadata());
        inbox.runnables.lock().unwrap_or_else(PoisonError::into_inner).push(runnable);
        inbox.notify();
    }

    /// Ends the loop's wait.
    pub(crate) fn notify(&self) {
        if !self.notified.swap(true, Ordering::SeqCst) {
            // The counter cannot overflow (one write per emptying), so this cannot fail in a way that matters.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
            self.sleeper.interrupt();
        }
    }

    /// Moves what other threads left to the local queue. Called when the eventfd was readable.
    pub(crate) fn collect(&self) {
        let _ = rustix::io::read(&self.event, &mut [0u8; 8]);
        self.notified.store(false, Ordering::Release);
        let arrived = mem::take(&mut *self.runnables.lock().unwrap_or_else(PoisonError::into_inner));
        QUEUE.with_borrow_mut(|queue| queue.extend(arrived));
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Inbox").field("event", &self.event).finish_non_exhaustive()
    }
}

/// Makes `inbox` the one of this thread while it lives; then drops every task that has not ended, whatever it waits for.
#[derive(Debug)]
pub(crate) struct Entered(Arc<Inbox>);

pub(crate) fn enter(inbox: &Arc<Inbox>) -> Entered {
    assert!(LOOP.get().is_null(), "a thread runs one loop");
    LOOP.set(Arc::as_ptr(inbox));
    Entered(Arc::clone(inbox))
}

impl Drop for Entered {
    fn drop(&mut self) {
        // A cancelled task is scheduled once more, to be dropped. That may wake other tasks, or start new ones.
        loop {
            let tasks = TASKS.with_borrow_mut(|tasks| tasks.cancel(&self.0));
            drop(tasks);
            self.0.collect();
            // One at a time, outside the borrow.
            while let Some(runnable) = pop() {
                drop(runnable);
            }
            match TASKS.with_borrow(|tasks| (tasks.cancelled, tasks.has(&self.0))) {
                (0, false) => break,
                (0, true) => {}
                // Another thread is about to leave a task in the inbox, and only this one may drop it.
                _ => thread::yield_now(),
            }
        }
        LOOP.set(std::ptr::null());
    }
}

/// The tasks of this thread that have not ended: their wakers may be anywhere, so a loop that ends could not find them.
struct Tasks {
    /// `None` is a free place, or a cancelled task's that has not been dropped yet.
    places: Vec<Option<async_task::Task<(), Arc<Inbox>>>>,
    free: Vec<u32>,
    cancelled: usize,
}

impl Tasks {
    fn reserve(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("fewer than 2^32 tasks")
        })
    }

    fn cancel(&mut self, inbox: &Arc<Inbox>) -> Vec<async_task::Task<(), Arc<Inbox>>> {
        let is_its = |task: &mut async_task::Task<(), Arc<Inbox>>| Arc::ptr_eq(task.metadata(), inbox);
        let tasks: Vec<_> = self.places.iter_mut().filter_map(|place| place.take_if(is_its)).collect();
        self.cancelled += tasks.len();
        tasks
    }

    fn has(&self, inbox: &Arc<Inbox>) -> bool {
        self.places.iter().flatten().any(|task| Arc::ptr_eq(task.metadata(), inbox))
    }

    fn ended(&mut self, place: u32) {
        match self.places[place as usize].take() {
            Some(task) => task.detach(),
            None => self.cancelled -= 1,
        }
        self.free.push(place);
    }
}

/// A task's future; gives its place up when it is dropped.
struct Placed<F> {
    future: F,
    place: u32,
    /// Without it the loop means nothing: its panic is the loop's.
    is_vital: bool,
}

impl<F: Future<Output = ()>> Future for Placed<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let is_vital = self.is_vital;
        // SAFETY: `future` is pinned whenever `self` is: it is never moved out, and `Drop` does not touch it.
        let future = unsafe { self.map_unchecked_mut(|this| &mut this.future) };
        // The future is dropped, not polled again; what it shared was behind guards that the unwinding let go of, and what the
        // kernel uses belongs to the driver's sources.
        match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
            Ok(poll) => poll,
            Err(panic) if is_vital => resume_unwind(panic),
            Err(_) => {
                PANICS.set(PANICS.get() + 1);
                Poll::Ready(())
            }
        }
    }
}

impl<F> Drop for Placed<F> {
    fn drop(&mut self) {
        // A thread that ends may have dropped its list already; then nobody looks for the place.
        let _ = TASKS.try_with(|tasks| tasks.borrow_mut().ended(self.place));
    }
}

/// Starts a task on this thread's loop. It runs at the latest in the loop's next turn, and to its end unless the loop ends.
/// A panic ends the task, and the loop if the task is vital.
pub(crate) fn spawn(inbox: &Arc<Inbox>, is_vital: bool, future: impl Future<Output = ()> + 'static) {
    let place = TASKS.with_borrow_mut(Tasks::reserve);
    let placed = Placed { future, place, is_vital };
    let builder = async_task::Builder::new().metadata(Arc::clone(inbox));
    let (runnable, task) = builder.spawn_local(|_| placed, Inbox::schedule);
    TASKS.with_borrow_mut(|tasks| tasks.places[place as usize] = Some(task));
    runnable.schedule();
}

/// Runs what is ready now; tasks that become ready meanwhile wait for the next call. Says how many ran.
pub(crate) fn run_ready() -> usize {
    let ready = QUEUE.with_borrow(VecDeque::len);
    for ran in 0..ready {
        match pop() {
            Some(runnable) => drop(runnable.run()),
            None => return ran,
        }
    }
    ready
}

/// Makes a call that blocks; a wake from another thread ends it with EINTR, and one that came before takes its place (`None`).
pub(crate) fn asleep<T>(call: impl FnOnce() -> T) -> Option<T> {
    // SAFETY: null, or the inbox that `Entered` holds until it has taken the address away; both live on this thread.
    let inbox = unsafe { LOOP.get().as_ref() }?;
    inbox.sleeper.sleep(|| inbox.notified.load(Ordering::SeqCst), call)
}

/// How many tasks of this thread have ended by a panic.
pub(crate) fn panics() -> u64 {
    PANICS.get()
}

/// Whether a task waits to run.
pub(crate) fn has_ready() -> bool {
    QUEUE.with_borrow(|queue| !queue.is_empty())
}

fn pop() -> Option<Runnable> {
    QUEUE.with_borrow_mut(VecDeque::pop_front)
}

/// Lets everything else that is ready run first: for a task that has had its fair share of the turn.
pub async fn yield_now() {
    struct Yield(bool);
    impl Future for Yield {
        type Output = ();
        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }
    Yield(false).await;
}
