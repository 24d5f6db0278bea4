//! Blocking calls: the loop of a thread that serves one connection at a time (MT, MP), as Apache's and Flash's did.
//!
//! An operation is tried at once; if it must wait and is all that this thread waits for, `wait` makes the call itself, in
//! blocking mode: a request on a warm connection costs recv(2) and send(2), nothing else, and accept(2) wakes one thread of
//! many. What arrives is kept for the operation, since it may have been cancelled meanwhile. Whatever else is waited for (two
//! descriptors, room to send) goes through poll(2) over these few. The inbox is always waited for: a signal ends the call.
//!
//! The lessons of the man pages. socket(7): SO_RCVTIMEO ends a blocking call late rather than early and costs a call to
//! change, so it is set ahead and seldom. fcntl(2): O_NONBLOCK belongs to the open file, so a listener that several threads
//! share changes mode under their hands: an EAGAIN only means to look again, and all of them should wait for the same ones.
//! accept(2): after poll(2) reported a connection another thread may have taken it, so then the listener must not block.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::poll;
use super::readiness::Readiness;
use super::selector::Selector;
use super::slots::{Slots, Token};
use super::source::{Flags, Source};
use crate::buffer::{Chunk, Pool, SendQueue};
use crate::net::socket;
use crate::{executor, interrupt};

/// poll(2), and the one call that is made in its stead when nothing else is waited for.
#[derive(Debug)]
pub(crate) struct Blocking {
    pub(crate) readiness: Readiness,
    /// The operation that waits, if the last one that had to wait can be made as a blocking call.
    awaited: Option<(Token, Call)>,
    /// The inbox, which needs no descriptor watched: see `interrupt`.
    pub(crate) inbox: Option<Token>,
    /// What calls brought, until their operations ask for it: one nearly always, more only where operations were cancelled.
    arrived: Vec<(Token, Arrival)>,
    /// By slot index.
    modes: Vec<Mode>,
    /// Turns since poll(2) was asked.
    unasked: u32,
}

#[derive(Clone, Debug)]
enum Call {
    Recv(Rc<Pool>),
    Accept,
}

#[derive(Debug)]
enum Arrival {
    Bytes(Chunk),
    Connection(OwnedFd),
    Failed(io::Error),
}

/// What is known of a descriptor: its mode, and the SO_RCVTIMEO it was last given.
#[derive(Clone, Copy, Debug, Default)]
struct Mode {
    is_blocking: bool,
    limit: Duration,
}

impl Blocking {
    pub(crate) fn new() -> io::Result<Self> {
        interrupt::listen()?;
        let readiness = Readiness::new(Selector::Poll(poll::Poll::default()));
        Ok(Self { readiness, awaited: None, inbox: None, arrived: Vec::new(), modes: Vec::new(), unasked: 0 })
    }

