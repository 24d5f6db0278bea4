//! `cargo xtask bench`: amped beside its peers and beside the null server, the kernel's own price.
//! Every server gets one worker on one core, the load has the other; rounds are interleaved across servers, so that a slow
//! minute of the machine hurts all alike; figures are medians. The figure to compare is requests per second of the server's
//! own processor time. bench/README.md says how to read a table.

pub mod cgroup;
pub mod client;
mod cold;
pub mod cores;
pub mod corpus;
mod idle;
pub mod load;
pub mod machine;
pub mod meter;
mod namespace;
mod options;
pub mod peers;
pub mod report;
pub mod server;
pub mod spindles;
mod throughput;

use std::io::{Error, Result};
use std::path::PathBuf;

use crate::{cargo, install, root};
use options::Options;
use peers::{Role, Server};

/// The server's core and the load's.
pub const SERVER_CORE: &str = "0";
pub const LOAD_CORE: &str = "1";

/// Runs the scenarios asked for, or all.
///
/// # Errors
/// A wrong option, a missing tool, a build that failed, or a server that would not start at all.
pub fn run(args: &[String]) -> Result<()> {
    let Some(options) = Options::parse(args)? else {
        println!("{}", options::HELP);
        return Ok(());
    };
    let mut servers = peers::chosen(&options.servers)?;
    if options.before.is_some() {
        servers.extend(peers::before(&servers));
    }
    machine::raise_descriptor_limit()?;
    let mut needs = install::BENCH.to_vec();
    needs.extend(servers.iter().filter_map(|server| server.need));
    needs.extend(options.congestion.as_ref().map(|_| namespace::NEED));
    install::ensure(&needs, options.install)?;
    let binaries = build(&options, &servers)?;
    if let Some(congestion) = options.congestion.as_deref().filter(|_| !namespace::is_entered()) {
        return namespace::run(congestion, args, &binaries);
    }
    let facts = machine::facts(&servers, options.congestion.as_deref());
    let bench = Bench { options, servers, binaries, facts };
    for scenario in &bench.options.scenarios {
        println!("== {scenario}");
        let busy = machine::busy();
        let report = match scenario.as_str() {
            "idle" => idle::run(&bench)?,
            "cold" => cold::run(&bench)?,
            name => throughput::run(&bench, name)?,
        };
        match report {
            Some(mut report) => {
                report.notes.extend(busy);
                report.publish(&bench)?;
            }
            None => println!("{scenario}: left out"),
        }
    }
    Ok(())
}

/// Everything a scenario needs to know.
pub struct Bench {
    pub options: Options,
    pub servers: Vec<&'static Server>,
    pub binaries: Binaries,
    /// The machine and the versions, as lines of a report.
    pub facts: String,
}

/// What is measured besides the peers.
#[derive(Default)]
pub struct Binaries {
    pub amped: PathBuf,
    pub null: PathBuf,
    /// Another amped, to be compared with.
    pub before: PathBuf,
}

fn build(options: &Options, servers: &[&Server]) -> Result<Binaries> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |path| root().join(path));
    let wanted = |role| servers.iter().any(|server| server.role == role);
    let one = |wanted: bool, given: &Option<PathBuf>, args: &[&str], file: &str| match given {
        Some(path) => std::path::absolute(path),
        None if !wanted => Ok(PathBuf::new()),
        None => {
            println!("building {file}");
            let status = cargo().args(["build", "--release", "--quiet"]).args(args).status()?;
            if !status.success() {
                return Err(Error::other(format!("cargo build --release {} failed", args.join(" "))));
            }
            Ok(target.join("release").join(file))
        }
    };
    Ok(Binaries {
        amped: one(wanted(Role::Amped), &options.amped, &["--package", "amped"], "amped")?,
        null: one(
            wanted(Role::Null),
            &options.null,
            &["--package", "amped-runtime", "--example", "null"],
            "examples/null",
        )?,
        before: options.before.as_ref().map(std::path::absolute).transpose()?.unwrap_or_default(),
    })
}
