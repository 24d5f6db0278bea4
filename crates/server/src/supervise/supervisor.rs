//! The supervisor's one loop: signals, callers, what the server process says, what is due.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use amped_runtime::process::{self, End, Signal};
use amped_runtime::{say, warn};

use super::backoff::Backoff;
use super::child::{Child, Outfit, State};
use super::control::{Caller, Control, Request};
use super::ending::Endings;
use super::message::{Order, Report};
use super::notify::Notify;
use super::{Failure, Mission, Source, Terminal, takeover};
use crate::config::Plan;
use crate::config::plan::Architecture;
use crate::observe::admin;
use crate::prefork::told::Told;
use crate::worker::server::Server;
use crate::worker::sockets::Sockets;

/// Everything it knows. What is `pub(super)` goes with it when it executes itself anew.
#[derive(Debug)]
pub struct Supervisor {
    pub(super) source: Source,
    /// The configuration that is in force.
    pub(super) settled: Settled,
    /// The service manager says where to listen, whatever the plan says.
    pub(super) is_given: bool,
    pub(super) sockets: Sockets,
    pub(super) control: Option<Control>,
    pub(super) children: Vec<Child>,
    /// Why server processes had to be replaced, and how often.
    pub(super) restarts: BTreeMap<String, u64>,
    /// Where this binary was when it was started: where the next one will be.
    pub(super) binary: PathBuf,
    told: Told,
    terminal: Terminal,
    notify: Notify,
    backoff: Backoff,
    endings: Endings,
    /// When another server process is due.
    due: Option<Instant>,
    /// What is being done for callers, and what is to be done next.
    task: Option<Task>,
    pub(super) queue: VecDeque<(Request, Vec<Caller>)>,
    leaving: Vec<Caller>,
    is_leaving: bool,
    has_been_ready: bool,
}

/// A configuration that has been checked, and what belongs to it.
#[derive(Debug)]
pub struct Settled {
    pub(super) text: String,
    pub(super) plan: Plan,
    pub(super) admin: Option<OwnedFd>,
}

/// A reload or an upgrade under way.
#[derive(Debug)]
struct Task {
    request: Request,
    callers: Vec<Caller>,
    /// What will be in force when it is done.
    next: Option<Settled>,
    /// Where the running process was asked to do it: until when it may take.
    limit: Option<Instant>,
    /// Why the running process could not do it.
    hindrance: Option<String>,
}

impl Supervisor {
    /// Binds, and takes the PID file.
    ///
    /// # Errors
    /// In words: what is in the way.
    pub fn new(mission: Mission, text: String, mut plan: Plan) -> Result<Self, Failure> {
        let told = Told::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
        // Descriptors on their way to a server process count as this one's.
        amped_runtime::descriptor_limit();
        let (sockets, is_given) = super::bind(&mut plan)?;
        let control = match &mission.pid_file {
            Some(path) => Some(Control::claim(path)?),
            None => Control::claim_usual(),
        };
        let admin = bind_admin(&plan)?;
        let settled = Settled { text, plan, admin };
        let binary = std::env::current_exe().map_err(|error| format!("cannot tell where this binary is: {error}"))?;
        Ok(Self::with(mission.source, settled, is_given, sockets, control, binary, told))
    }

    pub(super) fn with(
        source: Source,
        settled: Settled,
        is_given: bool,
        sockets: Sockets,
        control: Option<Control>,
        binary: PathBuf,
        told: Told,
    ) -> Self {
        Self {
            source,
            settled,
            is_given,
            sockets,
            control,
            binary,
            told,
            terminal: Terminal::now(),
            children: Vec::new(),
            restarts: BTreeMap::new(),
            notify: Notify::from_environment(),
            backoff: Backoff::default(),
            endings: Endings::new(),
            due: Some(Instant::now()),
            task: None,
            queue: VecDeque::new(),
            leaving: Vec::new(),
            is_leaving: false,
            has_been_ready: false,
        }
    }

    /// Goes on with server processes that run already.
    pub(super) fn resume(
        &mut self,
        children: Vec<Child>,
        queue: VecDeque<(Request, Vec<Caller>)>,
        restarts: BTreeMap<String, u64>,
    ) {
        self.queue = queue;
        (self.children, self.restarts) = (children, restarts);
        let limit = self.drain_limit();
        let draining = self.children.iter_mut().filter(|child| child.state == State::Draining);
        draining.for_each(|child| child.enter(State::Draining, Some(limit)));
        (self.due, self.has_been_ready) = (None, true);
        self.notify.ready(&self.summary());
    }

