//! The command: its exit codes and words, configurations that are right and wrong, sites and routes, the access log, signals.

mod harness;

use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use harness::{
    Client, Driver, Folder, Server, binary, binary_as_nobody, get, is_root, on_every_driver, on_every_loop,
    on_every_thread, wait_until,
};
use rustix::process::Signal;

on_every_driver!(
    the_first_lines_say_what_runs,
    sites_by_host_and_routes_by_path,
    the_access_log_has_a_line_for_each_request,
    a_rotated_log_is_opened_anew,
    the_admin_page_answers_and_refuses,
    every_signal_to_end_is_obeyed,
);
on_every_thread!(a_full_disk_costs_lines_and_nothing_else);
on_every_loop!(several_addresses_and_workers_serve_alike);

/// What a command that ends said, and its exit code.
fn outcome(command: &mut Command) -> (i32, String, String) {
    let output = command.stdin(Stdio::null()).output().expect("the binary starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("it was not killed"), text(&output.stdout), text(&output.stderr))
}

#[test]
fn the_journal_is_told_what_matters() {
    for (is_journal, start) in [(true, "<3>"), (false, "")] {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let pipe = rustix::fs::fstat(&writer).expect("a pipe");
        let inode = if is_journal { pipe.st_ino } else { pipe.st_ino + 1 };
        let mut command = binary();
        command.args(["serve", "/no/such/folder"]).env("JOURNAL_STREAM", format!("{}:{inode}", pipe.st_dev));
        command.stderr(writer).status().expect("the binary starts");
        drop(command);
        let mut said = String::new();
        reader.read_to_string(&mut said).expect("text");
        assert!(said.starts_with(start) && said.contains("<3>") == is_journal, "{said}");
    }
}

#[test]
fn wrong_usage_is_2_and_says_what_to_type() {
    let folder = Folder::usual();
    let file = folder.at("page.html");
    let file = file.to_str().expect("a plain path");
    for (arguments, words) in [
        (&[][..], &["Usage: amped", "serve", "run", "check"][..]),
        (&["sreve"], &["unrecognized subcommand 'sreve'", "serve"]),
        (&["serve", "--prot", "80"], &["unexpected argument '--prot'", "--help"]),
        (&["serve", "--driver", "kqueue"], &["`kqueue`", "auto", "uring", "epoll-edge", "poll"]),
        (&["serve", "--disk", "ssd"], &["`ssd`", "amped", "inline", "helpers"]),
        (&["serve", "--architecture", "mtt"], &["`mtt`", "did you mean `mt`?", "amped", "symped", "sped", "mp"]),
        (&["serve", "--architecture", "mt", "--driver", "poll"], &["architecture `mt`", "driver `poll`", "leave"]),
        (&["serve", "--architecture", "mp", "--disk", "helpers"], &["architecture `mp`", "disk `helpers`", "leave"]),
        (&["serve", "--architecture", "amped", "--driver", "blocking"], &["`amped`", "driver `blocking`", "`mt`"]),
        (&["serve", "--architecture", "sped", "--disk", "amped"], &["architecture `sped`", "disk `amped`"]),
        (&["serve", "--architecture", "amped", "--workers", "2"], &["`amped`", "2 workers", "`symped`"]),
        (&["serve", "--cache", "12XB"], &["`12XB` is not a size", "12MB"]),
        (&["serve", "--cache", "-1"], &["-1"]),
        (&["serve", "--cache", "99999999999GB"], &["99999999999GB"]),
        (&["serve", "--workers", "0"], &["from 1 to 1024"]),
        (&["serve", "--workers", "many"], &["from 1 to 1024"]),
        (&["serve", "--listen", "localhost"], &["`localhost` is not an address", "127.0.0.1:8080"]),
        (&["serve", "--listen", "127.0.0.1:65536"], &["127.0.0.1:65536"]),
        (&["serve", "/no/such/folder"], &["`/no/such/folder`", "does not exist"]),
        (&["serve", file], &["is not a folder"]),
        (&["run", "-c", "/no/such/file.toml"], &["does not exist", "amped serve DIR"]),
        (&["check", "-c", "/no/such/file.toml"], &["does not exist"]),
    ] {
        let (code, _, said) = outcome(binary().args(arguments));
        assert_eq!(code, 2, "{arguments:?}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}"));
        assert!(!said.contains("panicked"), "{arguments:?}: {said}");
    }
}

