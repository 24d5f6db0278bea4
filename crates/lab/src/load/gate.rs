//! Small things tasks wait for: a gate that lets so many through at a time, and a notice for everybody.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};

/// Lets a limited number of tasks do something at a time. For connects: thousands at once would overflow the listener's
/// queue, and each lost SYN costs a second.
#[derive(Debug)]
pub struct Gate {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Waker>>,
}

/// Leave to go on; dropping it lets the next one through.
#[derive(Debug)]
pub struct Pass<'a>(&'a Gate);

impl Gate {
    /// A gate for `limit` at a time.
    pub fn new(limit: usize) -> Self {
        Self { free: Cell::new(limit), waiting: RefCell::default() }
    }

    /// Waits until there is room.
    pub async fn enter(&self) -> Pass<'_> {
        poll_fn(|context| match self.free.get().checked_sub(1) {
            Some(left) => {
                self.free.set(left);
                Poll::Ready(())
            }
            None => {
                self.waiting.borrow_mut().push_back(context.waker().clone());
                Poll::Pending
            }
        })
        .await;
        Pass(self)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        self.0.free.set(self.0.free.get() + 1);
        let next = self.0.waiting.borrow_mut().pop_front();
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// Something that happens once, for everybody who waits for it.
#[derive(Debug, Default)]
pub struct Notice {
    given: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
}

impl Notice {
    /// Waits until it has been given.
    pub async fn wait(&self) {
        poll_fn(|context| {
            if self.given.get() {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Wakes everybody.
    pub fn give(&self) {
        self.given.set(true);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }
}