    /// Supervises until told to end.
    ///
    /// # Errors
    /// The server process did not start, or was not let end in peace.
    pub fn run(mut self) -> Result<(), Failure> {
        let mut before = Instant::now();
        loop {
            self.obey_signals()?;
            self.reap()?;
            if self.is_leaving && self.children.is_empty() {
                return self.leave();
            }
            self.lose_patience(before.elapsed());
            before = Instant::now();
            self.begin_what_is_next();
            self.start_what_is_due()?;
            self.wait();
        }
    }

    fn obey_signals(&mut self) -> Result<(), Failure> {
        if self.told.is_over() {
            self.told.forget();
            if self.is_leaving {
                self.children.iter().for_each(|child| child.process.signal(Signal::KILL));
                self.forget_control();
                return Err("told twice, ending at once".to_owned().into());
            }
            self.begin_to_leave();
        }
        if self.told.is_to_reopen() {
            self.children.iter().for_each(|child| child.process.signal(Signal::USR1));
        }
        if self.told.is_to_reload() {
            if self.terminal.is_gone() {
                self.begin_to_leave();
            }
            self.ask(Request::Reload, None);
        }
        if self.told.is_to_upgrade() {
            self.ask(Request::Upgrade, None);
        }
        Ok(())
    }

    /// One more who asks. Who asks for what is to be done next anyway is answered together with the others.
    fn ask(&mut self, request: Request, caller: Option<Caller>) {
        match request {
            Request::Status => caller.into_iter().for_each(|caller| caller.answer(&Ok(self.describe()))),
            Request::Stop => {
                self.leaving.extend(caller);
                self.begin_to_leave();
            }
            _ if self.is_leaving => {
                caller.into_iter().for_each(|caller| caller.answer(&Err("the server is about to end".into())));
            }
            _ => match self.queue.iter_mut().find(|(waiting, _)| *waiting == request) {
                Some((_, callers)) => callers.extend(caller),
                None => self.queue.push_back((request, caller.into_iter().collect())),
            },
        }
    }

    fn begin_to_leave(&mut self) {
        if std::mem::replace(&mut self.is_leaving, true) {
            return;
        }
        self.notify.stopping();
        self.due = None;
        self.end_task(Err("the server is about to end".into()));
        let asked = std::mem::take(&mut self.queue);
        let callers = asked.into_iter().flat_map(|(_, callers)| callers);
        callers.for_each(|caller| caller.answer(&Err("the server is about to end".into())));
        let limit = self.drain_limit();
        self.children.iter_mut().filter(|child| child.state != State::Draining).for_each(|child| child.drain(limit));
        if self.children.iter().any(|child| !child.converses) {
            // The processes of a pool end one by one, and whoever is queued meanwhile would wait for nothing.
            self.sockets.refuse();
        }
        // Each server process closes its own once their queues are empty; the last to close a socket ends it.
        self.sockets = Sockets::default();
        self.settled.admin = None;
    }

    fn leave(mut self) -> Result<(), Failure> {
        self.forget_control();
        std::mem::take(&mut self.leaving).into_iter().for_each(|caller| caller.answer(&Ok("stopped".into())));
        Ok(())
    }

    fn forget_control(&mut self) {
        if let Some(control) = self.control.take() {
            control.remove();
        }
    }

    /// Looks after those that have ended.
    fn reap(&mut self) -> Result<(), Failure> {
        while let Some((id, end)) = process::reap() {
            let Some(at) = self.children.iter().position(|child| child.process.id() == id) else { continue };
            let mut child = self.children.swap_remove(at);
            // What it said last may say why.
            while let Some(report) = child.report() {
                if let Report::Stuck(what) = report {
                    warn!("amped: {what}");
                }
            }
            self.has_ended(&child, end)?;
        }
        Ok(())
    }

    fn has_ended(&mut self, child: &Child, end: End) -> Result<(), Failure> {
        let id = child.process.id();
        let words = self.endings.words(end);
        match child.state {
            State::Draining if end == End::Code(0) => {}
            State::Draining => warn!("amped: server {id}, which was draining, has ended ({words})"),
            State::Starting if !self.has_been_ready => {
                self.forget_control();
                // It has said why.
                return Err(match end {
                    End::Code(code) => Failure::Ended(u8::try_from(code).unwrap_or(1).max(1)),
                    _ => Failure::Failed(format!("the server process has ended: {words}")),
                });
            }
            State::Starting if self.task.is_some() => {
                let hindrance = self.task.as_mut().and_then(|task| task.hindrance.take());
                let why = hindrance.map(|why| format!("{why}; ")).unwrap_or_default();
                self.end_task(Err(format!("{why}the new server process ended before it was ready ({words})")));
            }
            _ => {
                if self.task.as_ref().is_some_and(|task| task.limit.is_some()) {
                    self.end_task(Err("the server process has ended meanwhile".into()));
                }
                // A stuck one was counted when it was found.
                if child.state != State::Stuck {
                    self.count(words.clone());
                }
                warn!("amped: server {id}, which was {}, has ended: {words}", child.state);
                self.replace(child.served());
            }
        }
        Ok(())
    }

