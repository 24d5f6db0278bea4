//! What readiness alone cannot say: whether the peer has finished or reset, behind bytes that nobody reads yet.
//!
//! select(2) has no word for it, and neither has what all systems share. So where such a selector is in use, whoever only
//! looks out for an end is looked after by a poll(2) that does not wait, every `AGAIN` while there is anybody. Cost: nothing
//! for a connection that reads, since reading tells the end.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::poll::Poll;
use super::selector::Event;
use super::slots::Token;
use super::source::Flags;

/// Those who look out, and when they are looked after next.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    poll: Poll,
    next: Option<Instant>,
}

impl Lookout {
    /// Has the end (unless `known`) or the reset of this descriptor reported.
    pub(crate) fn arm(&mut self, fd: BorrowedFd<'_>, token: Token, known: Flags) -> io::Result<()> {
        self.poll.arm(fd, token, known, Flags::NONE)
    }

    /// It reads, or is about to be closed.
    pub(crate) fn disarm(&mut self, token: Token) {
        self.poll.deregister(token);
    }

    /// How long a wait may last.
    pub(crate) fn limit(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        if self.poll.is_empty() {
            self.next = None;
            return timeout;
        }
        let now = Instant::now();
        let left = self.next.get_or_insert(now + AGAIN).saturating_duration_since(now);
        Some(timeout.map_or(left, |timeout| timeout.min(left)))
    }

    /// Looks, if it is time.
    pub(crate) fn look(&mut self, events: &mut Vec<Event>) -> io::Result<()> {
        if self.next.is_some_and(|next| next <= Instant::now()) {
            self.next = None;
            self.poll.wait(Some(Duration::ZERO), events)?;
        }
        Ok(())
    }
}

/// Late enough to cost nothing, early enough that work for a client who has left is given up soon.
const AGAIN: Duration = Duration::from_millis(50);
