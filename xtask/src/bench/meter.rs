//! What a server used: processor time and memory of all its processes and threads, from /proc.
//! Cost: one walk over /proc per reading, outside the measured interval's load.

use std::fs;
use std::io::Result;

/// A process and all its descendants.
pub struct Family {
    root: u32,
}

impl Family {
    pub fn of(root: u32) -> Self {
        Self { root }
    }

    /// Seconds of user and system time so far: every thread alive or gone, and the children already waited for.
    pub fn cpu_seconds(&self) -> f64 {
        let tick = 1.0 / rustix::param::clock_ticks_per_second() as f64;
        // To the nanosecond for the threads there are; whole ticks also know those that are gone.
        self.stats().iter().map(|stat| scheduled_seconds(stat.pid).max(stat.ticks as f64 * tick)).sum()
    }

    /// The sum of the processes' peaks of resident memory, in bytes. Shared pages count once per process.
    pub fn peak_bytes(&self) -> u64 {
        self.sum("status", "VmHWM:")
    }

    /// Memory now, in bytes, shared pages divided among their sharers.
    pub fn proportional_bytes(&self) -> u64 {
        self.sum("smaps_rollup", "Pss:")
    }

    /// Its processes.
    pub fn processes(&self) -> Vec<u32> {
        self.stats().iter().map(|stat| stat.pid).collect()
    }

    fn sum(&self, file: &str, field: &str) -> u64 {
        let kilobytes: u64 = self
            .stats()
            .iter()
            .filter_map(|stat| kilobytes(&fs::read_to_string(format!("/proc/{}/{file}", stat.pid)).ok()?, field))
            .sum();
        kilobytes * 1024
    }

    fn stats(&self) -> Vec<Stat> {
        let all = processes().unwrap_or_default();
        let mut family: Vec<Stat> = Vec::new();
        let mut wanted = vec![self.root];
        while let Some(pid) = wanted.pop() {
            family.extend(all.iter().copied().find(|stat| stat.pid == pid));
            wanted.extend(all.iter().filter(|stat| stat.parent == pid).map(|stat| stat.pid));
        }
        family
    }
}

/// What the scheduler has given to a process' threads, in seconds: proc(5), schedstat. 0 where the kernel does not tell.
fn scheduled_seconds(pid: u32) -> f64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    let nanoseconds = threads.flatten().filter_map(|thread| {
        let text = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// utime + stime of the thread group + cutime + cstime of the children waited for.
    ticks: u64,
}

fn processes() -> Result<Vec<Stat>> {
    let stats = fs::read_dir("/proc")?.flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        // A process may end between the listing and the reading.
        parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    });
    Ok(stats.collect())
}

/// proc_pid_stat(5). The name may hold spaces and brackets: fields are counted from its last bracket.
fn parse_stat(line: &str) -> Option<Stat> {
    let pid = line.split(' ').next()?.parse().ok()?;
    let fields: Vec<&str> = line[line.rfind(')')? + 2..].split(' ').collect();
    let ticks = fields.get(11..15)?.iter().map(|field| field.parse::<u64>().unwrap_or(0));
    Some(Stat { pid, parent: fields.get(1)?.parse().ok()?, ticks: ticks.sum() })
}

fn kilobytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_with_an_odd_name_is_read() {
        let line = "12 (a) b (c) S 7 12 12 0 -1 4194304 100 0 0 0 30 12 5 3 20 0 1 0 100 0 0";
        let stat = Stat { pid: 12, parent: 7, ticks: 50 };
        assert_eq!(parse_stat(line), Some(stat));
    }

    #[test]
    fn this_process_takes_time() {
        let family = Family::of(std::process::id());
        let before = family.cpu_seconds();
        let began = std::time::Instant::now();
        let mut used = 0.0;
        while used <= 0.0 && began.elapsed() < std::time::Duration::from_secs(2) {
            used = family.cpu_seconds() - before;
        }
        assert!(used > 0.0 && used < 2.0, "{used} s");
    }

    #[test]
    fn this_process_has_memory() {
        let family = Family::of(std::process::id());
        assert!(family.peak_bytes() > 100_000);
    }
}