    fn count(&mut self, why: String) {
        *self.restarts.entry(why).or_default() += 1;
    }

    /// Sees to it that there is a server process, after one that has served for so long.
    fn replace(&mut self, served: Duration) {
        let serves = |child: &Child| matches!(child.state, State::Starting | State::Ready);
        if self.is_leaving || self.due.is_some() || self.children.iter().any(serves) {
            return;
        }
        let pause = self.backoff.after(served);
        if pause.is_zero() {
            say!("amped: another server takes its place");
        } else {
            let failures = self.backoff.failures();
            warn!("amped: {}: attempt {failures} in a row is due in {pause:.1?}", State::BackingOff);
        }
        self.due = Some(Instant::now() + pause);
    }

    /// Ends what has taken too long; `awake` is how long the last round took, which is all that silence is counted by: a machine
    /// that stands still is silent without being stuck.
    fn lose_patience(&mut self, awake: Duration) {
        let now = Instant::now();
        let mut silent = Vec::new();
        for child in &mut self.children {
            if child.limit.is_some_and(|limit| now >= limit) {
                warn!("amped: server {} is {} for too long and is killed", child.process.id(), child.state);
                child.process.signal(Signal::KILL);
                child.limit = None;
            }
            child.silence += awake.min(LONGEST_WAIT);
            if child.state == State::Ready && child.converses && child.silence >= SILENCE && !child.is_stopped() {
                silent.push(child.process.id());
            }
        }
        silent.into_iter().for_each(|id| self.is_stuck(id, "the process says nothing"));
        if self.task.as_ref().and_then(|task| task.limit).is_some_and(|limit| now >= limit) {
            self.end_task(Err("the server process has not answered".into()));
        }
    }

    fn is_stuck(&mut self, id: i32, what: &str) {
        let Some(child) = self.children.iter_mut().find(|child| child.process.id() == id) else { return };
        if child.state != State::Ready {
            return;
        }
        let served = child.served();
        child.enter(State::Stuck, None);
        warn!("amped: server {id} is stuck and will be replaced: {what}");
        self.count(State::Stuck.name().to_owned());
        self.replace(served);
    }

    fn wait(&mut self) {
        let now = Instant::now();
        let limits = self.children.iter().filter_map(|child| child.limit);
        let limits = limits.chain(self.due).chain(self.task.as_ref().and_then(|task| task.limit));
        let next = limits.chain(self.notify.watchdog(now)).min().unwrap_or(now + LONGEST_WAIT);
        let limit = next.saturating_duration_since(now).min(LONGEST_WAIT);
        let control = self.control.as_ref().map(AsFd::as_fd);
        let speaking = self.children.iter().filter(|child| !child.is_mute);
        let others: Vec<BorrowedFd<'_>> = control.into_iter().chain(speaking.map(AsFd::as_fd)).collect();
        let ready = self.told.wait(&others, Some(limit));
        let called = self.control.is_some() && ready.first() == Some(&true);
        if called && let Some((request, caller)) = self.control.as_ref().and_then(Control::next) {
            self.ask(request, Some(caller));
        }
        for at in 0..self.children.len() {
            while let Some(report) = self.children[at].report() {
                self.hear(at, report);
            }
        }
    }

    fn hear(&mut self, at: usize, report: Report) {
        let id = self.children[at].process.id();
        match report {
            Report::Alive => {}
            Report::Stuck(what) => self.is_stuck(id, &what),
            Report::Ready(luggage) if self.children[at].state == State::Starting => self.has_become_ready(at, luggage),
            Report::Ready(_) => {}
            Report::Reloaded(outcome) if self.is_awaited(at) => self.end_task(outcome.map(|()| "reloaded".into())),
            // One that drains has been replaced, by one that serves what was asked for.
            Report::Reloaded(Ok(())) if self.children[at].state == State::Ready => {
                say!(
                    "amped: server {id} has reloaded after all, long after that was given up; another process is to serve"
                );
                self.ask(Request::Renew, None);
            }
            Report::Reloaded(_) => {}
            // One that drains serves nothing new any more.
            Report::Outgrown(why) if self.children[at].state == State::Ready => {
                warn!("amped: {why}; another process is to serve it");
                self.ask(Request::Renew, None);
            }
            Report::Outgrown(_) => {}
            Report::Unable(why) if self.is_awaited(at) => {
                let task = self.task.as_mut().expect("awaited");
                (task.limit, task.hindrance) = (None, Some(why));
                if let Err(why) = self.spawn_next() {
                    self.end_task(Err(why));
                }
            }
            Report::Unable(_) => {}
        }
    }

