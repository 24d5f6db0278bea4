//! `cargo xtask fuzz [TARGET...] [--seconds N]`: runs the cargo-fuzz targets of fuzz/, each for a bounded time.
//! Needs nightly Rust and cargo-fuzz; says how to get them when they are missing.

use std::io::{Error, Result};
use std::process::{Command, Stdio};

use crate::root;

/// Runs the targets named, or all.
///
/// # Errors
/// A tool is missing, or a target failed: libFuzzer's own words and the input's path stand above.
pub fn run(args: &[String]) -> Result<()> {
    let mut targets = Vec::new();
    let mut seconds = 60;
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--seconds" {
            let value = args.next().and_then(|value| value.parse().ok());
            seconds = value.ok_or_else(|| Error::other("--seconds needs a number"))?;
        } else if arg.starts_with('-') {
            return Err(Error::other("cargo xtask fuzz [TARGET...] [--seconds N]"));
        } else {
            targets.push(arg.clone());
        }
    }
    tools()?;
    if targets.is_empty() {
        targets = all_targets()?;
    }
    for target in &targets {
        println!("== fuzz {target}: {seconds} s");
        let status = fuzz(&["run", target, "--", &format!("-max_total_time={seconds}")]).status()?;
        if !status.success() {
            return Err(Error::other(format!("fuzz target {target} failed")));
        }
    }
    println!("{} fuzz targets ran {seconds} s each without a finding", targets.len());
    Ok(())
}

fn tools() -> Result<()> {
    let works = |command: &mut Command| {
        let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
        quiet.status().is_ok_and(|status| status.success())
    };
    let mut missing = Vec::new();
    if !works(Command::new("cargo").args(["+nightly", "--version"])) {
        missing.push("    rustup toolchain install nightly");
    }
    if !works(Command::new("cargo").args(["fuzz", "--version"])) {
        missing.push("    cargo install cargo-fuzz");
    }
    if missing.is_empty() { Ok(()) } else { Err(Error::other(format!("fuzzing needs; type:\n{}", missing.join("\n")))) }
}

fn all_targets() -> Result<Vec<String>> {
    let list = fuzz(&["list"]).output()?;
    let targets: Vec<_> = String::from_utf8_lossy(&list.stdout).lines().map(String::from).collect();
    if targets.is_empty() {
        return Err(Error::other("fuzz/ has no targets"));
    }
    Ok(targets)
}

fn fuzz(args: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.args(["+nightly", "fuzz"]).args(args).current_dir(root());
    command
}
