//! `amped serve`: a folder, served with what everyone would want.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use super::Failure;
use super::run::Manner;
use crate::config::admin::{self, Secret};
use crate::config::architecture::Wish;
use crate::config::choice::{AccessLog, Architecture, DiskMode, DriverChoice, LogFormat};
use crate::config::user::User;
use crate::config::{Plan, check_folder, parse_listen, parse_size};
use crate::supervise::Source;

/// Serve a folder over HTTP/1.1.
///
/// Without arguments: this folder, on http://127.0.0.1:8080, one worker for each core. Index files, content types, ranges,
/// conditional requests and caching need no configuration; hidden files are not shown, links out of the folder not followed.
#[derive(Debug, Args)]
pub struct Serve {
    /// The folder
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Where to listen: ADDR:PORT, :PORT or [V6]:PORT; may be given several times [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR:PORT", value_parser = parse_listen)]
    listen: Vec<SocketAddr>,
    /// How connections are shared out: amped (one loop, helpers for the disk), symped (a loop for each core), sped (one loop,
    /// the disk inline), mt (a thread for each connection), mp (a process for each) [default: symped, or amped with one worker]
    #[arg(long, value_name = "NAME")]
    architecture: Option<Architecture>,
    /// Worker threads, or processes [default: one for each core this process may use; with mt and mp 64]
    #[arg(long, value_name = "N", value_parser = parse_workers)]
    workers: Option<usize>,
    /// How the loops wait for the kernel: auto, uring, epoll-edge, epoll-level, poll, select, sigio, portable, blocking
    /// [default: auto]
    #[arg(long, value_name = "NAME")]
    driver: Option<DriverChoice>,
    /// Where the disk is waited for: amped (memory first, then helpers), inline (on the loop), helpers (always)
    /// [default: as the architecture says, else amped]
    #[arg(long, value_name = "HOW")]
    disk: Option<DiskMode>,
    /// Memory for cached files: 64KB, 256MB, 1GiB; 0 turns the cache off [default: an eighth of what this process may use]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    cache: Option<u64>,
    /// Where to log requests: a file (reopened on SIGUSR1), stderr, or off
    #[arg(long, value_name = "PATH|off", default_value = "off")]
    access_log: String,
    /// Where to show the dashboard, /metrics, /status, /healthz and /readyz. Other machines may ask only with the token in
    /// AMPED_ADMIN_TOKEN [default: nowhere]
    #[arg(long, value_name = "ADDR:PORT|unix:PATH")]
    admin: Option<String>,
    /// Whom to become when the addresses are bound: a name, or UID:GID. As root, needed where other machines can connect
    /// [default: nobody else]
    #[arg(long, value_name = "USER", value_parser = User::parse)]
    user: Option<User>,
    #[command(flatten)]
    manner: Manner,
}

impl Serve {
    pub(super) fn execute(self) -> Result<(), Failure> {
        check_folder(&self.directory).map_err(|error| Failure::Usage(format!("amped: {error}")))?;
        let wish =
            Wish { architecture: self.architecture, driver: self.driver, disk: self.disk, workers: self.workers };
        let shape = wish.settle().map_err(|conflict| Failure::Usage(format!("amped: {}", conflict.sentence)))?;
        let mut plan = Plan::for_folder(&self.directory).with_shape(shape);
        if !self.listen.is_empty() {
            plan.listen = self.listen;
        }
        plan.cache_bytes = self.cache.unwrap_or(plan.cache_bytes);
        plan.access_log = AccessLog::from_word(&self.access_log, LogFormat::Combined);
        plan.user = self.user;
        let usage = |sentence: String| Failure::Usage(format!("amped: {sentence}"));
        plan.admin_token = Secret::from_environment().map_err(usage)?;
        let settle = |typed: String| admin::settle(&typed, plan.admin_token.as_ref());
        plan.admin = self.admin.map(settle).transpose().map_err(usage)?;
        self.manner.serve(Source::Arguments(Box::new(plan)))
    }
}

fn parse_workers(typed: &str) -> Result<usize, String> {
    match typed.parse() {
        Ok(workers @ 1..=1024) => Ok(workers),
        _ => Err("expected a number from 1 to 1024".into()),
    }
}
