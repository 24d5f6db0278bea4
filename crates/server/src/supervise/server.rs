//! The server process: it serves until it is told to end, by a signal or by the end of its supervisor.
//!
//! Alone (`--no-supervisor`) it does for itself what a supervisor would do for it, but for being replaced.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use amped_runtime::channel::Channel;
use amped_runtime::process::{self, Signal};
use amped_runtime::stack;
use amped_runtime::{say, warn};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::child::State;
use super::message::{self, Order, Report};
use super::notify::Notify;
use super::takeover::LUGGAGE;
use super::{Failure, Source, Terminal, VARIABLE};
#[cfg(debug_assertions)]
use crate::answer::faults;
use crate::config::plan::{Architecture, DiskMode, Plan};
use crate::observe::admin;
use crate::prefork;
use crate::worker::server::{Prepared, Server, Status};
use crate::worker::sockets::{Place, Sockets};
use crate::worker::{folders, heartbeat};

/// Whom a server process reports to.
#[derive(Clone, Debug)]
enum Master {
    /// The supervisor at the other end, and how many processes it had to replace.
    Supervisor(Arc<Channel>, u64),
    /// Nobody but the service manager.
    Nobody(Arc<Notify>),
}

/// What has been brought together for a server process.
struct Kit {
    plan: Plan,
    sockets: Sockets,
    admin: Option<admin::Listener>,
}

/// A server's numbers, and those of its supervision.
struct Numbers {
    status: Status,
    restarts: u64,
}

/// A server that reloads by itself.
struct Alone<'a> {
    server: &'a Server,
    source: &'a Source,
    plan: Plan,
    places: Vec<Place>,
    /// The service manager says where it listens, whatever the plan says.
    is_given: bool,
}

/// Serves without a supervisor.
///
/// # Errors
/// What kept it from starting.
pub fn serve_alone(source: &Source, mut plan: Plan) -> Result<(), Failure> {
    let (sockets, is_given) = super::bind(&mut plan)?;
    // Before rights are given up: the socket may lie where only root may write.
    let admin = admin::Listener::of(&plan)?;
    serve(Kit { plan, sockets, admin }, source, &Master::Nobody(Arc::new(Notify::from_environment())), is_given)
}

/// Serves what the supervisor at the other end of standard input says.
///
/// # Errors
/// What kept it from starting.
pub fn serve_supervised(source: &Source) -> Result<(), Failure> {
    let failed = |error: io::Error| format!("this process is started by `amped` itself ({VARIABLE} is set): {error}");
    #[cfg(debug_assertions)]
    faults::at_start();
    process::set_name(c"amped");
    let channel = Channel::from_stdin().map_err(failed)?;
    let Some((order, mut descriptors)) = message::receive::<Order>(&channel).map_err(failed)? else {
        return Err(failed(io::ErrorKind::UnexpectedEof.into()).into());
    };
    let Order::Start { places, counts, admin, restarts } = order else {
        return Err(failed(io::ErrorKind::InvalidData.into()).into());
    };
    let mut plan = source.understand(&message::text_of(descriptors.remove(0))?)?;
    plan.listen = places.iter().map(|place| place.asked).collect();
    let admin = admin.then(|| admin::Listener::adopt(descriptors.remove(0), &plan));
    let sockets = Sockets::from_parts(&places, &counts, descriptors);
    serve(Kit { plan, sockets, admin }, source, &Master::Supervisor(Arc::new(channel), restarts), true)
}

