//! Processes: fork while there is one thread, signals to children, what became of them.
//!
//! For a parent that has no loop and starts no thread: fork(2) copies the calling thread alone, and whatever lock another one
//! held would stay locked in the child for ever (pthread_atfork(3) tells why nothing helps). So `fork` counts the threads first.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, WaitOptions, kill_process, waitpid};

pub use rustix::process::Signal;

/// A child process that has not been reaped.
#[derive(Debug, PartialEq, Eq)]
pub struct Child(Pid);

/// Copies this process. Returns twice: in the parent with the child, in the child with `None`.
///
/// # Errors
/// EAGAIN and ENOMEM of fork(2); `Unsupported` when the process has several threads, or /proc is not there to count them.
pub fn fork() -> io::Result<Option<Child>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "only a process with one thread can be copied"));
    }
    // SAFETY: this is the only thread and it is in no call of the library but this, so the child finds no lock held and may go
    // on as any process.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        // A negative number is an error, and no process has it as its own.
        pid => Pid::from_raw(pid.max(0)).map(|pid| Some(Child(pid))).ok_or_else(io::Error::last_os_error),
    }
}

/// What the machine says of itself in a file that is made when it is read (proc(5), cgroups(7)).
pub fn machine_file(path: &str) -> Option<String> {
    simulated!(|world| world.machine_file(path));
    std::fs::read_to_string(path).ok()
}

/// A number that nobody outside can foresee, for the seeds of tables.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    simulated!(|world| world.seed());
    RandomState::new().hash_one(0)
}

impl Child {
    /// Its number.
    pub fn id(&self) -> i32 {
        self.0.as_raw_pid()
    }

    /// Sends it a signal. One that has ended does not mind: its number is its own until it is reaped.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.0, signal);
    }
}

/// A child that has ended, and how in words; `None` when none has. Must not be called where others wait for their children.
pub fn reap() -> Option<(i32, String)> {
    let (pid, status) = waitpid(None, WaitOptions::NOHANG).ok()??;
    let how = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (_, Some(signal)) => format!("signal {signal}"),
        _ => "unknown".to_owned(),
    };
    Some((pid.as_raw_pid(), how))
}

/// Waits until one of a few descriptors is readable, at most `limit`, and says which are. A signal ends it early.
///
/// # Errors
/// ENOMEM; nothing else is expected.
pub fn readable<const N: usize>(fds: [BorrowedFd<'_>; N], limit: Option<Duration>) -> io::Result<[bool; N]> {
    let mut entries = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let limit =
        limit.map(|limit| Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) });
    match poll(&mut entries, limit.as_ref()) {
        Ok(_) => Ok(entries.map(|entry| !entry.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok([false; N]),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_threads_is_not_copied() {
        // The thread that runs the tests is another one than this.
        assert_eq!(fork().expect_err("two threads").kind(), io::ErrorKind::Unsupported);
    }
}
