//! The selector contract: what a readiness mechanism must offer, in five functions.
//!
//! ```text
//! register   a descriptor is new; nothing need happen until something waits for it
//! arm        report `interest` for it once (level: one report; edge: from now on), also if it is ready already
//! deregister the descriptor is about to be closed
//! wait       sleep at most `timeout`, hand over (token, readiness) pairs
//! wake       needs no function: the inbox's eventfd is a descriptor like any other
//! ```
//!
//! A selector knows nothing of operations; `readiness` tries the system call first and arms only on EAGAIN. So a new selector
//! is one page and touches nothing above it.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::time::Duration;

use super::epoll::Epoll;
use super::epoll_level::EpollLevel;
use super::poll::Poll;
use super::portable::Portable;
use super::select::Select;
use super::sigio::Sigio;
use super::slots::Token;
use super::source::Flags;

/// Which selector, and its state.
#[derive(Debug)]
pub(crate) enum Selector {
    Epoll(Epoll),
    EpollLevel(EpollLevel),
    Poll(Poll),
    Portable(Box<Portable>),
    Select(Box<Select>),
    Sigio(Box<Sigio>),
    #[cfg(feature = "sim")]
    Sim(super::sim::Sim),
}

/// One report: for whom, and what is ready (`READABLE`, `WRITABLE`, `HANGUP`, `RESET`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    pub token: Token,
    pub ready: Flags,
}

impl Selector {
    /// Asks for `interest` (`ARMED_READ`, `ARMED_WRITE` or both) in addition to what `known` says is asked for already. Ends and
    /// resets are reported in any case; an end only until `known` has it (`HANGUP`).
    pub(crate) fn arm(&mut self, fd: BorrowedFd<'_>, token: Token, known: Flags, interest: Flags) -> io::Result<()> {
        match self {
            Self::Epoll(epoll) => epoll.arm(fd, token, known.only(Flags::ARMED), interest),
            Self::EpollLevel(epoll) => epoll.arm(fd, token, known, interest),
            Self::Poll(poll) => poll.arm(fd, token, known, interest),
            Self::Portable(portable) => portable.arm(fd, token, known, interest),
            Self::Select(select) => select.arm(fd, token, known, interest),
            Self::Sigio(sigio) => sigio.arm(fd, token, known, interest),
            #[cfg(feature = "sim")]
            Self::Sim(sim) => sim.arm(fd, token, known, interest),
        }
    }

    /// Forgets a descriptor, armed or not. The caller closes it next.
    pub(crate) fn deregister(&mut self, fd: RawFd, token: Token) {
        match self {
            // The kernel forgets a closed descriptor by itself; ours are not duplicated, but for listeners: see `readiness`.
            Self::Epoll(_) => {}
            Self::EpollLevel(epoll) => epoll.deregister(token),
            Self::Poll(poll) => poll.deregister(token),
            Self::Portable(portable) => portable.deregister(fd, token),
            Self::Select(select) => select.deregister(fd, token),
            Self::Sigio(sigio) => sigio.deregister(fd, token),
            #[cfg(feature = "sim")]
            Self::Sim(sim) => sim.deregister(fd),
        }
    }

    /// Whether a report ends the request for reports.
    pub(crate) fn one_shot(&self) -> bool {
        match self {
            Self::Epoll(_) => false,
            #[cfg(feature = "sim")]
            Self::Sim(sim) => !sim.by_edge,
            Self::EpollLevel(_) | Self::Poll(_) | Self::Portable(_) | Self::Select(_) | Self::Sigio(_) => true,
        }
    }

    /// Whether a wait looks at every descriptor, whatever has happened.
    pub(crate) fn looks_at_all(&self) -> bool {
        matches!(self, Self::Poll(_) | Self::Select(_))
    }

    /// How often the kernel had to drop reports, which a look at everything made good.
    pub(crate) fn overflows(&self) -> u64 {
        match self {
            Self::Sigio(sigio) => sigio.overflows,
            _ => 0,
        }
    }

    /// Waits at most `timeout` (forever when `None`) and fills `events`. An interrupted wait is an empty one.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        events.clear();
        let waited = match self {
            Self::Epoll(epoll) => epoll.wait(timeout, events),
            Self::EpollLevel(epoll) => epoll.wait(timeout, events),
            Self::Poll(poll) => poll.wait(timeout, events),
            Self::Portable(portable) => portable.wait(timeout, events),
            Self::Select(select) => select.wait(timeout, events),
            Self::Sigio(sigio) => sigio.wait(timeout, events),
            #[cfg(feature = "sim")]
            Self::Sim(sim) => sim.wait(timeout, events),
        };
        match waited {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }
}

/// Rounds up, so that a wait for a deadline never ends just before it and turns idly.
pub(crate) fn millis(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX)
}