fn serve(Kit { plan, sockets, admin }: Kit, source: &Source, master: &Master, is_given: bool) -> Result<(), Failure> {
    if plan.architecture == Architecture::Mp {
        if let Master::Supervisor(..) = master {
            // A pool's parent starts no thread that could wait for the supervisor's end.
            process::outlive_no_parent(Signal::TERM)
                .map_err(|error| format!("cannot watch the supervisor: {error}"))?;
        }
        let is_alone = matches!(master, Master::Nobody(_));
        return Ok(prefork::serve_until_told(
            plan,
            sockets,
            admin,
            is_alone,
            master.restarts(),
            |described, addresses| {
                master.is_ready(described, addresses);
            },
        )?);
    }
    let failed = |error: io::Error| format!("cannot listen for signals: {error}");
    let terminal = Terminal::now();
    // Before anything listens, so that no signal finds the process without a hand to catch it.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGHUP]).map_err(failed)?;
    let places = sockets.parts().0;
    let prepared = Prepared::new(plan.clone(), sockets)?;
    let (described, addresses) = (prepared.describe(), prepared.addresses().to_vec());
    let server = Arc::new(prepared.start()?);
    let numbers = Numbers { status: server.status(), restarts: master.restarts() };
    let office = admin.map(|admin| admin.start(numbers)).transpose()?;
    let retires = Arc::new(AtomicBool::new(false));
    watch_over(&server, master, &plan)?;
    watch_folders(&server, master)?;
    if let Master::Supervisor(channel, _) = master {
        obey(&server, Arc::clone(channel), source.clone(), Arc::clone(&retires))?;
    }
    master.is_ready(&format!("{described}\namped: {}", server.confined()), &addresses);
    let mut alone = Alone { server: &server, source, plan, places, is_given };
    for signal in signals.forever() {
        match (signal, master) {
            (SIGUSR1, _) => server.reopen_log(),
            (SIGHUP, Master::Nobody(_)) if terminal.is_gone() => break,
            (SIGHUP, Master::Nobody(notify)) => {
                notify.reloading();
                match alone.reload() {
                    Ok(()) => say!("amped: reloaded"),
                    Err(why) => warn!("amped: not reloaded, nothing has changed: {why}"),
                }
                notify.ready("serving");
            }
            (SIGUSR2, Master::Nobody(_)) => warn!("amped: without its supervisor it cannot be upgraded"),
            (SIGINT | SIGTERM, _) => break,
            // The supervisor's to act on.
            _ => {}
        }
    }
    if let Master::Nobody(notify) = master {
        notify.stopping();
        std::thread::spawn(move || {
            if signals.forever().any(|signal| signal == SIGINT || signal == SIGTERM) {
                say!("amped: told twice, ending at once");
                std::process::exit(1);
            }
        });
    }
    let gently = retires.load(Relaxed);
    // The next process answers for the server now.
    let _until_the_end = office.filter(|_| !gently);
    say!("{}", server.stop(gently));
    Ok(())
}

impl Master {
    /// Says that connections are accepted. The addresses are the supervisor's to name, once.
    fn is_ready(&self, described: &str, addresses: &[SocketAddr]) {
        say!("{described}");
        match self {
            // A supervisor that is gone is noticed by its silence.
            Self::Supervisor(channel, _) => drop(message::send(channel, Report::Ready(LUGGAGE), &[])),
            Self::Nobody(notify) => {
                addresses.iter().for_each(|address| say!("listening on http://{address}"));
                notify.ready("serving");
            }
        }
    }

    /// Processes that had to be replaced before this one.
    fn restarts(&self) -> u64 {
        match self {
            Self::Supervisor(_, restarts) => *restarts,
            Self::Nobody(_) => 0,
        }
    }
}

impl admin::Source for Numbers {
    fn status(&self) -> serde_json::Value {
        let mut status = self.status.json();
        let state = if self.status.is_draining() { State::Draining } else { State::Ready };
        let (id, restarts) = (std::process::id(), self.restarts);
        status["processes"] = serde_json::json!({ "id": id, "state": state.name(), "restarts": restarts });
        status
    }

    fn is_ready(&self) -> bool {
        !self.status.is_draining()
    }
}