#[test]
fn what_cannot_be_done_is_1_and_says_why() {
    let folder = Folder::usual();
    let root = folder.path().to_str().expect("a plain path");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("a socket").to_string();
    for (arguments, words) in [
        (&["--listen", &taken][..], &["cannot listen on", &taken, "another program"][..]),
        (&["--listen", "192.0.2.1:8080"], &["192.0.2.1:8080", "no interface"]),
        (&["--listen", "127.0.0.1:0", "--access-log", "/no/such/folder/log"], &["/no/such/folder/log", "No such file"]),
        (&["--listen", "127.0.0.1:0", "--admin", "unix:/no/such/folder/admin"], &["admin", "/no/such/folder/admin"]),
        (&["--listen", "127.0.0.1:0", "--admin", &taken], &["admin", &taken]),
    ] {
        // That root may not serve others unless told so is another matter, and comes first.
        let user: &[&str] = if is_root() { &["--user", "root"] } else { &[] };
        let (code, _, said) = outcome(binary().args(["serve", root]).args(arguments).args(user));
        assert_eq!(code, 1, "{arguments:?}: {said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{arguments:?} does not say {word:?}: {said}"));
    }
    // A second server on the first one's address.
    let server = Server::serve(Driver::Poll, folder.path());
    let (code, _, said) = outcome(binary().args(["serve", root, "--listen", &server.address().to_string()]));
    assert!(code == 1 && said.contains("another program listens there"), "{code}: {said}");
}

#[test]
fn rights_that_are_missing_are_named() {
    let folder = Folder::for_all();
    let closed = Folder::for_all();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).expect("own folder");
    let place = tempfile::tempdir().expect("a temporary folder");
    let as_nobody = || if is_root() { binary_as_nobody(place.path()) } else { binary() };
    let first: u32 = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .map_or(1024, |text| text.trim().parse().expect("a number"));
    if first > 80 {
        let command = &mut as_nobody();
        let (code, _, said) = outcome(command.arg("serve").arg(folder.path()).args(["--listen", "127.0.0.1:80"]));
        assert!(code == 1 && said.contains("CAP_NET_BIND_SERVICE"), "{code}: {said}");
    }
    if is_root() {
        let command = &mut as_nobody();
        let (code, _, said) = outcome(command.arg("serve").arg(closed.path()).args(["--listen", "127.0.0.1:0"]));
        assert!(code != 0 && said.contains("ermission denied"), "{code}: {said}");
    }
}

