//! `amped run`: what a configuration file says, until a signal says otherwise.

use std::path::PathBuf;

use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use super::Failure;
use crate::config::plan::Architecture;
use crate::config::{self, Plan};
use crate::observe::admin;
use crate::prefork;
use crate::worker::server::Prepared;

/// Serve what a configuration file says.
#[derive(Debug, Args)]
pub struct Run {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "amped.toml")]
    config: PathBuf,
}

impl Run {
    pub(super) fn execute(self) -> Result<(), Failure> {
        let plan = config::load(&self.config).map_err(|report| Failure::Usage(report.to_string()))?;
        serve_until_told(plan)
    }
}

/// Serves until SIGTERM or SIGINT; a second one ends at once, whatever is being sent.
pub(super) fn serve_until_told(plan: Plan) -> Result<(), Failure> {
    if plan.architecture == Architecture::Mp {
        return prefork::serve_until_told(plan).map_err(Failure::Failed);
    }
    // Before anything listens, so that no signal finds the process without a hand to catch it.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])
        .map_err(|error| Failure::Failed(format!("cannot listen for signals: {error}")))?;
    // Before rights are given up: the socket may lie where only root may write.
    let admin = admin::Listener::of(&plan).map_err(Failure::Failed)?;
    let prepared = Prepared::new(plan).map_err(Failure::Failed)?;
    let described = prepared.describe();
    let addresses = prepared.addresses().to_vec();
    let server = prepared.start().map_err(Failure::Failed)?;
    if let Some(admin) = admin {
        admin.start(server.status()).map_err(Failure::Failed)?;
    }
    eprintln!("{described}");
    eprintln!("amped: {}", server.confined());
    for address in addresses {
        eprintln!("listening on http://{address}");
    }
    for signal in signals.forever() {
        if signal == SIGUSR1 {
            server.reopen_log();
            continue;
        }
        break;
    }
    std::thread::spawn(move || {
        if signals.forever().any(|signal| signal != SIGUSR1) {
            eprintln!("amped: told twice, ending at once");
            std::process::exit(1);
        }
    });
    eprintln!("{}", server.stop());
    Ok(())
}
