//! Operations over any selector: try the system call, arm only on EAGAIN.
//!
//! A request on a warm connection costs its receive and its send and nothing else: after a receive that returned less than it
//! could, the socket is known to be empty until the next event (epoll(7)), so no second receive asks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::ahead::Ahead;
use super::selector::{Event, Selector};
use super::slots::{Slots, Token};
use super::source::{Flags, Source, wait};
use crate::buffer::{Chunk, Pool, SendQueue};
use crate::net::socket;

/// A selector and the reports of its last wait.
#[derive(Debug)]
pub(crate) struct Readiness {
    pub(crate) selector: Selector,
    events: Vec<Event>,
    pub(crate) ahead: Ahead,
    /// Events for descriptors that were closed meanwhile: harmless, but a sudden flood of them would be a bug.
    pub(crate) late_events: u64,
}

impl Readiness {
    pub(crate) fn new(selector: Selector) -> Self {
        Self { selector, events: Vec::new(), ahead: Ahead::default(), late_events: 0 }
    }

    pub(crate) fn accept(
        &mut self,
        source: &mut Source,
        token: Token,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<OwnedFd>> {
        if source.flags.has(Flags::LAST) {
            return Poll::Ready(accept_last(source));
        }
        self.read_with(source, token, context, |source| socket::accept(source.fd.as_fd()).map(|fd| (fd, true)))
    }

    pub(crate) fn recv(
        &mut self,
        source: &mut Source,
        token: Token,
        pool: &Rc<Pool>,
        limit: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Chunk>> {
        if let Some(received) = self.ahead.take(source, limit) {
            return Poll::Ready(received);
        }
        self.read_with(source, token, context, |source| recv_now(source, pool, limit))
    }

    /// Waits until the descriptor is readable: for what is read elsewhere (the inbox's eventfd).
    pub(crate) fn readable(
        &mut self,
        source: &mut Source,
        token: Token,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        if source.flags.has(Flags::READABLE) {
            source.flags.clear(Flags::READABLE);
            return Poll::Ready(Ok(()));
        }
        wait(&mut source.reader, context.waker());
        self.expect(source, token)?;
        Poll::Pending
    }

    /// Has the wait end when the descriptor becomes readable.
    pub(crate) fn expect(&mut self, source: &mut Source, token: Token) -> io::Result<()> {
        self.arm(source, token, Flags::ARMED_READ)
    }

    /// Sends until the queue is empty; pending when the socket is full.
    pub(crate) fn send(
        &mut self,
        source: &mut Source,
        token: Token,
        queue: &mut SendQueue,
        more: bool,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !queue.is_empty() {
            ready!(self.write_with(source, token, context, |source| {
                let sent = socket::send(source.fd.as_fd(), queue, more)?;
                queue.advance(sent);
                Ok(sent)
            }))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Sends once from a file; the count may be short, and 0 means the file ended.
    pub(crate) fn sendfile(
        &mut self,
        source: &mut Source,
        token: Token,
        file: BorrowedFd<'_>,
        (offset, length): (u64, usize),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        self.write_with(source, token, context, |source| source.send_from(file, offset, length))
    }

    /// Waits until the descriptor is writable.
    pub(crate) fn writable(
        &mut self,
        source: &mut Source,
        token: Token,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        self.write_with(source, token, context, |_| Ok(()))
    }

    /// Has the peer's end reported without anything being read.
    pub(crate) fn watch(&mut self, source: &mut Source, token: Token) -> io::Result<()> {
        if self.selector.one_shot() {
            // Asking for readability again and again would turn the loop for bytes that nobody wants yet.
            return self.arm(source, token, Flags::NONE);
        }
        if source.flags.has(Flags::ARMED) { Ok(()) } else { self.arm(source, token, Flags::ARMED_READ) }
    }

    pub(crate) fn wait(&mut self, slots: &mut Slots<Source>, timeout: Option<Duration>) -> io::Result<usize> {
        self.ahead.arrived.clear();
        let mut events = std::mem::take(&mut self.events);
        let waited = self.selector.wait(timeout, &mut events);
        for event in &events {
            match slots.get_mut(event.token) {
                Some(source) => self.report(source, *event),
                None => self.late_events += 1,
            }
        }
        self.events = events;
        waited.map(|()| self.events.len())
    }

    /// Receives what the last wait reported, if that concerns `several` descriptors at least.
    pub(crate) fn receive_ahead(&mut self, slots: &mut Slots<Source>, several: usize) {
        if self.events.len() < several {
            return;
        }
        for event in self.events.iter().filter(|event| event.ready.has(Flags::READABLE)) {
            if let Some(source) = slots.get_mut(event.token) {
                self.ahead.receive(source, event.token);
            }
        }
    }

    /// The descriptor is about to be closed.
    pub(crate) fn forget(&mut self, source: &mut Source, token: Token) {
        drop(self.ahead.take(source, usize::MAX));
        if let (Selector::Epoll(epoll), true) = (&self.selector, source.flags.has(Flags::LISTENER)) {
            // Another process may hold the socket too, and then closing it here would not end the reports (epoll(7), Q6).
            epoll.remove(source.fd.as_fd(), token);
        }
        self.selector.deregister(source.fd.as_raw_fd(), token);
    }

    fn report(&mut self, source: &mut Source, event: Event) {
        source.flags.set(event.ready);
        if event.ready.has(Flags::READABLE) {
            source.wake_reader();
        }
        if event.ready.has(Flags::WRITABLE) {
            source.wake_writer();
        }
        if self.selector.one_shot() {
            source.flags.clear(Flags::ARMED);
            self.arm_again(source, event.token);
        }
    }

    /// A one-shot report for one direction must not leave the other direction's waiter behind.
    fn arm_again(&mut self, source: &mut Source, token: Token) {
        let mut interest = Flags::NONE;
        if source.reader.is_some() {
            interest.set(Flags::ARMED_READ);
        }
        if source.writer.is_some() {
            interest.set(Flags::ARMED_WRITE);
        }
        if interest != Flags::NONE && self.arm(source, token, interest).is_err() {
            source.flags.set(Flags::READABLE | Flags::WRITABLE);
            source.wake_both();
        }
    }

    fn read_with<T>(
        &mut self,
        source: &mut Source,
        token: Token,
        context: &mut Context<'_>,
        call: impl FnOnce(&mut Source) -> io::Result<(T, bool)>,
    ) -> Poll<io::Result<T>> {
        if source.flags.has(Flags::READABLE) {
            match call(source) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => source.flags.clear(Flags::READABLE),
                Err(error) => return Poll::Ready(Err(error)),
                Ok((value, may_hold_more)) => {
                    if !may_hold_more {
                        source.flags.clear(Flags::READABLE);
                    }
                    return Poll::Ready(Ok(value));
                }
            }
        }
        wait(&mut source.reader, context.waker());
        self.arm(source, token, Flags::ARMED_READ)?;
        Poll::Pending
    }

    fn write_with<T>(
        &mut self,
        source: &mut Source,
        token: Token,
        context: &mut Context<'_>,
        call: impl FnOnce(&mut Source) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        if source.flags.has(Flags::WRITABLE) {
            match call(source) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => source.flags.clear(Flags::WRITABLE),
                result => return Poll::Ready(result),
            }
        }
        wait(&mut source.writer, context.waker());
        self.arm(source, token, Flags::ARMED_WRITE)?;
        Poll::Pending
    }

    fn arm(&mut self, source: &mut Source, token: Token, interest: Flags) -> io::Result<()> {
        let known = source.flags.only(Flags::ARMED | Flags::HANGUP);
        self.selector.arm(source.fd.as_fd(), token, known, interest)?;
        source.flags.set(interest);
        Ok(())
    }
}

/// What has come to a listener that is to take no more; `NotConnected` when that is nothing.
pub(crate) fn accept_last(source: &Source) -> io::Result<OwnedFd> {
    socket::accept(source.fd.as_fd()).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::NotConnected.into(),
        _ => error,
    })
}

/// One receive of at most `limit` bytes into a pooled chunk, and whether the socket may hold more. After the peer's FIN the answer is always "more",
/// since no further edge will come to say so.
pub(crate) fn recv_now(source: &mut Source, pool: &Rc<Pool>, limit: usize) -> io::Result<(Chunk, bool)> {
    let mut memory = pool.get();
    let room = limit.clamp(1, memory.len());
    match socket::recv(source.fd.as_fd(), &mut memory[..room]) {
        Ok(len) => {
            let more = len == room || len == 0 || source.flags.has(Flags::HANGUP | Flags::RESET);
            Ok((pool.chunk(memory, len), more))
        }
        Err(error) => {
            pool.put(memory);
            Err(error)
        }
    }
}
