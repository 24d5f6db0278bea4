//! Processes: children forked or executed, signals to them, what became of them, descriptors they were born with, threads they
//! cannot do without.
//!
//! `fork` is for a parent that has no loop and starts no thread: fork(2) copies the calling thread alone, and whatever lock another one
//! held would stay locked in the child for ever (pthread_atfork(3) tells why nothing helps). So `fork` counts the threads first.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::thread::JoinHandle;
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

/// Bytes of memory that this process may use: the machine's, or what a control group allows it (`memory.max` of version 2,
/// `memory.limit_in_bytes` of version 1); `None` where the system does not say.
pub fn memory_limit() -> Option<u64> {
    let machine = machine_file("/proc/meminfo").and_then(|text| total(&text));
    let groups = machine_file("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(least_of_groups).chain(machine).min()
}

/// `MemTotal:       24689936 kB` in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The smallest limit on the way from a group up to the root; the line is one of /proc/self/cgroup. In a container the path may be one
/// that only the outside knows, and the root is the container's own group.
fn least_of_groups(line: &str) -> Option<u64> {
    let (folder, path, file) = memory_group(line)?;
    let above = path.rmatch_indices('/').map(|(at, _)| &path[..at]);
    let limits = above.chain([path, ""]).filter_map(|group| {
        machine_file(&format!("{folder}/{group}/{file}"))?.trim().parse().ok().filter(|limit| *limit < UNLIMITED)
    });
    limits.min()
}

/// Where the groups are that limit memory, the group's path, and its file that says how much; `None` for a line of another controller.
fn memory_group(line: &str) -> Option<(&'static str, &str, &'static str)> {
    let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
    let (folder, file) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max"),
        _ if controllers.split(',').any(|one| one == "memory") => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        _ => return None,
    };
    Some((folder, path.trim_matches('/'), file))
}

/// Version 1 says that there is no limit by the largest one there could be.
const UNLIMITED: u64 = 1 << 60;

/// A number that nobody outside can foresee, for the seeds of tables.
pub fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    simulated!(|world| world.seed());
    RandomState::new().hash_one(0)
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By itself, with this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// In a way that waitpid(2) does not know.
    Unknown,
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
            Self::Unknown => formatter.write_str("unknown"),
        }
    }
}

/// Executes a program as a child.
///
/// # Errors
/// ENOENT, EACCES and whatever else execve(2) says.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    // Whoever drops the library's handle lets the process run on; it is reaped by number.
    let child = command.spawn()?;
    Ok(Child(Pid::from_child(&child)))
}

/// Has this process told by a signal when its parent ends. The signal comes at once if the parent has ended already.
///
/// # Errors
/// None expected.
pub fn outlive_no_parent(signal: Signal) -> io::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(signal))?;
    if rustix::process::getppid() != parent {
        kill_process(rustix::process::getpid(), signal)?;
    }
    Ok(())
}

/// Names this thread, and with it the process if it is the first: what ps(1) and top(1) show.
pub fn set_name(name: &std::ffi::CStr) {
    // A name that does not fit is cut off; nothing else can go wrong.
    let _ = rustix::thread::set_name(name);
}

