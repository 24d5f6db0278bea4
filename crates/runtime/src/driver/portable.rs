//! What all systems share, by the `polling` crate: epoll here, kqueue on the BSDs and macOS, event ports on illumos and
//! Solaris, completion ports on Windows, poll(2) elsewhere. It is the way to those systems for a selector; the rest of this
//! crate speaks Linux.
//!
//! The lessons of their man pages. One-shot is the only mode that all of them have: event ports forget a descriptor with each
//! report (port_associate(3C)), and the crate makes the others do so; hence a system call for every wait of every connection,
//! and here some for the crate's timer and notifier at every wait of the loop. What is common to all has no word for the peer's
//! end, so `lookout` asks for that. A descriptor must be taken out before it is closed, which `deregister` does.
//! Solaris' /dev/poll (Solaris 7, 1999), the first of those that keep their state in the kernel, was followed by event ports in
//! Solaris 10. The device lives on, and illumos builds its epoll for Linux programs on it; that manual (epoll(5)) tells native
//! programs to prefer port_create(3C), and that is what `polling` uses.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use polling::{Events, PollMode, Poller};

use super::lookout::Lookout;
use super::selector::Event;
use super::slots::Token;
use super::source::Flags;

/// The system's poller, and who has been put in.
#[derive(Debug)]
pub(crate) struct Portable {
    poller: Poller,
    events: Events,
    /// By slot index, which is the poller's key: a `usize` holds no token where it has 32 bits.
    tokens: Vec<Option<Token>>,
    lookout: Lookout,
}

impl Portable {
    pub(crate) fn new() -> io::Result<Self> {
        let events = Events::with_capacity(EVENTS_PER_WAIT);
        Ok(Self { poller: Poller::new()?, events, tokens: Vec::new(), lookout: Lookout::default() })
    }

    pub(crate) fn arm(&mut self, fd: BorrowedFd<'_>, token: Token, known: Flags, interest: Flags) -> io::Result<()> {
        if interest == Flags::NONE {
            return self.lookout.arm(fd, token, known);
        }
        let wanted = known.only(Flags::ARMED) | interest;
        let index = token.index as usize;
        if index >= self.tokens.len() {
            self.tokens.resize(index + 1, None);
        }
        let wish = polling::Event::new(index, wanted.has(Flags::ARMED_READ), wanted.has(Flags::ARMED_WRITE));
        if self.tokens[index].is_none() {
            // SAFETY: the driver keeps the descriptor open until it has called `deregister`, or has dropped the poller.
            unsafe { self.poller.add_with_mode(fd.as_raw_fd(), wish, PollMode::Oneshot)? };
            self.tokens[index] = Some(token);
        } else if wanted != known.only(Flags::ARMED) {
            self.poller.modify_with_mode(fd, wish, PollMode::Oneshot)?;
        }
        if interest.has(Flags::ARMED_READ) {
            self.lookout.disarm(token);
        }
        Ok(())
    }

    pub(crate) fn deregister(&mut self, fd: RawFd, token: Token) {
        self.lookout.disarm(token);
        if self.tokens.get_mut(token.index as usize).is_some_and(|place| place.take().is_some()) {
            // SAFETY: the caller closes the descriptor after this call.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            // It has been put in and is open, so this cannot fail.
            let _ = self.poller.delete(fd);
        }
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let timeout = self.lookout.limit(timeout);
        self.events.clear();
        self.poller.wait(&mut self.events, timeout)?;
        for event in self.events.iter() {
            if let Some(token) = self.tokens.get(event.key).copied().flatten() {
                events.push(Event { token, ready: ready(&event) });
            }
        }
        self.lookout.look(events)
    }
}

fn ready(event: &polling::Event) -> Flags {
    let mut ready = Flags::NONE;
    if event.readable {
        ready.set(Flags::READABLE);
    }
    if event.writable {
        ready.set(Flags::WRITABLE);
    }
    if event.is_interrupt() || event.is_err() == Some(true) {
        ready.set(Flags::READABLE | Flags::WRITABLE | Flags::RESET);
    }
    ready
}

/// As many as epoll's own selector takes.
const EVENTS_PER_WAIT: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");
