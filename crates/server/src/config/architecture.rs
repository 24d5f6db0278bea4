//! An architecture and what goes with it: which driver, where the disk is waited for, how many loops, threads or processes.
//!
//! Goal: the command line and the file settle the same wishes in the same way, and refuse what cannot be together in the same
//! words. The table stands in docs/architectures.md.

use super::choice::{Architecture, DiskMode, DriverChoice};

/// What was asked for; what was not is `None`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// The architecture.
    pub architecture: Option<Architecture>,
    /// The driver.
    pub driver: Option<DriverChoice>,
    /// The disk mode.
    pub disk: Option<DiskMode>,
    /// Loops, threads or processes.
    pub workers: Option<usize>,
}

/// What was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// The architecture.
    pub architecture: Architecture,
    /// A driver that suits it.
    pub driver: DriverChoice,
    /// A disk mode that suits it.
    pub disk: DiskMode,
    /// Loops, threads or processes; at least 1.
    pub workers: usize,
}

/// Two wishes that cannot both be fulfilled.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The one to change, beside the architecture.
    pub with: With,
    /// What is wrong, a colon, what to do.
    pub sentence: String,
}

/// What an architecture can be in conflict with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum With {
    /// The driver.
    Driver,
    /// The disk mode.
    Disk,
    /// The number of workers.
    Workers,
}

impl Wish {
    /// Fills in what was not asked for.
    ///
    /// # Errors
    /// The first conflict.
    pub fn settle(self) -> Result<Shape, Conflict> {
        use Architecture::{Amped, Mp, Mt, Sped, Symped};
        let workers = self.workers.unwrap_or_else(default_workers);
        let (driver, disk) = (self.driver.unwrap_or_default(), self.disk.unwrap_or_default());
        let architecture = match self.architecture {
            Some(architecture) => architecture,
            None if driver == DriverChoice::Blocking => Mt,
            None => {
                let architecture = match (workers, disk) {
                    (1, DiskMode::Inline) => Sped,
                    (1, _) => Amped,
                    _ => Symped,
                };
                return Ok(Shape { architecture, driver, disk, workers });
            }
        };
        let clash = |with, what: String, instead| {
            let name = architecture.name();
            Err(Conflict { with, sentence: format!("architecture `{name}` and {what} do not go together: {instead}") })
        };
        if matches!(architecture, Mt | Mp) {
            if !matches!(driver, DriverChoice::Auto | DriverChoice::Blocking) {
                let instead = "it serves with blocking calls, leave the driver out";
                return clash(With::Driver, format!("driver `{}`", driver.name()), instead);
            }
            if self.disk.is_some_and(|disk| disk != DiskMode::Inline) {
                let instead = "whoever serves waits for the disk itself, leave the disk mode out";
                return clash(With::Disk, format!("disk `{}`", disk.name()), instead);
            }
            let workers = self.workers.unwrap_or(DEFAULT_POOL);
            return Ok(Shape { architecture, driver: DriverChoice::Blocking, disk: DiskMode::Inline, workers });
        }
        if driver == DriverChoice::Blocking {
            let instead = "an event loop needs another driver, or take architecture `mt` or `mp`";
            return clash(With::Driver, "driver `blocking`".into(), instead);
        }
        if architecture != Symped && self.workers.is_some_and(|workers| workers > 1) {
            return clash(With::Workers, format!("{workers} workers"), "it is one loop, `symped` is several");
        }
        match (architecture, self.disk) {
            (Sped, Some(DiskMode::Amped | DiskMode::Helpers)) => {
                clash(With::Disk, format!("disk `{}`", disk.name()), "its loop waits for the disk, `amped` has helpers")
            }
            (Amped, Some(DiskMode::Inline)) => {
                clash(With::Disk, "disk `inline`".into(), "its helpers wait for the disk, `sped` waits inline")
            }
            (Sped, _) => Ok(Shape { architecture, driver, disk: DiskMode::Inline, workers: 1 }),
            (Amped, _) => Ok(Shape { architecture, driver, disk, workers: 1 }),
            _ => Ok(Shape { architecture, driver, disk, workers }),
        }
    }
}

/// Cores this process may use: the affinity mask and the cgroup's quota count.
fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Threads or processes that serve a connection each. As many requests may wait at the disk at one time, which fills the queue of
/// any one disk; more would mostly hold idle keep-alive connections, which is what the other architectures are for.
const DEFAULT_POOL: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(architecture: Architecture) -> Wish {
        Wish { architecture: Some(architecture), ..Wish::default() }
    }

    #[test]
    fn without_a_wish_the_workers_decide() {
        let name = |workers, disk| Wish { workers, disk, ..Wish::default() }.settle().unwrap().architecture;
        assert_eq!(name(Some(1), None), Architecture::Amped);
        assert_eq!(name(Some(2), None), Architecture::Symped);
        assert_eq!(name(Some(1), Some(DiskMode::Inline)), Architecture::Sped);
        assert_eq!(name(Some(1), Some(DiskMode::Helpers)), Architecture::Amped);
        let blocking = Wish { driver: Some(DriverChoice::Blocking), ..Wish::default() }.settle().unwrap();
        assert_eq!(blocking, wish(Architecture::Mt).settle().unwrap());
    }

    #[test]
    fn an_architecture_brings_what_goes_with_it() {
        for (architecture, driver, disk, workers) in [
            (Architecture::Amped, DriverChoice::Auto, DiskMode::Amped, 1),
            (Architecture::Symped, DriverChoice::Auto, DiskMode::Amped, default_workers()),
            (Architecture::Sped, DriverChoice::Auto, DiskMode::Inline, 1),
            (Architecture::Mt, DriverChoice::Blocking, DiskMode::Inline, 64),
            (Architecture::Mp, DriverChoice::Blocking, DiskMode::Inline, 64),
        ] {
            assert_eq!(wish(architecture).settle(), Ok(Shape { architecture, driver, disk, workers }));
        }
        let explicit = Wish {
            driver: Some(DriverChoice::Blocking),
            disk: Some(DiskMode::Inline),
            workers: Some(3),
            ..wish(Architecture::Mp)
        };
        assert_eq!(explicit.settle().unwrap().workers, 3);
    }

    #[test]
    fn what_does_not_go_together_is_named() {
        use Architecture::{Amped, Mp, Mt, Sped, Symped};
        let with = |architecture, driver, disk, workers| {
            let conflict = Wish { architecture: Some(architecture), driver, disk, workers }.settle().unwrap_err();
            assert!(conflict.sentence.contains(&format!("`{}`", architecture.name())), "{}", conflict.sentence);
            conflict.with
        };
        assert_eq!(with(Mt, Some(DriverChoice::Poll), None, None), With::Driver);
        assert_eq!(with(Mp, Some(DriverChoice::Uring), None, None), With::Driver);
        assert_eq!(with(Mt, None, Some(DiskMode::Helpers), None), With::Disk);
        assert_eq!(with(Mp, None, Some(DiskMode::Amped), None), With::Disk);
        assert_eq!(with(Sped, None, Some(DiskMode::Helpers), None), With::Disk);
        assert_eq!(with(Amped, None, Some(DiskMode::Inline), None), With::Disk);
        assert_eq!(with(Amped, None, None, Some(2)), With::Workers);
        assert_eq!(with(Sped, None, None, Some(2)), With::Workers);
        assert_eq!(with(Symped, Some(DriverChoice::Blocking), None, None), With::Driver);
    }
}
