//! Standard error, where the server speaks to people: never a reason to fail, and never one to wait.
//!
//! `eprintln!` panics once nobody holds the other end of a pipe (a log collector that was restarted), and waits for ever while
//! somebody holds it and does not read. Both would be the end of a thread that others depend on. So a line that a pipe, a socket or
//! a terminal would not take at once is lost. (Of two processes that fill the last of a pipe's room in the same instant one may
//! wait; a file may be on a disk that hangs: a service manager's pipe or socket is the better place.)

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Says a line on standard error, as `eprintln!` does, unless nobody takes it.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::say_line(::std::format_args!($($words)*)) };
}

/// What `say!` does.
pub fn say_line(words: fmt::Arguments<'_>) {
    // In one piece, so that lines of several processes and threads do not run into each other.
    write(rustix::stdio::stderr(), format!("{words}\n").as_bytes());
}

/// Writes while it can be done at once; what is left then is lost.
fn write(to: BorrowedFd<'_>, bytes: &[u8]) {
    // poll(2) says that a pipe is writable when it has room for this much (pipe(7)).
    for mut piece in bytes.chunks(rustix::pipe::PIPE_BUF) {
        while !piece.is_empty() {
            let mut ready = [PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT)];
            if poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) != Ok(1) {
                return;
            }
            match rustix::io::write(to, piece) {
                Ok(written) => piece = &piece[written..],
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn a_line_is_written_whole_or_not_at_all() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let line = [b'x'; 4000];
        for _ in 0..100 {
            // Nobody reads: this would not come back if it waited.
            write(writer.as_fd(), &line);
        }
        drop(writer);
        let mut read = Vec::new();
        reader.read_to_end(&mut read).expect("what was written");
        assert!(read.len() >= 4000 && read.len() % 4000 == 0, "{} bytes", read.len());
    }

    #[test]
    fn without_a_reader_nothing_happens() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        write(writer.as_fd(), b"a line\n");
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device of every Linux");
        write(full.as_fd(), b"a line\n");
    }
}
