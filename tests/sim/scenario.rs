//! What a seed is about: a configuration, a crowd, and which faults strike. Each fault is there in some seeds only ("swarm
//! testing", Groce et al., ISSTA 2012): a seed with all of them would never get far enough to meet two of them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use amped::config::choice::DiskMode;
use amped::config::plan::Plan;
use amped_runtime::disk::Place;
use amped_runtime::sim::{Faults, Random};

use crate::client::{Client, End, Manner};
use crate::model::Excuses;

#[derive(Debug)]
pub struct Scenario {
    /// Polite clients, no fault.
    pub is_calm: bool,
    pub plan: Plan,
    pub faults: Faults,
    pub place: Place,
    pub backlog: usize,
    pub excuses: Excuses,
    /// Clients and when they come.
    pub clients: Vec<(u64, Client)>,
    /// Small, large, huge files.
    pub files: (u64, u64, bool),
    pub change_every: u64,
    /// Nanoseconds until everything heals.
    pub storm: u64,
    /// The server is stopped after so many nanoseconds, whatever goes on; else when all is quiet.
    pub drain_after: Option<u64>,
    /// The address is taken away first: whoever has connected is served all the same.
    pub leaves: bool,
}

impl Scenario {
    pub fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed ^ 0x5EED);
        let is_calm = random.chance(120_000);
        let storm = random.between(2, 20) * SECOND;
        let (mut plan, place) = (plan(random, is_calm), place(random));
        let mut faults = if is_calm { calm(random) } else { stormy(random) };
        // Elsewhere nobody can tell what is still there, so what a helper has brought in is sent unasked (docs/disk.md).
        if plan.disk == DiskMode::Amped && place == Place::Own {
            faults.reread = 500_000;
        }
        let breaks = faults.open_error + faults.read_error + faults.open_shortage + faults.hang + faults.thread_error;
        // Of a file that changes faster than it can be read, memory goes on saying what it knew.
        let disk_errors = breaks + faults.race > 0 || faults.descriptors < 4096 || faults.memory > 100_000;
        if !is_calm && random.chance(150_000) {
            plan.clients.connections = Some(random.between(1, 8) as u32);
            plan.clients.requests = Some(random.between(1, 50) as u32);
            plan.clients.burst = random.between(1, 20) as u32;
        }
        let waits = plan.disk == DiskMode::Inline;
        let excuses = Excuses { disk_errors, overload: !is_calm || waits, limits: plan.clients.is_set(), waits };
        let count = match random.below(100) {
            0..=74 => random.between(1, 40),
            75..=97 => random.between(40, 200),
            _ => random.between(200, 1500),
        };
        let clients = (0..count).map(|number| {
            let manner = if is_calm { polite(random) } else { manner(random, storm, count) };
            let address = IpAddr::V4(Ipv4Addr::new(10, 0, (number / 200) as u8, (number % 7) as u8));
            (random.below(storm * 4 / 5), Client::new(manner, address))
        });
        let clients = clients.collect();
        let files = (random.between(1, 12), random.below(4), random.chance(100_000));
        let change_every = if random.chance(600_000) { random.pick(&[5, 100, 100, 1000]) * MILLI } else { 0 };
        let drain_after = random.chance(400_000).then(|| random.between(storm / 10, storm));
        let leaves = random.chance(500_000);
        let backlog = if is_calm || random.chance(700_000) { 4096 } else { random.between(1, 64) as usize };
        Self {
            is_calm,
            plan,
            faults,
            place,
            backlog,
            excuses,
            clients,
            files,
            change_every,
            storm,
            drain_after,
            leaves,
        }
    }

    /// Nothing goes wrong any more.
    pub fn healed(&self) -> Faults {
        Faults { reset_loses_data: true, defer_accept: self.faults.defer_accept, ..Faults::none() }
    }
}

fn plan(random: &mut Random, is_calm: bool) -> Plan {
    let mut plan = Plan::for_folder(Path::new("/simulated"));
    plan.workers = 1;
    plan.revalidate = Duration::from_millis(random.pick(&[0, 10, 100, 1000, 3000]));
    plan.cache_bytes = random.pick(&[0, 20_000, 200_000, 2_000_000, 50_000_000]);
    plan.disk = random.pick(&[DiskMode::Amped, DiskMode::Amped, DiskMode::Amped, DiskMode::Helpers, DiskMode::Inline]);
    plan.limits.idle_timeout = Duration::from_secs(random.between(1, 30));
    plan.limits.head_timeout = Duration::from_secs(random.between(1, 10));
    plan.limits.write_timeout = Duration::from_secs(random.between(2, 20));
    plan.limits.body_timeout = Duration::from_secs(random.between(2, 20));
    plan.limits.drain_timeout = Duration::from_secs(random.between(1, 20));
    if is_calm {
        plan.limits.idle_timeout = Duration::from_secs(60);
        return plan;
    }
    plan.shared_jobs = random.chance(850_000);
    plan.helpers = random.between(1, 8) as usize;
    plan.helper_queue = random.pick(&[1, 2, 8, 64, 1024]);
    plan.limits.max_body = random.pick(&[0, 1000, 1 << 20]);
    plan.limits.max_connections = random.chance(300_000).then(|| random.between(1, 60) as usize);
    plan.overload.disk_delay = Duration::from_millis(random.pick(&[1, 20, 200]));
    plan.overload.loop_delay = Duration::from_millis(random.pick(&[1, 10, 100]));
    plan.overload.reap_idle = Duration::from_millis(random.pick(&[100, 5000]));
    plan
}

