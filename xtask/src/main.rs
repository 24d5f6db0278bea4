//! `cargo xtask`: the project's chores. `test` is the README's command two, `bench` measures amped beside its peers, `lab`
//! repeats the literature's experiments, `fuzz` runs the fuzz targets, `sim` the simulation. Each finds what it needs, installs it as root, and otherwise says what to type.
//! Costs nothing at run time: no part of the product depends on it.

mod bench;
mod fuzz;
mod install;
mod lab;
mod sim;
mod test;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let chore = args.next().unwrap_or_default();
    let args: Vec<String> = args.collect();
    let done = match chore.as_str() {
        "test" => test::run(&args),
        "bench" => bench::run(&args),
        "lab" => lab::run(&args),
        "fuzz" => fuzz::run(&args),
        "sim" => sim::run(&args),
        "" | "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => Err(io::Error::other(format!("no chore `{other}`\n{HELP}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The checkout.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies inside the checkout").to_path_buf()
}

/// The cargo that runs this, or the one on the path.
fn cargo() -> std::process::Command {
    let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.current_dir(root());
    command
}

const HELP: &str = "\
cargo xtask test [--no-install]              every check that must hold before a change lands
cargo xtask bench [SCENARIO...] [OPTIONS]    amped beside its peers (--help for the scenarios)
cargo xtask lab [EXPERIMENT...] [--quick]    the experiments of the literature (--help for a list)
cargo xtask fuzz [TARGET...] [--seconds N]   the fuzz targets, 60 s each unless told
cargo xtask sim --seed N | --seeds N         the server over a simulated kernel (docs/simulation.md)";
