//! A server process as its supervisor sees it.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use amped_runtime::channel::{Channel, memory_file};
use amped_runtime::process::{self, Signal};
use serde::{Deserialize, Serialize};

use super::message::{self, Order, Report};
use super::{SERVER, VARIABLE, notify};
use crate::worker::sockets::Sockets;

/// How far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// It prepares to serve.
    Starting,
    /// It serves.
    Ready,
    /// A worker of it does not come out of a turn, or the process as a whole says nothing.
    Stuck,
    /// It finishes what it is sending.
    Draining,
    /// There is none: the next attempt is due later.
    BackingOff,
}

/// One server process.
#[derive(Debug)]
pub struct Child {
    /// The process.
    pub process: process::Child,
    /// How far it has come, and since when.
    pub state: State,
    since: Instant,
    /// When it came to serve.
    pub served_since: Option<Instant>,
    /// When patience with it ends.
    pub limit: Option<Instant>,
    /// For how long nothing was heard of it, as far as the supervisor itself was awake.
    pub silence: Duration,
    /// It has closed its end: it is about to be gone.
    pub is_mute: bool,
    /// It obeys orders and speaks of itself. The parent of a pool knows signals only, since it may start no thread.
    pub converses: bool,
    /// What it was told to exchange and has not answered.
    owed: u32,
    channel: Channel,
}

/// What a child is started with.
#[derive(Debug)]
pub struct Outfit<'a> {
    /// The program.
    pub binary: &'a Path,
    /// The configuration's text.
    pub text: &'a str,
    /// What it listens on.
    pub sockets: &'a Sockets,
    /// Where its numbers are asked for.
    pub admin: Option<BorrowedFd<'a>>,
    /// Processes that had to be replaced so far.
    pub restarts: u64,
    /// As in `Child`.
    pub converses: bool,
}

impl State {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Stuck => "stuck",
            Self::Draining => "draining",
            Self::BackingOff => "backing off",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Child {
    /// Starts one with this process's own arguments.
    ///
    /// # Errors
    /// In words: the binary is not there or does not run, no descriptors to be had.
    pub fn spawn(outfit: &Outfit<'_>) -> Result<Self, String> {
        let failed = |error| format!("cannot start {}: {error}", outfit.binary.display());
        let (ours, theirs) = Channel::pair().map_err(failed)?;
        let mut arguments = std::env::args_os();
        let mut command = Command::new(outfit.binary);
        std::os::unix::process::CommandExt::arg0(&mut command, arguments.next().unwrap_or_else(|| "amped".into()));
        command.args(arguments).env(VARIABLE, SERVER).stdin(Stdio::from(OwnedFd::from(theirs)));
        for name in notify::VARIABLES {
            command.env_remove(name);
        }
        let process = process::spawn(&mut command).map_err(failed)?;
        // The command keeps its end of the channel, and with it the process's death a secret.
        drop(command);
        let child = Self::known(process, ours, State::Starting, outfit.converses);
        let (places, counts, sockets) = outfit.sockets.parts();
        let admin = outfit.admin.is_some();
        let text = memory_file(outfit.text.as_bytes()).map_err(failed)?;
        let descriptors: Vec<_> = [text.as_fd()].into_iter().chain(outfit.admin).chain(sockets).collect();
        let order = Order::Start { places, counts, admin, restarts: outfit.restarts };
        // One that ends before it has read this is found among the dead.
        let _ = message::send(&child.channel, order, &descriptors);
        child.channel.never_wait().map_err(failed)?;
        Ok(Self { limit: Some(Instant::now() + START_LIMIT), ..child })
    }

    /// One that was started before.
    pub fn known(process: process::Child, channel: Channel, state: State, converses: bool) -> Self {
        let now = Instant::now();
        let served_since = (state != State::Starting).then_some(now);
        let (limit, silence, is_mute, owed) = (None, Duration::ZERO, false, 0);
        Self { process, state, since: now, served_since, limit, silence, is_mute, owed, converses, channel }
    }

    /// Enters a state.
    pub fn enter(&mut self, state: State, limit: Option<Duration>) {
        let now = Instant::now();
        (self.state, self.since, self.limit) = (state, now, limit.map(|limit| now + limit));
        if state == State::Ready {
            self.served_since = Some(now);
        }
    }

    /// What it has reported, if anything.
    pub fn report(&mut self) -> Option<Report> {
        match message::receive(&self.channel) {
            Ok(Some((report, _))) => {
                self.silence = Duration::ZERO;
                Some(report)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => None,
            // The end, or what no server process says.
            _ => {
                self.is_mute = true;
                None
            }
        }
    }

    /// Tells it to serve by another plan.
    ///
    /// # Errors
    /// In words: it does not listen.
    pub fn exchange(&mut self, text: &str, order: Order, added: &Sockets) -> Result<(), String> {
        let failed = |error| format!("the server process does not listen: {error}");
        let text = memory_file(text.as_bytes()).map_err(failed)?;
        let descriptors: Vec<_> = [text.as_fd()].into_iter().chain(added.parts().2).collect();
        message::send(&self.channel, order, &descriptors).map_err(failed)?;
        self.owed += 1;
        Ok(())
    }

    /// It has answered an `exchange`; whether that is the last one it was told. It does them one after the other.
    pub fn has_answered(&mut self) -> bool {
        let is_last = self.owed == 1;
        self.owed = self.owed.saturating_sub(1);
        is_last
    }

    /// Has it finish what it is sending.
    pub fn drain(&mut self, limit: Duration) {
        self.process.signal(Signal::TERM);
        self.enter(State::Draining, Some(limit));
    }

    /// The same, for one whose place another has taken already.
    pub fn retire(&mut self, limit: Duration) {
        if self.converses && message::send(&self.channel, Order::Retire, &[]).is_ok() {
            self.enter(State::Draining, Some(limit));
        } else {
            self.drain(limit);
        }
    }

    /// How long it has served.
    pub fn served(&self) -> Duration {
        self.served_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether somebody has stopped it on purpose: a debugger, or SIGSTOP. It says nothing then, and is not stuck.
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't']))
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        format!("server {}: {} for {} s", self.process.id(), self.state, self.since.elapsed().as_secs())
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// A folder and a configuration are opened in milliseconds; a network mount may take seconds.
const START_LIMIT: Duration = Duration::from_secs(10);
