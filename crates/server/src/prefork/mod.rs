//! MP: a pool of processes, forked before they are needed, each serving one connection at a time.
//!
//! The parent binds, opens what is served, forks, and then only waits: for signals, for children that end, for whoever asks
//! for the numbers. It never starts a thread, so that it can fork a replacement at any time; a replacement serves the
//! configuration as it was at the start, whatever has become of the files. Against running the binary anew this costs no second
//! reading of the configuration, and the processes share what they do not change, as Flash's and Apache's do.
//!
//! A child and its parent share a socket: the child tells its numbers over it when asked and when it ends, and the parent's death
//! closes it, which ends the child.

mod child;
pub mod told;

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use amped_runtime::process::{self, Child, End, Signal};
use amped_runtime::{say, warn};
use serde_json::Value;

use self::told::Told;
use crate::config::Plan;
use crate::observe::access_log::Writer;
use crate::observe::admin;
use crate::worker::confine;
use crate::worker::server::Prepared;
use crate::worker::sockets::Sockets;

/// The parent's view of its children.
#[derive(Debug)]
struct Pool {
    /// What every process starts from; `None` once connections are refused.
    prepared: Option<Prepared>,
    admin: Option<admin::Listener>,
    told: Told,
    /// Nobody else has the listening sockets.
    is_alone: bool,
    wanted: usize,
    members: Vec<Member>,
    /// What those that ended in an orderly way had counted.
    past: Value,
    /// Children that ended unasked.
    restarts: u64,
}

#[derive(Debug)]
struct Member {
    child: Child,
    control: UnixStream,
    started: Instant,
}

/// Serves until SIGTERM or SIGINT; a second one ends at once, whatever is being sent. `ready` is called once connections are
/// accepted, with what runs and where. `is_alone`: nobody else has the sockets, so that its end is theirs;
/// `restarts`: processes that had to be replaced before.
///
/// # Errors
/// In words, what kept it from starting.
pub fn serve_until_told(
    mut plan: Plan,
    sockets: Sockets,
    admin: Option<admin::Listener>,
    is_alone: bool,
    restarts: u64,
    ready: impl FnOnce(&str, &[SocketAddr]),
) -> Result<(), String> {
    let told = Told::listen().map_err(|error| format!("cannot listen for signals: {error}"))?;
    plan.workers = plan.limits.max_connections.unwrap_or(usize::MAX).min(plan.workers);
    // A file that root made would not be the user's to write.
    if plan.user.is_none() {
        Writer::check(&plan.access_log)?;
    }
    let prepared = Prepared::new(plan, sockets)?;
    let (mut described, addresses) = (prepared.describe(), prepared.addresses().to_vec());
    if let Some(warning) = confine::warning(prepared.plan()) {
        described = format!("{described}\namped: {warning}");
    }
    let wanted = prepared.plan().workers;
    let members = Vec::new();
    let mut pool =
        Pool { prepared: Some(prepared), admin, told, is_alone, wanted, members, past: Value::Null, restarts };
    for _ in 0..wanted {
        pool.grow()?;
    }
    ready(&described, &addresses);
    pool.watch();
    pool.end()
}

impl Pool {
    /// Forks one more child and waits until it accepts connections.
    fn grow(&mut self) -> Result<(), String> {
        let failed = |error| format!("cannot start a process: {error}");
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let Some(child) = process::fork().map_err(failed)? else {
            // The parent's ends of all sockets must be closed here, or its death would go unnoticed.
            drop((ours, self.admin.take(), std::mem::take(&mut self.members)));
            child::run(self.prepared.take().expect("forked while it serves"), &self.told, theirs)
        };
        ours.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
        let member = Member { child, control: ours, started: Instant::now() };
        drop(theirs);
        if member.hear().is_none() {
            member.child.signal(Signal::KILL);
            return Err("a process did not start".into());
        }
        self.members.push(member);
        Ok(())
    }

    /// Keeps the pool complete until the end is called for.
    fn watch(&mut self) {
        let mut not_before = Instant::now();
        while !self.told.is_over() {
            if self.told.is_to_reopen() {
                self.members.iter().for_each(|member| member.child.signal(Signal::USR1));
            }
            if self.told.is_to_reload() || self.told.is_to_upgrade() {
                say!(
                    "amped: processes that serve a connection each are not reloaded: that is their supervisor's business"
                );
            }
            for (member, how) in self.reap() {
                self.restarts += 1;
                warn!("amped: process {} has ended ({how}), another takes its place", member.child.id());
                if member.started.elapsed() < SHORT_LIFE {
                    not_before = Instant::now() + SHORT_LIFE;
                }
            }
            let pause = not_before.saturating_duration_since(Instant::now());
            if self.members.len() < self.wanted && pause.is_zero() {
                if let Err(error) = self.grow() {
                    warn!("amped: {error}");
                    not_before = Instant::now() + SHORT_LIFE;
                }
                continue;
            }
            let limit = (self.members.len() < self.wanted).then_some(pause);
            self.wait(limit);
        }
    }