fn place(random: &mut Random) -> Place {
    random.pick(&[Place::Own, Place::Own, Place::Own, Place::Local, Place::Remote])
}

fn calm(random: &mut Random) -> Faults {
    Faults {
        defer_accept: random.chance(500_000),
        segment: random.pick(&[10, 200, 1460, 1460, 65_536]),
        ..Faults::none()
    }
}

fn stormy(random: &mut Random) -> Faults {
    let mut faults = calm(random);
    faults.send_buffer = random.pick(&[1, 500, 20_000, 256 * 1024]).max(if random.chance(900_000) { 4000 } else { 1 });
    faults.client_buffer = random.pick(&[2000, 64 * 1024, 256 * 1024]);
    faults.reset_loses_data = random.chance(700_000);
    let rates = [1_000, 20_000, 200_000];
    let mut some = |of: u32| if random.chance(of) { random.pick(&rates) } else { 0 };
    faults.short_write = some(300_000);
    faults.spurious = some(300_000);
    faults.late_report = some(300_000) * 4;
    faults.accept_error = some(200_000);
    faults.open_shortage = some(150_000);
    faults.open_error = some(200_000);
    faults.read_error = some(200_000);
    faults.race = some(300_000).min(50_000);
    faults.evict = some(400_000);
    faults.hang = some(150_000) / 4;
    faults.thread_error = some(150_000) * 3;
    faults.clock_step = some(150_000) / 10;
    faults.stall = some(200_000) / 20;
    faults.stall_time = random.between(1, 300) * MILLI;
    faults.hang_time = random.between(1, 15) * SECOND;
    let most = random.pick(&[200, 20_000, 400_000]) * MICRO;
    faults.disk_time = (most / 10, most);
    let most = random.pick(&[100, 10_000, 300_000]) * MICRO;
    faults.latency = (most / 20, most);
    faults.blind = random.chance(100_000);
    if random.chance(150_000) {
        faults.descriptors = random.between(3, 60) as usize;
    }
    if random.chance(100_000) {
        faults.memory = random.pick(&[190_000, 220_000, 249_000]);
    }
    faults
}

fn polite(random: &mut Random) -> Manner {
    Manner {
        rounds: random.between(1, 10),
        pipeline: random.pick(&[1, 1, 3, 10]),
        think: random.pick(&[1, 10, 1000]) * MILLI,
        read: (1 << 20, 0),
        write: None,
        garbage: 0,
        methods: 0,
        end: random.pick(&[End::Said, End::Leave, End::Finish]),
        abort: None,
        is_strict: true,
    }
}

fn manner(random: &mut Random, storm: u64, count: u64) -> Manner {
    let mut manner = Manner { is_strict: false, ..polite(random) };
    if count > 200 {
        manner.rounds = random.between(1, 2);
    }
    manner.pipeline = random.pick(&[1, 1, 4, 40, 200]);
    if manner.pipeline > 4 {
        manner.rounds = manner.rounds.min(2);
    }
    manner.end = random.pick(&[End::Said, End::Leave, End::Finish, End::Idle, End::Reset, End::Vanish]);
    if random.chance(200_000) {
        manner.read = (random.between(100, 20_000) as usize, random.between(1, 200) * MILLI);
    }
    if random.chance(150_000) {
        manner.write = Some((random.between(1, 50) as usize, random.between(1, 500) * MILLI));
        (manner.rounds, manner.pipeline) = (manner.rounds.min(2), manner.pipeline.min(3));
    }
    manner.garbage = if random.chance(200_000) { 100_000 } else { 0 };
    manner.methods = if random.chance(200_000) { 200_000 } else { 0 };
    if random.chance(250_000) {
        let how = random.pick(&[End::Leave, End::Finish, End::Reset, End::Vanish]);
        let soon = random.pick(&[1, 10, 1000]);
        manner.abort = Some((random.below(storm / soon), how));
    }
    manner
}

/// A client that asks when all is well again.
pub fn probe(random: &mut Random, pipeline: u64) -> Client {
    let manner = Manner { rounds: 12, pipeline, think: 10 * MILLI, end: End::Said, ..polite(random) };
    Client::new(manner, IpAddr::V4(Ipv4Addr::new(10, 9, 9, random.below(200) as u8)))
}

pub const SECOND: u64 = 1_000_000_000;
const MILLI: u64 = 1_000_000;
const MICRO: u64 = 1_000;
