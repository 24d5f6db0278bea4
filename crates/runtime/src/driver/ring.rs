//! The two queues of an io_uring, and how many operations the kernel holds; nothing here knows what they are.
//!
//! Set up with a single issuer and deferred task work, so completions appear only when the loop asks for them.

use std::fmt;
use std::io;
use std::time::Duration;

use io_uring::{IoUring, cqueue, squeue, types};

pub(super) struct Ring {
    ring: IoUring,
    /// Operations without a final completion.
    in_flight: usize,
}

impl fmt::Debug for Ring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ring").field("in_flight", &self.in_flight).finish_non_exhaustive()
    }
}

impl Ring {
    /// # Errors
    /// Whatever io_uring_setup(2) says.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_coop_taskrun()
            .setup_submit_all()
            .setup_cqsize(COMPLETIONS)
            .dontfork()
            .build(ENTRIES)?;
        Ok(Self { ring, in_flight: 0 })
    }

    /// For what is registered with it.
    pub(super) fn instance(&self) -> &IoUring {
        &self.ring
    }

    /// How many operations have not had their final completion.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Puts an entry into the submission queue, making room by a submission when it is full.
    ///
    /// # Safety
    /// Every pointer in the entry leads to memory that stays as it is until the final completion.
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise.
        if unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
            // SAFETY: as above.
            unsafe { self.ring.submission().push(entry) }
                .map_err(|_| io::Error::other("the submission queue is full"))?;
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Submits what was pushed, waits at most `timeout` (for ever when `None`) for completions, and adds what came to `reaped`.
    /// An interrupted wait is an empty one.
    pub(super) fn enter(&mut self, timeout: Option<Duration>, reaped: &mut Vec<cqueue::Entry>) -> io::Result<()> {
        let submitter = self.ring.submitter();
        let entered = match timeout {
            // With deferred task work completions appear only in a call that asks for events.
            Some(Duration::ZERO) => {
                let queued = {
                    // SAFETY: the loop's thread is the only user of the submission queue.
                    let mut queue = unsafe { self.ring.submission_shared() };
                    queue.sync();
                    queue.len() as u32
                };
                // SAFETY: no argument is passed.
                unsafe { submitter.enter::<libc::sigset_t>(queued, 0, ENTER_GETEVENTS, None) }
            }
            Some(timeout) => {
                let timespec = types::Timespec::from(timeout);
                submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(&timespec))
            }
            None => submitter.submit_and_wait(1),
        };
        match entered {
            Err(error)
                if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN)) =>
            {
                return Err(error);
            }
            _ => {}
        }
        let before = reaped.len();
        reaped.extend(self.ring.completion());
        self.in_flight -= reaped[before..].iter().filter(|completion| is_final(completion)).count();
        Ok(())
    }

    /// Cancels whatever is in flight; costs the square of its number.
    pub(super) fn cancel_all(&self) {
        let _ = self.ring.submitter().register_sync_cancel(None, types::CancelBuilder::any());
    }
}

/// Whether the operation has no further completion.
pub(super) fn is_final(completion: &cqueue::Entry) -> bool {
    !cqueue::more(completion.flags())
}

const ENTRIES: u32 = 512;
/// The kernel sizes its hash table of waiting operations, where a cancellation looks, by these (io_ring_ctx_alloc, io_uring.c).
const COMPLETIONS: u32 = 8192;
const ENTER_GETEVENTS: u32 = 1;
