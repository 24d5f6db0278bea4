//! A server with its supervisor, as an operator has it: reloaded, upgraded, asked for its state.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Pid;

use super::Lab;
use crate::bench::server::Running;

/// The text of a configuration: of its folder, its port, and how often it has been changed.
type Configuration = Box<dyn Fn(&Path, u16, usize) -> String>;

pub struct Supervised {
    pub running: Running,
    /// Its own folder: configuration, PID file, logs.
    pub folder: PathBuf,
    amped: PathBuf,
    configuration: Configuration,
}

/// What a process has.
pub struct Size {
    pub kilobytes: u64,
    pub descriptors: usize,
}

impl Supervised {
    /// Starts it when `prepare` has put into its folder what it needs there.
    ///
    /// # Errors
    /// It did not start.
    pub fn start(
        lab: &Lab,
        name: &str,
        configuration: Configuration,
        prepare: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let mut folder = PathBuf::new();
        let running = Running::launch(name, None, |run, port| {
            folder = run.into();
            prepare(run)?;
            fs::write(run.join("amped.toml"), configuration(run, port, 0))?;
            let mut command = Command::new(&lab.amped);
            command.arg("run").arg("-c").arg(run.join("amped.toml")).arg("--pid-file").arg(run.join("amped.pid"));
            Ok(command)
        })?;
        Ok(Self { running, folder, amped: lab.amped.clone(), configuration })
    }

    /// `amped WORD`, and what it prints.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn tell(&self, word: &str) -> Result<String> {
        let output =
            Command::new(&self.amped).arg(word).arg("--pid-file").arg(self.folder.join("amped.pid")).output()?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Error::other(format!("amped {word}: {}", String::from_utf8_lossy(&output.stderr).trim())))
    }

    /// Changes the configuration and has it read.
    ///
    /// # Errors
    /// As `tell`.
    pub fn reload(&self, round: usize) -> Result<()> {
        let text = (self.configuration)(&self.folder, self.running.port, round);
        fs::write(self.folder.join("amped.toml"), text)?;
        self.tell("reload").map(drop)
    }

    /// The process that serves.
    ///
    /// # Errors
    /// None does.
    pub fn server(&self) -> Result<Pid> {
        let status = self.tell("status")?;
        let ready = status.lines().find_map(|line| line.strip_prefix("server ")?.split_once(": ready"));
        let pid = ready.and_then(|(pid, _)| Pid::from_raw(pid.parse().ok()?));
        pid.ok_or_else(|| Error::other(format!("nobody serves: {status}")))
    }

    /// What the process that serves has.
    ///
    /// # Errors
    /// None does.
    pub fn size(&self) -> Result<Size> {
        Size::of(self.server()?.as_raw_pid() as u32)
    }
}

impl Size {
    /// # Errors
    /// There is no such process.
    pub fn of(pid: u32) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let resident =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
        Ok(Self { kilobytes: resident.unwrap_or(0), descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() })
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} KB resident, {} descriptors", self.kilobytes, self.descriptors)
    }
}
