//! How much of its memory the process uses: resident pages that are its own, against the least of what may limit it.
//!
//! The limit is the control group's or the machine's memory (`memory_limit`). Files of /proc are made in memory when they are read: about
//! 10 us, once a second.

use amped_runtime::process::{machine_file, memory_limit};

/// What may be used, found out once.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    limit: u64,
}

impl Memory {
    /// Finds the limit; without one the pressure is none.
    pub fn new() -> Self {
        Self { limit: memory_limit().unwrap_or(u64::MAX).max(1) }
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
        assert_eq!(own_pages("5000 1200 200 30 0 400 0"), Some(1000));
        assert_eq!(own_pages("x"), None);
    }

    #[test]
    fn this_process_is_within_its_limit() {
        let pressure = Memory::new().pressure();
        assert!(pressure > 0.0 && pressure < 1.0, "{pressure}");
    }
}
