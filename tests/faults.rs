//! Faults: a panic in one request, a machine without descriptors, a disk that fails. The worker lives on, and hits are served.

mod harness;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use harness::stall::Hanging;
use harness::{Client, Driver, Folder, Server, get, on_every_driver, on_every_loop, on_every_thread, wait_until};
use rustix::process::Signal;

on_every_driver!(
    a_panic_is_answered_and_ends_its_connection,
    a_panic_among_pipelined_requests_is_answered_in_its_place,
    a_panic_in_the_conversation_is_answered_if_nothing_was_sent,
);
on_every_thread!(panics_leave_nothing_behind);
on_every_loop!(
    a_disk_that_fails_costs_only_its_files,
    a_lack_of_descriptors_is_answered,
    a_hung_mount_starves_no_other,
    all_faults_at_once_spare_the_hits,
    the_clock_may_jump
);

/// A server that panics when it is asked to.
fn faulty(driver: Driver, folder: &Folder) -> Server {
    let toml = format!("workers = 1\n[[sites]]\nroot = \"{}\"", folder.path().display());
    let toml = if driver.architecture().is_some() { toml.replace("workers = 1", "workers = 32") } else { toml };
    Server::run_as(driver, &toml, |command| {
        command.env("AMPED_TEST_FAULTS", "1");
    })
    .may_panic()
}

fn a_panic_is_answered_and_ends_its_connection(driver: Driver) {
    let folder = Folder::usual();
    let server = faulty(driver, &folder);
    for (path, message) in [("panic", "a test asked for it"), ("panic-later", "a test asked for it, later")] {
        let mut other = server.connect();
        assert_eq!(other.get("/").text(), "hi\n");
        let mut client = server.connect();
        let answer = client.get(&format!("/.amped-test/{path}"));
        assert_eq!(answer.status_line, "HTTP/1.1 500 Internal Server Error");
        assert_eq!(answer.field("connection"), Some("close"));
        client.expect_end("after a panic");
        assert_eq!(other.get("/").text(), "hi\n", "the others of the worker go on");
        let line = || {
            let said = server.said();
            said.lines()
                .find(|line| line.ends_with(&format!("{message}; it is answered 500, and its connection ends")))
                .map(str::to_owned)
        };
        wait_until("it is logged", || line().is_some());
        let line = line().expect("it is there");
        let expected = format!("amped: GET /.amped-test/{path} (route `/*` of site 1) panicked at ");
        assert!(line.starts_with(&expected) && line.contains("faults.rs:"), "{line}");
    }
    assert_eq!(server.number("/counters/panics"), 2);
    assert_eq!(server.number("/counters/server_errors"), 2);
}

fn a_panic_among_pipelined_requests_is_answered_in_its_place(driver: Driver) {
    let folder = Folder::usual();
    let server = faulty(driver, &folder);
    for path in ["panic", "panic-later"] {
        let mut client = server.connect();
        client.send(get("/") + &get("/large.bin") + &get(&format!("/.amped-test/{path}")) + &get("/page.html"));
        assert_eq!(client.answer().text(), "hi\n");
        assert_eq!(client.answer().body.len(), 300_000);
        assert_eq!(client.answer().status(), 500);
        client.expect_end("nothing follows a panic");
    }
    assert_eq!(server.get("/page.html").text(), "a page\n");
}

fn a_panic_in_the_conversation_is_answered_if_nothing_was_sent(driver: Driver) {
    let folder = Folder::usual();
    let server = faulty(driver, &folder);
    let path = "/.amped-test/panic-sending";
    for request in [get(path), format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")] {
        let mut client = server.connect();
        assert_eq!(client.ask(&request).status(), 500, "{request}");
        client.expect_end("after a panic");
    }
    assert_eq!(server.get("/").text(), "hi\n");
    assert_eq!(server.number("/counters/panics"), 2);
}

fn panics_leave_nothing_behind(driver: Driver) {
    let folder = Folder::usual();
    let server = faulty(driver, &folder);
    let panic = |path: &str| assert_eq!(server.get(path).status(), 500);
    let round = |count: usize| {
        (0..count).for_each(|at| {
            panic(["/.amped-test/panic", "/.amped-test/panic-later", "/.amped-test/panic-sending"][at % 3])
        });
        wait_until("all connections are gone", || server.number("/connections") == 0);
    };
    round(100);
    let (descriptors, memory) = (server.descriptors(), server.memory());
    round(900);
    wait_until("no descriptor is left", || server.descriptors() <= descriptors);
    let grown = server.memory().saturating_sub(memory);
    assert!(grown < 4 << 20, "{grown} bytes more");
    assert_eq!(server.number("/counters/panics"), 1000);
    let lines = server.said().lines().filter(|line| line.contains("panicked at")).count();
    assert!((1..900).contains(&lines), "{lines} lines: no flood");
    let mut clients: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "hi\n"));
}

