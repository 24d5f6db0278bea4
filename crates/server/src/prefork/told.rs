//! The signals that the parent of a pool obeys, and its one way to wait.
//!
//! A handler sets a flag and writes a byte to a socket, which poll(2) sees: whatever comes before the wait ends it at once.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use amped_runtime::process;
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::{SigId, flag, low_level};

/// What has been told and not been obeyed yet.
#[derive(Debug)]
pub struct Told {
    over: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    bytes: UnixStream,
    handlers: Vec<SigId>,
}

impl Told {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        let (bytes, write) = UnixStream::pair()?;
        bytes.set_nonblocking(true)?;
        let (over, reopen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut handlers = Vec::new();
        for (signal, flag) in [(SIGINT, &over), (SIGTERM, &over), (SIGUSR1, &reopen)] {
            handlers.push(flag::register(signal, Arc::clone(flag))?);
        }
        for signal in [SIGINT, SIGTERM, SIGUSR1, SIGCHLD] {
            handlers.push(low_level::pipe::register(signal, write.try_clone()?)?);
        }
        Ok(Self { over, reopen, bytes, handlers })
    }

    /// Whether the end has been called for.
    pub fn is_over(&self) -> bool {
        self.over.load(Relaxed)
    }

    /// Takes note of the call for the end, so that a second one is seen.
    pub fn forget(&self) {
        self.over.store(false, Relaxed);
    }

    /// Whether logs are to be opened anew; says so once.
    pub fn is_to_reopen(&self) -> bool {
        self.reopen.swap(false, Relaxed)
    }

    /// Waits for a signal or for `other` to be readable, at most `limit`; says whether `other` is.
    pub fn wait(&self, other: Option<BorrowedFd<'_>>, limit: Option<Duration>) -> bool {
        let other = match other {
            Some(other) => process::readable([self.bytes.as_fd(), other], limit).map(|[_, other]| other),
            None => process::readable([self.bytes.as_fd()], limit).map(|_| false),
        };
        while (&self.bytes).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        other.unwrap_or(false)
    }

    /// Stops listening: for a child, whose signals are not its parent's business.
    pub fn release(&self) {
        for handler in &self.handlers {
            low_level::unregister(*handler);
        }
    }
}
