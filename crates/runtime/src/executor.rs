//! Tasks on one thread: a run queue, and a way in for other threads.
//!
//! A wake on the loop's own thread is a push to a local queue; a wake from elsewhere goes through a locked inbox and one write
//! to an eventfd, however many wakes come before the loop looks. The task cell is async-task's: a task costs its future and
//! about 60 bytes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::{io, mem};

use async_task::Runnable;

thread_local! {
    static QUEUE: RefCell<VecDeque<Runnable>> = const { RefCell::new(VecDeque::new()) };
    /// The inbox of the loop that runs on this thread, as an address.
    static LOOP: Cell<*const Inbox> = const { Cell::new(std::ptr::null()) };
}

/// The way into a loop from other threads: anything woken through it runs on that loop.
#[derive(Debug)]
pub(crate) struct Inbox {
    runnables: Mutex<Vec<Runnable>>,
    /// Set from the first remote wake until the loop has emptied the inbox, so that one write to the eventfd suffices.
    notified: AtomicBool,
    event: OwnedFd,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Arc<Self>> {
        use rustix::event::{EventfdFlags, eventfd};
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Arc::new(Self { runnables: Mutex::default(), notified: AtomicBool::new(false), event }))
    }

    /// The descriptor that becomes readable when another thread has left something.
    pub(crate) fn event(&self) -> impl AsFd {
        self.event.as_fd()
    }

    fn schedule(self: &Arc<Self>, runnable: Runnable) {
        if LOOP.get() == Arc::as_ptr(self) {
            QUEUE.with_borrow_mut(|queue| queue.push_back(runnable));
            return;
        }
        self.runnables.lock().unwrap_or_else(PoisonError::into_inner).push(runnable);
        self.notify();
    }

    /// Ends the loop's wait.
    pub(crate) fn notify(&self) {
        if !self.notified.swap(true, Ordering::AcqRel) {
            // The counter cannot overflow (one write per emptying), so this cannot fail in a way that matters.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
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

/// Makes `inbox` the one of this thread while it lives; then drops every task that still waits to run.
#[derive(Debug)]
pub(crate) struct Entered;

pub(crate) fn enter(inbox: &Arc<Inbox>) -> Entered {
    assert!(LOOP.get().is_null(), "a thread runs one loop");
    LOOP.set(Arc::as_ptr(inbox));
    Entered
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Dropping a task may wake another one: take them one at a time, outside the borrow.
        while let Some(runnable) = pop() {
            drop(runnable);
        }
        LOOP.set(std::ptr::null());
    }
}

/// Starts a task on this thread's loop. It runs at the latest in the loop's next turn, and to its end unless the loop ends.
pub(crate) fn spawn(inbox: &Arc<Inbox>, future: impl Future<Output = ()> + 'static) {
    let inbox = Arc::clone(inbox);
    let (runnable, task) = async_task::spawn_local(future, move |runnable| inbox.schedule(runnable));
    runnable.schedule();
    task.detach();
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