/// Files `0` to `99`.
fn hundred() -> BTreeMap<String, Vec<u8>> {
    (0..100).map(|at| (at.to_string(), format!("file {at}\n").into_bytes())).collect()
}

fn two_folders(driver: Driver, first: &Path, second: &Path, more: &str) -> Server {
    let (first, second) = (first.display(), second.display());
    let route = format!("[[sites.routes]]\nmatch = \"/other/*\"\nroot = \"{second}\"");
    Server::run(driver, &format!("workers = 1\n{more}[[sites]]\nroot = \"{first}\"\n{route}"))
}

fn a_disk_that_fails_costs_only_its_files(driver: Driver) {
    let Some(disk) = Hanging::mount(hundred()) else { return };
    let healthy = Folder::usual();
    let server = two_folders(driver, healthy.path(), disk.path(), "");
    assert_eq!((server.get("/").text().as_str(), server.get("/other/0").text().as_str()), ("hi\n", "file 0\n"));
    disk.fail(true);
    let mut hits = server.connect();
    for at in 1..30 {
        // An error of the machine is not the file's: no 403, no 404, and it is not remembered.
        assert_eq!(server.get(&format!("/other/{at}")).status(), 500, "{at}");
        assert_eq!(hits.get("/").text(), "hi\n");
    }
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(server.get("/other/0").text(), "file 0\n", "what memory holds goes on being served");
    disk.fail(false);
    (1..30).for_each(|at| assert_eq!(server.get(&format!("/other/{at}")).text(), format!("file {at}\n")));
}

fn a_lack_of_descriptors_is_answered(driver: Driver) {
    let folder = Folder::usual();
    let toml =
        format!("workers = 1\n[overload]\nreap_idle = \"100ms\"\n[[sites]]\nroot = \"{}\"", folder.path().display());
    let server = Server::run_as(driver, &toml, |command| {
        let binary = command.get_program().to_owned();
        *command = Command::new("prlimit");
        command.arg("--nofile=80:80").arg(binary);
    });
    let mut idle: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    for client in &mut idle {
        let _ = client.try_send(get("/"));
    }
    wait_until("descriptors are short", || server.number("/counters/accept_shortages") > 0);
    // Nobody leaves of his own accord: those that have idled longest make room, and accepting goes on by itself.
    for _ in 0..30 {
        assert_eq!(server.get("/page.html").status(), 200);
    }
    assert!(server.number("/counters/reaped") > 0);
    assert!(server.descriptors() <= 80);
}

fn a_hung_mount_starves_no_other(driver: Driver) {
    let (Some(dead), Some(alive)) = (Hanging::mount(hundred()), Hanging::mount(hundred())) else { return };
    let server = two_folders(driver, dead.path(), alive.path(), "helpers = 4\n");
    assert_eq!(server.get("/other/0").text(), "file 0\n");
    dead.hang();
    let mut waiting: Vec<Client> = (0..10)
        .map(|at| {
            let mut client = server.connect();
            client.send(get(&format!("/{at}")));
            client
        })
        .collect();
    wait_until("all helpers are stuck", || server.number("/helpers/stuck") == 4);
    for at in 1..60 {
        assert_eq!(server.get(&format!("/other/{at}")).text(), format!("file {at}\n"));
    }
    assert!((1..=4).contains(&server.number("/helpers/replaced")), "{}", server.status());
    assert!(server.number("/helpers/threads") <= 9 && dead.waiting() <= 5, "{}", server.status());
    dead.recover();
    for (at, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.answer().text(), format!("file {at}\n"));
    }
    wait_until("those too many have ended", || {
        (60..100).for_each(|at| assert_eq!(server.get(&format!("/other/{at}")).status(), 200));
        server.number("/helpers/stuck") == 0
    });
}

