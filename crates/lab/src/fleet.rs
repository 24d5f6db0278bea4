//! A run's processes: one thread with a loop, or several processes with one each when descriptors would not suffice.
//!
//! ```text
//! this process ── "begin", "stop" on standard input ──► worker i of n: the same command line and --worker i/n
//!      ▲                                                    │
//!      └────────── an Event a line, JSON on its standard output
//! ```
//!
//! All begin together, and what they see in the same second is one interval. A worker ends when its input does, so none is
//! left over when this process dies.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::load::control::Control;
use crate::load::{self, Event};
use crate::plan::Plan;
use crate::tally::Interval;

/// What the threads of this process tell its first one.
enum Message {
    /// A worker's event.
    Event(usize, Event),
    /// A worker has ended, well or not.
    Ended(usize, Result<(), String>),
    /// The user wants the run to end.
    Interrupted,
}

/// Whoever does the work.
enum Worker {
    Thread(Arc<Control>),
    Process(Child, Option<ChildStdin>),
}

/// Runs the plan to its end; `sink` is told what happens, with the intervals of all processes joined.
///
/// # Errors
/// What kept a worker from its work, or what the sink says.
pub fn run(plan: Plan, mut sink: impl FnMut(&Event) -> Result<(), String>) -> Result<(), String> {
    let (sender, receiver) = channel();
    let mut signals = Signals::new([SIGINT, SIGTERM]).map_err(|error| format!("cannot watch for signals: {error}"))?;
    let interrupts = sender.clone();
    thread::spawn(move || {
        for _ in signals.forever() {
            if interrupts.send(Message::Interrupted).is_err() {
                return;
            }
        }
    });
    let mut workers = start(plan, &sender)?;
    let outcome = follow(&mut workers, &receiver, &mut sink);
    workers.iter_mut().for_each(Worker::end);
    outcome
}

/// A worker's life: the load, told to begin and to stop by standard input, telling of itself on standard output.
///
/// # Errors
/// As `load::run`.
pub fn work(plan: Plan) -> Result<(), String> {
    let control = Arc::new(Control::default());
    let told = Arc::clone(&control);
    thread::spawn(move || {
        for line in io::stdin().lines() {
            match line.as_deref() {
                Ok("begin") => told.begin(),
                _ => break,
            }
        }
        told.stop();
    });
    load::run(plan, control, |event| {
        let line = serde_json::to_string(event).map_err(|error| error.to_string())?;
        let mut out = io::stdout().lock();
        let written = writeln!(out, "{line}").and_then(|()| out.flush());
        written.map_err(|error| format!("the first process does not listen: {error}"))
    })
}

fn start(plan: Plan, sender: &Sender<Message>) -> Result<Vec<Worker>, String> {
    let processes = plan.processes();
    if processes == 1 {
        let control = Arc::new(Control::default());
        let (steering, sender) = (Arc::clone(&control), sender.clone());
        thread::spawn(move || {
            let events = sender.clone();
            let tell = move |event: &Event| {
                events.send(Message::Event(0, event.clone())).map_err(|_| "nobody listens".to_owned())
            };
            let outcome = load::run(plan, control, tell);
            let _ = sender.send(Message::Ended(0, outcome));
        });
        return Ok(vec![Worker::Thread(steering)]);
    }
    let mut workers = Vec::new();
    for index in 0..processes {
        match spawn(index, processes, sender.clone()) {
            Ok(worker) => workers.push(worker),
            Err(error) => {
                workers.iter_mut().for_each(Worker::end);
                return Err(format!("cannot start process {} of {processes}: {error}", index + 1));
            }
        }
    }
    Ok(workers)
}

fn spawn(index: u16, of: u16, sender: Sender<Message>) -> io::Result<Worker> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).arg("--worker").arg(format!("{index}/{of}"));
    // A group of its own: Ctrl-C is for this process, which then ends the others in order.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let index = usize::from(index);
    thread::spawn(move || {
        let outcome = output.map_or(Ok(()), |output| listen(BufReader::new(output), index, &sender));
        let _ = sender.send(Message::Ended(index, outcome));
    });
    Ok(Worker::Process(child, input))
}

/// Passes a process's events on until it is over.
fn listen(output: impl BufRead, index: usize, sender: &Sender<Message>) -> Result<(), String> {
    let broken = |why: String| format!("process {} broke off: {why}", index + 1);
    for line in output.lines() {
        let line = line.map_err(|error| broken(error.to_string()))?;
        let event: Event = serde_json::from_str(&line).map_err(|error| broken(error.to_string()))?;
        let is_over = matches!(event, Event::Over);
        if sender.send(Message::Event(index, event)).is_err() || is_over {
            return Ok(());
        }
    }
    Err(broken("it ended before the run did".into()))
}

