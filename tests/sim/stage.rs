//! One seed: the stage is set, the worker runs, and everything is counted at the end.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use amped::answer::error_page::ErrorPages;
use amped::answer::files::{Roots, Shelf};
use amped::overload::Clients;
use amped::overload::memory::Memory;
use amped::route::Router;
use amped::worker::{self, Served, Shared};
use amped_runtime::disk::Helpers;
use amped_runtime::driver::Kind;
use amped_runtime::sim::{self, World};

use crate::crowd::{Crowd, Town};
use crate::scenario::Scenario;

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    pub digest: (u64, u64),
    pub faults: Vec<String>,
    /// Answers by status.
    pub answers: std::collections::BTreeMap<u16, u64>,
}

/// Runs a seed on this thread.
pub fn run(seed: u64, tells: bool) -> Outcome {
    play(seed, Scenario::new(seed), tells)
}

/// Runs a scenario that need not be the seed's own.
pub fn play(seed: u64, mut scenario: Scenario, tells: bool) -> Outcome {
    if tells {
        eprintln!("{:#?}\n{:?}\n{} clients", scenario.faults, scenario.plan, scenario.clients.len());
    }
    let mut world = World::new(seed, scenario.faults.clone());
    if tells {
        world.tell();
    }
    world.place_files(scenario.place);
    let socket = world.listen(scenario.backlog);
    let plan = Arc::new(scenario.plan.clone());
    let crowd = Rc::new(RefCell::new(Crowd::new(&mut world, &mut scenario)));
    world.invite(Box::new(Town(Rc::clone(&crowd))));
    let (mut world, ()) = sim::within(world, || {
        let shared = shared(&plan);
        crowd.borrow_mut().watch(&shared);
        let server = Rc::clone(&crowd);
        let ended = worker::run(&shared, 0, vec![socket], |ready| match ready {
            Ok(readings) => server.borrow_mut().serves(readings),
            Err(error) => server.borrow_mut().complain(error),
        });
        if let Err(error) = ended {
            crowd.borrow_mut().complain(format!("the driver failed: {error}"));
        }
        crowd.borrow_mut().forget();
        // The process ends, and its threads with it.
        sim::end_helpers();
        drop(shared);
    });
    world.settle();
    let mut crowd = crowd.borrow_mut();
    crowd.look_back(&mut world);
    Outcome {
        digest: world.digest(),
        faults: std::mem::take(&mut crowd.faults),
        answers: std::mem::take(&mut crowd.model.answers),
    }
}

fn shared(plan: &Arc<amped::config::plan::Plan>) -> Arc<Shared> {
    let served = Served {
        plan: Arc::clone(plan),
        router: Arc::new(Router::new(plan)),
        roots: Arc::new(Roots::open(plan, None).expect("the world has a folder")),
        error_pages: Arc::new(ErrorPages::load(plan).expect("no page is asked for")),
    };
    Arc::new(Shared {
        served: Mutex::new(Arc::new(served)),
        changes: vec![Mutex::default()],
        shelf: Arc::new(Shelf::new(plan.cache_bytes, 1024)),
        helpers: Helpers::with_target(plan.helpers, plan.helper_queue, plan.overload.disk_delay),
        disk_use: Arc::default(),
        watcher: None,
        seats: Arc::new([Arc::default()]),
        log: None,
        driver: Kind::Sim,
        max_connections: plan.limits.max_connections.unwrap_or(100_000),
        clients: Clients::new(&plan.clients),
        memory: Memory::new(),
        plan: Arc::clone(plan),
    })
}
