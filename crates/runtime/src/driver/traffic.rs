//! What io_uring has in flight for one descriptor, and what has come for it.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;

use super::buffer_ring::RingChunk;
use super::sending::Sending;
use super::source::{Flags, Source};

/// What the ring holds on behalf of one descriptor.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Operations in flight; the descriptor is closed when the last has completed.
    pub(super) operations: u8,
    /// A multishot receive or accept is armed.
    pub(super) armed: bool,
    /// A wait for writability is armed.
    pub(super) polling: bool,
    /// A wait for a reset is armed.
    pub(super) watching: bool,
    /// The error that ended the traffic, as errno; 0 for none.
    pub(super) error: i32,
    /// What arrived: nearly always nothing or one chunk, so the rest is boxed.
    pub(super) first: Option<RingChunk>,
    pub(super) rest: Option<Box<Rest>>,
    pub(super) sending: Option<Box<Sending>>,
}

impl Traffic {
    /// What a task that waits for it will receive next.
    pub(crate) fn arrived(&self) -> Option<&[u8]> {
        self.first.as_ref().map(RingChunk::bytes)
    }
}

/// What arrived while nobody waited for it.
#[derive(Debug, Default)]
pub(super) struct Rest {
    /// Copied out of the ring, so that a conversation that is busy with something else holds no shared buffer.
    pub(super) bytes: Vec<u8>,
    pub(super) connections: VecDeque<OwnedFd>,
}

/// A connection that was accepted before anybody asked for it.
pub(crate) fn accepted_before(source: &mut Source) -> Option<OwnedFd> {
    source.traffic.rest.as_mut().and_then(|rest| rest.connections.pop_front())
}

/// Something was reported to a look-out: a reset, or only the peer's end, which is not what it is for.
pub(super) fn watched(source: &mut Source, result: i32, is_final: bool) {
    source.traffic.watching = !is_final;
    if result > 0 && result & i32::from(libc::POLLERR | libc::POLLHUP) != 0 {
        source.flags.set(Flags::RESET);
        source.wake_both();
    } else if is_final {
        source.wake_reader();
    }
}

/// The error that ended the traffic, once.
pub(super) fn take_error(source: &mut Source) -> Option<io::Error> {
    match mem::take(&mut source.traffic.error) {
        0 => None,
        code => Some(io::Error::from_raw_os_error(code)),
    }
}