#[test]
fn help_needs_no_manual() {
    let (code, help, _) = outcome(binary().args(["--help"]));
    assert_eq!(code, 0);
    ["serve", "run", "check", "reload", "upgrade", "stop", "status", "--help", "--version"]
        .iter()
        .for_each(|word| assert!(help.contains(word), "{word}: {help}"));
    let (code, help, _) = outcome(binary().args(["serve", "--help"]));
    assert_eq!(code, 0);
    for word in [
        "[DIR]",
        "--listen <ADDR:PORT>",
        "127.0.0.1:8080",
        "--architecture <NAME>",
        "symped",
        "--workers <N>",
        "--driver <NAME>",
        "auto, uring, epoll-edge",
        "blocking",
        "--disk <HOW>",
        "inline",
        "--cache <SIZE>",
        "256MB",
        "1GiB",
        "--access-log <PATH|off>",
        "SIGUSR1",
        "--admin <ADDR:PORT|unix:PATH>",
        "/status",
        "--user <USER>",
        "--no-supervisor",
    ] {
        assert!(help.contains(word), "serve --help does not say {word:?}: {help}");
    }
    let control = &["--pid-file <PATH>", "XDG_RUNTIME_DIR"][..];
    for (command, words) in [
        ("run", &["--config <FILE>", "amped.toml", "--pid-file <PATH>", "--no-supervisor"][..]),
        ("check", &["--config", "--schema"]),
        ("reload", control),
        ("upgrade", control),
        ("stop", control),
        ("status", control),
    ] {
        let (_, help, _) = outcome(binary().args([command, "--help"]));
        words.iter().for_each(|word| assert!(help.contains(word), "{command} --help does not say {word:?}: {help}"));
    }
    let (code, version, _) = outcome(binary().arg("--version"));
    assert_eq!((code, version), (0, format!("amped {}\n", env!("CARGO_PKG_VERSION"))));
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn examples_and_the_schema_are_right() {
    let examples = fs::read_dir(top().join("examples")).expect("the examples");
    let files = examples.map(|entry| entry.expect("the examples").path());
    let files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ending| ending == "toml")).collect();
    assert!(files.len() >= 3);
    for file in files {
        let (code, said, complaints) = outcome(binary().args(["check", "-c"]).arg(&file));
        assert!(code == 0 && said.contains("nothing wrong"), "{}: {said}{complaints}", file.display());
    }
    let (code, schema, _) = outcome(binary().args(["check", "--schema"]));
    assert_eq!(code, 0);
    let written = fs::read_to_string(top().join("docs/amped.schema.json")).expect("the schema");
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).expect("JSON");
    assert_eq!(parse(&schema), parse(&written), "docs/amped.schema.json is not what `amped check --schema` prints");
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let folder = Folder::usual();
    let root = folder.path().display();
    for (toml, words) in [
        (
            "cahce = \"1GB\"\n[[sites]]\nroot = \"ROOT\"",
            &["unknown key `cahce`", "did you mean `cache`?", "amped.toml:1", "^"][..],
        ),
        ("cache = \"1XB\"\n[[sites]]\nroot = \"ROOT\"", &["1XB", "amped.toml:1", "^"]),
        ("[[sites]]\nroot = \"ROOT\"\nsymlinks = \"sometimes\"", &["sometimes", "within", "amped.toml:3", "^"]),
        ("[[sites]]\nroot = \"ROOT/none\"", &["none", "amped.toml:2", "^"]),
        ("[[sites]\nroot = 1", &["amped.toml:1", "^"]),
        ("[[sites]]\nroot = \"ROOT\"\n[[sites.routes]]\nmatch = \"/a\"\nstatus = 99", &["99", "amped.toml:5", "^"]),
        (
            "[limits]\nidle_timout = \"1s\"\n[[sites]]\nroot = \"ROOT\"",
            &["did you mean `idle_timeout`?", "amped.toml:2"],
        ),
        ("[limits]\nidle_timeout = \"1x\"\n[[sites]]\nroot = \"ROOT\"", &["1x", "amped.toml:2", "^"]),
        ("", &["sites"]),
    ] {
        let file = folder.put("amped.toml", toml.replace("ROOT", &root.to_string()));
        for command in ["check", "run"] {
            let (code, _, said) = outcome(binary().args([command, "-c"]).arg(&file));
            assert_eq!(code, 2, "{command} {toml:?}: {said}");
            for word in words {
                assert!(said.contains(word), "{command} {toml:?} does not say {word:?}:\n{said}");
            }
        }
    }
    // Every mistake at once, not the first alone.
    let file = folder.put("amped.toml", "workers = 0\nhelpers = 0\n[[sites]]\nroot = \"/none\"\n");
    let (_, _, said) = outcome(binary().args(["check", "-c"]).arg(&file));
    assert_eq!(said.matches("error: ").count(), 3, "{said}");
}

fn the_first_lines_say_what_runs(driver: Driver) {
    let folder = Folder::usual();
    let disk = *driver.disk_modes().last().expect("one");
    let options = ["--workers", "3", "--cache", "64MB", "--disk", disk];
    let server = Server::serve_with(driver, folder.path(), &options);
    let line = server.startup_line();
    let workers = match driver {
        Driver::Mt => "3 threads",
        Driver::Mp => "3 processes",
        _ => "3 workers",
    };
    for word in [env!("CARGO_PKG_VERSION"), workers, "cache 64 MB", &format!("disk {disk}")] {
        assert!(line.contains(word), "no {word:?}: {line}");
    }
    let chosen = server.status()["driver"].as_str().expect("a name").to_owned();
    assert!(line.contains(&format!("driver {chosen} (")), "{line}");
    let last = server.said().lines().last().expect("lines").to_owned();
    assert_eq!(last, format!("listening on http://{}", server.address()));
}

