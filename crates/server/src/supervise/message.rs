//! What the supervisor and a server process say to each other, and how.
//!
//! A message is a packet of JSON; more descriptors than one packet carries follow in packets of their own.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use amped_runtime::channel::{Channel, MAX_DESCRIPTORS};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::worker::sockets::Place;

/// To the server process.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Serve. With it: the configuration's text, the admin socket if there is one, and the listening sockets.
    Start {
        /// Where to listen.
        places: Vec<Place>,
        /// How many sockets each has.
        counts: Vec<usize>,
        /// Whether there is an admin socket.
        admin: bool,
        /// Server processes that had to be replaced so far.
        restarts: u64,
    },
    /// Serve by another plan. With it: its text and the sockets that are new.
    Reload {
        /// Every address as the plan has it.
        listen: Vec<SocketAddr>,
        /// Every address as the kernel has it.
        addresses: Vec<SocketAddr>,
        /// What is new.
        places: Vec<Place>,
        /// How many sockets each has.
        counts: Vec<usize>,
    },
    /// Another process serves: finish, and end.
    Retire,
}

/// To the supervisor.
#[derive(Debug, Serialize, Deserialize)]
pub enum Report {
    /// Connections are accepted. With it: which `takeover::LUGGAGE` this program understands.
    Ready(u32),
    /// The process as such gets on.
    Alive,
    /// A worker does not come out of a turn.
    Stuck(String),
    /// The other plan is in force, or why not.
    Reloaded(Result<(), String>),
    /// The other plan is not in force, and that may be for what this process has given up: another one may have more luck.
    Unable(String),
    /// A folder has been put in the place of another, and this process may not open it: another one may.
    Outgrown(String),
}

#[derive(Serialize, Deserialize)]
struct Envelope<M> {
    descriptors: usize,
    message: M,
}

/// Sends a message and what belongs to it.
///
/// # Errors
/// As `Channel::send`.
pub fn send<M: Serialize>(channel: &Channel, message: M, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let envelope = serde_json::to_vec(&Envelope { descriptors: descriptors.len(), message })?;
    let mut parts = descriptors.chunks(MAX_DESCRIPTORS);
    channel.send(&envelope, parts.next().unwrap_or_default())?;
    parts.try_for_each(|part| channel.send(b"more", part))
}

/// The next message; `None` at the end.
///
/// # Errors
/// As `Channel::receive`, and `InvalidData` for what is no such message.
pub fn receive<M: DeserializeOwned>(channel: &Channel) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let Some((bytes, mut descriptors)) = channel.receive()? else { return Ok(None) };
    let envelope: Envelope<M> = serde_json::from_slice(&bytes)?;
    while descriptors.len() < envelope.descriptors {
        let Some((_, more)) = channel.receive()? else { return Ok(None) };
        descriptors.extend(more);
    }
    Ok(Some((envelope.message, descriptors)))
}

/// The text in a file that came with a message.
///
/// # Errors
/// In words.
pub fn text_of(file: OwnedFd) -> Result<String, String> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::from(file);
    let failed = |error: io::Error| format!("cannot read what was passed on: {error}");
    let mut bytes = vec![0; file.metadata().map_err(failed)?.len() as usize];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    String::from_utf8(bytes).map_err(|_| "what was passed on is not UTF-8".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn many_descriptors_take_several_packets() {
        let (ours, theirs) = Channel::pair().expect("two sockets");
        let file = amped_runtime::channel::memory_file(b"x").expect("memory");
        let many = vec![file.as_fd(); 300];
        send(&ours, Report::Reloaded(Err("no".into())), &many).expect("room");
        send(&ours, Report::Alive, &[]).expect("room");
        let (report, descriptors) = receive::<Report>(&theirs).expect("sound").expect("a message");
        assert!(matches!(report, Report::Reloaded(Err(why)) if why == "no"));
        assert_eq!(descriptors.len(), 300);
        assert!(matches!(receive::<Report>(&theirs).expect("sound"), Some((Report::Alive, none)) if none.is_empty()));
        ours.send(b"{}", &[]).expect("room");
        assert_eq!(receive::<Report>(&theirs).expect_err("nonsense").kind(), io::ErrorKind::InvalidData);
    }
}
