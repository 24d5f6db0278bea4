//! At home on a machine: whose rights the server keeps, what it may open, and where it runs although calls are forbidden.

mod harness;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use harness::{Client, Driver, Folder, Server, binary, copy_of_binary, is_root, on_every_driver, wait_until};
use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

on_every_driver!(
    a_crash_leaves_as_large_a_core_file_as_it_may,
    it_serves_where_calls_are_forbidden,
    its_own_code_stays_in_memory,
    root_is_given_up_when_the_addresses_are_bound
);

/// Runs `work` on a thread that may not make these calls, and whose programs may not either.
fn without_calls<T: Send>(calls: &[i64], answer: u32, work: impl FnOnce() -> T + Send) -> T {
    let rules = calls.iter().map(|call| (*call, Vec::new())).collect::<BTreeMap<_, _>>();
    let architecture = std::env::consts::ARCH.try_into().expect("an architecture that seccomp knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(answer), architecture);
    let program: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
    std::thread::scope(|scope| {
        let confined = scope.spawn(move || {
            apply_filter(&program).expect("filters are allowed");
            work()
        });
        confined.join().expect("it went well")
    })
}

/// Has the command run with core files of so many bytes at most.
fn with_core_limit(command: &mut Command, bytes: u64) {
    let binary = command.get_program().to_owned();
    *command = Command::new("prlimit");
    command.arg(format!("--core={bytes}:{bytes}")).arg(binary);
}

/// Docker's own filter forbids io_uring, gVisor and old ones know no openat2: in these words or those.
fn it_serves_where_calls_are_forbidden(driver: Driver) {
    let folder = Folder::usual();
    folder.put("deep/er/file.txt", "deep\n");
    symlink("/etc/passwd", folder.at("outside")).expect("own folder");
    for answer in [EPERM, ENOSYS] {
        without_calls(&[IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER, OPENAT2, LANDLOCK], answer, || {
            let root = folder.path().display();
            let server = Server::run(driver, &format!("sandbox = true\n[[sites]]\nroot = \"{root}\"\n"));
            let line = server.startup_line();
            assert_eq!(line.contains("does not work here"), driver == Driver::Uring, "{line}");
            let mut client = server.connect();
            for _ in 0..3 {
                assert_eq!(client.get("/").text(), "hi\n");
                assert_eq!(client.get("/page.html").text(), "a page\n");
                assert_eq!(client.get("/deep/er/file.txt").text(), "deep\n");
                assert_eq!(client.get("/large.bin").body, harness::pattern(0, 300_000));
                assert_eq!(client.get("/none").status(), 404);
                assert_eq!(client.get("/deep/none/x").status(), 404);
                assert!([403, 404].contains(&client.get("/outside").status()));
            }
            assert_eq!(server.status()["confined"]["sandbox"], "unavailable");
        });
    }
}

/// Where memory is short the kernel would drop it, and the loop would wait for the disk to go on.
fn its_own_code_stays_in_memory(driver: Driver) {
    let folder = Folder::usual();
    let toml = format!("[[sites]]\nroot = \"{}\"\n", folder.path().display());
    let server = Server::run(driver, &toml);
    assert_eq!(server.get("/").text(), "hi\n");
    // Who may lock less than all of it is told so.
    let is_short = server.startup_line().contains("its own code");
    assert!(is_short || server.locked_memory() > 1_000_000, "{} bytes", server.locked_memory());
    without_calls(&[MLOCK], ENOMEM, || {
        let server = Server::run(driver, &toml);
        assert_eq!(server.get("/").text(), "hi\n");
        assert_eq!(server.locked_memory(), 0);
        let line = server.startup_line();
        assert!(line.contains("Cannot allocate memory") && line.contains("ulimit -l"), "{line}");
    });
}

/// The kernel's own view: the limit, and whose the process' files are (root's where it may leave no core, proc(5)).
fn a_crash_leaves_as_large_a_core_file_as_it_may(driver: Driver) {
    let folder = Folder::for_all();
    folder.put("index.html", "hi\n");
    let user = if is_root() { "user = \"65534:65534\"\n" } else { "" };
    for (limit, bytes) in [("", None), ("core_limit = \"0\"\n", Some("0")), ("core_limit = \"4KiB\"\n", Some("4096"))] {
        let server = Server::run_as(
            driver,
            &format!("{limit}{user}[[sites]]\nroot = \"{}\"\n", folder.path().display()),
            |command| with_core_limit(command, 1 << 20),
        );
        assert_eq!(server.get("/").text(), "hi\n");
        let processes = if driver == Driver::Mp { server.children() } else { vec![server.id()] };
        for process in processes {
            let limits = fs::read_to_string(format!("/proc/{process}/limits")).expect("a running process");
            let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).expect("a line");
            let found: Vec<&str> = line.split_whitespace().take(2).collect();
            assert_eq!(found, [bytes.unwrap_or("1048576"); 2], "{limit}");
            let owner = fs::metadata(format!("/proc/{process}/stat")).expect("a running process").uid();
            assert_eq!(is_root() && owner == 65534, is_root() && bytes == Some("4096"), "{limit}: {owner}");
        }
    }
}

