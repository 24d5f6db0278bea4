//! Everybody outside the server: the clients, whoever changes files, and the director, who lets the storm end, stops the
//! server, and looks at its bounds all the while.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use amped::config::choice::DiskMode;
use amped::worker::{Readings, Shared};
use amped_runtime::disk::Stats;
use amped_runtime::sim::{self, Faults, MEDDLER, World};

use crate::client::Client;
use crate::model::Model;
use crate::scenario::{SECOND, Scenario, probe};
use crate::site::Site;

/// The crowd as the world calls it.
pub struct Town(pub Rc<RefCell<Crowd>>);

pub struct Crowd {
    clients: Vec<Client>,
    site: Site,
    pub model: Model,
    pub faults: Vec<String>,
    shared: Option<Arc<Shared>>,
    readings: Option<Readings>,
    healed: Faults,
    heals_at: u64,
    drains_at: u64,
    /// Stopped in the middle of everything.
    is_cut: bool,
    /// The address is taken away before the server is stopped.
    leaves: bool,
    /// Every connection can be accepted.
    accepts: bool,
    is_healed: bool,
    has_probed: bool,
    /// All is quiet, and was looked at.
    has_looked: bool,
    next_change: u64,
    /// As the helpers were last seen.
    stats: Stats,
    waits_are_faults: bool,
    /// Nanoseconds in which something must move for whoever is owed an answer.
    patience: u64,
}

impl sim::Crowd for Town {
    fn act(&mut self, world: &mut World, who: u32) {
        self.0.borrow_mut().act(world, who);
    }

    fn look(&mut self) {
        self.0.borrow_mut().look();
    }
}

impl Crowd {
    pub fn new(world: &mut World, scenario: &mut Scenario) -> Self {
        let (small, large, huge) = scenario.files;
        let site = Site::new(world, small, large, huge, scenario.change_every, scenario.is_calm);
        let now = world.now();
        let mut clients = Vec::new();
        for (number, (after, client)) in (0u32..).zip(scenario.clients.drain(..)) {
            world.call_at(now + after, number);
            clients.push(client);
        }
        world.call_at(now + TICK, DIRECTOR);
        let faults = &scenario.faults;
        let slack = 50_000_000 + if faults.stall > 0 { 20 * faults.stall_time } else { 0 };
        let model = Model::new(scenario.excuses.clone(), scenario.plan.revalidate.as_nanos() as u64, slack);
        let is_long = faults.hang > 0 || faults.descriptors < 4096 || faults.memory > 100_000;
        // Where the loop itself waits for the disk, everybody waits with it.
        let patience = if scenario.plan.disk == DiskMode::Inline {
            u64::MAX
        } else if is_long {
            90 * SECOND
        } else {
            30 * SECOND
        };
        let heals_at = now + scenario.storm;
        let accepts = faults.accept_error == 0 && faults.descriptors >= 4096;
        Self {
            clients,
            site,
            model,
            faults: Vec::new(),
            shared: None,
            readings: None,
            healed: scenario.healed(),
            heals_at,
            drains_at: scenario.drain_after.map_or(heals_at + QUIET, |after| now + after),
            is_cut: scenario.drain_after.is_some(),
            leaves: scenario.leaves,
            accepts,
            is_healed: false,
            has_probed: false,
            has_looked: false,
            stats: Stats::default(),
            next_change: now + scenario.change_every,
            waits_are_faults: scenario.plan.disk != DiskMode::Inline,
            patience,
        }
    }

    pub fn watch(&mut self, shared: &Arc<Shared>) {
        self.shared = Some(Arc::clone(shared));
    }

    pub fn serves(&mut self, readings: Readings) {
        self.model.counters = Some(Arc::clone(&readings.counters));
        self.readings = Some(readings);
    }

    /// The server is no more.
    pub fn forget(&mut self) {
        self.shared = None;
    }