impl Alone<'_> {
    fn reload(&mut self) -> Result<(), Failure> {
        let (_, mut next) = self.source.read()?;
        if self.is_given {
            next.listen.clone_from(&self.plan.listen);
        }
        if !Server::can_exchange(&self.plan, &next) {
            return Err("what has changed needs another process, so start it anew, or with its supervisor"
                .to_owned()
                .into());
        }
        let is_new = |asked: &SocketAddr| !self.places.iter().any(|place| place.is_at(*asked));
        let fresh = Plan { listen: next.listen.iter().copied().filter(is_new).collect(), ..next.clone() };
        let added = Sockets::default().missing(&fresh)?;
        let mut places = self.places.clone();
        places.retain(|place| next.listen.iter().any(|asked| place.is_at(*asked)));
        places.extend(added.parts().0);
        let addresses: Vec<SocketAddr> = places.iter().map(|place| place.actual).collect();
        self.server.exchange(next.clone(), &addresses, added)?;
        (self.plan, self.places) = (next, places);
        Ok(())
    }
}

/// Starts the watch over the loops. Where they wait for the disk themselves, another process would wait for it just as well: then
/// it is said and no more. A thread that serves one connection may be as long at it as it likes.
fn watch_over(server: &Server, master: &Master, plan: &Plan) -> Result<(), String> {
    let failed = |error: io::Error| format!("cannot watch over the workers: {error}");
    stack::listen().map_err(failed)?;
    let (said, seen) = (master.clone(), master.clone());
    let is_inline = plan.disk == DiskMode::Inline;
    let readings = if plan.serves_one_by_one() { Arc::new([]) } else { Arc::clone(server.readings()) };
    let stuck = move |incident: &heartbeat::Incident| match &said {
        Master::Supervisor(channel, _) if !is_inline => {
            message::send(channel, Report::Stuck(incident.to_string()), &[]).is_ok()
        }
        _ => false,
    };
    let alive = move || {
        if let Master::Supervisor(channel, _) = &seen {
            // When the supervisor is gone, `obey` notices.
            let _ = message::send(channel, Report::Alive, &[]);
        }
    };
    process::vital_thread("amped-watch", move || heartbeat::run(&readings, stuck, alive)).map(drop).map_err(failed)
}

/// Starts the watch over the folders. One that this process may not open is for another process.
fn watch_folders(server: &Arc<Server>, master: &Master) -> Result<(), String> {
    let (server, master) = (Arc::clone(server), master.clone());
    let unable = move |why: String| match &master {
        Master::Supervisor(channel, _) => drop(message::send(channel, Report::Outgrown(why), &[])),
        Master::Nobody(_) => warn!("amped: {why}; start it anew, or with its supervisor"),
    };
    let started = process::vital_thread("amped-folders", move || folders::run(&server, unable));
    started.map(drop).map_err(|error| format!("cannot watch over the folders: {error}"))
}

/// Does what the supervisor says, on a thread of its own; its end is this process's.
fn obey(server: &Arc<Server>, channel: Arc<Channel>, source: Source, retires: Arc<AtomicBool>) -> Result<(), String> {
    let server = Arc::clone(server);
    let exchange = move |server: &Server, listen, addresses: &[SocketAddr], text, added| -> Result<(), Failure> {
        let mut next = source.understand(&message::text_of(text)?)?;
        next.listen = listen;
        Ok(server.exchange(next, addresses, added)?)
    };
    let body = move || {
        // The handler is set, so this is what a signal from outside would be.
        let end = || drop(low_level::raise(SIGTERM));
        while let Ok(Some((order, mut descriptors))) = message::receive::<Order>(&channel) {
            match order {
                Order::Reload { listen, addresses, places, counts } => {
                    let text = descriptors.remove(0);
                    let added = Sockets::from_parts(&places, &counts, descriptors);
                    let outcome = exchange(&server, listen, &addresses, text, added);
                    let report = match outcome.map_err(|failure| failure.to_string()) {
                        // A folder that was put in the place of another, a page that only root may read.
                        Err(why) if server.confined().lacks_rights() => Report::Unable(why),
                        outcome => Report::Reloaded(outcome),
                    };
                    let _ = message::send(&channel, report, &[]);
                }
                Order::Retire => {
                    retires.store(true, Relaxed);
                    end();
                }
                Order::Start { .. } => {}
            }
        }
        warn!("amped: the supervisor is gone, draining");
        end();
    };
    let started = process::vital_thread("amped-channel", body);
    started.map(drop).map_err(|error| format!("cannot listen to the supervisor: {error}"))
}
