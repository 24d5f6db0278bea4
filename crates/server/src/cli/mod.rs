//! The command line: one command, one file.
//!
//! Exit codes: 0 done, 1 failed, 2 bad usage or configuration.

mod check;
mod control;
mod run;
mod serve;

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use amped_runtime::Priority;
use clap::{Parser, Subcommand};

use crate::supervise;
use crate::supervise::control::Request;

/// A web server that never waits on the disk.
#[derive(Debug, Parser)]
#[command(name = "amped", version, about, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a folder: nothing to configure
    Serve(serve::Serve),
    /// Serve what a configuration file says
    Run(run::Run),
    /// Check a configuration file and say what is wrong with it
    Check(check::Check),
    /// Have a server that runs read its configuration anew; connections stay
    Reload(control::Which),
    /// Have a server that runs execute its binary anew; the old one finishes what it is sending
    Upgrade(control::Which),
    /// Have a server that runs finish what it is sending, and wait for its end
    Stop(control::Which),
    /// Ask a server that runs how it goes
    Status(control::Which),
}

/// How a command ended badly.
enum Failure {
    /// It could not be done.
    Failed(String),
    /// It was not asked for rightly.
    Usage(String),
    /// Another process has said why.
    Said(u8),
}

impl From<supervise::Failure> for Failure {
    fn from(failure: supervise::Failure) -> Self {
        match failure {
            supervise::Failure::Failed(words) => Self::Failed(words),
            supervise::Failure::Usage(words) => Self::Usage(words),
            supervise::Failure::Ended(code) => Self::Said(code),
        }
    }
}

/// Reads the arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(serve) => serve.execute(),
        Command::Run(run) => run.execute(),
        Command::Check(check) => check.execute(),
        Command::Reload(which) => which.ask(Request::Reload),
        Command::Upgrade(which) => which.ask(Request::Upgrade),
        Command::Stop(which) => which.ask(Request::Stop),
        Command::Status(which) => which.ask(Request::Status),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => {
            complain(&format!("amped: {message}\n"));
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            complain(&format!("{message}\n"));
            ExitCode::from(2)
        }
        Err(Failure::Said(code)) => ExitCode::from(code),
    }
}

/// Says on standard error why nothing comes of it.
fn complain(words: &str) {
    let _ = std::io::stderr().write_all(Priority::Error.mark(words).as_bytes());
}

/// Writes a line to standard output.
///
/// # Errors
/// It could not be written; a reader who had enough is no error.
fn print(line: impl Display) -> Result<(), Failure> {
    let mut output = std::io::stdout().lock();
    match writeln!(output, "{line}").and_then(|()| output.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}
