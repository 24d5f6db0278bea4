//! Standard error, where the server speaks to people: never a reason to fail, and never one to wait.
//!
//! `eprintln!` panics once nobody holds the other end of a pipe (a log collector that was restarted), and waits for ever while
//! somebody holds it and does not read. Both would be the end of a thread that others depend on. So a line that a pipe, a socket or
//! a terminal would not take at once is lost. (Of two processes that fill the last of a pipe's room in the same instant one may
//! wait; a file may be on a disk that hangs: a service manager's pipe or socket is the better place.)

use std::borrow::Cow;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How much a line matters, in the numbers of syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// It could not be done.
    Error = 3,
    /// Something is wrong, and the server goes on.
    Warning = 4,
    /// What happens.
    Information = 6,
}

/// Says a line on standard error, as `eprintln!` does, unless nobody takes it.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => { $crate::say_line($crate::Priority::Information, ::std::format_args!($($words)*)) };
}

/// `say!`, for what is wrong.
#[macro_export]
macro_rules! warn {
    ($($words:tt)*) => { $crate::say_line($crate::Priority::Warning, ::std::format_args!($($words)*)) };
}

/// What `say!` and `warn!` do.
pub fn say_line(priority: Priority, words: fmt::Arguments<'_>) {
    let words = format!("{words}\n");
    // In one piece, so that lines of several processes and threads do not run into each other.
    write(rustix::stdio::stderr(), priority.mark(&words).as_bytes());
}

impl Priority {
    /// The lines as whoever reads standard error wants them: systemd's journal takes their priority from a number before each
    /// (sd-daemon(3)), and says in JOURNAL_STREAM that it reads (systemd.exec(5)).
    pub fn mark(self, words: &str) -> Cow<'_, str> {
        static IS_JOURNAL: OnceLock<bool> = OnceLock::new();
        let is_journal = || {
            let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
            rustix::fs::fstat(rustix::stdio::stderr())
                .is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
        };
        // Without a mark a line is information.
        if self == Self::Information || !*IS_JOURNAL.get_or_init(is_journal) {
            return words.into();
        }
        self.before_each_line(words).into()
    }

    fn before_each_line(self, words: &str) -> String {
        words.split_inclusive('\n').map(|line| format!("<{}>{line}", self as u8)).collect()
    }
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
    fn each_line_has_its_priority() {
        assert_eq!(Priority::Warning.before_each_line("one\n  two\n"), "<4>one\n<4>  two\n");
        assert_eq!(Priority::Error.before_each_line("no end"), "<3>no end");
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
