//! A worker's seat: what the others may know of it, and how they reach it.
//!
//! Connections are counted in an atomic of the worker's own; a handed-over socket waits behind a lock that is taken for
//! nothing else, and none is taken any more once the worker has been told to finish and has heard it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};

use crate::overload::Ticket;

/// One worker as the others see it.
#[derive(Debug, Default)]
pub struct Seat {
    connections: AtomicUsize,
    draining: AtomicBool,
    gently: AtomicBool,
    news: AtomicBool,
    handed: Mutex<Handed>,
    waker: Mutex<Option<Waker>>,
}

/// What others have left for the worker.
#[derive(Debug, Default)]
struct Handed {
    sockets: Vec<OwnedFd>,
    /// The worker does not look any more.
    is_closed: bool,
}

/// Counts one connection while it lives.
#[derive(Debug)]
pub struct Guest {
    seat: Arc<Seat>,
    /// Where its client's connections are counted, if they are.
    _ticket: Option<Box<Ticket>>,
}

/// What a worker is told from outside.
#[derive(Debug)]
pub enum Call {
    /// Connections that another worker accepted.
    Handed(Vec<OwnedFd>),
    /// There is something new to be looked at.
    News,
    /// Finish what is being sent, and end.
    Drain {
        /// Idle connections are given time for one more request.
        gently: bool,
    },
}

impl Seat {
    /// Connections of this worker.
    pub fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// Hands a connection to this worker; gives it back when the worker does not look any more.
    ///
    /// # Errors
    /// The socket.
    pub fn hand(&self, socket: OwnedFd) -> Result<(), OwnedFd> {
        let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
        if handed.is_closed {
            return Err(socket);
        }
        handed.sockets.push(socket);
        drop(handed);
        self.wake();
        Ok(())
    }

    /// Has the worker look at what is new.
    pub fn nudge(&self) {
        self.news.store(true, Release);
        self.wake();
    }

    /// Whether the worker was told to finish.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Has the worker finish and end.
    pub fn drain(&self, gently: bool) {
        self.gently.store(gently, Relaxed);
        self.draining.store(true, Release);
        self.wake();
    }

    /// The next call, for the worker itself.
    pub async fn call(&self) -> Call {
        std::future::poll_fn(|context| {
            *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
            let mut handed = self.handed.lock().unwrap_or_else(PoisonError::into_inner);
            if !handed.sockets.is_empty() {
                return Poll::Ready(Call::Handed(std::mem::take(&mut handed.sockets)));
            }
            if self.news.swap(false, Acquire) {
                return Poll::Ready(Call::News);
            }
            match self.draining.load(Acquire) {
                true => {
                    handed.is_closed = true;
                    Poll::Ready(Call::Drain { gently: self.gently.load(Relaxed) })
                }
                false => Poll::Pending,
            }
        })
        .await
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

impl Guest {
    /// Counts a connection of the worker in this seat.
    pub fn new(seat: &Arc<Seat>, ticket: Option<Ticket>) -> Self {
        seat.connections.fetch_add(1, Relaxed);
        Self { seat: Arc::clone(seat), _ticket: ticket.map(Box::new) }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.seat.connections.fetch_sub(1, Relaxed);
    }
}
