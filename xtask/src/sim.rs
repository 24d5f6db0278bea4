//! `cargo xtask sim --seed N | --seeds N | --seeds FROM..TO`: the simulation of docs/simulation.md, optimised and with its checks.

use std::io::{Error, Result};

use crate::cargo;

/// Replays one seed and tells what happens in it, or runs many.
///
/// # Errors
/// A seed found something: it is named above.
pub fn run(args: &[String]) -> Result<()> {
    let (variable, value, test) = match args {
        [word, seed] if word == "--seed" && seed.parse::<u64>().is_ok() => {
            ("AMPED_SIM_SEED", seed.clone(), "one_seed_is_one_story")
        }
        [word, seeds] if word == "--seeds" => ("AMPED_SIM_SEEDS", range(seeds).ok_or_else(usage)?, "seeds"),
        _ => return Err(usage()),
    };
    let build = ["test", "--profile", "sim", "--package", "amped", "--features", "sim", "--test", "sim"];
    let status = cargo().args(build).args(["--", "--exact", test, "--nocapture"]).env(variable, value).status()?;
    if status.success() { Ok(()) } else { Err(Error::other("the simulation found something")) }
}

/// `100` are the first hundred; `100..200` the second.
fn range(seeds: &str) -> Option<String> {
    let (from, to) = seeds.split_once("..").unwrap_or(("0", seeds));
    let (from, to): (u64, u64) = (from.parse().ok()?, to.parse().ok()?);
    (from < to).then(|| format!("{from}..{to}"))
}

fn usage() -> Error {
    Error::other("cargo xtask sim --seed N | --seeds N | --seeds FROM..TO")
}

#[test]
fn seeds_are_counted_from_zero_unless_told() {
    assert_eq!(range("256").as_deref(), Some("0..256"));
    assert_eq!(range("5..9").as_deref(), Some("5..9"));
    assert!(["", "x", "9..5", "0", "-1"].into_iter().all(|wrong| range(wrong).is_none()));
}