/// Under load: no descriptors, a disk that hangs, one that fails, and a log that takes nothing.
fn all_faults_at_once_spare_the_hits(driver: Driver) {
    let (Some(hung), Some(broken)) = (Hanging::mount(hundred()), Hanging::mount(hundred())) else { return };
    let (healthy, logs) = (Folder::usual(), tempfile::tempdir().expect("a temporary folder"));
    // A link to where nothing can be written, until it leads elsewhere and the log is opened anew.
    let (log, place) = (logs.path().join("access.log"), logs.path().join("lines"));
    std::os::unix::fs::symlink("/dev/full", &log).expect("own folder");
    let route =
        |path: &str, root: &Path| format!("[[sites.routes]]\nmatch = \"{path}\"\nroot = \"{}\"\n", root.display());
    let toml = format!(
        "workers = 1\naccess_log = \"{}\"\n[[sites]]\nroot = \"{}\"\n{}{}",
        log.display(),
        healthy.path().display(),
        route("/hung/*", hung.path()),
        route("/broken/*", broken.path()),
    );
    let server = Server::run_as(driver, &toml, |command| {
        let binary = command.get_program().to_owned();
        *command = Command::new("prlimit");
        command.arg("--nofile=120:120").arg(binary);
    });
    let (hits, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let load = |path: &str, expected: &str| {
        let mut client = server.connect();
        while !done.load(Relaxed) {
            assert_eq!(client.get(path).text(), expected);
            hits.fetch_add(1, Relaxed);
        }
    };
    let go_on = |what: &str| {
        let before = hits.load(Relaxed);
        wait_until(what, || hits.load(Relaxed) > before + 500);
    };
    let ended = Ended(&done);
    std::thread::scope(|scope| {
        let _ended = ended;
        (0..2).for_each(|_| drop(scope.spawn(|| load("/", "hi\n"))));
        scope.spawn(|| load("/page.html", "a page\n"));
        go_on("hits with a log that takes nothing");
        let mut asking: Vec<Client> = (0..20).map(|_| server.connect()).collect();
        hung.hang();
        broken.fail(true);
        for (at, client) in asking.iter_mut().enumerate() {
            client.send(get(&format!("/{}/{at}", ["hung", "broken"][at % 2])));
        }
        wait_until("helpers are stuck", || server.number("/helpers/stuck") > 0);
        (1..20).step_by(2).for_each(|at| assert_eq!(asking[at].answer().status(), 500));
        go_on("hits with disks that hang and fail");
        let crowd: Vec<Client> = (0..150).map(|_| server.connect()).collect();
        wait_until("descriptors are short", || server.number("/counters/accept_shortages") > 0);
        go_on("hits with all of it");
        assert!(server.number("/counters/log_lines_dropped") > 500, "{}", server.status());
        // What was the matter is so no longer, and nobody tells the server.
        drop(crowd);
        hung.recover();
        broken.fail(false);
        // Those who idled have made room by now; those who waited for the disk have not.
        for (at, client) in asking.iter_mut().enumerate() {
            let answer = if at % 2 == 0 { client.answer() } else { server.get(&format!("/broken/{at}")) };
            assert_eq!(answer.text(), format!("file {at}\n"));
        }
        wait_until("no helper is stuck", || {
            assert_eq!(server.get("/hung/99").text(), "file 99\n");
            server.number("/helpers/stuck") == 0
        });
        go_on("hits afterwards");
    });
    std::fs::remove_file(&log).and_then(|()| std::os::unix::fs::symlink(&place, &log)).expect("own folder");
    server.signal(Signal::USR1);
    server.get("/?again");
    wait_until("lines are written", || std::fs::read_to_string(&place).is_ok_and(|text| text.contains("?again")));
}

/// The wall clock is set, a day ahead and a day back: `Date` follows, and nothing else is concerned.
fn the_clock_may_jump(driver: Driver) {
    let Some(library) = fake_time() else { return eprintln!("NOT TESTED: a clock that jumps needs libfaketime") };
    let (folder, clock) = (Folder::usual(), tempfile::NamedTempFile::new().expect("a temporary file"));
    let set = |offset: &str| std::fs::write(clock.path(), offset).expect("own file");
    set("+0");
    let toml = format!("workers = 1\n[[sites]]\nroot = \"{}\"", folder.path().display());
    let server = Server::run_as(driver, &toml, |command| {
        command.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", clock.path());
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
    });
    let (mut idle, mut asking) = (server.connect(), server.connect());
    let date = |answer: &harness::Answer| answer.field("date").expect("a date").to_owned();
    let today = date(&idle.get("/page.html"));
    asking.send("GET /page.html HTTP/1.1\r\n");
    for (offset, content) in [("+1d", "ahead\n"), ("-1d", "back\n"), ("+0", "as it was\n")] {
        set(offset);
        folder.put("page.html", content);
        wait_until("the new file", || {
            let answer = idle.get("/page.html");
            let day = date(&answer)[..16] == today[..16];
            answer.text() == content && day == (offset == "+0")
        });
    }
    // What had begun before goes on: deadlines are by the clock that cannot be set.
    asking.send("Host: test\r\n\r\n");
    assert_eq!(asking.answer().text(), "as it was\n");
    assert_eq!(server.number("/counters/timeouts"), 0);
}

/// Where Debian keeps libfaketime.
fn fake_time() -> Option<PathBuf> {
    let places = std::fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    let mut libraries = places.map(|place| place.path().join("faketime/libfaketime.so.1"));
    libraries.find(|library| library.exists())
}

/// Ends the load also when a test fails meanwhile.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
