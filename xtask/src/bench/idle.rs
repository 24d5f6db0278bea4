//! What a connection costs that does nothing: 15,000 keep-alive connections, each after one request.
//! Connecting blocks for microseconds on loopback, so one thread opens them all; a descriptor each is all they cost here.

use std::io::Result;
use std::thread::sleep;
use std::time::Duration;

use super::client::Client;
use super::peers::Role;
use super::report::{Report, count, median};
use super::server::{Running, Site};
use super::{Bench, Server, corpus};

/// Runs it.
///
/// # Errors
/// The files could not be made. A server that fails gets a note.
pub fn run(bench: &Bench) -> Result<Option<Report>> {
    let site = Site { root: corpus::plain()?, cache: Some("64MB"), size: 1024, tail: None };
    let mut notes = vec![GOAL.to_owned()];
    let mut rows = Vec::new();
    for server in bench.servers.iter().filter(|server| server.role != Role::Null) {
        let mut samples = Vec::new();
        for _ in 0..bench.options.rounds.min(ROUNDS) {
            match measure(bench, server, &site) {
                Ok(sample) => samples.push(sample),
                Err(error) => {
                    notes.push(format!("{}: {error}", server.name));
                    break;
                }
            }
        }
        if !samples.is_empty() {
            rows.push(cells(server.name, &samples));
        }
        println!("idle: {}", server.name);
    }
    Ok(Some(Report {
        scenario: "idle".into(),
        about: format!(
            "{CONNECTIONS} keep-alive connections, each after one request for 1 KB: growth of the server's proportional memory, and \
             a second request on every fiftieth. Medians of at most {ROUNDS} fresh starts."
        ),
        columns: vec!["server", "bytes each", "memory before, KB", "opened", "asked again", "answered"],
        rows,
        notes,
        in_turns: false,
    }))
}

struct Sample {
    opened: usize,
    before: u64,
    after: u64,
    asked: usize,
    answered: usize,
}

fn measure(bench: &Bench, server: &'static Server, site: &Site) -> Result<Sample> {
    let running = Running::start(bench, server, site, None)?;
    let mut first = Client::connect(running.port)?;
    for _ in 0..100 {
        first.get(PATH)?;
    }
    let family = running.family();
    let before = family.proportional_bytes();
    let mut clients = Vec::with_capacity(CONNECTIONS);
    while clients.len() < CONNECTIONS {
        let opened = open(running.port);
        let is_all = opened.len() == AT_ONCE;
        clients.extend(opened);
        if !is_all {
            // Descriptor trouble: the row shows how far it went.
            break;
        }
    }
    sleep(Duration::from_secs(1));
    let after = family.proportional_bytes();
    let opened = clients.len();
    let answers =
        clients.iter_mut().step_by(50).map(|client| client.get(PATH).is_ok_and(|answer| answer.status == 200));
    let answers: Vec<bool> = answers.collect();
    Ok(Sample { opened, before, after, asked: answers.len(), answered: answers.iter().filter(|alive| **alive).count() })
}

/// A few connections that have been answered once. Together, since a server that looks at all its connections for each report would else
/// take longer for all of them than it lets the first one idle.
fn open(port: u16) -> Vec<Client> {
    let connect = |_| Client::connect(port).and_then(|mut client| client.ask(PATH).map(|()| client)).ok();
    let asked: Vec<Client> = (0..AT_ONCE).map_while(connect).collect();
    let is_answered = |client: &mut Client| client.hear().is_ok_and(|answer| answer.status == 200);
    asked.into_iter().map_while(|mut client| is_answered(&mut client).then_some(client)).collect()
}

fn cells(name: &str, samples: &[Sample]) -> Vec<String> {
    let middle = |figure: fn(&Sample) -> f64| median(samples.iter().map(figure));
    vec![
        name.to_owned(),
        count(middle(|one| one.after.saturating_sub(one.before) as f64 / one.opened.max(1) as f64)),
        count(middle(|one| one.before as f64 / 1024.0)),
        count(middle(|one| one.opened as f64)),
        count(middle(|one| one.asked as f64)),
        count(middle(|one| one.answered as f64)),
    ]
}

const GOAL: &str = "goal: at most 300 bytes each, all answered";
const CONNECTIONS: usize = 15_000;
const AT_ONCE: usize = 50;
/// Memory does not scatter as time does.
const ROUNDS: u32 = 3;
const PATH: &str = "/1k.html";
