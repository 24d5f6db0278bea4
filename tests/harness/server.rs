//! The real binary, started on a port of its own and ended with the value that holds it.

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::said::Said;
use super::{Answer, Client, PATIENCE};

/// The drivers that every test is run on; the blocking one in threads and in processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    EpollEdge,
    EpollLevel,
    Poll,
    Portable,
    Select,
    Sigio,
    Uring,
    Mt,
    Mp,
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    addresses: Vec<SocketAddr>,
    /// How many addresses it was told to listen on.
    expected: usize,
    said: Said,
    /// Panics are a part of the test.
    may_panic: bool,
    /// Configuration and admin socket.
    folder: tempfile::TempDir,
}

impl Driver {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::EpollEdge => "epoll-edge",
            Self::EpollLevel => "epoll-level",
            Self::Poll => "poll",
            Self::Portable => "portable",
            Self::Select => "select",
            Self::Sigio => "sigio",
            Self::Uring => "uring",
            Self::Mt | Self::Mp => "blocking",
        }
    }

    /// Its architecture, if it is not what the number of workers says.
    pub fn architecture(self) -> Option<&'static str> {
        match self {
            Self::Mt => Some("mt"),
            Self::Mp => Some("mp"),
            _ => None,
        }
    }

    /// The disk modes that go with it.
    pub fn disk_modes(self) -> &'static [&'static str] {
        if self.architecture().is_some() { &["inline"] } else { &["amped", "inline", "helpers"] }
    }
}

impl Server {
    /// `amped serve` on this folder.
    pub fn serve(driver: Driver, root: &Path) -> Self {
        Self::serve_with(driver, root, &[])
    }

    /// `amped serve` with more options.
    pub fn serve_with(driver: Driver, root: &Path, options: &[&str]) -> Self {
        let mut command = binary();
        command.arg("serve").arg(root).args(["--listen", "127.0.0.1:0", "--driver", driver.name()]).args(options);
        if let Some(architecture) = driver.architecture() {
            command.args(["--architecture", architecture]);
            if !options.contains(&"--workers") {
                command.args(["--workers", &POOL.to_string()]);
            }
        }
        Self::start(driver, command, "serve")
    }

    /// `amped run` on this configuration, to which the address, the driver and the admin socket are added.
    pub fn run(driver: Driver, toml: &str) -> Self {
        Self::run_as(driver, toml, |_| {})
    }

    /// `run`, with a last word on the command: another user, limits, a working folder.
    pub fn run_as(driver: Driver, toml: &str, adjust: impl FnOnce(&mut Command)) -> Self {
        let mut command = binary();
        adjust(&mut command);
        let name = driver.name();
        let architecture = driver.architecture().map(|name| format!("architecture = \"{name}\"\n")).unwrap_or_default();
        let workers = if architecture.is_empty() || toml.contains("workers") {
            String::new()
        } else {
            format!("workers = {POOL}\n")
        };
        let shape = format!("listen = \"127.0.0.1:0\"\ndriver = \"{name}\"\n{architecture}{workers}");
        Self::start(driver, command, &format!("{shape}{toml}"))
    }

    /// Starts a command: with `serve` as it is, else with the configuration.
    fn start(driver: Driver, mut command: Command, how: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        rustix::fs::chmod(folder.path(), rustix::fs::Mode::from_raw_mode(0o777)).expect("own folder");
        let admin = format!("unix:{}/admin", folder.path().display());
        if how == "serve" {
            if !command.get_args().any(|argument| argument == "--admin") {
                command.args(["--admin", &admin]);
            }
        } else {
            let file = folder.path().join("amped.toml");
            fs::write(&file, format!("admin = \"{admin}\"\n{how}")).expect("own folder");
            command.arg("run").arg("-c").arg(file);
        }
        // What is looked at in /proc is the process that was started; tests/supervise.rs has one with a supervisor.
        command.arg("--no-supervisor");
        let mut server = Self::spawn(command, folder);
        server.wait_until_ready();
        let line = server.startup_line();
        let (asked, refused) = (format!("driver {} (as asked)", driver.name()), "does not work here");
        assert!(line.contains(&asked) || line.contains(refused), "another driver, and no reason: {line}");
        server
    }

