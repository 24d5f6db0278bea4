//! The simulation's selector: the world reports what happens in it, by edges or once for each request, as its seed has it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use super::selector::Event;
use super::slots::Token;
use super::source::Flags;
use crate::sim;

/// What is reported how; the world keeps the rest.
#[derive(Debug)]
pub(crate) struct Sim {
    pub by_edge: bool,
}

impl Sim {
    pub(crate) fn new() -> io::Result<Self> {
        let alone = || io::Error::new(io::ErrorKind::Unsupported, "this thread is in no simulation");
        sim::ask(|world| Self { by_edge: world.reports_by_edge() }).ok_or_else(alone)
    }

    pub(crate) fn arm(&self, fd: BorrowedFd<'_>, token: Token, known: Flags, interest: Flags) -> io::Result<()> {
        sim::ask(|world| world.arm(fd.as_raw_fd(), token, interest, known.has(Flags::HANGUP)));
        Ok(())
    }

    pub(crate) fn deregister(&self, fd: RawFd) {
        sim::ask(|world| world.deregister(fd));
    }

    pub(crate) fn wait(&self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        sim::wait(timeout, events);
        Ok(())
    }
}
