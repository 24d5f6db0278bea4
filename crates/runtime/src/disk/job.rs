//! A job: what a helper is to do, and how whoever waits for it hears of its end.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// The job was not run: the queue was full, or it panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

/// A job's result, to be awaited on a loop. Dropping it drops the job if no helper has begun it.
#[derive(Debug)]
pub struct Job<T> {
    cell: Arc<Cell<T>>,
}

/// A job without its type.
pub(super) trait Work: Send {
    fn is_wanted(&self) -> bool;
    /// It has a place in the line, which is not 0.
    fn takes(&self, place: u64);
    /// Runs it, and says whether it did not panic.
    fn run(self: Box<Self>) -> bool;
    fn refuse(self: Box<Self>);
}

struct Typed<T, F> {
    cell: Arc<Cell<T>>,
    call: F,
}

#[derive(Debug)]
struct Cell<T> {
    state: Mutex<State<T>>,
    wanted: AtomicBool,
    /// In the line; 0: it has none.
    place: AtomicU64,
    /// How many have asked for it.
    asked: AtomicU32,
}

#[derive(Debug)]
struct State<T> {
    outcome: Option<Result<T, Refused>>,
    waker: Option<Waker>,
}

impl<T: Send + 'static> Job<T> {
    /// The two ends of it.
    pub(super) fn new(call: impl FnOnce() -> T + Send + 'static) -> (Self, Box<dyn Work>) {
        let state = Mutex::new(State { outcome: None, waker: None });
        let cell =
            Arc::new(Cell { state, wanted: AtomicBool::new(true), place: AtomicU64::new(0), asked: AtomicU32::new(1) });
        (Self { cell: Arc::clone(&cell) }, Box::new(Typed { cell, call }))
    }
}

impl<T> Job<T> {
    /// One more asks for it; its place in the line, if it has one and as many have asked again as when it was told last.
    pub(super) fn join(&self) -> Option<u64> {
        let asked = self.cell.asked.fetch_add(1, Relaxed) + 1;
        let place = self.cell.place.load(Relaxed);
        (place != 0 && asked.is_power_of_two()).then_some(place)
    }
}

impl<T: Send, F: FnOnce() -> T + Send> Work for Typed<T, F> {
    fn is_wanted(&self) -> bool {
        self.cell.wanted.load(Relaxed)
    }

    fn takes(&self, place: u64) {
        self.cell.place.store(place, Relaxed);
    }

    fn run(self: Box<Self>) -> bool {
        let Self { cell, call } = *self;
        let outcome = catch_unwind(AssertUnwindSafe(call)).map_err(|_| Refused);
        let is_whole = outcome.is_ok();
        cell.finish(outcome);
        is_whole
    }

    fn refuse(self: Box<Self>) {
        self.cell.finish(Err(Refused));
    }
}

impl<T> Cell<T> {
    fn finish(&self, outcome: Result<T, Refused>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.outcome = Some(outcome);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Future for Job<T> {
    type Output = Result<T, Refused>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.cell.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.cell.wanted.store(false, Relaxed);
        // A waker left behind would keep its task alive for as long as a stuck helper holds the job.
        self.cell.state.lock().unwrap_or_else(PoisonError::into_inner).waker = None;
    }
}