/// Follows all workers to their end.
fn follow(
    workers: &mut [Worker],
    receiver: &Receiver<Message>,
    sink: &mut impl FnMut(&Event) -> Result<(), String>,
) -> Result<(), String> {
    let mut seconds = Seconds::new(workers.len());
    let mut connecting = vec![(0, 0); workers.len()];
    let (mut ready, mut running, mut interrupts) = (0, workers.len(), 0);
    while running > 0 {
        match receiver.recv().map_err(|_| "all workers are gone".to_owned())? {
            Message::Event(worker, Event::Connecting(done, all)) => {
                connecting[worker] = (done, all);
                let sum = connecting.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
                sink(&Event::Connecting(sum.0, sum.1))?;
            }
            Message::Event(_, Event::Ready) => {
                ready += 1;
                if ready == workers.len() {
                    workers.iter_mut().for_each(Worker::begin);
                    sink(&Event::Ready)?;
                }
            }
            Message::Event(worker, Event::Interval(interval)) => {
                for joined in seconds.add(worker, *interval) {
                    sink(&Event::Interval(Box::new(joined)))?;
                }
            }
            Message::Event(_, Event::Over) => {}
            Message::Ended(worker, outcome) => {
                outcome?;
                running -= 1;
                for joined in seconds.end(worker) {
                    sink(&Event::Interval(Box::new(joined)))?;
                }
            }
            Message::Interrupted => {
                interrupts += 1;
                if interrupts > 1 {
                    return Err("interrupted".into());
                }
                workers.iter_mut().for_each(Worker::stop);
            }
        }
    }
    sink(&Event::Over)
}

/// Joins the workers' intervals by their numbers.
#[derive(Debug)]
struct Seconds {
    /// How many each has told of; one that has ended has told of all.
    told: Vec<u32>,
    /// Of the crowd, how many each had connected when it told last, and after which interval it ended.
    connected: Vec<u64>,
    ended: Vec<u32>,
    /// Those that are not complete, from number `first`.
    open: Vec<Interval>,
    first: u32,
}

impl Seconds {
    fn new(workers: usize) -> Self {
        let connected = vec![0; workers];
        Self { told: vec![0; workers], connected, ended: vec![u32::MAX; workers], open: Vec::new(), first: 0 }
    }

    fn add(&mut self, worker: usize, interval: Interval) -> Vec<Interval> {
        self.told[worker] = interval.index + 1;
        self.connected[worker] = interval.idle_connected;
        let at = interval.index.saturating_sub(self.first) as usize;
        match self.open.get_mut(at) {
            Some(known) => known.join(&interval),
            None => self.open.push(interval),
        }
        self.complete()
    }

    fn end(&mut self, worker: usize) -> Vec<Interval> {
        self.ended[worker] = self.told[worker];
        self.told[worker] = u32::MAX;
        self.complete()
    }

    fn complete(&mut self) -> Vec<Interval> {
        let told_by_all = self.told.iter().copied().min().unwrap_or(u32::MAX);
        let count = (told_by_all.saturating_sub(self.first) as usize).min(self.open.len());
        self.first += count as u32;
        let mut complete: Vec<Interval> = self.open.drain(..count).collect();
        for interval in &mut complete {
            // Who ended a moment before the others had its crowd connected to the last.
            let ended = self.ended.iter().zip(&self.connected).filter(|(ended, _)| **ended <= interval.index);
            interval.idle_connected += ended.map(|(_, connected)| connected).sum::<u64>();
        }
        complete
    }
}

impl Worker {
    fn begin(&mut self) {
        match self {
            Self::Thread(control) => control.begin(),
            // One that cannot be told has ended, and says so by itself.
            Self::Process(_, Some(input)) => drop(input.write_all(b"begin\n")),
            Self::Process(_, None) => {}
        }
    }

    fn stop(&mut self) {
        match self {
            Self::Thread(control) => control.stop(),
            Self::Process(_, input) => drop(input.take()),
        }
    }

    fn end(&mut self) {
        self.stop();
        if let Self::Process(child, _) = self {
            // Nothing to do about a child that cannot be waited for.
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(index: u32, answers: u64) -> Interval {
        let mut interval = Interval { index, ..Interval::default() };
        interval.main.counts.answers = answers;
        interval
    }

    #[test]
    fn seconds_are_joined_when_all_have_told_of_them() {
        let mut seconds = Seconds::new(2);
        let answers = |joined: Vec<Interval>| joined.iter().map(|one| one.main.counts.answers).collect::<Vec<_>>();
        assert_eq!(answers(seconds.add(0, interval(0, 1))), [0u64; 0]);
        assert_eq!(answers(seconds.add(0, interval(1, 2))), [0u64; 0]);
        assert_eq!(answers(seconds.add(1, interval(0, 10))), [11]);
        assert_eq!(answers(seconds.end(1)), [2], "who has ended has told of all");
        assert_eq!(answers(seconds.add(0, interval(2, 3))), [3]);
        assert_eq!(answers(seconds.end(0)), [0u64; 0]);
    }

    #[test]
    fn who_ends_first_had_its_crowd_to_the_last() {
        let mut seconds = Seconds::new(2);
        let with = |index, idle_connected| Interval { index, idle_connected, ..Interval::default() };
        let connected = |joined: Vec<Interval>| joined.iter().map(|one| one.idle_connected).collect::<Vec<_>>();
        assert_eq!(connected(seconds.add(0, with(0, 70))), [0u64; 0]);
        assert_eq!(connected(seconds.add(1, with(0, 30))), [100]);
        assert_eq!(connected(seconds.end(1)), [0u64; 0]);
        assert_eq!(connected(seconds.add(0, with(1, 70))), [100]);
    }
}