    fn spawn(mut command: Command, folder: tempfile::TempDir) -> Self {
        let expected = command.get_args().filter(|argument| *argument == "--listen").count().max(1);
        // Backtraces of panics that are a part of a test take longer than the test.
        command.env_remove("RUST_BACKTRACE");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let said = Said::by(&mut child);
        Self { child, addresses: Vec::new(), expected, said, may_panic: false, folder }
    }

    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        loop {
            let said = self.said();
            self.addresses = said
                .lines()
                .filter_map(|line| line.strip_prefix("listening on http://"))
                .map(|address| address.parse().expect("an address"))
                .collect();
            if self.addresses.len() >= self.expected {
                return;
            }
            let ended = self.child.try_wait().expect("own child");
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "it did not start: {ended:?}\n{said}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Panics are a part of the test: the others hold the server to none.
    pub fn may_panic(mut self) -> Self {
        self.may_panic = true;
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Everywhere it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// What it has said on standard error so far.
    pub fn said(&self) -> String {
        self.said.text()
    }

    /// The line about its driver, workers and cache.
    pub fn startup_line(&self) -> String {
        self.said().lines().find(|line| line.contains(": driver ")).expect("a start-up line").to_owned()
    }

    /// A new connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.address(), None).expect("the server accepts")
    }

    /// A new connection that takes few bytes at once.
    pub fn connect_slowly(&self) -> Client {
        Client::connect(self.address(), Some(16 * 1024)).expect("the server accepts")
    }

    /// One answer on a connection of its own.
    pub fn get(&self, path: &str) -> Answer {
        self.connect().get(path)
    }

    /// The admin page's numbers.
    pub fn status(&self) -> serde_json::Value {
        let (head, body) = self.admin("/status", "");
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Asks the admin socket, with more field lines; its head and its body.
    pub fn admin(&self, path: &str, fields: &str) -> (String, String) {
        let mut admin = self.admin_socket();
        write!(admin, "GET {path} HTTP/1.1\r\nHost: admin\r\n{fields}\r\n").expect("the admin page listens");
        let mut answer = String::new();
        admin.read_to_string(&mut answer).expect("the admin page answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        (head.to_owned(), body.to_owned())
    }

    /// A connection to the admin socket.
    pub fn admin_socket(&self) -> UnixStream {
        UnixStream::connect(self.folder.path().join("admin")).expect("the admin socket")
    }

    /// One number of the admin page, by its path: `/helpers/busy`.
    pub fn number(&self, pointer: &str) -> u64 {
        let status = self.status();
        status.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("no {pointer}: {status}"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("own child");
    }

    /// Waits for its end and returns its exit code; panics when it does not end.
    pub fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("own child") {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end:\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("own child").is_none()
    }

    /// The processes it has started, by number.
    pub fn children(&self) -> Vec<i32> {
        let parent = self.child.id().to_string();
        let processes = fs::read_dir("/proc").expect("a process list").filter_map(Result::ok);
        let is_child = |number: &i32| {
            let stat = fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
            // "1 (name) S 0 …", where a dead one that nobody has waited for is a Z.
            let mut words = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            words.next() != Some("Z") && words.next() == Some(&parent)
        };
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_child).collect()
    }

    /// Its number.
    pub fn id(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process")
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("a running process").count()
    }

    /// Its resident memory in bytes.
    pub fn memory(&self) -> u64 {
        self.memory_named("VmRSS:")
    }

    /// What of its memory the kernel may not take away, in bytes.
    pub fn locked_memory(&self) -> u64 {
        self.memory_named("VmLck:")
    }

    fn memory_named(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5) has it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// Processor time it has used.
    pub fn busy(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("a running process");
        let numbers = stat.rsplit(") ").next().expect("what follows the name").split(' ');
        let ticks: u64 = numbers.skip(11).take(2).map(|number| number.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        // One that waits for a hung disk ends only when the disk goes on, which may be after this.
        let start = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && start.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let said = self.said();
        if std::thread::panicking() {
            eprintln!("--- the server said:\n{said}---");
        } else {
            assert!(self.may_panic || !said.contains("panicked"), "the server panicked:\n{said}");
        }
    }
}

/// Threads or processes where each serves one connection: more connections than any one test that runs there has open at once.
const POOL: usize = 32;

/// The binary, not yet told what to do.
pub fn binary() -> Command {
    Command::new(option_env!("CARGO_BIN_EXE_amped").map_or_else(binary_beside, PathBuf::from))
}

/// The server's binary for the tests of another package, of whose binaries cargo knows only that package's own: it lies in the
/// same folder, and is built when it was not yet.
fn binary_beside() -> PathBuf {
    static BUILT: Mutex<()> = Mutex::new(());
    let _one_at_a_time = BUILT.lock();
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("a test lies in a profile's `deps`");
    let path = profile.join("amped");
    if !path.exists() {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        command.args(["build", "--package", "amped"]);
        if profile.ends_with("release") {
            command.arg("--release");
        }
        let built = command.status().expect("cargo starts");
        assert!(built.success() && path.exists(), "no server at {}", path.display());
    }
    path
}

/// A command that runs a copy of the binary in `place` as nobody, who may not enter the folder of the original.
pub fn binary_as_nobody(place: &Path) -> Command {
    fs::set_permissions(place, fs::Permissions::from_mode(0o755)).expect("own folder");
    let mut command = Command::new(copy_of_binary(place));
    command.uid(65534).gid(65534);
    command
}

/// A copy of the binary in `place`. Another process writes it: were the descriptor ours, a child that another test starts
/// meanwhile would hold it for a moment, and a file that is open for writing cannot be run (execve(2), ETXTBSY).
pub fn copy_of_binary(place: &Path) -> PathBuf {
    let copy = place.join("amped");
    let copied = Command::new("cp").arg(binary().get_program()).arg(&copy).status().expect("cp starts");
    assert!(copied.success(), "no room for the binary in {}", place.display());
    copy
}

/// Whether the tests run with all rights, which some of them give up and some need.
pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}
