//! Edge-triggered epoll (epoll(7), Linux 2.5.44).
//!
//! The lesson of its man page: after an edge, read until EAGAIN, or until a read returns less than was asked for; whoever
//! stops earlier waits for ever. `readiness` keeps that rule. A descriptor is added when an operation first must wait and only
//! for what it waits for: adding EPOLLOUT from the start would cost an event for every connection, since a fresh socket is
//! writable. Cost: one `epoll_ctl` in a connection's life, none per request.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::selector::{Event, millis};
use super::slots::Token;
use super::source::Flags;

/// The edge-triggered selector: the kernel keeps all of its state.
#[derive(Debug)]
pub(crate) struct Epoll(Instance);

/// An epoll instance and the array it fills, however it is triggered.
#[derive(Debug)]
pub(crate) struct Instance {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        Instance::new().map(Self)
    }

    pub(crate) fn arm(&self, fd: BorrowedFd<'_>, token: Token, armed: Flags, interest: Flags) -> io::Result<()> {
        let wanted = armed | interest;
        if wanted == armed {
            return Ok(());
        }
        let operation = if armed.has(Flags::ARMED) { libc::EPOLL_CTL_MOD } else { libc::EPOLL_CTL_ADD };
        self.0.control(operation, fd.as_raw_fd(), token, mask(wanted))
    }

    /// Ends the reports of a descriptor; one that never had any does not mind.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>, token: Token) {
        let _ = self.0.control(libc::EPOLL_CTL_DEL, fd.as_raw_fd(), token, 0);
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let reports = self.0.wait(timeout)?;
        events.extend(reports.map(|(token, report)| Event { token, ready: ready(report) }));
        Ok(())
    }
}

impl Instance {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers involved.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: epoll_create1 returned a descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, events: Vec::with_capacity(EVENTS_PER_WAIT) })
    }

    /// epoll_ctl(2).
    pub(crate) fn control(&self, operation: i32, fd: RawFd, token: Token, mask: u32) -> io::Result<()> {
        let mut event = libc::epoll_event { events: mask, u64: token.pack() };
        // SAFETY: `event` is valid for the call; the kernel copies it.
        let result = unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// epoll_wait(2): for whom, and the kernel's bits.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<impl Iterator<Item = (Token, u32)>> {
        let timeout = timeout.map_or(-1, millis);
        self.events.clear();
        // SAFETY: the spare capacity holds EVENTS_PER_WAIT events, and the kernel writes at most as many.
        let count =
            unsafe { libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), EVENTS_PER_WAIT as i32, timeout) };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has written `count` events.
        unsafe { self.events.set_len(count as usize) };
        Ok(self.events.iter().map(|event| (Token::unpack(event.u64), event.events)))
    }
}

fn mask(interest: Flags) -> u32 {
    (libc::EPOLLET | libc::EPOLLRDHUP) as u32 | directions(interest)
}

/// The bits of the directions alone.
pub(crate) fn directions(interest: Flags) -> u32 {
    let mut mask = 0;
    if interest.has(Flags::ARMED_READ) {
        mask |= libc::EPOLLIN as u32;
    }
    if interest.has(Flags::ARMED_WRITE) {
        mask |= libc::EPOLLOUT as u32;
    }
    mask
}

pub(crate) fn ready(events: u32) -> Flags {
    let events = events as i32;
    let mut ready = Flags::NONE;
    if events & (libc::EPOLLIN | libc::EPOLLRDHUP) != 0 {
        ready.set(Flags::READABLE);
    }
    if events & libc::EPOLLOUT != 0 {
        ready.set(Flags::WRITABLE);
    }
    if events & libc::EPOLLRDHUP != 0 {
        ready.set(Flags::HANGUP);
    }
    if events & (libc::EPOLLHUP | libc::EPOLLERR) != 0 {
        ready.set(Flags::READABLE | Flags::WRITABLE | Flags::RESET);
    }
    ready
}

/// More than this and the first of a batch would wait noticeably for the last; fewer and a busy loop waits more often.
const EVENTS_PER_WAIT: usize = 512;
