//! Level-triggered epoll (epoll(7)): a report comes for as long as it is true.
//!
//! The lesson of its man page: whoever is told and does not act is told again at once, and the loop turns for nothing.
//! EPOLLONESHOT stops that at the price of one `epoll_ctl` for every wait of every connection. Here a report ends the request
//! too, but the kernel is told only when it reports what nobody waits for any more: a connection that asks, is answered and
//! asks again costs no `epoll_ctl` at all. Ends and resets cannot be masked out, so the descriptor is taken out after a reset.
//! The man page's other trap: a closed descriptor stays in the set while a duplicate of it lives, and would then be reported
//! for ever; what was put in is taken out before it is closed.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::epoll::{Instance, directions, ready};
use super::selector::Event;
use super::slots::Token;
use super::source::Flags;

/// The instance, and what it has been asked for.
#[derive(Debug)]
pub(crate) struct EpollLevel {
    instance: Instance,
    /// By slot index.
    places: Vec<Place>,
}

/// What one descriptor's operations want, and what the kernel believes they want.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    fd: RawFd,
    wanted: u32,
    /// `None` when the descriptor is not in the set.
    known: Option<u32>,
}

impl EpollLevel {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { instance: Instance::new()?, places: Vec::new() })
    }

    pub(crate) fn arm(&mut self, fd: BorrowedFd<'_>, token: Token, known: Flags, interest: Flags) -> io::Result<()> {
        let index = token.index as usize;
        if index >= self.places.len() {
            self.places.resize(index + 1, Place::default());
        }
        let place = &mut self.places[index];
        place.fd = fd.as_raw_fd();
        place.wanted |= directions(interest);
        if !known.has(Flags::HANGUP) {
            place.wanted |= libc::EPOLLRDHUP as u32;
        }
        match place.known {
            Some(known) if place.wanted & !known == 0 => Ok(()),
            // What was asked for before and is not wanted now stays, until the kernel reports it in vain.
            Some(known) => place.set(&self.instance, token, known | place.wanted),
            None => place.set(&self.instance, token, place.wanted),
        }
    }

    pub(crate) fn deregister(&mut self, token: Token) {
        if let Some(place) = self.places.get_mut(token.index as usize) {
            place.take_out(&self.instance, token);
            *place = Place::default();
        }
    }

    pub(crate) fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let Self { instance, places } = self;
        let before = events.len();
        let mut in_vain = Vec::new();
        for (token, report) in instance.wait(timeout)? {
            let place = &mut places[token.index as usize];
            if report & (place.wanted | ALWAYS) == 0 {
                in_vain.push(token);
                continue;
            }
            place.wanted = 0;
            events.push(Event { token, ready: ready(report) });
        }
        for token in in_vain {
            let place = &mut places[token.index as usize];
            place.set(instance, token, place.wanted)?;
        }
        for event in &events[before..] {
            if event.ready.has(Flags::RESET) {
                places[event.token.index as usize].take_out(instance, event.token);
            }
        }
        Ok(())
    }
}

impl Place {
    fn set(&mut self, instance: &Instance, token: Token, mask: u32) -> io::Result<()> {
        let operation = if self.known.is_some() { libc::EPOLL_CTL_MOD } else { libc::EPOLL_CTL_ADD };
        instance.control(operation, self.fd, token, mask)?;
        self.known = Some(mask);
        Ok(())
    }

    fn take_out(&mut self, instance: &Instance, token: Token) {
        if self.known.take().is_some() {
            // It is in the set and open, so this cannot fail.
            let _ = instance.control(libc::EPOLL_CTL_DEL, self.fd, token, 0);
        }
    }
}

/// Reported whatever was asked for.
const ALWAYS: u32 = (libc::EPOLLHUP | libc::EPOLLERR) as u32;
