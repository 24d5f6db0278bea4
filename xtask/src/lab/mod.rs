//! `cargo xtask lab`: the experiments of the literature, repeated on one machine with one server.
//! An experiment is a file of bench/lab/: it starts servers, loads them with amped-lab, and gives a figure: a table, a plot
//! and a sentence that is made of what was measured. Servers have core 0, the load core 1. Figures go to docs/lab/.

mod figure;
mod measure;
mod plot;
mod supervised;

// The experiments, where somebody who reads about the bench looks for them.
#[path = "../../../bench/lab/c10k.rs"]
mod c10k;
#[path = "../../../bench/lab/calls.rs"]
mod calls;
#[path = "../../../bench/lab/flash.rs"]
mod flash;
#[path = "../../../bench/lab/generators.rs"]
mod generators;
#[path = "../../../bench/lab/idle.rs"]
mod idle;
#[path = "../../../bench/lab/inversion.rs"]
mod inversion;
#[path = "../../../bench/lab/overload.rs"]
mod overload;
#[path = "../../../bench/lab/pipelining.rs"]
mod pipelining;
#[path = "../../../bench/lab/restarts.rs"]
mod restarts;
#[path = "../../../bench/lab/slow.rs"]
mod slow;
#[path = "../../../bench/lab/soak.rs"]
mod soak;
#[path = "../../../bench/lab/store.rs"]
mod store;

use std::io::{Error, Result};
use std::path::PathBuf;
use std::time::Instant;

use crate::bench::{machine, peers};
use crate::install::{self, Need, need};
use crate::{cargo, root};
use figure::Figure;

/// What every experiment needs to know.
pub struct Lab {
    pub amped: PathBuf,
    pub load: PathBuf,
    pub null: PathBuf,
    /// Fewer and shorter points.
    pub quick: bool,
}

impl Lab {
    /// One of two: the length of a point, say.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
}

type Experiment = fn(&Lab) -> Result<Figure>;

const EXPERIMENTS: &[(&str, Experiment)] = &[
    ("idle", idle::run),
    ("flash", flash::run),
    ("inversion", inversion::run),
    ("store", store::run),
    ("c10k", c10k::run),
    ("pipelining", pipelining::run),
    ("calls", calls::run),
    ("generators", generators::run),
    ("overload", overload::run),
    ("drowned", overload::of_the_disk),
    ("slow", slow::run),
    ("restarts", restarts::run),
    ("soak", soak::run),
];

/// Runs the experiments named, or all.
///
/// # Errors
/// A wrong name, a missing tool, a build that failed; or experiments failed, after the others have run.
pub fn run(args: &[String]) -> Result<()> {
    let Some(wanted) = wanted(args)? else {
        println!("{HELP}");
        return Ok(());
    };
    let has = |option: &str| args.iter().any(|arg| arg == option);
    machine::raise_descriptor_limit()?;
    let peers = peers::chosen(&["nginx".into(), "lighttpd".into(), "h2o".into()])?;
    let mut needs = NEEDS.to_vec();
    needs.extend(peers.iter().filter_map(|peer| peer.need));
    install::ensure(&needs, !has("--no-install"))?;
    println!("building amped, amped-lab and the null server");
    let packages = ["--package", "amped", "--package", "amped-lab"];
    for words in [packages, ["--package", "amped-runtime", "--example", "null"]] {
        if !cargo().args(["build", "--release", "--quiet"]).args(words).status()?.success() {
            return Err(Error::other(format!("cargo build --release {} failed", words.join(" "))));
        }
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path));
    let [amped, load, null] = ["amped", "amped-lab", "examples/null"].map(|name| target.join("release").join(name));
    let lab = Lab { amped, load, null, quick: has("--quick") };
    let facts = machine::facts(&peers, None);
    let mut failed = Vec::new();
    for (name, experiment) in wanted {
        println!("== {name}");
        let (busy, began) = (machine::busy(), Instant::now());
        let measured = experiment(&lab).and_then(|mut figure| {
            figure.notes.extend(busy);
            figure.publish(name, lab.quick, &facts)
        });
        println!("{name}: {:.0} s", began.elapsed().as_secs_f64());
        if let Err(error) = measured {
            println!("{name}: {error}");
            failed.push(*name);
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::other(format!("failed: {}", failed.join(" ")))) }
}

fn wanted(args: &[String]) -> Result<Option<Vec<&'static (&'static str, Experiment)>>> {
    let mut wanted = Vec::new();
    for arg in args {
        match arg.as_str() {
            "--help" | "-h" => return Ok(None),
            "--quick" | "--no-install" => {}
            name => match EXPERIMENTS.iter().find(|(known, _)| *known == name) {
                Some(experiment) => wanted.push(experiment),
                None => return Err(Error::other(format!("no experiment or option `{name}`\n{HELP}"))),
            },
        }
    }
    Ok(Some(if wanted.is_empty() { EXPERIMENTS.iter().collect() } else { wanted }))
}

const NEEDS: &[Need] = &[
    need("taskset", "util-linux"),
    need("chrt", "util-linux"),
    need("setpriv", "util-linux"),
    need("strace", "strace"),
    need("wrk", "wrk"),
    need("losetup", "mount"),
    need("mkfs.ext4", "e2fsprogs"),
];

const HELP: &str = "\
cargo xtask lab [EXPERIMENT...] [OPTIONS]

  idle        what idle connections cost the busy ones, by driver
  flash       throughput and the size of the data set: MP, MT, SPED, AMPED, and peers
  inversion   what a file in memory waits while others need the disk
  store       the image store: helpers and spindles; 2,500 requests/s with 5,500 connections
  c10k        a connection for each 512 bytes; thousands of modems at once
  pipelining  requests in one write, and what one gathered send saves
  calls       system calls per request, by driver
  generators  amped-lab and wrk against the same nginx
  overload    more is asked for than can be done: from memory, and by new connections
  drowned     more is asked for than the disk can do, and what a file in memory waits meanwhile
  slow        10,000 slow clients of each kind, and a normal one beside them
  restarts    reloads, upgrades and kill -9 while somebody asks
  soak        twenty minutes of everything at once: is memory flat, does anything fail?

  --quick        fewer and shorter points
  --no-install   say what is missing instead of installing it

flash, inversion, store and drowned limit memory and disk with control groups (version 1) and need root. Results: docs/lab/.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experiments_are_chosen_by_name() {
        let names = |args: &[&str]| -> Result<Option<Vec<&str>>> {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            Ok(wanted(&args)?.map(|wanted| wanted.iter().map(|(name, _)| *name).collect()))
        };
        assert_eq!(names(&["calls", "--quick", "idle"]).unwrap().unwrap(), ["calls", "idle"]);
        assert_eq!(names(&["--quick"]).unwrap().unwrap().len(), EXPERIMENTS.len());
        assert!(names(&["--help"]).unwrap().is_none());
        assert!(names(&["idel"]).is_err());
    }
}
