//! A wait that is exact to microseconds, for the few that need it: a load generator's next request.
//!
//! The wheel counts milliseconds, which is right for deadlines and wrong for a schedule whose lateness would be taken for the
//! server's. An alarm is a descriptor (timerfd_create(2)) in the driver's care: a system call to set it and a wake-up each time.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use crate::driver::{Token, timer_fd};
use crate::runtime::Runtime;

/// One alarm of one task.
#[derive(Debug)]
pub struct Alarm {
    runtime: Rc<Runtime>,
    token: Token,
}

impl Alarm {
    /// An alarm on this loop.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn new(runtime: &Rc<Runtime>) -> io::Result<Self> {
        let token = runtime.driver().attach(timer_fd::create()?);
        let this = Self { runtime: Rc::clone(runtime), token };
        // Unknown counts as ready; a fresh timer is known not to be.
        this.runtime.driver().expect_not_readable(token);
        Ok(this)
    }

    /// Ends `delay` after this call, give or take the kernel's own lateness; never before. At once when it is zero.
    ///
    /// # Errors
    /// None expected: the descriptor is a timer.
    pub async fn after(&self, delay: Duration) -> io::Result<()> {
        if delay.is_zero() {
            return Ok(());
        }
        self.runtime.driver().with_fd(self.token, |timer| timer_fd::set(timer, delay))?;
        loop {
            poll_fn(|context| self.runtime.driver().readable(self.token, context)).await?;
            // A report may be an earlier setting's, given up before its time: only the count says that time has passed.
            let rang = |timer: &OwnedFd| match rustix::io::read(timer.as_fd(), &mut [0u8; 8]) {
                Ok(_) => Ok(true),
                Err(rustix::io::Errno::AGAIN) => Ok(false),
                Err(error) => Err(error.into()),
            };
            if self.runtime.driver().with_fd(self.token, rang)? {
                return Ok(());
            }
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.runtime.driver().close(self.token);
    }
}