    pub fn complain(&mut self, fault: impl Into<String>) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault.into());
        }
    }

    fn act(&mut self, world: &mut World, who: u32) {
        match who {
            MEDDLER => self.site.change(world),
            DIRECTOR => self.direct(world),
            _ => {
                let Self { clients, site, model, .. } = self;
                let Some(client) = clients.get_mut(who as usize) else { return };
                if let Err(fault) = client.act(world, who, site, model) {
                    client.is_over = true;
                    let at = world.now();
                    self.complain(format!("client {who} at {at}: {fault}"));
                }
            }
        }
    }

    fn look(&mut self) {
        let Some(shared) = self.shared.clone() else { return };
        self.stats = shared.helpers.stats();
        self.look_at_bounds(&shared);
    }

    fn direct(&mut self, world: &mut World) {
        let Some(shared) = self.shared.clone() else { return };
        let now = world.now();
        if self.site.change_every > 0 && now >= self.next_change && now < self.heals_at {
            self.next_change = now + self.site.change_every;
            self.site.change(world);
        }
        if !self.is_healed && now >= self.heals_at {
            self.is_healed = true;
            // A loop that waits for the disk itself may have been in one turn until long after that.
            self.drains_at += now - self.heals_at;
            self.heals_at = now;
            *world.faults() = self.healed.clone();
            for (number, client) in (0u32..).zip(&mut self.clients) {
                client.hurry();
                world.call_at(now, number);
            }
        }
        if self.is_healed && !self.has_probed && now >= self.heals_at + RECOVERY {
            self.has_probed = true;
            self.model.recovered = now;
            // Where hardly a job may wait, two at once are too many.
            let is_narrow = shared.plan.helper_queue < 64 || shared.max_connections < 60 || self.model.excuses.limits;
            let count = if is_narrow { 1 } else { 3 };
            for _ in 0..count {
                let client = probe(world.random(), count);
                world.call_at(now, self.clients.len() as u32);
                self.clients.push(client);
            }
        }
        if now >= self.drains_at && !self.has_looked {
            self.has_looked = true;
            if !self.is_cut {
                self.look_at_quiet(world, &shared);
            }
            if self.leaves {
                world.leave_listener();
            }
            world.note("drain", 0, 0);
            self.model.is_stopped = true;
            shared.seats[0].drain(false);
        }
        for at in 0..self.clients.len() {
            if self.clients[at].has_waited(now) > self.patience {
                self.complain(format!("client {at} at {now} waits too long: {}", self.clients[at].describe()));
                self.clients[at].is_over = true;
            }
        }
        let pause = if self.is_healed { SECOND } else { TICK };
        world.look_at(now + pause);
        world.call_at(now + pause, DIRECTOR);
    }

    /// What must hold at any time.
    fn look_at_bounds(&mut self, shared: &Shared) {
        let plan = &shared.plan;
        let stats = self.stats;
        // Revalidations have a queue of their own, of one job a name.
        let most = plan.helper_queue + if plan.shared_jobs { self.site.names.len() + 1 } else { usize::MAX / 2 };
        if stats.queued > most {
            self.complain(format!("{} jobs wait where {most} may", stats.queued));
        }
        if stats.threads > plan.helpers * 2 + 1 {
            self.complain(format!("{} helpers where {} may be", stats.threads, plan.helpers * 2 + 1));
        }
        let connections = shared.seats[0].connections();
        if connections > shared.max_connections {
            self.complain(format!("{connections} connections where {} may be", shared.max_connections));
        }
        if shared.shelf.used() > plan.cache_bytes {
            self.complain(format!("{} bytes in a cache of {}", shared.shelf.used(), plan.cache_bytes));
        }
    }

    /// Everybody has had the time to end: nothing may be left.
    fn look_at_quiet(&mut self, world: &mut World, shared: &Shared) {
        for at in 0..self.clients.len() {
            if !self.clients[at].is_over {
                self.complain(format!("client {at} never ended: {}", self.clients[at].describe()));
            }
        }
        let (connections, seats) = (world.open_connections(), shared.seats[0].connections());
        if (connections, seats) != (0, 0) {
            self.complain(format!("{connections} connections are open, and {seats} counted, when all have ended"));
        }
        let stats = self.stats;
        if (stats.queued, world.busy_helpers()) != (0, 0) {
            self.complain(format!("{} jobs wait and {} are done for nobody", stats.queued, world.busy_helpers()));
        }
        let waiting = self
            .readings
            .as_ref()
            .map_or(0, |readings| readings.counters.waiting.iter().map(amped::observe::counters::Counter::get).sum());
        if waiting != 0 {
            self.complain(format!("{waiting} conversations are counted as waiting when none is left"));
        }
    }

    /// The server has ended and everything has arrived.
    pub fn look_back(&mut self, world: &mut World) {
        for at in 0..self.clients.len() {
            if self.clients[at].is_owed() {
                self.complain(format!("client {at} was left: {}", self.clients[at].describe()));
            }
        }
        let (connections, files) = world.open_descriptors();
        if (connections, files) != (0, 0) {
            self.complain(format!("descriptors are left: {connections} of connections, {files} of files"));
        }
        if let Some(wait) = world.loop_waits().first().filter(|_| self.waits_are_faults) {
            self.complain(format!("the loop may have waited for the disk: {wait}"));
        }
        let panics = self.readings.as_ref().map_or(0, |readings| readings.counters.panics.get());
        if panics != 0 {
            self.complain(format!("{panics} panics"));
        }
        let lost = world.lost_connections();
        if lost != 0 && self.leaves && self.accepts {
            self.complain(format!("{lost} had connected and were reset when the address was taken away"));
        }
        if !self.is_cut && !self.has_looked {
            self.complain("the end came too early");
        }
    }
}

const DIRECTOR: u32 = u32::MAX - 1;
/// Nanoseconds between two looks.
const TICK: u64 = 100_000_000;
/// After a storm memory may answer for a minute for a disk that has failed; then all is well again.
const RECOVERY: u64 = 65 * SECOND;
/// Every timeout of a scenario is shorter than what is left of this.
const QUIET: u64 = 200 * SECOND;
const MAX_FAULTS: usize = 10;
