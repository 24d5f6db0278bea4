//! Messages and descriptors between a process and its child.
//!
//! A pair of SOCK_SEQPACKET sockets (unix(7)): a message arrives whole, descriptors travel with it (SCM_RIGHTS), and the end of
//! one side is the end of the other's reading. The child's side is its standard input, which survives an exec and needs no
//! number to be told.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// One side of it.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A message and the descriptors that came with it.
pub type Received = (Vec<u8>, Vec<OwnedFd>);

impl Channel {
    /// Both sides.
    ///
    /// # Errors
    /// EMFILE, ENFILE, ENOMEM.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), Self(other)))
    }

    /// The side that this process was given as its standard input, which from now on is empty.
    ///
    /// # Errors
    /// `InvalidInput` when standard input is something else; EMFILE.
    pub fn from_stdin() -> io::Result<Self> {
        let stdin = rustix::stdio::stdin();
        if rustix::net::sockopt::socket_type(stdin)? != SocketType::SEQPACKET {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let this = Self(rustix::io::fcntl_dupfd_cloexec(stdin, 3)?);
        let nothing = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdin(&nothing)?;
        Ok(this)
    }

    /// Makes this side the standard input of whatever this process executes next.
    ///
    /// # Errors
    /// None expected.
    pub fn become_stdin(&self) -> io::Result<()> {
        Ok(rustix::stdio::dup2_stdin(&self.0)?)
    }

    /// From now on neither side of a call waits: for a process that has others to look after.
    ///
    /// # Errors
    /// None expected.
    pub fn never_wait(&self) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.0, true)?)
    }

    /// Sends a message of at most `MAX_MESSAGE` bytes with at most `MAX_DESCRIPTORS` descriptors.
    ///
    /// # Errors
    /// EPIPE when the other side is gone; `WouldBlock` when it does not read; ETOOMANYREFS beyond RLIMIT_NOFILE.
    pub fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        loop {
            match sendmsg(&self.0, &[IoSlice::new(message)], &mut ancillary, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => return sent.map(drop).map_err(io::Error::from),
            }
        }
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// `WouldBlock` when there is none and this side never waits; `InvalidData` when it was longer than `MAX_MESSAGE`, or its
    /// descriptors did not fit into this process's table.
    pub fn receive(&self) -> io::Result<Option<Received>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                // A peer that was killed with messages unread.
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                received => break received?,
            }
        };
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                descriptors.extend(more);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        bytes.truncate(received.bytes);
        Ok(Some((bytes, descriptors)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

/// A file in memory alone with these bytes, to be sent where a message would be too long (memfd_create(2)).
///
/// # Errors
/// EMFILE, ENOMEM.
pub fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::from(memfd_create("amped", MemfdFlags::CLOEXEC)?);
    // The descriptor's own place in the file stays at its beginning, for whoever reads it.
    file.write_all_at(bytes, 0)?;
    Ok(file.into())
}

/// What a message may hold: well below the least send buffer that Linux gives.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// SCM_MAX_FD of unix(7).
pub const MAX_DESCRIPTORS: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn messages_arrive_whole_and_with_their_descriptors() {
        let (one, other) = Channel::pair().expect("two sockets");
        let file = memory_file(b"a plan").expect("memory");
        one.send(b"first", &[file.as_fd(), file.as_fd()]).expect("room");
        one.send(b"second", &[]).expect("room");
        let (message, mut files) = other.receive().expect("open").expect("a message");
        assert_eq!((message.as_slice(), files.len()), (&b"first"[..], 2));
        let mut text = String::new();
        std::fs::File::from(files.remove(0)).read_to_string(&mut text).expect("a file");
        assert_eq!(text, "a plan");
        assert_eq!(other.receive().expect("open").expect("a message").0, b"second");
        other.never_wait().expect("a socket");
        assert_eq!(other.receive().expect_err("nothing there").kind(), io::ErrorKind::WouldBlock);
        drop(one);
        assert!(other.receive().expect("an end is no error").is_none());
    }
}
