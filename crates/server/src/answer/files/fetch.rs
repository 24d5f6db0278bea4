//! Helper jobs under way, one per path: whoever asks meanwhile waits for the same job.
//!
//! A job lives as long as somebody waits for it: when the last client has gone, it is withdrawn from the helpers' queue.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use amped_runtime::disk::{Helpers, Job, Refused};
use amped_runtime::{Runtime, Sleep};

use super::entry::Entry;
use super::load::Loaded;
use super::shelf::{Key, OwnedKey};
use crate::observe::counters::Counters;

/// The jobs of one worker.
#[derive(Debug, Default)]
pub struct Fetches(RefCell<ByKey>);

type ByKey = HashMap<OwnedKey, Weak<Fetch>>;

/// One job and those who wait for it.
#[derive(Debug)]
struct Fetch {
    fetches: Weak<Fetches>,
    key: OwnedKey,
    started: Instant,
    job: RefCell<Job<Loaded>>,
    outcome: RefCell<Option<Result<Arc<Entry>, Refused>>>,
    waiters: RefCell<Vec<Waker>>,
    /// It goes on even if nobody waits any more.
    seen_through: Cell<bool>,
}

/// Waits for a job; dropping it withdraws from it.
pub struct Later {
    fetch: Rc<Fetch>,
    fallback: Option<Fallback>,
    /// Until when it waits at most, if not for ever.
    end: Option<Sleep>,
}

/// What will do instead.
struct Fallback {
    entry: Arc<Entry>,
    counters: Arc<Counters>,
}

impl Fetches {
    /// Waits for the job on this path, if there is one, and tells the helpers that one more does.
    pub fn join(&self, key: &Key<&[u8]>, helpers: &Helpers) -> Option<Later> {
        let fetches = self.0.borrow();
        if fetches.is_empty() {
            return None;
        }
        let fetch = fetches.get(&key.into_owned())?.upgrade()?;
        helpers.join(&fetch.job.borrow());
        Some(Later { fetch, fallback: None, end: None })
    }

    /// Takes a job into care; `finish` turns what it found into an entry.
    pub fn start(
        self: &Rc<Self>,
        runtime: &Runtime,
        key: &Key<&[u8]>,
        job: Job<Loaded>,
        finish: impl FnOnce(Loaded) -> Arc<Entry> + 'static,
    ) -> Later {
        let fetch = Rc::new(Fetch {
            fetches: Rc::downgrade(self),
            key: key.into_owned(),
            started: runtime.clock().now(),
            job: RefCell::new(job),
            outcome: RefCell::default(),
            waiters: RefCell::default(),
            seen_through: Cell::new(false),
        });
        self.0.borrow_mut().insert(key.into_owned(), Rc::downgrade(&fetch));
        let weak = Rc::downgrade(&fetch);
        runtime.spawn(async move {
            // A panic on the way is a refusal to those who wait.
            let _unless_published = Unpublished(Weak::clone(&weak));
            // Dropped with the last waiter; then there is nothing to finish.
            let outcome = poll_fn(|context| match weak.upgrade() {
                Some(fetch) => Pin::new(&mut *fetch.job.borrow_mut()).poll(context).map(Some),
                None => Poll::Ready(None),
            });
            let outcome = outcome.await;
            if let (Some(outcome), Some(fetch)) = (outcome, weak.upgrade()) {
                fetch.publish(outcome.map(finish));
            }
        });
        Later { fetch, fallback: None, end: None }
    }

    /// Lets the job go on to its end, so that memory learns what it finds.
    pub fn see_through(&self, runtime: &Runtime, later: &Later) {
        if !later.fetch.seen_through.replace(true) {
            let witness = Later { fetch: Rc::clone(&later.fetch), fallback: None, end: None };
            runtime.spawn(async move { drop(witness.await) });
        }
    }
}

impl Fetch {
    fn publish(&self, outcome: Result<Arc<Entry>, Refused>) {
        self.forget();
        *self.outcome.borrow_mut() = Some(outcome);
        for waiter in self.waiters.take() {
            waiter.wake();
        }
    }

    /// Whoever asks from now on finds the result in memory, or asks anew.
    fn forget(&self) {
        let Some(fetches) = self.fetches.upgrade() else { return };
        let mut fetches = fetches.0.borrow_mut();
        if fetches.get(&self.key).is_some_and(|present| std::ptr::eq(present.as_ptr(), self)) {
            fetches.remove(&self.key);
        }
    }
}

/// Sees to it that a job's waiters hear of its end, whatever that is.
struct Unpublished(Weak<Fetch>);

impl Drop for Unpublished {
    fn drop(&mut self) {
        if let Some(fetch) = self.0.upgrade()
            && fetch.outcome.borrow().is_none()
        {
            fetch.publish(Err(Refused));
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Later {
    /// How long ago the helper was asked.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.fetch.started)
    }

    /// Is content with `entry` when `sleep` ends first.
    pub fn or_after(self, sleep: Sleep, entry: Arc<Entry>, counters: Arc<Counters>) -> Self {
        Self { fallback: Some(Fallback { entry, counters }), end: Some(sleep), ..self }
    }

    /// Counts as refused when `sleep` ends first.
    pub fn or_refused_after(self, sleep: Sleep) -> Self {
        Self { end: Some(sleep), ..self }
    }

    /// Without the job's outcome.
    fn instead(&self) -> Result<Arc<Entry>, Refused> {
        let fallback = self.fallback.as_ref().ok_or(Refused)?;
        fallback.counters.stale.add(1);
        Ok(Arc::clone(&fallback.entry))
    }
}

impl Future for Later {
    type Output = Result<Arc<Entry>, Refused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(outcome) = &*self.fetch.outcome.borrow() {
            // The queue was full: what memory holds is better than a refusal.
            return Poll::Ready(if outcome.is_err() { self.instead() } else { outcome.clone() });
        }
        if let Some(end) = &mut self.end
            && Pin::new(end).poll(context).is_ready()
        {
            return Poll::Ready(self.instead());
        }
        let mut waiters = self.fetch.waiters.borrow_mut();
        if !waiters.iter().any(|waiter| waiter.will_wake(context.waker())) {
            waiters.push(context.waker().clone());
        }
        Poll::Pending
    }
}