#[test]
fn every_architecture_is_named_and_serves() {
    let folder = Folder::usual();
    for (options, driver, words) in [
        (&["--architecture", "amped"][..], Driver::EpollEdge, &["architecture amped, 1 worker,", "disk amped"][..]),
        (&["--workers", "1"], Driver::EpollEdge, &["architecture amped, 1 worker,", "disk amped"]),
        (&["--workers", "2"], Driver::EpollEdge, &["architecture symped, 2 workers,", "disk amped"]),
        (&["--architecture", "symped", "--workers", "2"], Driver::Poll, &["architecture symped, 2 workers,"]),
        (&["--architecture", "sped"], Driver::EpollEdge, &["architecture sped, 1 worker,", "disk inline"]),
        (&["--workers", "3", "--cache", "9MB"], Driver::Mt, &["architecture mt, 3 threads, cache 9 MB", "disk inline"]),
        (
            &["--workers", "3", "--cache", "9MB"],
            Driver::Mp,
            &["architecture mp, 3 processes, cache 9 MB", "disk inline"],
        ),
    ] {
        let server = Server::serve_with(driver, folder.path(), options);
        let line = server.startup_line();
        words.iter().for_each(|word| assert!(line.contains(word), "no {word:?}: {line}"));
        assert_eq!(server.get("/").text(), "hi\n", "{options:?}");
        let name = server.status()["architecture"].as_str().expect("a name").to_owned();
        assert!(line.contains(&format!("architecture {name},")), "{name}: {line}");
    }
}

/// A thread or process for each connection: whoever comes when all are taken waits until one is free, and then is served.
#[test]
fn connections_beyond_the_pool_wait() {
    let folder = Folder::usual();
    for driver in [Driver::Mt, Driver::Mp] {
        let server = Server::serve_with(driver, folder.path(), &["--workers", "2"]);
        let mut first = server.connect();
        let mut second = server.connect();
        assert_eq!((first.get("/").status(), second.get("/").status()), (200, 200));
        let mut third = server.connect();
        third.send(get("/"));
        third.stream().set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
        assert!(third.try_answer(false).is_err(), "{driver:?}: a third was served by two");
        assert_eq!(first.get("/").status(), 200, "{driver:?}");
        drop(first);
        third.stream().set_read_timeout(Some(harness::PATIENCE)).expect("a socket");
        assert_eq!(third.answer().status(), 200, "{driver:?}");
        assert_eq!(second.get("/").status(), 200, "{driver:?}");
        assert_eq!(server.number("/connections"), 2, "{driver:?}");
        assert_eq!(server.number("/counters/handed_on"), 0, "{driver:?}: whoever accepts serves");
    }
}

fn is_alive(process: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[test]
fn processes_of_a_pool_are_replaced_and_none_outlives_it() {
    let folder = Folder::usual();
    let mut server = Server::serve_with(Driver::Mp, folder.path(), &["--workers", "3"]);
    let before = server.children();
    assert_eq!(before.len(), 3);
    // They live longer than a second, so that a replacement does not wait.
    std::thread::sleep(Duration::from_millis(1100));
    let victim = rustix::process::Pid::from_raw(before[0]).expect("a process");
    rustix::process::kill_process(victim, Signal::KILL).expect("own grandchild");
    wait_until("a replacement", || server.children().len() == 3 && !server.children().contains(&before[0]));
    let words = format!("process {} has ended (signal 9)", before[0]);
    wait_until("it says so", || server.said().contains(&words));
    // As many connections as processes, so the replacement serves one of them.
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "hi\n"));
    let children = server.children();
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    clients.iter_mut().for_each(|client| client.expect_end("the pool has ended"));
    wait_until("it says what it served", || server.said().contains("served 3 requests"));
    assert!(children.iter().all(|child| !is_alive(*child)), "a process was left behind");
    // A parent that is killed can tell nobody anything.
    let mut server = Server::serve_with(Driver::Mp, folder.path(), &["--workers", "3"]);
    let mut client = server.connect();
    assert_eq!(client.get("/").status(), 200);
    let children = server.children();
    assert_eq!(children.len(), 3);
    server.signal(Signal::KILL);
    assert_eq!(server.wait(), None);
    wait_until("the children have ended", || !children.iter().any(|child| is_alive(*child)));
    client.expect_end("the pool has ended");
}

