//! poll(2): the portable selector, and the one that shows what epoll is for.
//!
//! The lesson of its man page: the whole array goes to the kernel and back at every wait, so its cost grows with the number of
//! connections, busy or not. A report disarms (the entry's descriptor becomes negative, which poll ignores), so that the loop
//! never turns for something nobody waits for.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::selector::{Event, millis};
use super::slots::Token;
use super::source::Flags;

/// The array, and where each slot's entry is in it.
#[derive(Debug, Default)]
pub(crate) struct Poll {
    entries: Vec<libc::pollfd>,
    tokens: Vec<Token>,
    /// By slot index: the entry's position, or `ABSENT`.
    positions: Vec<u32>,
}

impl Poll {
    pub(crate) fn arm(&mut self, fd: BorrowedFd<'_>, token: Token, known: Flags, interest: Flags) -> io::Result<()> {
        let position = self.position(fd.as_raw_fd(), token);
        let entry = &mut self.entries[position];
        entry.fd = fd.as_raw_fd();
        entry.events |= mask(interest);
        if !known.has(Flags::HANGUP) {
            // Once it is known, another report would only turn the loop; a reset is reported without being asked for.
            entry.events |= libc::POLLRDHUP;
        }
        Ok(())
    }

    pub(crate) fn deregister(&mut self, token: Token) {
        let Some(position) = self.positions.get_mut(token.index as usize) else { return };
        let gone = std::mem::replace(position, ABSENT) as usize;
        if gone == ABSENT as usize {
            return;
        }
        self.entries.swap_remove(gone);
        self.tokens.swap_remove(gone);
        if let Some(moved) = self.tokens.get(gone) {
            self.positions[moved.index as usize] = gone as u32;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// `wait`, which also ends when `other` is readable; says whether it is.
    pub(crate) fn wait_beside(
        &mut self,
        other: RawFd,
        timeout: Option<Duration>,
        events: &mut Vec<Event>,
    ) -> io::Result<bool> {
        // Beyond the tokens, so that it is asked for and not reported.
        self.entries.push(libc::pollfd { fd: other, events: libc::POLLIN, revents: 0 });
        let waited = self.wait(timeout, events);
        let other = self.entries.pop();
        waited.map(|()| other.is_some_and(|entry| entry.revents != 0))
    }

    /// Whether a report of `token`'s readability is all that is asked for, `beside` left out.
    pub(crate) fn waits_only_for(&self, token: Token, beside: Option<Token>) -> bool {
        let mut armed =
            self.entries.iter().zip(&self.tokens).filter(|(entry, of)| entry.fd >= 0 && Some(**of) != beside);
        armed.next().is_some_and(|(entry, of)| *of == token && entry.events & !libc::POLLRDHUP == libc::POLLIN)
            && armed.next().is_none()
    }

    /// Asks for no report, as after one.
    pub(crate) fn disarm(&mut self, token: Token) {
        if let Some(entry) = self.positions.get(token.index as usize).and_then(|at| self.entries.get_mut(*at as usize))
        {
            disarm(entry);
        }
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let timeout = timeout.map_or(-1, millis);
        // SAFETY: pointer and length describe `entries`, which nobody else touches during the call.
        let mut left = unsafe { libc::poll(self.entries.as_mut_ptr(), self.entries.len() as libc::nfds_t, timeout) };
        if left < 0 {
            return Err(io::Error::last_os_error());
        }
        for (entry, token) in self.entries.iter_mut().zip(&self.tokens) {
            if left == 0 {
                break;
            }
            if entry.fd < 0 || entry.revents == 0 {
                continue;
            }
            left -= 1;
            events.push(Event { token: *token, ready: ready(entry.revents) });
            disarm(entry);
        }
        Ok(())
    }

    fn position(&mut self, fd: RawFd, token: Token) -> usize {
        let index = token.index as usize;
        if index >= self.positions.len() {
            self.positions.resize(index + 1, ABSENT);
        }
        if self.positions[index] == ABSENT {
            self.positions[index] = self.entries.len() as u32;
            self.entries.push(libc::pollfd { fd, events: 0, revents: 0 });
            self.tokens.push(token);
        }
        debug_assert_eq!(self.tokens[self.positions[index] as usize], token);
        self.positions[index] as usize
    }
}

/// poll(2) ignores negative descriptors, and 0 has a complement that is negative too.
fn disarm(entry: &mut libc::pollfd) {
    entry.events = 0;
    entry.fd = !entry.fd;
}

fn mask(interest: Flags) -> i16 {
    let mut mask = 0;
    if interest.has(Flags::ARMED_READ) {
        mask |= libc::POLLIN;
    }
    if interest.has(Flags::ARMED_WRITE) {
        mask |= libc::POLLOUT;
    }
    mask
}

pub(crate) fn ready(events: i16) -> Flags {
    let mut ready = Flags::NONE;
    if events & (libc::POLLIN | libc::POLLRDHUP) != 0 {
        ready.set(Flags::READABLE);
    }
    if events & libc::POLLOUT != 0 {
        ready.set(Flags::WRITABLE);
    }
    if events & libc::POLLRDHUP != 0 {
        ready.set(Flags::HANGUP);
    }
    if events & (libc::POLLHUP | libc::POLLERR | libc::POLLNVAL) != 0 {
        ready.set(Flags::READABLE | Flags::WRITABLE | Flags::RESET);
    }
    ready
}

const ABSENT: u32 = u32::MAX;
