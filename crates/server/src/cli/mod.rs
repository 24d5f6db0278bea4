//! The command line: one command, one file.
//!
//! Exit codes: 0 done, 1 failed, 2 bad usage or configuration.

mod check;
mod run;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
}

/// How a command ended badly.
enum Failure {
    /// It could not be done.
    Failed(String),
    /// It was not asked for rightly.
    Usage(String),
}

/// Reads the arguments, does what they say, and returns the exit code.
pub fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Serve(serve) => serve.execute(),
        Command::Run(run) => run.execute(),
        Command::Check(check) => check.execute(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(message)) => {
            eprintln!("amped: {message}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(message)) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}