const SITES: &str = r#"
[[sites]]
names = ["one.example", "*.one.example"]
root = "ROOT/one"
error_pages = { 404 = "404.html" }
[[sites.headers]]
match = "*"
set = { X-Site = "one" }
[[sites.routes]]
match = "/old/*"
redirect = "/new/{rest}{query}"
status = 301
[[sites.routes]]
match = "/away"
redirect = "https://two.example{path}{query}"
[[sites.routes]]
match = "/health"
status = 200
body = "well\n"
cache_control = "no-store"
[[sites.routes]]
match = "/gone"
status = 410
[[sites.routes]]
match = "/empty"
status = 204
[[sites.routes]]
match = "/pictures/*"
root = "ROOT/two"
cache_control = "max-age=60"

[[sites]]
names = ["two.example"]
root = "ROOT/two"

[[sites]]
[[sites.routes]]
match = "/*"
status = 421
body = "nobody\n"
"#;

fn sites_by_host_and_routes_by_path(driver: Driver) {
    let folder = Folder::on_disk();
    folder.put("one/index.html", "one\n");
    folder.put("one/404.html", "one has no such page\n");
    folder.put("two/index.html", "two\n");
    folder.put("two/coil.svg", "<svg/>");
    let server = Server::run(driver, &SITES.replace("ROOT", &folder.path().display().to_string()));
    let mut client = server.connect();
    let mut ask = |method: &str, host: &str, path: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        client.ask(request)
    };
    for (host, path, status, body) in [
        ("one.example", "/", 200, "one\n"),
        ("ONE.example.:8080", "/", 200, "one\n"),
        ("a.b.one.example", "/", 200, "one\n"),
        ("two.example", "/", 200, "two\n"),
        ("two.example", "/pictures/coil.svg", 404, "404 Not Found\n"),
        ("three.example", "/", 421, "nobody\n"),
        ("", "/", 421, "nobody\n"),
        ("one.example", "/none", 404, "one has no such page\n"),
        ("one.example", "/health", 200, "well\n"),
        ("one.example", "/gone", 410, "410 Gone\n"),
        ("one.example", "/empty", 204, ""),
        ("one.example", "/pictures/coil.svg", 200, "<svg/>"),
        ("one.example", "/pictures/none", 404, "one has no such page\n"),
    ] {
        let answer = ask("GET", host, path);
        assert_eq!((answer.status(), answer.text().as_str()), (status, body), "{host}{path}");
    }
    for (path, status, location) in [
        ("/old/a/b?c=d", 301, "/new/a/b?c=d"),
        ("/old/", 301, "/new/"),
        ("/old/a%20b%22%0d%0aX:%20y", 301, "/new/a%20b%22%0D%0AX:%20y"),
        ("/away?q", 302, "https://two.example/away?q"),
        ("/pictures", 301, "/pictures/"),
    ] {
        let answer = ask("GET", "one.example", path);
        assert_eq!((answer.status(), answer.field("location")), (status, Some(location)), "{path}");
        assert!(answer.field("x-site") == Some("one") || path == "/pictures", "{path}");
    }
    assert_eq!(ask("GET", "one.example", "/").field("x-site"), Some("one"));
    assert_eq!(ask("GET", "two.example", "/").field("x-site"), None);
    assert_eq!(ask("GET", "one.example", "/health").field("cache-control"), Some("no-store"));
    assert_eq!(ask("GET", "one.example", "/pictures/coil.svg").field("cache-control"), Some("max-age=60"));
    for path in ["/health", "/gone", "/old/x", "/none", "/pictures/coil.svg"] {
        let (got, head) = (ask("GET", "one.example", path), ask("HEAD", "one.example", path));
        assert_eq!(
            (head.status(), head.field("content-length")),
            (got.status(), got.field("content-length")),
            "{path}"
        );
    }
    // The absolute form's authority decides, not the Host field (RFC 9112 section 3.2.2).
    assert_eq!(ask("GET", "one.example", "http://two.example/").text(), "two\n");
}

