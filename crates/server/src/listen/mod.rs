//! From the kernel's accept queue to a conversation: admission, and a fair spread over the workers.
//!
//! Every worker listens for itself (SO_REUSEPORT), so the kernel spreads connections by a hash. Where the hash is unkind, a
//! worker hands a fresh connection to one that has clearly fewer; a connection never moves later. Where a worker serves one
//! connection at a time (MT, MP), all share the listeners, and whoever accepts a connection serves it to its end.

pub mod seat;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};
use std::time::Duration;

use amped_runtime::net::Listener;
use amped_runtime::yield_now;

pub use self::seat::{Guest, Seat};
use crate::converse::{Context, h1};

/// A worker's reception: where it sits among the others, and how many connections all may have.
#[derive(Debug)]
pub struct Reception {
    /// Every worker's seat.
    pub seats: Arc<[Arc<Seat>]>,
    /// This worker's place among them.
    pub place: usize,
    /// Connections at one time, over all workers.
    pub max_connections: usize,
}

/// Accepts connections until the listener is stopped, those that had come by then included.
pub async fn receive(listener: Rc<Listener>, context: Rc<Context>, reception: Rc<Reception>) {
    loop {
        for _ in 0..BURST {
            match listener.accept().await {
                Ok(socket) => admit(socket, &context, &reception),
                Err(error) if error.kind() == std::io::ErrorKind::NotConnected => return,
                Err(_) => lack(&context).await,
            }
        }
        yield_now().await;
    }
}

/// Accepts a connection, waits until it is over, and accepts the next, until the task is dropped; a connection that is being
/// served then goes on.
pub async fn receive_one_by_one(listeners: Vec<Rc<Listener>>, context: Rc<Context>, reception: Rc<Reception>) {
    loop {
        let next = |task: &mut Task<'_>| {
            let accepted = listeners.iter().map(|listener| listener.poll_accept(task)).find(Poll::is_ready);
            accepted.unwrap_or(Poll::Pending)
        };
        match poll_fn(next).await {
            Ok(socket) if has_room(&context, &reception) => {
                let over = Rc::new(Over::default());
                let guest = (Guest::new(&reception.seats[reception.place]), Ends(Rc::clone(&over)));
                seat(socket, &context, guest);
                poll_fn(|task| over.poll(task)).await;
            }
            Ok(_) => {}
            Err(_) => lack(&context).await,
        }
    }
}

/// Whether a connection is over, and who wants to know.
#[derive(Debug, Default)]
struct Over {
    is_over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Goes with a connection, and tells when that ends.
#[derive(Debug)]
struct Ends(Rc<Over>);

impl Over {
    fn poll(&self, task: &mut Task<'_>) -> Poll<()> {
        if self.is_over.get() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(task.waker().clone());
        Poll::Pending
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.is_over.set(true);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

/// No descriptor or no memory left: the connection stays in the kernel's queue until there is.
async fn lack(context: &Context) {
    context.counters.accept_shortages.add(1);
    context.runtime().sleep(SHORTAGE_PAUSE).await;
}

/// Counts a connection, and says whether it may stay. One that may not is closed before a byte is read: cheaper than any
/// answer, and the client may try elsewhere.
fn has_room(context: &Context, reception: &Reception) -> bool {
    context.counters.accepted.add(1);
    let connections: usize = reception.seats.iter().map(|seat| seat.connections()).sum();
    let has_room = connections < reception.max_connections;
    context.counters.turned_away.add(u64::from(!has_room));
    has_room
}

fn admit(socket: OwnedFd, context: &Rc<Context>, reception: &Reception) {
    let seats = &reception.seats;
    if !has_room(context, reception) {
        return;
    }
    match less_loaded(seats, reception.place) {
        Some(other) => {
            context.counters.handed_on.add(1);
            other.hand(socket);
        }
        None => seat(socket, context, Guest::new(&seats[reception.place])),
    }
}

/// Starts the conversation with a connection that is this worker's.
pub fn seat<G: Unpin + 'static>(socket: OwnedFd, context: &Rc<Context>, guest: G) {
    let stream = Listener::stream(context.runtime(), socket);
    context.runtime().spawn(h1::Connection::new(context, stream, guest));
}

/// The worker with the fewest connections, if that is clearly fewer than ours.
fn less_loaded(seats: &[Arc<Seat>], place: usize) -> Option<&Seat> {
    if seats.len() == 1 {
        return None;
    }
    let ours = seats[place].connections();
    let least = seats.iter().min_by_key(|seat| seat.connections())?;
    let fewest = least.connections();
    (ours > fewest + fewest / 4 + SLACK).then_some(&**least)
}

/// Connections accepted before others have their turn.
const BURST: usize = 64;
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
/// A difference that is not worth a wake-up of another core.
const SLACK: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(connections: &[usize]) -> Arc<[Arc<Seat>]> {
        let seats: Arc<[Arc<Seat>]> = connections.iter().map(|_| Arc::default()).collect();
        for (place, &count) in connections.iter().enumerate() {
            (0..count).for_each(|_| std::mem::forget(Guest::new(&seats[place])));
        }
        seats
    }

    #[test]
    fn only_a_clear_difference_moves_a_connection() {
        let moved = |connections: &[usize]| less_loaded(&seats(connections), 0).map(Seat::connections);
        assert_eq!(moved(&[100]), None);
        assert_eq!(moved(&[8, 0]), None);
        assert_eq!(moved(&[9, 0]), Some(0));
        assert_eq!(moved(&[130, 100]), None);
        assert_eq!(moved(&[140, 100, 120]), Some(100));
        assert_eq!(moved(&[5, 200]), None);
    }
}
