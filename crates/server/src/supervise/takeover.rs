//! The supervisor executes itself anew and goes on where it was: same process, same children, other program.
//!
//! What it holds goes into a channel of which both ends are its own: the kernel keeps it over execve(2), and the new program
//! reads it from standard input as a server process reads its orders. Signals wait meanwhile. It is done only when a server
//! process of the new program already serves, so a program that does not run is not executed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use amped_runtime::channel::{Channel, memory_file};
use amped_runtime::process;
use serde::{Deserialize, Serialize};

use super::child::{Child, State};
use super::control::{Caller, Control, Request};
use super::supervisor::{Settled, Supervisor};
use super::{Failure, SUPERVISOR, Source, VARIABLE, message};
use crate::config::Plan;
use crate::prefork::told::Told;
use crate::worker::sockets::{Place, Sockets};

/// The version of `Luggage`: a program that packs another way is not executed by this one, which then goes on supervising it.
pub const LUGGAGE: u32 = 1;

/// What goes along. With it: the configuration's text, the admin socket, PID file and control socket, the children's channels,
/// the callers, the listening sockets.
#[derive(Debug, Serialize, Deserialize)]
struct Luggage {
    places: Vec<Place>,
    counts: Vec<usize>,
    is_given: bool,
    admin: bool,
    control: Option<PathBuf>,
    children: Vec<(i32, State, bool)>,
    /// What has been asked for and not been done, and by how many.
    queue: Vec<(Request, usize)>,
    restarts: BTreeMap<String, u64>,
    binary: OsString,
}

/// Executes the binary as it is now; returns only when that could not be done, and then nothing has changed. Signals must be held.
pub fn execute(supervisor: &Supervisor) -> io::Error {
    let failed = pack(supervisor).map(|channel| {
        let mut arguments = std::env::args_os();
        let mut command = Command::new(&supervisor.binary);
        command.arg0(arguments.next().unwrap_or_else(|| "amped".into())).args(arguments).env(VARIABLE, SUPERVISOR);
        channel.become_stdin().map_or_else(|error| error, |()| command.exec())
    });
    failed.unwrap_or_else(|error| error)
}

fn pack(supervisor: &Supervisor) -> io::Result<Channel> {
    let (ours, theirs) = Channel::pair()?;
    // Nobody reads yet: what does not fit must be an error.
    ours.never_wait()?;
    let (places, counts, sockets) = supervisor.sockets.parts();
    let text = memory_file(supervisor.settled.text.as_bytes())?;
    let control = supervisor.control.as_ref().map(Control::parts);
    let luggage = Luggage {
        places,
        counts,
        is_given: supervisor.is_given,
        admin: supervisor.settled.admin.is_some(),
        control: control.as_ref().map(|(path, _)| path.clone()),
        children: supervisor.children.iter().map(|child| (child.process.id(), child.state, child.converses)).collect(),
        queue: supervisor.queue.iter().map(|(request, callers)| (*request, callers.len())).collect(),
        restarts: supervisor.restarts.clone(),
        binary: supervisor.binary.clone().into_os_string(),
    };
    let mut descriptors = vec![text.as_fd()];
    descriptors.extend(supervisor.settled.admin.as_ref().map(AsFd::as_fd));
    descriptors.extend(control.into_iter().flat_map(|(_, parts)| parts));
    descriptors.extend(supervisor.children.iter().map(AsFd::as_fd));
    descriptors.extend(supervisor.queue.iter().flat_map(|(_, callers)| callers).map(AsFd::as_fd));
    descriptors.extend(sockets);
    message::send(&ours, luggage, &descriptors)?;
    Ok(theirs)
}

/// Goes on as the supervisor that this process was under another program.
///
/// # Errors
/// In words: standard input is not what `execute` left.
pub fn resume(source: Source) -> Result<Supervisor, Failure> {
    let failed = |error: io::Error| format!("this process is executed by `amped` itself ({VARIABLE} is set): {error}");
    let told = Told::listen().map_err(failed)?;
    let channel = Channel::from_stdin().map_err(failed)?;
    let received = message::receive::<Luggage>(&channel).map_err(failed)?;
    let (luggage, descriptors) = received.ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()))?;
    process::hold_signals(false);
    let mut descriptors = descriptors.into_iter();
    let mut take = || descriptors.next().ok_or_else(|| failed(io::ErrorKind::UnexpectedEof.into()));
    let text = message::text_of(take()?)?;
    let admin = luggage.admin.then(&mut take).transpose()?;
    let control =
        luggage.control.map(|path| Ok::<_, String>(Control::from_parts(path, take()?, take()?))).transpose()?;
    let child = |(id, state, converses): (i32, State, bool)| {
        let process = process::Child::known(id).ok_or_else(|| format!("{id} is no process"))?;
        Ok::<_, String>(Child::known(process, Channel::from(take()?), state, converses))
    };
    let children = luggage.children.into_iter().map(child).collect::<Result<Vec<_>, _>>()?;
    let callers = |(request, count): (Request, usize)| {
        let callers = (0..count).map(|_| take().map(Caller::from)).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, String>((request, callers))
    };
    let queue = luggage.queue.into_iter().map(callers).collect::<Result<_, _>>()?;
    let sockets = Sockets::from_parts(&luggage.places, &luggage.counts, descriptors.collect());
    let mut plan: Plan = source.understand(&text)?;
    plan.listen = luggage.places.iter().map(|place| place.asked).collect();
    let settled = Settled { text, plan, admin };
    let mut this = Supervisor::with(source, settled, luggage.is_given, sockets, control, luggage.binary.into(), told);
    this.resume(children, queue, luggage.restarts);
    Ok(this)
}
