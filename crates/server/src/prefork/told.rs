//! The signals that a parent of processes obeys, a pool's or the supervisor, and its one way to wait.
//!
//! A handler sets a flag and writes a byte to a socket, which poll(2) sees: whatever comes before the wait ends it at once.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use amped_runtime::process;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{SigId, flag, low_level};

/// What has been told and not been obeyed yet.
#[derive(Debug)]
pub struct Told {
    over: Arc<AtomicBool>,
    reopen: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    upgrade: Arc<AtomicBool>,
    bytes: UnixStream,
    handlers: Vec<SigId>,
}

impl Told {
    /// Listens from now on.
    pub fn listen() -> io::Result<Self> {
        let (bytes, write) = UnixStream::pair()?;
        bytes.set_nonblocking(true)?;
        let [over, reopen, reload, upgrade] = [const { false }; 4].map(|flag| Arc::new(AtomicBool::new(flag)));
        let mut handlers = Vec::new();
        let flags = [(SIGINT, &over), (SIGTERM, &over), (SIGUSR1, &reopen), (SIGHUP, &reload), (SIGUSR2, &upgrade)];
        for (signal, flag) in flags {
            handlers.push(flag::register(signal, Arc::clone(flag))?);
        }
        for signal in [SIGINT, SIGTERM, SIGUSR1, SIGHUP, SIGUSR2, SIGCHLD] {
            handlers.push(low_level::pipe::register(signal, write.try_clone()?)?);
        }
        Ok(Self { over, reopen, reload, upgrade, bytes, handlers })
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

    /// Whether the configuration is to be read anew; says so once.
    pub fn is_to_reload(&self) -> bool {
        self.reload.swap(false, Relaxed)
    }

    /// Whether the binary is to be executed anew; says so once.
    pub fn is_to_upgrade(&self) -> bool {
        self.upgrade.swap(false, Relaxed)
    }

    /// Sends this process again what it has been told and has not obeyed: for whoever listens next, while signals are held.
    pub fn raise_again(&self) {
        let flags = [(SIGTERM, &self.over), (SIGUSR1, &self.reopen), (SIGHUP, &self.reload), (SIGUSR2, &self.upgrade)];
        for (signal, flag) in flags {
            if flag.swap(false, Relaxed) {
                // It cannot fail for a signal that there is.
                let _ = low_level::raise(signal);
            }
        }
    }

    /// Waits for a signal or for one of `others` to be readable, at most `limit`; says which of them are.
    pub fn wait(&self, others: &[BorrowedFd<'_>], limit: Option<Duration>) -> Vec<bool> {
        let all: Vec<BorrowedFd<'_>> = [self.bytes.as_fd()].into_iter().chain(others.iter().copied()).collect();
        let ready = process::readable(&all, limit);
        while (&self.bytes).read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
        ready.map_or_else(|_| Vec::new(), |ready| ready[1..].to_vec())
    }

    /// Stops listening: for a child, whose signals are not its parent's business.
    pub fn release(&self) {
        for handler in &self.handlers {
            low_level::unregister(*handler);
        }
    }
}