    /// Whether what this server process has answered is what is being waited for, not something that was given up before.
    fn is_awaited(&mut self, at: usize) -> bool {
        self.children[at].has_answered() && self.task.as_ref().is_some_and(|task| task.limit.is_some())
    }

    /// A server process accepts connections: the others are not needed any more.
    fn has_become_ready(&mut self, at: usize, luggage: u32) {
        self.children[at].enter(State::Ready, None);
        let (id, limit) = (self.children[at].process.id(), self.drain_limit());
        if let Some(next) = self.task.as_ref().and_then(|task| task.next.as_ref()) {
            // Before those that retire have taken the last connections.
            self.sockets.leave(&next.plan);
        }
        for child in self.children.iter_mut().filter(|child| child.process.id() != id) {
            match child.state {
                State::Stuck => child.retire(limit.min(STUCK_LIMIT)),
                State::Ready | State::Starting => child.retire(limit),
                State::Draining | State::BackingOff => {}
            }
        }
        if !std::mem::replace(&mut self.has_been_ready, true) {
            self.sockets.addresses().iter().for_each(|address| say!("listening on http://{address}"));
        }
        let request = self.task.as_ref().map(|task| task.request);
        let upgrades = request == Some(Request::Upgrade);
        match request {
            Some(Request::Upgrade) => self.end_task(Ok("upgraded".into())),
            Some(Request::Renew) => self.end_task(Ok("renewed, in another process".into())),
            Some(_) => self.end_task(Ok("reloaded, in another process".into())),
            None => self.notify.ready(&self.summary()),
        }
        if upgrades && luggage != takeover::LUGGAGE {
            say!("amped: the supervisor itself is of another version and goes on as it is, until `amped stop`");
        } else if upgrades {
            // Only returns when it could not be done; then this one goes on as well as before.
            process::hold_signals(true);
            self.told.raise_again();
            let error = takeover::execute(self);
            process::hold_signals(false);
            warn!("amped: the supervisor itself could not be upgraded and goes on: {error}");
        }
    }

    fn begin_what_is_next(&mut self) {
        let is_busy = self.task.is_some() || self.children.iter().any(|child| child.state == State::Starting);
        if is_busy || self.is_leaving || !self.has_been_ready {
            return;
        }
        let Some((request, callers)) = self.queue.pop_front() else { return };
        self.notify.reloading();
        self.task = Some(Task { request, callers, next: None, limit: None, hindrance: None });
        let begun = match request {
            Request::Upgrade => self.begin_upgrade(),
            Request::Renew => self.spawn_next().map_err(Failure::from),
            _ => self.begin_reload(),
        };
        if let Err(failure) = begun {
            self.end_task(Err(failure.to_string()));
        }
    }

    fn begin_upgrade(&mut self) -> Result<(), Failure> {
        self.due = None;
        let binary = self.binary.clone();
        Ok(self.spawn(&binary)?)
    }

    fn begin_reload(&mut self) -> Result<(), Failure> {
        let (text, mut plan) = self.source.read()?;
        if self.is_given {
            plan.listen.clone_from(&self.settled.plan.listen);
        }
        let added = self.sockets.missing(&plan)?;
        let has_same_admin = plan.admin == self.settled.plan.admin;
        let admin = match &self.settled.admin {
            Some(socket) if has_same_admin => Some(socket.try_clone().map_err(|error| error.to_string())?),
            _ => bind_admin(&plan)?,
        };
        let runs = self.children.iter().position(|child| child.state == State::Ready);
        let Some(at) = runs.filter(|_| Server::can_exchange(&self.settled.plan, &plan)) else {
            self.sockets.add(added);
            self.task.as_mut().expect("under way").next = Some(Settled { text, plan, admin });
            return Ok(self.spawn_next()?);
        };
        let (places, counts, _) = added.parts();
        let mut all = self.sockets.copy_for(&plan)?.addresses();
        all.extend(added.addresses());
        let order = Order::Reload { listen: plan.listen.clone(), addresses: all, places, counts };
        let sent = self.children[at].exchange(&text, order, &added);
        self.sockets.add(added);
        let task = self.task.as_mut().expect("under way");
        task.next = Some(Settled { text, plan, admin });
        task.limit = Some(Instant::now() + RELOAD_LIMIT);
        Ok(sent?)
    }

