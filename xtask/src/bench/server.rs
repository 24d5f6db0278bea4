//! One running server: started on its core, waited for, measured, stopped.

use std::fs;
use std::io::{Error, Result};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Bench;
use super::cgroup::Scarce;
use super::meter::Family;
use super::peers::{Place, Server};
use super::{SERVER_CORE, client, corpus};

/// A server that answers. Stopped on drop.
pub struct Running {
    pub name: String,
    pub port: u16,
    child: Child,
    errors: PathBuf,
}

/// What it shall serve.
#[derive(Clone)]
pub struct Site {
    pub root: PathBuf,
    /// amped's memory for files, unless the command line says otherwise; its own choice without.
    pub cache: Option<&'static str>,
    /// The null server's body, in bytes.
    pub size: u64,
    /// Percent of the requests that are uniform over the tail's files.
    pub tail: Option<u32>,
}

impl Running {
    /// # Errors
    /// As `launch`; or a file of its configuration could not be written.
    pub fn start(bench: &Bench, server: &'static Server, site: &Site, scarce: Option<&Scarce>) -> Result<Self> {
        Self::launch(server.name, scarce, |run, port| {
            let &Site { ref root, cache, size, tail } = site;
            let cache = bench.options.cache.clone().or(cache.map(String::from));
            let place = Place { port, root: root.clone(), run: run.into(), cache, size, tail };
            server.command(&place, &bench.binaries)
        })
    }

    /// Starts what `command` makes of a folder of its own and a free port.
    ///
    /// # Errors
    /// It ended, or did not answer within ten seconds: the message ends with its own last words.
    pub fn launch(
        name: &str,
        scarce: Option<&Scarce>,
        command: impl FnOnce(&Path, u16) -> Result<Command>,
    ) -> Result<Self> {
        let run = corpus::home()?.join("run").join(name);
        let _ = fs::remove_dir_all(&run);
        fs::create_dir_all(&run)?;
        let port = free_port()?;
        let errors = run.join("stderr");
        let child = pinned(&command(&run, port)?, scarce)
            .stdin(Stdio::null())
            .stdout(fs::File::create(run.join("stdout"))?)
            .stderr(fs::File::create(&errors)?)
            .spawn()?;
        let mut running = Self { name: name.into(), port, child, errors };
        running.wait_until_it_listens()?;
        Ok(running)
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn family(&self) -> Family {
        Family::of(self.child.id())
    }

    /// Asks once, as a check that the file is really served.
    pub fn expect(&self, path: &str, size: u64) -> Result<()> {
        let answer = client::Client::connect(self.port)?.get(path)?;
        if (answer.status, answer.length) == (200, size) {
            return Ok(());
        }
        Err(Error::other(format!(
            "{} answered {path} with status {} and {} bytes, not {size}",
            self.name, answer.status, answer.length
        )))
    }

    /// Asks it to end, and gives what it said on standard error.
    pub fn stop(mut self) -> String {
        self.end();
        fs::read_to_string(&self.errors).unwrap_or_default()
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(10) {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failure(&format!("ended at once ({status})")));
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(self.failure("did not listen within 10 s"))
    }

    fn failure(&self, what: &str) -> Error {
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        Error::other(format!("{} {what}: {}", self.name, said.trim().replace('\n', "; ")))
    }

    fn end(&mut self) {
        if let Some(pid) = Pid::from_raw(self.child.id() as i32) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(8) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        println!("{} did not end within 8 s of being asked: killed", self.name);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.end();
        }
    }
}

/// On its core, and gone when the bench goes; inside the groups from its first page on.
fn pinned(command: &Command, scarce: Option<&Scarce>) -> Command {
    let mut pinned = Command::new("sh");
    let enter = scarce.map_or_else(|| "true".to_owned(), Scarce::enter);
    pinned
        .arg("-c")
        .arg(format!("{enter} && exec \"$@\""))
        .args(["sh", "taskset", "-c", SERVER_CORE, "setpriv", "--pdeathsig", "TERM"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            pinned.env(name, value);
        }
    }
    pinned
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
