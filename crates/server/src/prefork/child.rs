//! A process of the pool: one worker, a way to be asked for its numbers, and an end when its parent has ended.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::exit;

use amped_runtime::{process, warn};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use super::told::Told;
use crate::worker::server::{Prepared, Status};

/// Serves until told, and exits. The first line that the parent hears says that connections are accepted.
pub fn run(prepared: Prepared, told: &Told, control: UnixStream) -> ! {
    told.release();
    match serve(prepared, control) {
        Ok(()) => exit(0),
        Err(error) => {
            warn!("amped: {error}");
            exit(1)
        }
    }
}

fn serve(prepared: Prepared, control: UnixStream) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("a process of the pool: {error}");
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1]).map_err(failed)?;
    let server = prepared.one_process().start()?;
    let status = server.status();
    tell(&control, &status).map_err(failed)?;
    let asked = (control.try_clone().map_err(failed)?, status.clone());
    process::vital_thread("amped-control", move || obey(&asked.0, &asked.1)).map_err(failed)?;
    for signal in signals.forever() {
        if signal != SIGUSR1 {
            break;
        }
        server.reopen_log();
    }
    // A second signal is the parent's to act on: at a terminal both have the first, and it is sent on as well. Gently, as another
    // pool may serve already: a connection that has just been accepted has a request on its way.
    server.stop(true);
    tell(&control, &status).map_err(failed)
}

/// Answers the parent; its end is this process's.
fn obey(mut control: &UnixStream, status: &Status) {
    while control.read_exact(&mut [0]).is_ok() && tell(control, status).is_ok() {}
    // The handler is set, so this is what a signal from outside would be.
    let _ = low_level::raise(SIGTERM);
}

fn tell(mut control: &UnixStream, status: &Status) -> std::io::Result<()> {
    control.write_all(format!("{}\n", status.json()).as_bytes())
}
