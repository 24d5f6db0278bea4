//! The amped-lab command: everything is in the library, so that tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    amped_lab::cli::main()
}