/// Only root may raise what a process was started with.
#[test]
fn a_core_file_larger_than_allowed_is_an_error() {
    let place = Folder::for_all();
    place.put("site/index.html", "hi\n");
    place.put("amped.toml", "listen = \"127.0.0.1:0\"\ncore_limit = \"1GB\"\n[[sites]]\nroot = \"site\"\n");
    let mut command = Command::new(copy_of_binary(place.path()));
    with_core_limit(&mut command, 1 << 20);
    command.args(["run", "--no-supervisor", "-c"]).arg(place.at("amped.toml"));
    if is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command.output().expect("the binary starts");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("`core_limit`") && said.contains("ulimit -Hc"), "{said}");
}

/// Without a word the driver is another one, and the first line says why.
#[test]
fn auto_is_epoll_where_io_uring_is_forbidden() {
    let folder = Folder::usual();
    for answer in [EPERM, ENOSYS] {
        let said = without_calls(&[IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER], answer, || {
            let mut command = binary();
            // It says its first line and then finds that it cannot have a log.
            command.arg("serve").arg(folder.path()).args(["--listen", "127.0.0.1:0", "--workers", "1"]);
            let mut child = command.stderr(std::process::Stdio::piped()).spawn().expect("the binary starts");
            let stderr = child.stderr.take().expect("it was asked for");
            let line = std::io::BufRead::lines(std::io::BufReader::new(stderr)).next();
            child.kill().expect("own child");
            child.wait().expect("own child");
            line.expect("a line").expect("text")
        });
        assert!(said.contains("driver epoll-edge (io_uring does not work here:"), "{said}");
    }
}

fn root_is_given_up_when_the_addresses_are_bound(driver: Driver) {
    let folder = Folder::for_all();
    folder.put("index.html", "hi\n");
    if !is_root() {
        // Whoever is not root can only go on being what it is.
        let output =
            binary().arg("serve").arg(folder.path()).args(["--listen", "127.0.0.1:0", "--user", "0:0"]).output();
        let said = String::from_utf8(output.expect("the binary starts").stderr).expect("text");
        assert!(said.contains("cannot become the user `0:0`"), "{said}");
        return;
    }
    // A port that only root may bind, and that no other of these tests has found to be free.
    let ports = std::iter::from_fn(|| Some(LOW_PORT.fetch_add(1, Relaxed)).filter(|port| *port < 1000));
    let low = ports.map(|port| format!("127.0.0.1:{port}")).find(|address| TcpListener::bind(address).is_ok());
    let low = low.expect("a free port");
    let log = folder.at("logs/access.log");
    fs::create_dir(folder.at("logs")).expect("own folder");
    std::os::unix::fs::chown(folder.at("logs"), Some(65534), Some(65534)).expect("root may");
    let log = log.to_str().expect("a plain path");
    let options = ["--listen", &low, "--user", "65534:65534", "--access-log", log];
    let mut server = Server::serve_with(driver, folder.path(), &options);
    assert_eq!(server.get("/").text(), "hi\n");
    assert_eq!(Client::connect(low.parse().expect("an address"), None).expect("it listens").get("/").text(), "hi\n");
    let processes = if driver == Driver::Mp { server.children() } else { vec![server.id()] };
    for process in processes {
        for task in fs::read_dir(format!("/proc/{process}/task")).expect("a running process") {
            let status = fs::read_to_string(task.expect("a task").path().join("status")).expect("a running task");
            let line =
                |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim().to_owned();
            assert_eq!(line("Uid:"), "65534\t65534\t65534\t65534", "{status}");
            assert_eq!(
                (line("Gid:"), line("Groups:")),
                ("65534\t65534\t65534\t65534".into(), String::new()),
                "{status}"
            );
            assert_eq!((line("CapEff:"), line("NoNewPrivs:")), ("0".repeat(16), "1".into()), "{status}");
        }
    }
    assert_eq!(server.status()["confined"]["user"], "65534:65534");
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    assert_eq!(fs::read_to_string(log).expect("a log").lines().count(), 2);
}

/// Other machines are served by root only when somebody has said so.
#[test]
fn root_is_not_for_everybody_by_a_slip() {
    let folder = Folder::usual();
    let everywhere = ["--listen", "0.0.0.0:0"];
    if is_root() {
        let output = binary().arg("serve").arg(folder.path()).args(everywhere).output().expect("the binary starts");
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{said}");
        for word in ["this is root", "other machines can connect to 0.0.0.0:", "--user USER", "`root`"] {
            assert!(said.contains(word), "no {word:?}: {said}");
        }
        let server = Server::serve_with(Driver::EpollEdge, folder.path(), &["--listen", "0.0.0.0:0", "--user", "root"]);
        assert!(server.said().contains("and is root"), "{}", server.said());
    }
    let output = binary().arg("serve").arg(folder.path()).args(["--user", "nobody-knows"]).output();
    let said = String::from_utf8(output.expect("the binary starts").stderr).expect("text");
    assert!(said.contains("there is no user `nobody-knows`"), "{said}");
}

