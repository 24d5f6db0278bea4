//! From the kernel's accept queue to a conversation: admission, and a fair spread over the workers.
//!
//! Every worker listens for itself (SO_REUSEPORT), so the kernel spreads connections by a hash. Where the hash is unkind, a
//! worker hands a fresh connection to one that has clearly fewer; a connection never moves later. Where a worker serves one
//! connection at a time (MT, MP), all share the listeners, and whoever accepts a connection serves it to its end.

pub mod seat;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context as Task, Poll, Waker};
use std::time::Duration;

use amped_runtime::net::Listener;
use amped_runtime::yield_now;

pub use self::seat::{Guest, Seat};
use crate::converse::{Context, h1};
use crate::overload::{Accepting, Entrance};

/// A worker's reception: where it sits among the others, and how many connections all may have.
#[derive(Debug)]
pub struct Reception {
    /// Every worker's seat.
    pub seats: Arc<[Arc<Seat>]>,
    /// This worker's place among them.
    pub place: usize,
    /// Connections at one time, over all workers.
    pub max_connections: usize,
    /// Descriptors that the process may have open.
    pub max_descriptors: usize,
    /// Until when descriptors count as short (ticks): an accept has failed for want of one not long before.
    pub short_until: Cell<u64>,
}

/// Accepts connections until the listener is stopped, those that had come by then included: as they come, or when there is too much
/// to do, only so many a turn or none.
pub async fn receive(listener: Rc<Listener>, context: Rc<Context>, reception: Rc<Reception>) {
    let mut pauses = false;
    loop {
        let how = how_to_accept(&listener, &context);
        let paused = std::mem::replace(&mut pauses, matches!(how, Accepting::None));
        context.counters.accept_pauses.add(u64::from(pauses && !paused));
        match how {
            Accepting::AsTheyCome => {
                if receive_burst(&listener, &context, &reception).await.is_break() {
                    return;
                }
                yield_now().await;
            }
            Accepting::FromShortQueue => {
                receive_waiting(&listener, &context, &reception).await;
                context.runtime().sleep(SHORT_QUEUE_PAUSE).await;
            }
            Accepting::None => {
                listener.accept_nothing();
                context.runtime().sleep(SHORTAGE_PAUSE).await;
            }
        }
    }
}

/// A listener that was told to stop is emptied, however much there is to do: nobody else may be there for what is queued.
fn how_to_accept(listener: &Listener, context: &Context) -> Accepting {
    if listener.is_stopped() { Accepting::AsTheyCome } else { context.gate.accepting() }
}

/// Breaks when the listener has stopped and nothing is left to accept.
async fn receive_burst(listener: &Listener, context: &Rc<Context>, reception: &Reception) -> ControlFlow<()> {
    for _ in 0..BURST {
        match listener.accept().await {
            Ok(socket) => admit(socket, context, reception),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return ControlFlow::Break(()),
            Err(_) => lack(context, reception).await,
        }
        if how_to_accept(listener, context) != Accepting::AsTheyCome {
            break;
        }
    }
    ControlFlow::Continue(())
}