/// Locks a file for this process and its children, until the last of them has closed it; false when another has it (flock(2)).
///
/// # Errors
/// ENOLCK, and file systems that cannot.
pub fn lock(file: &std::fs::File) -> io::Result<bool> {
    match rustix::fs::flock(file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// CLOCK_MONOTONIC, which has the same beginning for all processes of a machine.
pub fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Keeps this thread's signals waiting, or lets them come: a process that executes another program loses its handlers, but not
/// what waits (execve(2)).
pub fn hold_signals(hold: bool) {
    // SAFETY: the set is made before it is used and belongs to this call; only this thread's mask changes.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::pthread_sigmask(if hold { libc::SIG_BLOCK } else { libc::SIG_UNBLOCK }, &set, std::ptr::null_mut());
    }
}

/// The descriptors `first` to `first + count - 1`, which whoever started this process left for it; those that are not open are
/// left out. They are closed on exec from now on.
pub fn inherited(first: RawFd, count: usize) -> Vec<OwnedFd> {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    static TAKEN: AtomicBool = AtomicBool::new(false);
    if TAKEN.swap(true, Relaxed) {
        return Vec::new();
    }
    let wanted = (first.max(3)..).take(count);
    let is_open = |fd: &RawFd| {
        // SAFETY: no pointers involved, and a number that is not open is an error.
        unsafe { libc::fcntl(*fd, libc::F_SETFD, libc::FD_CLOEXEC) == 0 }
    };
    // SAFETY: they are open, they were there before this process began (sd_listen_fds(3)), and they are taken once.
    wanted.filter(is_open).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

impl Child {
    /// The child with this number, which this process started before it executed itself anew; `None` for an impossible one.
    pub fn known(id: i32) -> Option<Self> {
        Pid::from_raw(id.max(0)).map(Self)
    }

    /// Its number.
    pub fn id(&self) -> i32 {
        self.0.as_raw_pid()
    }

    /// Sends it a signal. One that has ended does not mind: its number is its own until it is reaped.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(self.0, signal);
    }
}

/// A child that has ended, and how; `None` when none has. Must not be called where others wait for their children.
pub fn reap() -> Option<(i32, End)> {
    let (pid, status) = waitpid(None, WaitOptions::NOHANG).ok()??;
    let how = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => End::Code(code),
        (_, Some(signal)) => End::Signal(signal),
        _ => End::Unknown,
    };
    Some((pid.as_raw_pid(), how))
}

/// Waits until one of a few descriptors is readable, at most `limit`, and says which are. A signal ends it early.
///
/// # Errors
/// ENOMEM; nothing else is expected.
pub fn readable(fds: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut entries: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let limit =
        limit.map(|limit| Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: i64::from(limit.subsec_nanos()) });
    match poll(&mut entries, limit.as_ref()) {
        Ok(_) => Ok(entries.iter().map(|entry| !entry.revents().is_empty()).collect()),
        Err(rustix::io::Errno::INTR) => Ok(vec![false; fds.len()]),
        Err(error) => Err(error.into()),
    }
}

/// Starts a thread that the process cannot do without. Should it panic, the process ends: half a server that nobody replaces is
/// worse than one that is started anew.
///
/// # Errors
/// No thread can be started.
pub fn vital_thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let named = name.to_owned();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            give_up(&format!("the thread {named} panicked"));
        }
    })
}

/// Ends the process, since it lacks something that it cannot do without. By SIGABRT, so that whoever started it knows.
pub fn give_up(why: &str) -> ! {
    crate::warn!("amped: {why}, so this process ends");
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_says_how_much_memory_it_has() {
        assert_eq!(total("MemTotal:       24689936 kB\nMemFree: 1 kB\n"), Some(24_689_936 * 1024));
        assert_eq!(total("nothing"), None);
        let all = total(&machine_file("/proc/meminfo").unwrap()).unwrap();
        assert!(memory_limit().is_some_and(|limit| limit > 0 && limit <= all));
    }

    #[test]
    fn a_group_of_either_version_is_found() {
        let of = |line| memory_group(line);
        assert_eq!(of("0::/a/b"), Some(("/sys/fs/cgroup", "a/b", "memory.max")));
        assert_eq!(of("4:memory:/"), Some(("/sys/fs/cgroup/memory", "", "memory.limit_in_bytes")));
        assert_eq!(of("4:cpu,memory:/a"), Some(("/sys/fs/cgroup/memory", "a", "memory.limit_in_bytes")));
        assert_eq!(of("9:name=systemd:/"), None);
        assert_eq!(of("nothing"), None);
    }

    #[test]
    fn a_process_with_threads_is_not_copied() {
        // The thread that runs the tests is another one than this.
        assert_eq!(fork().expect_err("two threads").kind(), io::ErrorKind::Unsupported);
    }
}