/// Two requests that are served, one that is refused, one that is not understood.
fn say_something(server: &Server) {
    let mut client = server.connect();
    let lines = "Referer: http://from.example/\r\nUser-Agent: test \"1\"";
    client.ask(format!("GET /page.html?q=1 HTTP/1.1\r\nHost: h.example\r\n{lines}\r\n\r\n"));
    client.ask("HEAD /large.bin HTTP/1.1\r\nHost: h.example\r\n\r\n");
    client.get("/none");
    client.ask("GET / HTTP/1.1\r\n\r\n");
}

fn the_access_log_has_a_line_for_each_request(driver: Driver) {
    let folder = Folder::usual();
    let logs = Folder::on_disk();
    let log = logs.at("access.log");
    let server = Server::serve_with(driver, folder.path(), &["--access-log", log.to_str().expect("a plain path")]);
    say_something(&server);
    wait_until("four lines", || lines(&log).len() == 4);
    let expected = [
        "\"GET /page.html?q=1 HTTP/1.1\" 200 7 \"http://from.example/\" \"test \\\"1\\\"\"",
        "\"HEAD /large.bin HTTP/1.1\" 200 0 \"-\" \"-\"",
        "\"GET /none HTTP/1.1\" 404 14 \"-\" \"-\"",
        "400",
    ];
    for (line, expected) in lines(&log).iter().zip(expected) {
        assert!(line.starts_with("127.0.0.1 - - [") && line.contains(" +0000] \""), "{line}");
        assert!(line.contains(expected), "{line} does not say {expected}");
    }
    drop(server);
    let log = logs.at("log.json");
    let toml = format!("access_log = \"{}\"\naccess_log_format = \"json\"", log.display());
    let mut server = Server::run(driver, &format!("{toml}\n[[sites]]\nroot = \"{}\"", folder.path().display()));
    say_something(&server);
    // What is not written yet is written at the end.
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let values: Vec<serde_json::Value> =
        lines(&log).iter().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    assert_eq!(values.len(), 4);
    assert_eq!(values[0]["request"], "GET /page.html?q=1 HTTP/1.1");
    assert_eq!((&values[0]["host"], &values[0]["peer"]), (&"h.example".into(), &"127.0.0.1".into()));
    assert_eq!(values[0]["user_agent"], "test \"1\"");
    let statuses: Vec<_> = values.iter().map(|value| value["status"].as_u64().expect("a number")).collect();
    assert_eq!(statuses, [200, 200, 404, 400]);
}

fn lines(file: &Path) -> Vec<String> {
    fs::read_to_string(file).map(|text| text.lines().map(str::to_owned).collect()).unwrap_or_default()
}

fn a_rotated_log_is_opened_anew(driver: Driver) {
    let folder = Folder::usual();
    let logs = Folder::on_disk();
    let (log, old) = (logs.at("access.log"), logs.at("access.log.1"));
    let server = Server::serve_with(driver, folder.path(), &["--access-log", log.to_str().expect("a plain path")]);
    let mut client = server.connect();
    client.get("/page.html?before");
    wait_until("a line", || lines(&log).len() == 1);
    fs::rename(&log, &old).expect("own folder");
    client.get("/page.html?between");
    wait_until("the old file goes on", || lines(&old).len() == 2);
    server.signal(Signal::USR1);
    wait_until("a new file", || log.exists());
    client.get("/page.html?after");
    wait_until("a line in the new file", || lines(&log).len() == 1);
    assert!(lines(&log)[0].contains("?after") && lines(&old).len() == 2);
    // Where it cannot be opened anew, the old one goes on.
    fs::remove_file(&log).expect("own file");
    fs::create_dir(&log).expect("own folder");
    server.signal(Signal::USR1);
    wait_until("it says so", || server.said().contains("access log"));
    assert_eq!(client.get("/page.html").status(), 200);
}

