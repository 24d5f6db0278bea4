//! The supervisor: a small process that keeps the listening sockets and a server process behind them.
//!
//! ```text
//!   amped (supervisor): binds, keeps the sockets, watches, never serves
//!     │ spawns with a channel for standard input: the configuration's text and the sockets travel over it
//!     ▼
//!   amped (server): Starting ─► Ready ─► Draining ─► ended
//!                      │          ├─► Stuck ─► another one is started, and when it is Ready: Draining
//!                      └──────────┴─► ended: BackingOff ─► another one is started
//! ```
//!
//! The sockets are there whatever becomes of a server process, so a connection waits in the kernel's queue rather than being
//! refused. A reload goes into the running process where it can; else, as an upgrade, another process takes over and the old
//! one drains. The supervisor has one thread and one place where it waits; what it does on the way is short.

mod backoff;
mod child;
pub mod control;
mod ending;
mod message;
mod notify;
mod server;
mod supervisor;
mod takeover;

use std::fmt;
use std::io::IsTerminal;
use std::path::PathBuf;

use self::supervisor::Supervisor;
use crate::config::{self, Plan};
use crate::worker::confine;
use crate::worker::sockets::Sockets;

/// What is to be served, and in which manner.
#[derive(Debug)]
pub struct Mission {
    /// Where the plan comes from.
    pub source: Source,
    /// Whether this very process is to serve.
    pub alone: bool,
    /// Where to say which process this is; `None`: where it usually is, if that is free.
    pub pid_file: Option<PathBuf>,
}

/// Where a plan comes from, now and whenever it is asked for again.
#[derive(Clone, Debug)]
pub enum Source {
    /// The command line.
    Arguments(Box<Plan>),
    /// A file.
    File(PathBuf),
}

/// How serving ended badly.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be done.
    Failed(String),
    /// It was not asked for rightly.
    Usage(String),
    /// The server process ended with this code, and has said why.
    Ended(u8),
}

/// Serves until SIGTERM or SIGINT; a second one ends at once, whatever is being sent.
///
/// # Errors
/// What kept it from starting.
pub fn serve_until_told(mission: Mission) -> Result<(), Failure> {
    let role = std::env::var(VARIABLE).unwrap_or_default();
    if role == SERVER {
        return server::serve_supervised(&mission.source);
    }
    if role == SUPERVISOR {
        return takeover::resume(mission.source)?.run();
    }
    let (text, plan) = mission.source.read()?;
    if mission.alone {
        return server::serve_alone(&mission.source, plan);
    }
    Supervisor::new(mission, text, plan)?.run()
}

/// Binds what the plan asks for, and whether the service manager has done so already: then the plan asks for that.
fn bind(plan: &mut Plan) -> Result<(Sockets, bool), String> {
    let mut sockets = Sockets::default();
    let given = notify::given_sockets()?;
    let is_given = given.is_some();
    if let Some((given, addresses)) = given {
        (sockets, plan.listen) = (given, addresses);
    }
    sockets.add(sockets.missing(plan)?);
    sockets.keep(plan);
    Ok((sockets, is_given))
}

/// The terminal that this process was started at, if it was: its end comes as the signal that means a reload elsewhere.
#[derive(Debug)]
struct Terminal(bool);

impl Terminal {
    fn now() -> Self {
        Self(std::io::stderr().is_terminal())
    }

    fn is_gone(&self) -> bool {
        self.0 && !std::io::stderr().is_terminal()
    }
}

impl Source {
    /// The text as it is now, and what it means.
    fn read(&self) -> Result<(String, Plan), Failure> {
        let text = match self {
            Self::Arguments(_) => String::new(),
            Self::File(file) => config::read(file).map_err(|report| Failure::Usage(report.to_string()))?,
        };
        let plan = self.understand(&text)?;
        confine::check(&plan)?;
        Ok((text, plan))
    }

    /// What a text means that was read before.
    fn understand(&self, text: &str) -> Result<Plan, Failure> {
        match self {
            Self::Arguments(plan) => Ok((**plan).clone()),
            Self::File(file) => config::understand(text, file).map_err(|report| Failure::Usage(report.to_string())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Arguments(_) => formatter.write_str("the command line"),
            Self::File(file) => file.display().fmt(formatter),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(words) | Self::Usage(words) => formatter.write_str(words),
            Self::Ended(code) => write!(formatter, "exit code {code}"),
        }
    }
}

impl From<String> for Failure {
    fn from(words: String) -> Self {
        Self::Failed(words)
    }
}

/// Says to a process that `amped` starts what it is to be.
const VARIABLE: &str = "AMPED_ROLE";
const SERVER: &str = "server";
const SUPERVISOR: &str = "supervisor";
