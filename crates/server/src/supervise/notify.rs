//! The service manager's side: what it is told (sd_notify(3)), and the sockets it passes on (sd_listen_fds(3)).
//!
//! Both are a few lines of text in the environment and over a datagram socket; where nobody listens, nothing happens.

use std::net::SocketAddr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use amped_runtime::process;

use crate::worker::sockets::Sockets;

/// Whom to tell, and how often that this process lives.
#[derive(Debug)]
pub struct Notify {
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
    next: Instant,
}

impl Notify {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let socket = std::env::var("NOTIFY_SOCKET").ok().and_then(|name| connect(&name).ok());
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        // WATCHDOG_PID may name another process, whose environment this is a copy of.
        let is_ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let limit = number("WATCHDOG_USEC").filter(|_| is_ours && socket.is_some()).map(Duration::from_micros);
        Self { socket, watchdog: limit.map(|limit| limit / 2), next: Instant::now() }
    }

    /// The server accepts connections.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}\nMAINPID={}", std::process::id()));
    }

    /// A reload is under way; `ready` ends it. The time lets the manager tell this one from the last (Type=notify-reload).
    pub fn reloading(&self) {
        let now = process::monotonic();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}\nSTATUS=reloading", now.as_micros()));
    }

    /// It drains, and will end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    /// Says that this process lives, when that is due; returns when it is next.
    pub fn watchdog(&mut self, now: Instant) -> Option<Instant> {
        let interval = self.watchdog?;
        if now >= self.next {
            self.tell("WATCHDOG=1");
            self.next = now + interval;
        }
        Some(self.next)
    }

    fn tell(&self, state: &str) {
        if let Some(socket) = &self.socket {
            // A manager that does not listen any more is no reason not to serve.
            let _ = socket.send(state.as_bytes());
        }
    }
}

fn connect(name: &str) -> std::io::Result<UnixDatagram> {
    use std::os::unix::net::SocketAddr;
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

/// The sockets that this process was started with, and where they listen; `None` when there are none.
///
/// # Errors
/// In words: one that cannot be served.
pub fn given_sockets() -> Result<Option<(Sockets, Vec<SocketAddr>)>, String> {
    let number = |name| std::env::var(name).ok()?.parse::<usize>().ok();
    if number("LISTEN_PID") != Some(std::process::id() as usize) {
        return Ok(None);
    }
    let sockets = process::inherited(FIRST, number("LISTEN_FDS").unwrap_or(0).min(MOST));
    if sockets.is_empty() {
        return Ok(None);
    }
    let sockets = Sockets::given(sockets)?;
    let addresses = sockets.addresses();
    Ok(Some((sockets, addresses)))
}

/// What the manager says to this process and to no child of it.
pub const VARIABLES: &[&str] =
    &["NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// SD_LISTEN_FDS_START.
const FIRST: i32 = 3;
const MOST: usize = 1024;
