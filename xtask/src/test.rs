//! `cargo xtask test`: every check that must hold before a change lands, cheapest first, stopping at the first failure.

use std::io::{Error, Result};
use std::time::Instant;

use crate::{cargo, install};

/// Runs all steps.
///
/// # Errors
/// Names the step that failed.
pub fn run(args: &[String]) -> Result<()> {
    let allowed = match args {
        [] => true,
        [one] if one == "--no-install" => false,
        _ => return Err(Error::other("cargo xtask test [--no-install]")),
    };
    let started = Instant::now();
    step("tools", || install::ensure(install::TESTS, allowed))?;
    for (name, args, env) in STEPS {
        step(name, || {
            let status = cargo().args(*args).envs(env.iter().copied()).status()?;
            if status.success() { Ok(()) } else { Err(Error::other(format!("`cargo {}` failed", args.join(" ")))) }
        })?;
    }
    println!("all checks passed in {} s", started.elapsed().as_secs());
    Ok(())
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let started = Instant::now();
    work().map_err(|error| Error::other(format!("{name} failed: {error}")))?;
    println!("== {name}: ok, {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

type Step = (&'static str, &'static [&'static str], &'static [(&'static str, &'static str)]);

const STEPS: &[Step] = &[
    ("format", &["fmt", "--all", "--", "--check"], &[]),
    ("clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[]),
    ("docs", &["doc", "--workspace", "--no-deps"], &[("RUSTDOCFLAGS", "-Dwarnings")]),
    (
        "clippy of the simulation",
        &["clippy", "-p", "amped", "--features", "sim", "--all-targets", "--", "-D", "warnings"],
        &[],
    ),
    ("tests", &["test", "--workspace"], &[]),
    // A build of its own: the others must not contain a simulated kernel.
    ("simulation", &["test", "-p", "amped", "--features", "sim", "--test", "sim"], &[]),
    ("simulation's own tests", &["test", "-p", "amped-runtime", "--features", "sim", "--lib", "sim::"], &[]),
];
