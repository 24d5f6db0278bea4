//! `amped run`: what a configuration file says, until a signal says otherwise.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::supervise::{self, Mission, Source};

/// Serve what a configuration file says.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "amped.toml")]
    config: PathBuf,
    #[command(flatten)]
    manner: Manner,
}

/// How a server process is kept: the same for every command that serves.
#[derive(Debug, Args)]
pub struct Manner {
    /// Where to write the number of this process; `amped reload`, `upgrade`, `stop` and `status` find it there
    /// [default: amped.pid in $XDG_RUNTIME_DIR or /run, if no other server has it]
    #[arg(long, value_name = "PATH", conflicts_with = "no_supervisor")]
    pid_file: Option<PathBuf>,
    /// Serve in this very process, as containers expect it: nobody replaces it when it fails, and it cannot be upgraded
    #[arg(long)]
    no_supervisor: bool,
}

impl Run {
    pub(super) fn execute(self) -> Result<(), Failure> {
        self.manner.serve(Source::File(self.config))
    }
}

impl Manner {
    /// Serves until SIGTERM or SIGINT; a second one ends at once, whatever is being sent.
    pub(super) fn serve(self, source: Source) -> Result<(), Failure> {
        let mission = Mission { source, alone: self.no_supervisor, pid_file: self.pid_file };
        Ok(supervise::serve_until_told(mission)?)
    }
}
