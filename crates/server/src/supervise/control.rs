//! The PID file, and the socket beside it over which `amped reload`, `upgrade`, `stop` and `status` are asked and answered.
//!
//! The file is locked while its process lives (flock(2)), so a stale one is recognised, whatever its number. `NAME.pid` goes with
//! `NAME.sock`, which only its owner and root may use.

use std::fmt;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use amped_runtime::process;
use serde::{Deserialize, Serialize};

/// What can be asked of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Serve by the configuration as it is now.
    Reload,
    /// Execute the binary as it is now.
    Upgrade,
    /// Finish what is being sent, and end.
    Stop,
    /// Say how it goes.
    Status,
    /// Have another process serve by the same configuration: what it opens has changed. Nobody outside asks for it.
    Renew,
}

/// The supervisor's side.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    lock: File,
    listener: UnixListener,
}

/// Somebody who waits for an answer.
#[derive(Debug)]
pub struct Caller(UnixStream);

/// Why a request was not granted.
#[derive(Debug)]
pub enum Refusal {
    /// Nobody is there to be asked.
    NotRunning(PathBuf),
    /// It was refused, or could not be asked.
    Refused(String),
}

impl Request {
    /// What callers may ask for.
    const ALL: [Self; 4] = [Self::Reload, Self::Upgrade, Self::Stop, Self::Status];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Upgrade => "upgrade",
            Self::Stop => "stop",
            Self::Status => "status",
            Self::Renew => "renewal",
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Control {
    /// Takes the PID file at this path.
    ///
    /// # Errors
    /// In words: another process has it, or it cannot be written.
    pub fn claim(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot write the PID file {}: {error}", path.display());
        let path = std::path::absolute(path).map_err(failed)?;
        let mut lock = loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = file.map_err(failed)?;
            if !process::lock(&file).map_err(failed)? {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                return Err(format!("the PID file {} is another server's (process {})", path.display(), pid.trim()));
            }
            // Whoever had it may have removed it when it ended: then this is a file without a name.
            let is_the_one = |found: std::fs::Metadata| file.metadata().is_ok_and(|own| own.ino() == found.ino());
            if std::fs::metadata(&path).is_ok_and(is_the_one) {
                break file;
            }
        };
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{}", std::process::id()))
            .map_err(failed)?;
        let socket = socket_of(&path);
        let _ = std::fs::remove_file(&socket);
        let failed = |error: io::Error| format!("cannot listen at {}: {error}", socket.display());
        let listener = UnixListener::bind(&socket).map_err(failed)?;
        std::fs::set_permissions(&socket, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { path, lock, listener })
    }

    /// Takes the usual PID file, if nobody else has it and it can be written: the first server that a user starts without naming
    /// one is the one that commands without a name are for.
    pub fn claim_usual() -> Option<Self> {
        Self::claim(&usual_path()?).ok()
    }

    /// The next caller, and what is asked; `None` for one who does not say it at once.
    pub fn next(&self) -> Option<(Request, Caller)> {
        let (stream, _) = self.listener.accept().ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_write_timeout(Some(PATIENCE)).ok()?;
        let mut word = String::new();
        BufReader::new((&stream).take(64)).read_line(&mut word).ok()?;
        let request = Request::ALL.into_iter().find(|request| request.name() == word.trim())?;
        Some((request, Caller(stream)))
    }

    /// What another process needs to go on with it.
    pub fn parts(&self) -> (PathBuf, [BorrowedFd<'_>; 2]) {
        (self.path.clone(), [self.lock.as_fd(), self.listener.as_fd()])
    }

    /// The opposite of `parts`.
    pub fn from_parts(path: PathBuf, lock: OwnedFd, listener: OwnedFd) -> Self {
        Self { path, lock: lock.into(), listener: listener.into() }
    }

    /// Removes both files.
    pub fn remove(&self) {
        let _ = std::fs::remove_file(socket_of(&self.path));
        let _ = std::fs::remove_file(&self.path);
    }
}

impl AsFd for Control {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Caller {
    fn from(stream: OwnedFd) -> Self {
        Self(stream.into())
    }
}

impl Caller {
    /// Answers. One who has gone is none of the server's business.
    pub fn answer(self, outcome: &Result<String, String>) {
        let _ = match outcome {
            Ok(words) => write!(&self.0, "ok\n{words}"),
            Err(words) => write!(&self.0, "failed\n{words}"),
        };
    }
}

/// Asks whoever has the PID file, and waits for the answer.
///
/// # Errors
/// Nobody is there, or the answer is no.
pub fn ask(pid_file: Option<&Path>, request: Request) -> Result<String, Refusal> {
    let path = match pid_file {
        Some(path) => path.to_path_buf(),
        None => usual_path().ok_or_else(|| Refusal::Refused("name the PID file: --pid-file PATH".into()))?,
    };
    let socket = socket_of(&path);
    let mut stream = match UnixStream::connect(&socket) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Err(Refusal::NotRunning(path));
        }
        Err(error) => return Err(Refusal::Refused(format!("cannot ask at {}: {error}", socket.display()))),
    };
    let mut answer = String::new();
    let asked = writeln!(stream, "{request}").and_then(|()| stream.read_to_string(&mut answer));
    let gone = || Refusal::Refused("the server ended without an answer".into());
    match (asked, answer.split_once('\n')) {
        (Ok(_), Some(("ok", words))) => Ok(words.to_owned()),
        (Ok(_), Some(("failed", words))) => Err(Refusal::Refused(words.to_owned())),
        // It was about to end anyway.
        _ if request == Request::Stop => Ok("stopped".into()),
        _ => Err(gone()),
    }
}

fn socket_of(path: &Path) -> PathBuf {
    path.with_extension("sock")
}

fn usual_path() -> Option<PathBuf> {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(|| PathBuf::from("/run"), PathBuf::from);
    folder.is_dir().then(|| folder.join("amped.pid"))
}

/// A caller says at once what it wants, and takes the answer; nobody else waits longer for it than this.
const PATIENCE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_has_one_owner_and_callers_are_answered() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("one.pid");
        assert!(matches!(ask(Some(&path), Request::Status), Err(Refusal::NotRunning(_))));
        let control = Control::claim(&path).expect("free");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), format!("{}\n", std::process::id()));
        let refused = Control::claim(&path).expect_err("taken");
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        let asked = path.clone();
        let asking = std::thread::spawn(move || {
            let status = ask(Some(&asked), Request::Status).expect("granted");
            (status, ask(Some(&asked), Request::Reload))
        });
        for outcome in [Ok("well\n".to_owned()), Err("no\n".to_owned())] {
            control.next().expect("a caller").1.answer(&outcome);
        }
        let (status, reload) = asking.join().expect("no panic");
        assert_eq!(status, "well\n");
        assert!(matches!(reload, Err(Refusal::Refused(words)) if words == "no\n"));
        control.remove();
        drop(control);
        assert!(!path.exists() && !path.with_extension("sock").exists());
        // What a killed one leaves behind is in nobody's way.
        drop(Control::claim(&path).expect("free"));
        drop(Control::claim(&path).expect("free again"));
    }
}
