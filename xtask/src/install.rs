//! The Debian packages that chores need: one list, installed by name when root, named otherwise.
//! Goal: a fresh machine gets from a clone to a green run without reading anything.

use std::io::{Error, Result};
use std::path::Path;
use std::process::{Command, Stdio};

/// A program, and the Debian package that brings it.
#[derive(Clone, Copy)]
pub struct Need {
    pub program: &'static str,
    pub package: &'static str,
}

/// What the tests run besides cargo.
pub const TESTS: &[Need] = &[
    need("curl", "curl"),
    need("h2load", "nghttp2-client"),
    need("wrk", "wrk"),
    need("nginx", "nginx-light"),
    need("python3", "python3"),
    need("chromium", "chromium"),
    need("mkfs.ext4", "e2fsprogs"),
    need("losetup", "mount"),
    need("prlimit", "util-linux"),
    need("faketime", "faketime"),
];

/// What every bench needs; each peer names its own.
pub const BENCH: &[Need] =
    &[need("wrk", "wrk"), need("curl", "curl"), need("taskset", "util-linux"), need("setpriv", "util-linux")];

pub const fn need(program: &'static str, package: &'static str) -> Need {
    Need { program, package }
}

/// Makes sure that every program is there.
///
/// # Errors
/// Something is missing and may not be installed (not root, or `allowed` is false), or apt-get failed.
pub fn ensure(needs: &[Need], allowed: bool) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !allowed || !rustix::process::geteuid().is_root() {
        return Err(Error::other(format!(
            "missing programs; as root, type:\n    apt-get install --no-install-recommends {packages}"
        )));
    }
    println!("installing {packages}");
    let apt = |args: &[&str]| {
        Command::new("apt-get")
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive")
            // A server that is installed to be measured must not be started by its package.
            .env("RUNLEVEL", "1")
            .stdout(Stdio::null())
            .status()
    };
    let mut install = vec!["install", "-y", "--no-install-recommends"];
    install.extend(&missing);
    if !apt(&install)?.success() {
        // The lists of a fresh machine are empty or old.
        apt(&["update"])?;
        if !apt(&install)?.success() {
            return Err(Error::other(format!("apt-get could not install {packages}")));
        }
    }
    Ok(())
}

fn missing(needs: &[Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        needs.iter().filter(|need| find(need.program).is_none()).map(|need| need.package).collect();
    packages.dedup();
    packages
}

/// Where a program lies. Servers live in sbin, which is not on everybody's path.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"])
        .map(|directory| Path::new(directory).join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_exists_is_found_and_one_that_does_not_is_missing() {
        assert!(find("sh").is_some());
        assert_eq!(missing(&[need("sh", "dash"), need("no-such-program", "nothing")]), ["nothing"]);
    }
}
