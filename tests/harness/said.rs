//! What a server says on standard error.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, ChildStderr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Everything that a process and its children have said so far.
#[derive(Clone, Debug)]
pub struct Said(Arc<Mutex<Heard>>);

/// What becomes of what is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ears {
    /// It is read.
    Open,
    /// The pipe is full, and nobody reads it.
    Shut,
    /// Nobody has the other end.
    Gone,
}

#[derive(Debug)]
struct Heard {
    /// Until it ends, or nobody is to read it.
    pipe: Option<ChildStderr>,
    ears: Ears,
    bytes: Vec<u8>,
}

impl Said {
    /// Hears a process that was started with a pipe for its standard error.
    pub fn by(child: &mut Child) -> Self {
        let pipe = Some(child.stderr.take().expect("it was asked for"));
        let said = Self(Arc::new(Mutex::new(Heard { pipe, ears: Ears::Open, bytes: Vec::new() })));
        let this = said.clone();
        // So that whoever speaks finds room, also while nobody asks.
        std::thread::spawn(move || {
            while this.heard().pipe.is_some() {
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        said
    }

    /// All of it, in whole lines: also what was said the moment before this was called.
    pub fn text(&self) -> String {
        let heard = self.heard();
        let end = heard.bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        String::from_utf8_lossy(&heard.bytes[..end]).into_owned()
    }

    /// From now on it is heard like this. What is said meanwhile is not among what was said.
    pub fn hear(&self, child: &Child, ears: Ears) {
        let mut heard = self.heard();
        heard.ears = ears;
        match ears {
            Ears::Open => {}
            Ears::Gone => heard.pipe = None,
            Ears::Shut => {
                // A description of our own, so that only this writer does not wait.
                let path = format!("/proc/{}/fd/2", child.id());
                let flags = rustix::fs::OFlags::NONBLOCK.bits() as i32;
                let pipe = fs::OpenOptions::new().write(true).custom_flags(flags).open(path);
                let mut pipe = pipe.expect("the pipe it speaks into");
                while pipe.write(&[b'.'; 512]).is_ok() {}
            }
        }
    }

    /// With what is in the pipe read.
    fn heard(&self) -> MutexGuard<'_, Heard> {
        let mut heard = self.0.lock().expect("nobody panics with it");
        let mut bytes = [0; 4096];
        while heard.ears == Ears::Open
            && let Some(pipe) = &mut heard.pipe
            && poll(&mut [PollFd::new(pipe, PollFlags::IN)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
        {
            match pipe.read(&mut bytes) {
                Ok(0) | Err(_) => heard.pipe = None,
                Ok(read) => heard.bytes.extend_from_slice(&bytes[..read]),
            }
        }
        heard
    }
}
