//! What the loop remembers of one descriptor: who waits on it, what is known of its readiness, when patience ends.
//!
//! There is one for every connection, so its size is part of what an idle connection costs (see the test below).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::Waker;

use super::ahead::Place;
use super::traffic::Traffic;
use crate::net::socket;

/// One descriptor's state. Owned by the driver, named by a token.
#[derive(Debug)]
pub(crate) struct Source {
    pub fd: OwnedFd,
    pub flags: Flags,
    /// What has been received of it before its task asked; only with readiness drivers.
    pub ahead: Option<Place>,
    pub reader: Option<Waker>,
    pub writer: Option<Waker>,
    /// When both waiters give up.
    pub deadline: Tick,
    /// What io_uring holds on this descriptor's behalf; empty with the other drivers.
    pub traffic: Traffic,
}

impl Source {
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            // Unknown counts as ready: the first operation is tried at once, and arms only if it must wait.
            flags: Flags::READABLE | Flags::WRITABLE,
            ahead: None,
            reader: None,
            writer: None,
            deadline: Tick::NEVER,
            traffic: Traffic::default(),
        }
    }

    /// Sends once from a file. A short count mostly means that the socket is full now; to know it saves the loop a turn, and a
    /// call that fetches the file's pages in vain.
    pub(crate) fn send_from(&mut self, file: BorrowedFd<'_>, offset: u64, length: usize) -> io::Result<usize> {
        let sent = socket::sendfile(self.fd.as_fd(), file, offset, length)?;
        if sent < length && socket::is_full(self.fd.as_fd()) {
            self.flags.clear(Flags::WRITABLE);
        }
        Ok(sent)
    }

    pub(crate) fn wake_reader(&mut self) {
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    pub(crate) fn wake_writer(&mut self) {
        if let Some(waker) = self.writer.take() {
            waker.wake();
        }
    }

    pub(crate) fn wake_both(&mut self) {
        self.wake_reader();
        self.wake_writer();
    }
}

/// Stores `waker` unless the one there would wake the same task.
pub(crate) fn wait(place: &mut Option<Waker>, waker: &Waker) {
    match place {
        Some(present) if present.will_wake(waker) => {}
        _ => *place = Some(waker.clone()),
    }
}

/// A small set of facts; a hand-made bit set because it is the only one in the crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flags(u16);

impl Flags {
    pub(crate) const NONE: Self = Self(0);
    /// Reading may succeed: nothing has said otherwise since the last event.
    pub(crate) const READABLE: Self = Self(1);
    pub(crate) const WRITABLE: Self = Self(1 << 1);
    /// The peer has finished sending (FIN seen).
    pub(crate) const HANGUP: Self = Self(1 << 2);
    /// The connection is dead in both directions.
    pub(crate) const RESET: Self = Self(1 << 3);
    pub(crate) const TIMED_OUT: Self = Self(1 << 4);
    /// The selector will report readability, or writability; on io_uring the first one says that a slow reader waits, and the
    /// second that a listener's accept is being cancelled.
    pub(crate) const ARMED_READ: Self = Self(1 << 5);
    pub(crate) const ARMED_WRITE: Self = Self(1 << 6);
    pub(crate) const ARMED: Self = Self(1 << 5 | 1 << 6);
    /// The owner has closed it; it waits for final completions.
    pub(crate) const CLOSING: Self = Self(1 << 7);
    /// A listener: what arrives are connections.
    pub(crate) const LISTENER: Self = Self(1 << 8);
    /// Nothing is under way: waits for whatever comes next.
    pub(crate) const IDLE: Self = Self(1 << 9);
    /// A listener that takes what has come and then no more.
    pub(crate) const LAST: Self = Self(1 << 10);
    /// A listener whose queue is to be looked at without a report.
    pub(crate) const LOOK: Self = Self(1 << 11);

    pub(crate) fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// The set as a number.
    #[cfg(feature = "sim")]
    pub(crate) fn bits(self) -> u64 {
        self.0.into()
    }

    pub(crate) fn only(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    pub(crate) fn clear(&mut self, other: Self) {
        self.0 &= !other.0;
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A millisecond of the loop's clock in four bytes, or never. It wraps after 49 days, so comparisons are relative: right as
/// long as nothing is more than 24 days away, which `Deadlines::set` sees to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tick(u32);

impl Tick {
    pub(crate) const NEVER: Self = Self(0);

    /// The tick at `ticks`, and when exactly that is: one millisecond in 49 days cannot be told from never, and is put off.
    pub(crate) fn at(ticks: u64) -> (Self, u64) {
        let ticks = ticks + u64::from(ticks as u32 == 0);
        (Self(ticks as u32), ticks)
    }

    /// Milliseconds from `now` until this tick, 0 when it has passed; `None` for never.
    pub(crate) fn until(self, now: u64) -> Option<u64> {
        (self != Self::NEVER).then(|| u64::from((self.0.wrapping_sub(now as u32) as i32).max(0) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_survive_the_wrap() {
        let now = u64::from(u32::MAX) - 10;
        assert_eq!(Tick::at(now + 50).0.until(now), Some(50));
        assert_eq!(Tick::at(now).0.until(now + 50), Some(0));
        assert_eq!(Tick::NEVER.until(now), None);
        for asked in now..now + 30 {
            // Whoever looks when it is said to be must find that it has come: nobody looks a second time.
            let (tick, when) = Tick::at(asked);
            assert_eq!((tick.until(when - 1), tick.until(when)), (Some(1), Some(0)));
            assert!(when == asked || when == asked + 1);
        }
    }

    #[test]
    fn a_source_stays_small() {
        assert!(size_of::<Source>() <= 88, "{} bytes for every connection", size_of::<Source>());
    }
}