    /// Waits for a signal or for whoever asks for the numbers, who is answered.
    fn wait(&self, limit: Option<Duration>) {
        let called = self.told.wait(self.admin.as_ref().map(AsFd::as_fd).as_slice(), limit) == [true];
        if called && let Some(admin) = &self.admin {
            admin.serve_one(self);
        }
    }

    /// Has every child finish what it is sending, and says what there was.
    fn end(mut self) -> Result<(), String> {
        // Whoever connects from now on is refused rather than left waiting.
        let prepared = self.prepared.take();
        prepared.filter(|_| self.is_alone).inspect(Prepared::refuse);
        if !self.is_alone {
            // The next process answers for the server now.
            drop(self.admin.take());
        }
        self.told.forget();
        self.members.iter().for_each(|member| member.child.signal(Signal::TERM));
        while !self.members.is_empty() {
            if self.told.is_over() {
                self.members.iter().for_each(|member| member.child.signal(Signal::KILL));
                return Err("told twice, ending at once".into());
            }
            if self.reap().is_empty() {
                self.wait(None);
            }
        }
        let counted = |name: &str| self.past["counters"][name].as_u64().unwrap_or(0);
        say!("served {} requests, {} bytes", counted("requests"), counted("bytes_sent"));
        Ok(())
    }

    /// The children that have ended, and how. What they had to say last is kept.
    fn reap(&mut self) -> Vec<(Member, End)> {
        let mut ended = Vec::new();
        while let Some((id, how)) = process::reap() {
            let Some(place) = self.members.iter().position(|member| member.child.id() == id) else { continue };
            let member = self.members.swap_remove(place);
            if let Some(mut last) = member.last_words() {
                let counted = COUNTED.iter().map(|name| ((*name).to_owned(), last[name].take()));
                add(&mut self.past, counted.collect());
            }
            ended.push((member, how));
        }
        ended
    }
}

impl admin::Source for Pool {
    /// Everybody's numbers in one.
    fn status(&self) -> Value {
        let mut sum = self.past.clone();
        for member in &self.members {
            if let Some(status) = member.ask() {
                add(&mut sum, status);
            }
        }
        if let Value::Object(sum) = &mut sum {
            sum.insert("processes".into(), serde_json::json!({ "id": std::process::id(), "restarts": self.restarts }));
        }
        sum
    }

    fn is_ready(&self) -> bool {
        self.prepared.is_some()
    }
}

impl Member {
    /// The next thing it says; `None` when it says nothing for long.
    fn hear(&self) -> Option<Value> {
        let mut line = String::new();
        BufReader::new(&self.control).read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }

    /// Its numbers, if it still tells them.
    fn ask(&self) -> Option<Value> {
        (&self.control).write_all(b"?").ok()?;
        self.hear()
    }

    /// What it said when it ended, if it had the time.
    fn last_words(&self) -> Option<Value> {
        let said = BufReader::new(&self.control).lines().map_while(Result::ok).last()?;
        serde_json::from_str(&said).ok()
    }
}

/// Adds a process's numbers to those of others: sums, the greater of two times or limits, lists one after the other.
fn add(sum: &mut Value, more: Value) {
    match (sum, more) {
        (Value::Object(sum), Value::Object(more)) => {
            for (name, more) in more {
                match sum.get_mut(&name) {
                    Some(present) if name.ends_with("_us") || name == "limit" => {
                        *present = present.as_u64().max(more.as_u64()).into();
                    }
                    Some(present) => add(present, more),
                    None => drop(sum.insert(name, more)),
                }
            }
        }
        (Value::Array(sum), Value::Array(more)) => sum.extend(more),
        (sum @ Value::Number(_), more) => *sum = (sum.as_u64().unwrap_or(0) + more.as_u64().unwrap_or(0)).into(),
        (sum @ Value::Null, more) => *sum = more,
        // A name, which is the same for all.
        _ => {}
    }
}

/// What of a child's numbers is still true when it has ended.
const COUNTED: &[&str] = &["counters", "sites", "latency"];
/// How long a child may take to start, or to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A child that has not lived longer is not replaced at once: what killed it may kill the next one, and the next.
const SHORT_LIFE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_added_by_their_kind() {
        let mut sum = Value::Null;
        for (hits, delay) in [(1, 30), (2, 20)] {
            add(
                &mut sum,
                json!({ "driver": "blocking", "counters": { "hits": hits }, "delay_us": delay, "turns": [hits] }),
            );
        }
        assert_eq!(sum, json!({ "driver": "blocking", "counters": { "hits": 3 }, "delay_us": 30, "turns": [1, 2] }));
    }
}