/// Takes what the kernel's queue holds, whose length is then what was chosen and not what the driver has taken ahead.
async fn receive_waiting(listener: &Listener, context: &Rc<Context>, reception: &Reception) {
    for _ in 0..BURST {
        match listener.accept_now() {
            Ok(socket) => admit(socket, context, reception),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return lack(context, reception).await,
        }
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
            Ok(socket) if has_room(&socket, &context, &reception) => {
                let over = Rc::new(Over::default());
                let Some(guest) = guest(&socket, &context, &reception.seats[reception.place]) else { continue };
                seat(socket, &context, (guest, Ends(Rc::clone(&over))));
                poll_fn(|task| over.poll(task)).await;
            }
            Ok(_) => {}
            Err(_) => lack(&context, &reception).await,
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

/// No descriptor or no memory left: the connection stays in the kernel's queue until there is, and who has idled longest makes room.
async fn lack(context: &Context, reception: &Reception) {
    context.counters.accept_shortages.add(1);
    reception.short_until.set(context.runtime().clock().ticks() + SHORT_MS);
    make_room(context, reception);
    context.runtime().sleep(SHORTAGE_PAUSE).await;
}

fn make_room(context: &Context, reception: &Reception) {
    context.reap((reception.seats[reception.place].connections() / 32).max(4));
}

/// Counts a connection, and says whether it may stay. One that may not is closed before a byte is read: cheaper than any
/// answer, and the client may try elsewhere.
fn has_room(socket: &OwnedFd, context: &Context, reception: &Reception) -> bool {
    context.counters.accepted.add(1);
    let connections: usize = reception.seats.iter().map(|seat| seat.connections()).sum();
    let has_room = connections < reception.max_connections;
    if connections >= reception.max_connections - reception.max_connections / 16 {
        context.reap(reception.max_connections / 32);
    }
    // Files need descriptors as well, and who accepts would take the last one. The kernel gives the lowest number that is free, so above
    // a high one hardly any is; after a shortage those that were made free are low ones.
    let is_short = context.runtime().clock().ticks() < reception.short_until.get();
    if is_short || socket.as_raw_fd() as usize + SPARE_DESCRIPTORS >= reception.max_descriptors {
        make_room(context, reception);
    }
    context.counters.turned_away.add(u64::from(!has_room));
    has_room
}

fn admit(socket: OwnedFd, context: &Rc<Context>, reception: &Reception) {
    let seats = &reception.seats;
    if !has_room(&socket, context, reception) {
        return;
    }
    let handed = match less_loaded(seats, reception.place) {
        Some(other) => other.hand(socket),
        None => Err(socket),
    };
    match handed {
        Ok(()) => context.counters.handed_on.add(1),
        Err(socket) => welcome(socket, context, &seats[reception.place]),
    }
}

/// Gives a connection a seat of this worker, unless its client has as many as it may.
pub fn welcome(socket: OwnedFd, context: &Rc<Context>, its: &Arc<Seat>) {
    if let Some(guest) = guest(&socket, context, its) {
        seat(socket, context, guest);
    }
}

fn guest(socket: &OwnedFd, context: &Context, seat: &Arc<Seat>) -> Option<Guest> {
    let Some(clients) = &context.clients else { return Some(Guest::new(seat, None)) };
    // Without an address it is gone already, which its first operation will tell.
    let Ok(peer) = Listener::peer_of(socket) else { return Some(Guest::new(seat, None)) };
    match clients.enter(peer.ip(), context.runtime().clock().ticks()) {
        Entrance::Open(ticket) => Some(Guest::new(seat, ticket)),
        Entrance::Shut => {
            context.counters.client_connections_refused.add(1);
            None
        }
    }
}

/// Starts the conversation with a connection that is this worker's.
fn seat<G: Unpin + 'static>(socket: OwnedFd, context: &Rc<Context>, guest: G) {
    let stream = Listener::stream(context.runtime(), socket);
    context.runtime().spawn(h1::Connection::new(context, stream, guest));
}

/// The worker with the fewest connections, if that is clearly fewer than ours. One that drains takes nothing from others any more.
fn less_loaded(seats: &[Arc<Seat>], place: usize) -> Option<&Seat> {
    if seats.len() == 1 {
        return None;
    }
    let ours = seats[place].connections();
    let least = seats.iter().filter(|seat| !seat.is_draining()).min_by_key(|seat| seat.connections())?;
    let fewest = least.connections();
    (ours > fewest + fewest / 4 + SLACK).then_some(&**least)
}

/// Connections accepted before others have their turn.
const BURST: usize = 64;
/// Those who idle make room when no more descriptors than these are free.
const SPARE_DESCRIPTORS: usize = 8;
/// How long after a failed accept descriptors count as short: several rounds of making room for those who wait in the kernel's queue.
const SHORT_MS: u64 = 1000;
const SHORTAGE_PAUSE: Duration = Duration::from_millis(20);
const SHORT_QUEUE_PAUSE: Duration = Duration::from_millis(1);
/// A difference that is not worth a wake-up of another core.
const SLACK: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listen::seat::Call;

    fn seats(connections: &[usize]) -> Arc<[Arc<Seat>]> {
        let seats: Arc<[Arc<Seat>]> = connections.iter().map(|_| Arc::default()).collect();
        for (place, &count) in connections.iter().enumerate() {
            (0..count).for_each(|_| std::mem::forget(Guest::new(&seats[place], None)));
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

    #[test]
    fn nothing_moves_to_a_worker_that_drains() {
        let seats = seats(&[140, 0, 100]);
        seats[1].drain(true);
        assert_eq!(less_loaded(&seats, 0).map(Seat::connections), Some(100));
        seats.iter().for_each(|seat| seat.drain(true));
        assert!(less_loaded(&seats, 0).is_none());
        // It may have been chosen a moment before: what it will not see comes back.
        let socket = || OwnedFd::from(tempfile::tempfile().expect("a descriptor"));
        assert!(seats[1].hand(socket()).is_ok(), "it has not heard it yet");
        let call = || std::pin::pin!(seats[1].call()).poll(&mut Task::from_waker(std::task::Waker::noop()));
        assert!(matches!(call(), Poll::Ready(Call::Handed(sockets)) if sockets.len() == 1));
        assert!(matches!(call(), Poll::Ready(Call::Drain { gently: true })));
        assert!(seats[1].hand(socket()).is_err());
    }
}
