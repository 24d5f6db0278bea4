//! A window of a large file as a helper brings it in: into the page cache, or into memory of our own.
//!
//! What the page cache holds of a remote file may be gone before it is sent: another client opens the file, and the kernel
//! forgets all it had read of it. Sending it from there would wait on the loop for the other machine. So a helper reads such a
//! file, and the loop sends what was read: a window of memory for each download instead of none.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use amped_runtime::SendQueue;
use amped_runtime::disk::{Held, Place, read_at};
use amped_runtime::net::Stream;

/// What a helper has brought in.
#[derive(Debug)]
pub enum Window {
    /// So many bytes are in the page cache.
    Warm(usize),
    /// The bytes themselves.
    Read(Arc<[u8]>),
}

/// A window in memory on its way to the client.
#[derive(Debug)]
pub struct Carried {
    /// The bytes' place in the file.
    start: u64,
    bytes: Arc<[u8]>,
    queue: SendQueue,
}

impl Window {
    /// Brings in `length` bytes from `start`, or as many as there are. Waits for the disk: for helpers.
    pub fn bring(file: &Held, start: u64, length: usize) -> io::Result<Self> {
        if file.place() != Place::Remote {
            return file.warm(start, length).map(Self::Warm);
        }
        let mut bytes = vec![0; length];
        let read = read_at(file, &mut bytes, start)?;
        bytes.truncate(read);
        Ok(Self::Read(bytes.into()))
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match self {
            Self::Warm(length) => *length,
            Self::Read(bytes) => bytes.len(),
        }
    }

    /// The window to be sent from memory, if it is there.
    pub fn carried(self, start: u64) -> Option<Carried> {
        match self {
            Self::Warm(_) => None,
            Self::Read(bytes) => Some(Carried { start, bytes, queue: SendQueue::default() }),
        }
    }
}

impl Carried {
    /// Sends at most `share` bytes from place `at` of the file, which is where the last call ended.
    pub fn poll_send(
        &mut self,
        stream: &Stream,
        at: u64,
        share: usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.queue.is_empty() {
            self.queue.clear();
            let from = (at - self.start) as usize;
            self.queue.share(&self.bytes, from..from + share);
        }
        let before = self.queue.len();
        let outcome = stream.poll_send(&mut self.queue, false, context);
        let sent = before - self.queue.len();
        match outcome {
            Poll::Pending if sent == 0 => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(sent)),
        }
    }
}
