//! Timers that are descriptors (timerfd_create(2)), and the one that ends a driver's wait when the next deadline comes.
//!
//! A wait with a timeout reads the kernel's clock, and one that sleeps starts a timer and takes it back, nearly always in vain: 3% of
//! what a small answer costs on epoll. So the wait has no timeout, and this timer is set when a deadline comes nearer than what it is
//! set for, a few times a second. One that has gone leaves it set: it rings in vain, for one empty turn.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::slots::Token;

/// What a driver knows of its own timer.
#[derive(Clone, Copy, Debug)]
pub(super) struct WakeTimer {
    pub(super) token: Token,
    /// The tick by which it has rung; `None` when it is not set.
    rings_by: Option<u64>,
}

impl WakeTimer {
    pub(super) fn new(token: Token) -> Self {
        Self { token, rings_by: None }
    }

    /// Whether it must be set to have rung by tick `deadline`; remembers that it was.
    pub(super) fn must_be_set(&mut self, deadline: u64) -> bool {
        let must = self.rings_by.is_none_or(|rings_by| rings_by > deadline);
        if must {
            self.rings_by = Some(deadline);
        }
        must
    }

    /// It could not be set: the next wait tries again.
    pub(super) fn was_not_set(&mut self) {
        self.rings_by = None;
    }

    /// The present is tick `now`. A timer that is due and has not been seen to ring is set again with the next deadline.
    pub(super) fn advance(&mut self, now: u64) {
        if self.rings_by.is_some_and(|rings_by| rings_by <= now) {
            self.rings_by = None;
        }
    }
}

/// A timer that is not set.
pub(crate) fn create() -> io::Result<OwnedFd> {
    Ok(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?)
}

/// Has it ring once, `delay` from now; what it was set for before is forgotten. Zero would take the setting back.
pub(crate) fn set(timer: &OwnedFd, delay: Duration) -> io::Result<()> {
    let value = Timespec {
        tv_sec: i64::try_from(delay.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(delay.subsec_nanos()),
    };
    let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
    timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_set_for_what_comes_nearer_and_after_it_has_rung() {
        let mut timer = WakeTimer::new(Token { index: 1, generation: 0 });
        assert!(timer.must_be_set(100), "it was not set");
        assert!(!timer.must_be_set(100) && !timer.must_be_set(500), "it rings before that anyway");
        assert!(timer.must_be_set(99), "nearer");
        timer.advance(98);
        assert!(!timer.must_be_set(150), "it has not rung");
        timer.advance(99);
        assert!(timer.must_be_set(150), "it has rung");
        timer.was_not_set();
        assert!(timer.must_be_set(150));
    }
}