    /// Starts the process that takes over with what will be in force.
    fn spawn_next(&mut self) -> Result<(), String> {
        self.due = None;
        self.spawn(Path::new(SELF))
    }

    /// What was under way has succeeded, or nothing has changed.
    fn end_task(&mut self, outcome: Result<String, String>) {
        let Some(task) = self.task.take() else { return };
        if let (Ok(_), Some(next)) = (&outcome, task.next) {
            self.settled = next;
        }
        if !self.is_leaving {
            self.sockets.keep(&self.settled.plan);
        }
        let (request, source) = (task.request, &self.source);
        let outcome = outcome.map(|done| match request {
            Request::Reload => format!("{done}: {source}"),
            _ => done,
        });
        match &outcome {
            Ok(done) => say!("amped: {done}"),
            Err(why) => warn!("amped: {request} refused, nothing has changed: {}", why.trim_end()),
        }
        self.notify.ready(&self.summary());
        // One that began to start for this will not be needed.
        if outcome.is_err() {
            let starting = self.children.iter_mut().filter(|child| child.state == State::Starting);
            starting.for_each(|child| child.drain(Duration::ZERO));
            self.replace(Duration::ZERO);
        }
        task.callers.into_iter().for_each(|caller| caller.answer(&outcome));
    }

    fn start_what_is_due(&mut self) -> Result<(), Failure> {
        if self.due.is_none_or(|due| Instant::now() < due) {
            return Ok(());
        }
        self.due = None;
        // Not the binary that lies there now: it may be of another version, and only an upgrade tries it first.
        if let Err(why) = self.spawn(Path::new(SELF)) {
            if !self.has_been_ready {
                return Err(why.into());
            }
            warn!("amped: {why}");
            self.replace(Duration::ZERO);
        }
        Ok(())
    }

    fn spawn(&mut self, binary: &Path) -> Result<(), String> {
        self.endings.starts();
        let next = self.task.as_ref().and_then(|task| task.next.as_ref());
        let settled = next.unwrap_or(&self.settled);
        let sockets = self.sockets.copy_for(&settled.plan)?;
        let outfit = Outfit {
            binary,
            text: &settled.text,
            sockets: &sockets,
            admin: settled.admin.as_ref().map(AsFd::as_fd),
            restarts: self.restarts.values().sum(),
            converses: settled.plan.architecture != Architecture::Mp,
        };
        let child = Child::spawn(&outfit)?;
        self.children.push(child);
        Ok(())
    }

    fn drain_limit(&self) -> Duration {
        self.settled.plan.limits.drain_timeout + DRAIN_SLACK
    }

    fn summary(&self) -> String {
        let addresses: Vec<String> = self.sockets.addresses().iter().map(ToString::to_string).collect();
        format!("serving on {}", addresses.join(", "))
    }

    /// For `amped status`.
    fn describe(&self) -> String {
        let mut lines = vec![format!("amped {}, process {}", env!("CARGO_PKG_VERSION"), std::process::id())];
        lines.push(self.summary());
        lines.extend(self.children.iter().map(Child::describe));
        if let Some(due) = self.due {
            let pause = due.saturating_duration_since(Instant::now());
            lines.push(format!("{}: the next attempt is due in {pause:.1?}", State::BackingOff));
        }
        let restarts: Vec<String> = self.restarts.iter().map(|(why, count)| format!("{count} × {why}")).collect();
        let restarts = if restarts.is_empty() { "none".into() } else { restarts.join(", ") };
        lines.push(format!("restarts: {restarts}"));
        lines.join("\n")
    }
}

fn bind_admin(plan: &Plan) -> Result<Option<OwnedFd>, String> {
    Ok(admin::Listener::of(plan)?.map(OwnedFd::from))
}

/// This very program, whatever has become of its file.
const SELF: &str = "/proc/self/exe";
/// The longest wait: silence is noticed about as late.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// A server process speaks twice a second.
const SILENCE: Duration = Duration::from_secs(5);
/// A reload opens folders, which may wait for the disk.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);
/// After the time that the plan gives a drain: for the worker's grace, and for the log's last lines.
const DRAIN_SLACK: Duration = Duration::from_secs(4);
/// What a stuck process's other workers have to finish. Not long: the stuck one may keep a core busy, and with io_uring the kernel
/// goes on telling it of connections, for which others look a moment later.
const STUCK_LIMIT: Duration = Duration::from_millis(250);