fn a_full_disk_costs_lines_and_nothing_else(driver: Driver) {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
    let folder = Folder::usual();
    let logs = tempfile::tempdir().expect("a temporary folder");
    let options = c"size=256k";
    if let Err(error) = mount("none", logs.path(), "tmpfs", MountFlags::NOSUID, options) {
        assert!(!is_root(), "root could not mount: {error}");
        return eprintln!("NOT TESTED: a full disk needs the right to mount: {error}");
    }
    let log = logs.path().join("access.log");
    fs::write(logs.path().join("filler"), vec![0; 240 * 1024]).expect("room for it");
    let mut server = Server::serve_with(driver, folder.path(), &["--access-log", log.to_str().expect("a plain path")]);
    let start = Instant::now();
    let mut client = server.connect();
    let long = get(&format!("/page.html?{}", "q".repeat(400)));
    for _ in 0..40 {
        client.send(long.repeat(50));
        (0..50).for_each(|_| assert_eq!(client.answer().status(), 200));
    }
    assert!(start.elapsed() < Duration::from_secs(10), "the log held the server up: {:?}", start.elapsed());
    let lost = || server.number("/counters/log_lines_dropped");
    wait_until("what was lost is counted", || lines(&log).len() as u64 + lost() >= 2000);
    assert!(lost() > 1000, "{} lines were lost", lost());
    // With room again, lines are written again, and none is half of one and half of another.
    fs::remove_file(logs.path().join("filler")).expect("own file");
    client.get("/page.html?again");
    wait_until("lines are written again", || lines(&log).iter().any(|line| line.contains("?again")));
    assert!(lines(&log).iter().all(|line| line.matches("GET /").count() <= 1), "lines run into each other");
    assert!(lines(&log).last().is_some_and(|line| line.starts_with("127.0.0.1 ")));
    wait_until("what was lost is told", || server.said().contains("lines"));
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    drop(server);
    unmount(logs.path(), UnmountFlags::DETACH).expect("own mount");
}

fn the_admin_page_answers_and_refuses(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    let requests = server.number("/counters/requests");
    let mut client = server.connect();
    client.get("/");
    client.get("/none");
    wait_until("two more requests", || server.number("/counters/requests") == requests + 2);
    assert_eq!(server.number("/counters/client_errors"), 1);
    assert_eq!(server.number("/connections"), 1);
    assert!(server.number("/cache/entries") >= 2 && server.number("/cache/bytes") > 0);
    assert!(server.number("/counters/bytes_sent") > 100);
    let turns = server.status()["turns"].as_array().expect("a list").len();
    assert!(turns >= 1, "no turns are told");
    drop(client);
    wait_until("nobody is there", || server.number("/connections") == 0);
    // By TCP as well, with refusals.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let toml = format!("[[sites]]\nroot = \"{}\"", folder.path().display());
    let file = folder.put("amped.toml", format!("listen = \"127.0.0.1:0\"\nadmin = \"{port}\"\n{toml}"));
    let mut child = binary().args(["run", "-c"]).arg(&file).stderr(Stdio::null()).spawn().expect("the binary starts");
    wait_until("the admin page", || Client::connect(port, None).is_ok());
    for (request, status) in
        [(get("/status"), 200), (get("/other"), 404), ("POST /status HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405)]
    {
        let answer = Client::connect(port, None).expect("the admin page").ask(request);
        assert_eq!((answer.status(), answer.field("content-type")), (status, Some("application/json")));
    }
    child.kill().and_then(|()| child.wait()).expect("own child");
}

fn every_signal_to_end_is_obeyed(driver: Driver) {
    let folder = Folder::usual();
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::serve(driver, folder.path());
        let mut client = server.connect();
        client.get("/");
        server.signal(signal);
        let start = Instant::now();
        assert_eq!(server.wait(), Some(0), "{signal:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?} for an idle connection", start.elapsed());
        client.expect_end("the server has ended");
        wait_until("it says what it served", || server.said().contains("served 1 requests"));
        assert!(Client::connect(server.address(), None).is_err(), "somebody listens still");
    }
}

fn several_addresses_and_workers_serve_alike(driver: Driver) {
    let folder = Folder::usual();
    let more = ["--workers", "4", "--listen", "127.0.0.1:0", "--listen", "[::1]:0"];
    let server = Server::serve_with(driver, folder.path(), &more);
    let addresses = server.addresses();
    assert_eq!(addresses.len(), 3);
    let mut clients: Vec<Client> =
        (0..60).map(|at| Client::connect(addresses[at % 3], None).expect("the server accepts")).collect();
    for _ in 0..3 {
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "hi\n"));
    }
    assert_eq!(server.number("/connections"), 60);
    assert_eq!(server.status()["turns"].as_array().expect("a list").len(), 4);
}
