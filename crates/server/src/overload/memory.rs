//! How much of its memory the process uses: resident pages that are its own, against the least of what may limit it.
//!
//! The limit is the cgroup's `memory.max` (cgroup v2, Documentation/admin-guide/cgroup-v2.rst) or the machine's memory. Files of
//! /proc are made in memory when they are read: about 10 us, once a second.

use amped_runtime::process::machine_file;

/// What may be used, found out once.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    limit: u64,
}

impl Memory {
    /// Finds the limit; without one the pressure is none.
    pub fn new() -> Self {
        let machine = machine_file("/proc/meminfo").and_then(|text| total(&text)).unwrap_or(u64::MAX);
        let group = machine_file("/proc/self/cgroup").and_then(|text| of_group(&text)).unwrap_or(u64::MAX);
        Self { limit: machine.min(group).max(1) }
    }

    /// The part of the limit that is in use, from 0 to 1.
    pub fn pressure(&self) -> f32 {
        self.used() as f32 / self.limit as f32
    }

    /// Bytes in use; 0 where the system does not say.
    pub fn used(&self) -> u64 {
        machine_file("/proc/self/statm").and_then(|text| own_pages(&text)).map_or(0, |pages| pages * PAGE)
    }

    /// Bytes that may be used, if the system says.
    pub fn limit(&self) -> Option<u64> {
        (self.limit < u64::MAX).then_some(self.limit)
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// `MemTotal:       24689936 kB` in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

/// The smallest `memory.max` on the way from the process's group up to the root.
fn of_group(cgroup: &str) -> Option<u64> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?.trim_matches('/');
    let limits =
        path.rmatch_indices('/').map(|(at, _)| &path[..at]).chain([path, ""]).filter_map(|group| {
            machine_file(&format!("/sys/fs/cgroup/{group}/memory.max"))?.trim().parse::<u64>().ok()
        });
    limits.min()
}

/// Resident pages that no file backs: the second number of statm less the third (proc_pid_statm(5)).
fn own_pages(statm: &str) -> Option<u64> {
    let mut numbers = statm.split(' ').skip(1).map(|number| number.parse::<u64>().ok());
    let (resident, shared) = (numbers.next()??, numbers.next()??);
    Some(resident.saturating_sub(shared))
}

/// Bytes of a page; where it is more, the pressure is underestimated and the limit on connections comes first.
const PAGE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(total("MemTotal:       24689936 kB\nMemFree: 1 kB\n"), Some(24_689_936 * 1024));
        assert_eq!(own_pages("5000 1200 200 30 0 400 0"), Some(1000));
        assert_eq!(total("nothing"), None);
        assert_eq!(own_pages("x"), None);
    }

    #[test]
    fn this_process_is_within_its_limit() {
        let pressure = Memory::new().pressure();
        assert!(pressure > 0.0 && pressure < 1.0, "{pressure}");
    }
}
