//! Who says what the watch has seen: a thread that may wait, since the watch may not.
//!
//! The names of functions are in a file, and standard error may be one. A watch that looks them up itself on a drowned disk sees
//! no other loop meanwhile and gives no sign of life, and its process is replaced for that.

use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TrySendError};
use std::time::Duration;

use amped_runtime::stack::Stack;
use amped_runtime::warn;

use super::heartbeat::Incident;

/// The watch's end of it.
pub(super) struct Herald {
    /// There unless no thread could be started.
    errands: Option<SyncSender<Errand>>,
    /// What could not be said since something last was.
    unsaid: u32,
}

enum Errand {
    /// To be said, after so many that could not be.
    Say(Incident, u32),
    /// To be named and handed back.
    Name(Stack, Sender<Vec<String>>),
}

impl Herald {
    /// Starts the thread.
    pub(super) fn start() -> Self {
        let (sender, errands) = mpsc::sync_channel(WAITING);
        let thread = std::thread::Builder::new().name("amped-herald".into());
        let started = thread.spawn(move || run(&errands));
        Self { errands: started.is_ok().then_some(sender), unsaid: 0 }
    }

    /// Says it, with names, as soon as that can be done; never waits.
    pub(super) fn say(&mut self, incident: Incident) {
        let Some(errands) = &self.errands else { return warn!("amped: {incident}") };
        match errands.try_send(Errand::Say(incident, self.unsaid)) {
            Ok(()) => self.unsaid = 0,
            Err(TrySendError::Full(_)) => self.unsaid += 1,
            // It has panicked.
            Err(TrySendError::Disconnected(_)) => {
                self.errands = None;
                warn!("amped: a worker is slow, and what looks up where is gone");
            }
        }
    }

    /// Adds the names, unless that takes too long.
    pub(super) fn name(&self, mut incident: Incident) -> Incident {
        let (sender, names) = mpsc::channel();
        if let Some(errands) = self.errands.as_ref().filter(|_| !incident.stack.is_empty()) {
            let _ = errands.try_send(Errand::Name(incident.stack.clone(), sender));
            incident.names = names.recv_timeout(PATIENCE).unwrap_or_default();
        }
        incident
    }
}

fn run(errands: &Receiver<Errand>) {
    for errand in errands {
        match errand {
            Errand::Say(mut incident, unsaid) => {
                if incident.names.is_empty() {
                    incident.names = incident.stack.names();
                }
                warn!("amped: {incident}");
                if unsaid > 0 {
                    warn!("amped: it was so {unsaid} times before, when nothing could be said");
                }
            }
            // Whoever asked may have given up.
            Errand::Name(stack, names) => drop(names.send(stack.names())),
        }
    }
}

/// Errands that wait at most.
const WAITING: usize = 8;
/// How long a stuck worker's process goes on for its names' sake: well below the silence for which it would be replaced, and
/// they usually take less than 0.1 s.
const PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::heartbeat::of_this_thread;

    #[test]
    fn nobody_waits_for_a_herald_who_waits_for_the_disk() {
        let (sender, errands) = mpsc::sync_channel(WAITING);
        let mut herald = Herald { errands: Some(sender), unsaid: 0 };
        (0..WAITING + 2).for_each(|_| herald.say(of_this_thread()));
        assert_eq!(herald.unsaid, 2);
        // It has no room for this either, so nobody waits; with room they wait for a while.
        assert!(herald.name(of_this_thread()).to_string().contains("to look up where would take too long"));
        drop(errands.recv().expect("an errand"));
        assert!(herald.name(of_this_thread()).to_string().contains("to look up where would take too long"));
        // Once it comes to it, it says them all, and names what it still can.
        herald.say(of_this_thread());
        std::thread::spawn(move || run(&errands));
        let end = std::time::Instant::now() + Duration::from_secs(30);
        while !herald.name(of_this_thread()).to_string().contains("of_this_thread") {
            assert!(std::time::Instant::now() < end, "it does not come to it");
        }
    }
}
