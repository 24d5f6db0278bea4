//! The process's descriptors: how many there may be, and room for them.
//!
//! The kernel doubles the table of descriptors when it is full. In a process of several threads it then waits for an RCU grace
//! period (`expand_files`, `synchronize_rcu`): 10 to 30 ms asleep in an accept(2), measured as the longest turn of a loop
//! that never waited otherwise. So the table gets its final size at the start.

use std::io;
use std::os::fd::AsFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors this process may have open; the soft limit is raised to the hard one first.
pub fn descriptor_limit() -> usize {
    let limits = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limits.maximum, maximum: limits.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limits.maximum } else { limits.current };
    current.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Makes the table large enough for `count` descriptors, or for as many as are allowed: 8 bytes each, up to a million. It never
/// shrinks. Best before the first thread is started, since then nothing has to wait.
///
/// # Errors
/// EMFILE when that many are open already, ENOMEM.
pub fn make_room_for_descriptors(count: usize) -> io::Result<()> {
    let highest = count.min(descriptor_limit()).clamp(1, MOST) - 1;
    let any = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
    // A duplicate at the end of the table; dropped at once, the table stays.
    rustix::io::fcntl_dupfd_cloexec(any.as_fd(), i32::try_from(highest).unwrap_or(i32::MAX)).map(drop)?;
    Ok(())
}

/// The kernel's own limit (/proc/sys/fs/nr_open), unless an administrator has raised it.
const MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_gets_its_size_at_once() {
        let wanted = descriptor_limit().min(5000);
        make_room_for_descriptors(wanted).expect("room");
        let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).expect("a line FDSize");
        assert!(size.trim().parse::<usize>().expect("a number") >= wanted, "{size} for {wanted}");
    }
}