/// Seen from outside: the log's folder is led elsewhere, and a rotation would follow.
#[test]
fn only_its_folders_and_its_log_are_open_to_it() {
    for sandbox in [true, false] {
        let place = Folder::on_disk();
        fs::create_dir(place.at("logs")).expect("own folder");
        fs::create_dir(place.at("elsewhere")).expect("own folder");
        place.put("site/index.html", "hi\n");
        let (root, log) = (place.at("site"), place.at("logs/access.log"));
        let toml = format!(
            "sandbox = {sandbox}\naccess_log = \"{}\"\n[[sites]]\nroot = \"{}\"\n",
            log.display(),
            root.display()
        );
        let server = Server::run(Driver::EpollEdge, &toml);
        let held = server.status()["confined"]["sandbox"].as_str().expect("a word").to_owned();
        assert_eq!(held == "off", !sandbox);
        assert_eq!(server.get("/").status(), 200);
        let memory = &server.status()["memory"];
        assert!(memory["limit"].as_u64() > memory["used"].as_u64() && memory["used"].as_u64() > Some(0), "{memory}");
        wait_until("a line", || fs::metadata(&log).is_ok_and(|log| log.len() > 0));
        // A usual rotation works.
        fs::rename(&log, place.at("logs/old.log")).expect("own folder");
        server.signal(Signal::USR1);
        wait_until("a new log", || log.exists());
        fs::rename(place.at("logs"), place.at("moved")).expect("own folder");
        symlink(place.at("elsewhere"), place.at("logs")).expect("own folder");
        server.signal(Signal::USR1);
        let followed = || place.at("elsewhere/access.log").exists();
        let refused = || server.said().contains("going on with the old file");
        wait_until("it tried", || followed() || refused());
        assert_eq!(refused(), ["landlock", "partial"].contains(&held.as_str()), "{}", server.said());
        assert_eq!(server.get("/").text(), "hi\n");
    }
}

/// The image: two stages, nothing in the second but the binary and a site, nobody's rights, and a command that the binary takes.
#[test]
fn the_dockerfile_is_sound() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = fs::read_to_string(top.join("Dockerfile")).expect("a Dockerfile").replace("\\\n", " ");
    let instructions: Vec<(&str, &str)> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(' ').expect("an instruction and what it is about"))
        .collect();
    let stages: Vec<&str> = instructions.iter().filter(|(word, _)| *word == "FROM").map(|(_, image)| *image).collect();
    assert_eq!(stages.len(), 2);
    assert!(stages[0].ends_with(" AS build") && stages[0].contains(':'), "a version and a name: {}", stages[0]);
    assert_eq!(stages[1], "scratch");
    let last: Vec<_> = instructions.iter().skip_while(|(_, rest)| *rest != "scratch").collect();
    let of = |word: &str| last.iter().find(|(present, _)| *present == word).map_or("", |(_, rest)| *rest);
    assert!(of("USER").split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "USER {}", of("USER"));
    assert!(!last.iter().any(|(word, _)| ["RUN", "ADD", "SHELL"].contains(word)), "scratch has no shell");
    for copied in last.iter().filter(|(word, rest)| *word == "COPY" && !rest.contains("--from=")) {
        let from = copied.1.split(' ').find(|word| !word.starts_with("--")).expect("a source");
        assert!(top.join(from).exists(), "COPY {from}: it is not there");
    }
    let list = |word: &str| serde_json::from_str::<Vec<String>>(of(word)).expect("the exec form");
    let entry = list("ENTRYPOINT");
    assert!(last.iter().any(|(word, rest)| *word == "COPY" && rest.ends_with(&entry[0])), "{entry:?} is not copied");
    // What it would run, on a folder and a port of this machine.
    let folder = Folder::usual();
    let command: Vec<String> = list("CMD").iter().map(|word| word.replace("0.0.0.0:8080", "127.0.0.1:0")).collect();
    assert_eq!(command[..2], ["serve", "/site"]);
    assert_eq!(of("EXPOSE"), "8080");
    let mut child = binary();
    child.arg("serve").arg(folder.path()).args(&command[2..]).stderr(std::process::Stdio::piped());
    let mut child = child.spawn().expect("the binary starts");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().expect("it was asked for")));
    let said: Vec<String> = lines.map_while(Result::ok).take(3).collect();
    child.kill().expect("own child");
    child.wait().expect("own child");
    assert!(said.iter().any(|line| line.starts_with("listening on")), "{said:?}");
}

static LOW_PORT: AtomicU16 = AtomicU16::new(600);
// Numbers that all architectures have in common.
const IO_URING_SETUP: i64 = 425;
const IO_URING_ENTER: i64 = 426;
const IO_URING_REGISTER: i64 = 427;
const OPENAT2: i64 = 437;
const LANDLOCK: i64 = 444;
const EPERM: u32 = 1;
const ENOMEM: u32 = 12;
const ENOSYS: u32 = 38;
// One that they have not.
const MLOCK: i64 = if cfg!(target_arch = "x86_64") { 149 } else { 228 };
