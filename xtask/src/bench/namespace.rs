//! The same bench with another congestion control than the machine's: in a network namespace of its own, whose loopback has a
//! route that names it (`congctl`, ip-route(8)). Goal: not to change the machine, where that is not even allowed everywhere.

use std::io::{Error, Result};
use std::process::Command;

use super::Binaries;
use crate::install::{Need, need};

/// What enters it, besides unshare(1).
pub const NEED: Need = need("ip", "iproute2");

/// Set where the namespace has been entered.
const ENTERED: &str = "AMPED_BENCH_NAMESPACE";

/// Whether this process runs in one.
pub fn is_entered() -> bool {
    std::env::var_os(ENTERED).is_some()
}

/// Runs `cargo xtask bench` with these arguments there, where nothing can be installed: the programs have been built.
///
/// # Errors
/// Not root, no such congestion control in this kernel, or what the bench says.
pub fn run(congestion: &str, args: &[String], binaries: &Binaries) -> Result<()> {
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", ENTER, congestion]).arg(std::env::current_exe()?).arg("bench").args(args);
    command.arg("--no-install").arg("--amped").arg(&binaries.amped).arg("--null").arg(&binaries.null);
    let status = command.env(ENTERED, "1").status()?;
    if status.success() {
        return Ok(());
    }
    let known = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").unwrap_or_default();
    Err(Error::other(format!(
        "the bench failed in a network namespace with `{congestion}`; root is needed there, and one of: {}",
        known.trim()
    )))
}

/// Brings up the loopback with the congestion control in `$0`, then runs `$@`. The kernel's own routes lead by their addresses,
/// so both are replaced.
const ENTER: &str = r#"
ip link set lo up &&
ip route replace local 127.0.0.1 dev lo table local congctl "$0" &&
ip route replace local 127.0.0.0/8 dev lo table local congctl "$0" &&
exec "$@"
"#;
