//! A posted send of io_uring: its queue, and the header and vectors that the kernel reads until the final completion.
//!
//! One allocation a send in flight, reused; the submission's pointers lead into it, so it is boxed and not touched meanwhile.

use std::mem;

use io_uring::{opcode, squeue, types};

use crate::buffer::SendQueue;
use crate::net::socket;

/// A posted send. Boxed, because the kernel reads the header and the vectors until the final completion.
pub(crate) struct Sending {
    /// What is left to send.
    pub(crate) queue: SendQueue,
    header: libc::msghdr,
    vectors: Vec<libc::iovec>,
    /// MSG_NOSIGNAL, perhaps MSG_MORE. The descriptor stays open because its source is kept until the last completion.
    pub(crate) flags: i32,
}

impl std::fmt::Debug for Sending {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sending").field("bytes", &self.queue.len()).finish_non_exhaustive()
    }
}

impl Default for Sending {
    fn default() -> Self {
        // SAFETY: an all-zero msghdr is a valid empty one.
        let header = unsafe { mem::zeroed() };
        Self { queue: SendQueue::default(), header, vectors: Vec::new(), flags: 0 }
    }
}

impl Sending {
    /// The submission for what the queue still holds. Its pointers lead into `self`, which is boxed and not touched until the
    /// completion.
    pub(crate) fn entry(&mut self, fd: types::Fd) -> squeue::Entry {
        if let Some(bytes) = self.queue.single() {
            let length = u32::try_from(bytes.len()).unwrap_or(MAX_SEND);
            return opcode::Send::new(fd, bytes.as_ptr(), length).flags(self.flags).build();
        }
        self.vectors.clear();
        self.vectors.extend(
            self.queue
                .slices(socket::MAX_VECTORS)
                .map(|bytes| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }),
        );
        self.header.msg_iov = self.vectors.as_mut_ptr();
        self.header.msg_iovlen = self.vectors.len();
        opcode::SendMsg::new(fd, &raw const self.header).flags(self.flags as u32).build()
    }
}

/// More than any send takes at once; the rest follows.
const MAX_SEND: u32 = 1 << 30;
