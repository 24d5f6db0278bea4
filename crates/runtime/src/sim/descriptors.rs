//! The descriptors of a world: real ones, of empty files without a name (memfd_create(2)), and what each stands for.
//!
//! A number is used again once it is closed, and nobody tells the world of every close; the inode tells whether a descriptor is
//! still the one that was given out.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{MemfdFlags, fstat, memfd_create};

/// What a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    /// A listener.
    Listener,
    /// The server's end of a connection.
    Connection(usize),
    /// An open file or folder, by its inode.
    File(usize),
    /// The folder that is served.
    Root,
}

#[derive(Debug, Default)]
pub(super) struct Descriptors(BTreeMap<RawFd, (u64, Thing)>);

impl Descriptors {
    /// A descriptor for `thing`, and what had its number before and is closed; EMFILE when there are `limit` already.
    pub(super) fn give(&mut self, thing: Thing, limit: usize) -> io::Result<(OwnedFd, Option<Thing>)> {
        if self.0.len() >= limit {
            self.sweep();
            if self.0.len() >= limit {
                return Err(io::Error::from_raw_os_error(libc::EMFILE));
            }
        }
        let fd = memfd_create("simulated", MemfdFlags::CLOEXEC)?;
        let inode = fstat(&fd)?.st_ino;
        let before = self.0.insert(fd.as_raw_fd(), (inode, thing));
        Ok((fd, before.map(|(_, thing)| thing)))
    }

    /// What `fd`, which is open, stands for.
    pub(super) fn get(&self, fd: RawFd) -> Option<Thing> {
        self.0.get(&fd).map(|(_, thing)| *thing)
    }

    /// `fd` is about to be closed.
    pub(super) fn closed(&mut self, fd: RawFd) -> Option<Thing> {
        self.0.remove(&fd).map(|(_, thing)| thing)
    }

    /// Whether `fd` is closed, or another descriptor by now.
    pub(super) fn is_closed(&self, fd: RawFd) -> bool {
        // SAFETY: fstat(2) says EBADF to a number that is no descriptor; the borrow ends with the call.
        let stat = fstat(unsafe { BorrowedFd::borrow_raw(fd) });
        !self.0.get(&fd).is_some_and(|(inode, _)| stat.is_ok_and(|stat| stat.st_ino == *inode))
    }

    /// Forgets what was closed, and says what is open.
    pub(super) fn sweep(&mut self) -> Vec<Thing> {
        let closed: Vec<RawFd> = self.0.keys().copied().filter(|fd| self.is_closed(*fd)).collect();
        self.0.retain(|fd, _| !closed.contains(fd));
        self.0.values().map(|(_, thing)| *thing).collect()
    }
}
