//! `amped reload`, `upgrade`, `stop` and `status`: a word to a server that runs, and its answer.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, print};
use crate::supervise::control::{self, Refusal, Request};

/// Which server is meant.
#[derive(Debug, Args)]
pub struct Which {
    /// Its PID file [default: amped.pid in $XDG_RUNTIME_DIR or /run]
    #[arg(long, value_name = "PATH")]
    pid_file: Option<PathBuf>,
}

impl Which {
    /// Asks, and says what was answered.
    pub(super) fn ask(self, request: Request) -> Result<(), Failure> {
        match control::ask(self.pid_file.as_deref(), request) {
            Ok(words) => print(words.trim_end()),
            // What was asked for is the case.
            Err(Refusal::NotRunning(path)) if request == Request::Stop => {
                print(format_args!("not running: nobody has {}", path.display()))
            }
            Err(Refusal::NotRunning(path)) => Err(Failure::Failed(format!(
                "not running: nobody has {}; name another with --pid-file",
                path.display()
            ))),
            Err(Refusal::Refused(words)) => Err(Failure::Failed(words)),
        }
    }
}