    /// Takes the next connection. It is asked for only once poll(2) has reported one, or by `wait`, which may block.
    pub(crate) fn accept(
        &mut self,
        source: &mut Source,
        token: Token,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<OwnedFd>> {
        match self.take(token) {
            Some(Arrival::Connection(socket)) => return Poll::Ready(Ok(socket)),
            Some(Arrival::Failed(error)) => return Poll::Ready(Err(error)),
            _ => {}
        }
        if source.flags.has(Flags::READABLE) {
            self.set_blocking(source, token, false)?;
            // As `wait` would: should another thread have changed the mode meanwhile, this is a call that can be ended.
            let made = Call::Accept.make(source);
            source.flags.clear(Flags::READABLE);
            match made {
                Ok(Some(Arrival::Connection(socket))) => return Poll::Ready(Ok(socket)),
                Err(error) if !is_passing(&error) => return Poll::Ready(Err(error)),
                _ => {}
            }
        }
        let accepted = self.readiness.accept(source, token, context);
        self.awaited = accepted.is_pending().then_some((token, Call::Accept));
        accepted
    }

    pub(crate) fn recv(
        &mut self,
        source: &mut Source,
        token: Token,
        pool: &Rc<Pool>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Chunk>> {
        match self.take(token) {
            Some(Arrival::Bytes(chunk)) => return Poll::Ready(Ok(chunk)),
            Some(Arrival::Failed(error)) => return Poll::Ready(Err(error)),
            _ => {}
        }
        let received = self.readiness.recv(source, token, pool, usize::MAX, context);
        self.awaited = received.is_pending().then(|| (token, Call::Recv(Rc::clone(pool))));
        received
    }

    pub(crate) fn recv_up_to(
        &mut self,
        source: &mut Source,
        token: Token,
        pool: &Rc<Pool>,
        limit: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Chunk>> {
        // A reader that paces itself: a call of `wait` would take what it has not asked for.
        self.awaited = None;
        self.readiness.recv(source, token, pool, limit, context)
    }

    pub(crate) fn send(
        &mut self,
        source: &mut Source,
        token: Token,
        queue: &mut SendQueue,
        more: bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.readiness.send(source, token, queue, more, context)
    }

    /// sendfile(2) has no flag that says not to wait, so here the descriptor must.
    pub(crate) fn sendfile(
        &mut self,
        source: &mut Source,
        token: Token,
        file: BorrowedFd<'_>,
        window: (u64, usize),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.set_blocking(source, token, false)?;
        self.readiness.sendfile(source, token, file, window, context)
    }

    pub(crate) fn watch(&mut self, source: &mut Source, token: Token) -> io::Result<()> {
        // Whoever waits for the end alone does not want the bytes before it.
        self.awaited = None;
        self.readiness.watch(source, token)
    }

    pub(crate) fn forget(&mut self, source: &mut Source, token: Token) {
        self.arrived.retain(|(of, _)| *of != token);
        if let Some(mode) = self.modes.get_mut(token.index as usize) {
            *mode = Mode::default();
        }
        self.readiness.forget(source, token);
    }

    pub(crate) fn wait(&mut self, slots: &mut Slots<Source>, timeout: Option<Duration>) -> io::Result<usize> {
        if timeout == Some(Duration::ZERO) && self.unasked < MOST_UNASKED {
            self.unasked += 1;
            return Ok(0);
        }
        self.unasked = 0;
        let (inbox, limit) = (self.inbox, timeout.unwrap_or(LONGEST).min(LONGEST));
        if limit > Duration::ZERO
            && let Some((token, call)) = self.awaited.clone()
            && self.selector().waits_only_for(token, inbox)
            && let Some(source) = slots.get_mut(token)
            && let Some(called) = self.block(source, token, &call, limit)
        {
            return called;
        }
        self.readiness.wait(slots, timeout)
    }

    /// Makes the call; `None` when another thread has left something in the inbox, so that poll(2) will not wait either.
    fn block(&mut self, source: &mut Source, token: Token, call: &Call, limit: Duration) -> Option<io::Result<usize>> {
        if let Err(error) = self.set_limit(source, token, limit).and_then(|()| self.set_blocking(source, token, true)) {
            return Some(Err(error));
        }
        let arrival = match call.make(source) {
            Ok(arrival) => arrival?,
            // The time is over, another thread has a word, or it has taken the listener's mode away: to be set anew.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.mode(token).is_blocking = false;
                return Some(Ok(0));
            }
            Err(error) if is_passing(&error) => return Some(Ok(0)),
            Err(error) => Arrival::Failed(error),
        };
        self.awaited = None;
        self.arrived.push((token, arrival));
        self.selector().disarm(token);
        source.flags.clear(Flags::ARMED);
        source.wake_reader();
        Some(Ok(1))
    }

    fn take(&mut self, token: Token) -> Option<Arrival> {
        let place = self.arrived.iter().position(|(of, _)| *of == token)?;
        Some(self.arrived.swap_remove(place).1)
    }

    fn selector(&mut self) -> &mut poll::Poll {
        match &mut self.readiness.selector {
            Selector::Poll(poll) => poll,
            _ => unreachable!("made with poll(2)"),
        }
    }

    fn mode(&mut self, token: Token) -> &mut Mode {
        let index = token.index as usize;
        if index >= self.modes.len() {
            self.modes.resize(index + 1, Mode::default());
        }
        &mut self.modes[index]
    }

    fn set_blocking(&mut self, source: &Source, token: Token, is_blocking: bool) -> io::Result<()> {
        let mode = self.mode(token);
        // What others may change is set again before it is relied upon not to wait.
        let is_shared = source.flags.has(Flags::LISTENER) && !is_blocking;
        if mode.is_blocking != is_blocking || is_shared {
            rustix::io::ioctl_fionbio(&source.fd, !is_blocking)?;
            mode.is_blocking = is_blocking;
        }
        Ok(())
    }

    /// The kernel's limit need not be near ours: waking up early only means to look at the clock and wait again.
    fn set_limit(&mut self, source: &Source, token: Token, limit: Duration) -> io::Result<()> {
        let mode = self.mode(token);
        let latest = if limit > EXACT { limit } else { limit + limit / 8 };
        if mode.limit < limit / 2 || mode.limit > latest || mode.limit.is_zero() {
            let limit = if limit > EXACT { limit / 8 * 7 } else { limit };
            rustix::net::sockopt::set_socket_timeout(&source.fd, rustix::net::sockopt::Timeout::Recv, Some(limit))?;
            mode.limit = limit;
        }
        Ok(())
    }
}

impl Call {
    /// Blocks; `None` when another thread has left something instead.
    fn make(&self, source: &mut Source) -> io::Result<Option<Arrival>> {
        match self {
            Self::Accept => {
                match executor::asleep(|| socket::accept_waiting(source.fd.as_fd())).transpose() {
                    // The peer gave up while it was queued.
                    Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                        Err(io::ErrorKind::Interrupted.into())
                    }
                    accepted => accepted.map(|socket| socket.map(Arrival::Connection)),
                }
            }
            Self::Recv(pool) => {
                let mut memory = pool.get();
                match executor::asleep(|| socket::recv_waiting(source.fd.as_fd(), &mut memory)).transpose() {
                    Ok(Some(len)) => {
                        if len == memory.len() || len == 0 {
                            source.flags.set(Flags::READABLE);
                        }
                        Ok(Some(Arrival::Bytes(pool.chunk(memory, len))))
                    }
                    nothing => {
                        pool.put(memory);
                        if nothing.as_ref().is_err_and(|error| !is_passing(error)) {
                            source.flags.set(Flags::READABLE | Flags::WRITABLE | Flags::RESET);
                        }
                        nothing.map(|_| None)
                    }
                }
            }
        }
    }
}

/// The call is to be made again: its time was over, or a signal came.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// While a task is ready there is no waiting, only looking: seldom, since what would be found is nearly always the very task's.
const MOST_UNASKED: u32 = 8;
/// Blocking calls have a time limit even where nothing is due, since a signal ends only those that have one (signal(7)).
const LONGEST: Duration = Duration::from_secs(3600);
/// The kernel is late by an eighth, so a longer wait is cut into one of seven eighths and the rest; below, that is little.
const EXACT: Duration = Duration::from_millis(250);
