//! How server processes end, in an operator's words.

use std::fs;

use amped_runtime::process::End;

/// Tells one that the kernel may have killed for want of memory from one that somebody else has.
#[derive(Debug)]
pub struct Endings {
    /// Processes that the kernel has killed for want of memory, when the newest server process was started.
    kills: u64,
}

impl Endings {
    /// Asks the kernel what has been before.
    pub fn new() -> Self {
        Self { kills: kills() }
    }

    /// A server process is about to be started.
    pub fn starts(&mut self) {
        self.kills = kills();
    }

    /// How a process that has just ended did so.
    pub fn words(&self, end: End) -> String {
        let End::Signal(number) = end else { return end.to_string() };
        let name = signal_hook::low_level::signal_name(number).unwrap_or("unknown");
        // It does not say whom: dmesg(1) does.
        let may_be_memory = number == signal_hook::consts::SIGKILL && kills() > self.kills;
        let why = if may_be_memory { ", perhaps for want of memory" } else { "" };
        format!("killed by {name} (signal {number}{why})")
    }
}

/// proc_vmstat(5), of the whole machine and its control groups; 0 where it does not tell.
fn kills() -> u64 {
    read_kills(&fs::read_to_string("/proc/vmstat").unwrap_or_default())
}

fn read_kills(text: &str) -> u64 {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_often_it_killed() {
        assert_eq!(read_kills("pgfault 7\noom_kill 12\ndrop_pagecache 0\n"), 12);
        assert_eq!(read_kills("pgfault 7\n"), 0);
    }

    #[test]
    fn want_of_memory_is_said_where_the_kernel_has_counted_it() {
        let killed = End::Signal(signal_hook::consts::SIGKILL);
        let mut endings = Endings { kills: u64::MAX };
        assert_eq!(endings.words(killed), "killed by SIGKILL (signal 9)");
        assert_eq!(endings.words(End::Signal(11)), "killed by SIGSEGV (signal 11)");
        if kills() > 0 {
            endings.kills = 0;
            assert_eq!(endings.words(killed), "killed by SIGKILL (signal 9, perhaps for want of memory)");
        }
    }
}
