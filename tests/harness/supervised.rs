//! A server with its supervisor, and clients that never stop asking.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use super::said::Ears;
use super::said::Said;
use super::{Answer, Client, PATIENCE, binary, copy_of_binary, get, wait_until};

/// A server with its supervisor, in a folder of its own.
pub struct Supervised {
    pub child: Child,
    /// Panics are a part of the test.
    pub may_panic: bool,
    said: Said,
    folder: tempfile::TempDir,
}

/// Clients that never stop asking.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Supervised {
    /// `amped run` on this configuration, to which what is missing is added.
    pub fn start(toml: &str) -> Self {
        Self::start_as(toml, |_, _| {})
    }

    /// With a last word on the command, and the folder that everything is in.
    pub fn start_as(toml: &str, adjust: impl FnOnce(&mut Command, &Path)) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for part in ["site", "other", "faults"] {
            fs::create_dir(folder.path().join(part)).expect("own folder");
        }
        fs::write(folder.path().join("site/index.html"), "one\n").expect("own folder");
        fs::write(folder.path().join("other/index.html"), "other\n").expect("own folder");
        let mut command = Command::new(copy_of_binary(folder.path()));
        command.args(["run", "-c"]).arg(folder.path().join("amped.toml"));
        command.arg("--pid-file").arg(folder.path().join("amped.pid"));
        command.env("AMPED_TEST_FAULTS", "1").env("AMPED_TEST_FAULTS_AT_START", folder.path().join("faults"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        adjust(&mut command, folder.path());
        fs::write(folder.path().join("amped.toml"), configuration(toml)).expect("own folder");
        let mut child = command.spawn().expect("the binary starts");
        let said = Said::by(&mut child);
        let mut this = Self { child, may_panic: false, said, folder };
        let start = Instant::now();
        while this.addresses().is_empty() {
            let ended = this.child.try_wait().expect("own child");
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "it did not start: {ended:?}\n{}", this.said());
            std::thread::sleep(Duration::from_millis(2));
        }
        this
    }

    /// What both processes have said on standard error so far, in whole lines.
    pub fn said(&self) -> String {
        self.said.text()
    }

    /// From now on it is heard like this. What it says meanwhile is not among what it has said.
    pub fn hear(&self, ears: Ears) {
        self.said.hear(&self.child, ears);
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let said = self.said();
        let lines = said.lines().filter_map(|line| line.strip_prefix("listening on http://"));
        lines.map(|address| address.parse().expect("an address")).collect()
    }

    /// The first of them.
    pub fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address(), None).expect("the server accepts")
    }

    /// One answer on a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        self.connect().get(path)
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes another configuration, which nobody reads until asked to.
    pub fn configure(&self, toml: &str) {
        fs::write(self.path("amped.toml"), configuration(toml)).expect("own folder");
    }

    /// `amped reload` and the like, on this server.
    pub fn ask(&self, word: &str) -> Output {
        command(word, &self.path("amped.pid")).output().expect("the binary starts")
    }

    /// The same, granted.
    pub fn tell(&self, word: &str) -> String {
        let output = self.ask(word);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{word}: {}\n{}", text(&output.stderr), self.said());
        text(&output.stdout)
    }

    /// The same, refused: what it says.
    pub fn refused(&self, word: &str) -> String {
        let output = self.ask(word);
        assert_eq!(output.status.code(), Some(1), "{word} was not refused: {}", self.said());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The server processes in a state, by number.
    pub fn servers(&self, state: &str) -> Vec<i32> {
        let is_so = |line: &&str| line.contains(&format!(": {state} "));
        let number = |line: &str| line.strip_prefix("server ")?.split(':').next()?.parse().ok();
        self.tell("status").lines().filter(is_so).filter_map(number).collect()
    }

    /// The only server process that serves.
    pub fn server(&self) -> i32 {
        let servers = self.servers("ready");
        assert_eq!(servers.len(), 1, "{}", self.said());
        servers[0]
    }

    /// Sends the supervisor a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("own child");
    }

    /// Waits for the supervisor's end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        wait_until("the supervisor has ended", || self.child.try_wait().expect("own child").is_some());
        self.child.wait().expect("own child").code()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.child.kill().and_then(|()| self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- the server said:\n{}---", self.said());
        } else {
            assert!(self.may_panic || !self.said().contains("panicked"), "the server panicked:\n{}", self.said());
        }
    }
}

impl Load {
    /// Clients that ask for `/` on connections that they keep for a while.
    pub fn on(address: SocketAddr, clients: usize) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let client = |_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            std::thread::spawn(move || {
                while !stop.load(Relaxed) {
                    ask_for_a_while(address, &stop, &answered)?;
                }
                Ok(())
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, answered, clients }
    }

    /// Ends, and holds the server to not having failed anybody; says how many were answered.
    pub fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        let outcomes: Vec<_> = self.clients.into_iter().map(|client| client.join().expect("no panic")).collect();
        let failures: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert!(failures.is_empty(), "{failures:?}");
        self.answered.load(Relaxed)
    }
}

fn ask_for_a_while(address: SocketAddr, stop: &AtomicBool, answered: &AtomicU64) -> Result<(), String> {
    let mut client = Client::connect(address, None).map_err(|error| format!("connect: {error}"))?;
    for request in 0..50 {
        let answer = client.try_send(get("/")).and_then(|()| client.try_answer(false));
        let answer = answer.map_err(|error| format!("request {request} of a connection: {error}"))?;
        if answer.status() != 200 {
            return Err(answer.status_line);
        }
        answered.fetch_add(1, Relaxed);
        if stop.load(Relaxed) || answer.field("connection") == Some("close") {
            break;
        }
    }
    Ok(())
}

fn configuration(toml: &str) -> String {
    let first = if toml.contains("listen =") { "" } else { "listen = \"127.0.0.1:0\"\n" };
    let last = if toml.contains("[[sites]]") { "" } else { SITE };
    format!("{first}{toml}\n{last}")
}

/// `amped WORD` on this PID file.
pub fn command(word: &str, pid_file: &Path) -> Command {
    let mut command = binary();
    command.arg(word).arg("--pid-file").arg(pid_file).stdin(Stdio::null());
    command
}

/// Whether a process runs.
pub fn is_alive(process: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// Sends a server process a signal.
pub fn kill(process: i32, signal: Signal) {
    kill_process(Pid::from_raw(process).expect("a process"), signal).expect("own grandchild");
}

/// Resident memory in KB, and open descriptors.
pub fn size(process: i32) -> (u64, usize) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a resident set");
    let memory = line.trim().trim_end_matches(" kB").parse().expect("a number");
    (memory, fs::read_dir(format!("/proc/{process}/fd")).expect("a running process").count())
}

/// The folder `site`.
pub const SITE: &str = "[[sites]]\nroot = \"site\"\n";
