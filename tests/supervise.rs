//! The supervisor: crashes, hangs, reloads and upgrades under load, and what the service manager sees of it.

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use harness::supervised::{Ears, Load, SITE, Supervised, command, is_alive, kill, size};
use harness::{Client, PATIENCE, binary, get, wait_until};
use rustix::process::Signal;

#[test]
fn a_killed_server_is_replaced_and_nobody_is_refused() {
    let server = Supervised::start("workers = 2");
    let address = server.address();
    assert_eq!(server.get("/").text(), "one\n");
    // Connects all the time; that it is answered may take until another process serves, that it connects may not.
    let stop = Arc::new(AtomicBool::new(false));
    let longest = Arc::new(AtomicU64::new(0));
    let clients = (0..3).map(|_| {
        let (stop, longest) = (Arc::clone(&stop), Arc::clone(&longest));
        std::thread::spawn(move || {
            while !stop.load(Relaxed) {
                let start = Instant::now();
                let mut client = Client::connect(address, None).expect("never refused");
                // A connection that the killed process had accepted ends with it.
                let answer = client.try_send(get("/")).and_then(|()| client.try_answer(false));
                if answer.is_ok() {
                    longest.fetch_max(start.elapsed().as_millis() as u64, Relaxed);
                }
            }
        })
    });
    let clients: Vec<_> = clients.collect();
    std::thread::sleep(Duration::from_millis(200));
    let before = server.server();
    longest.store(0, Relaxed);
    let start = Instant::now();
    kill(before, Signal::KILL);
    wait_until("another server process", || server.servers("ready").first().is_some_and(|now| *now != before));
    eprintln!("another server process was ready {:?} after the end of the first", start.elapsed());
    wait_until("an answer", || Client::connect(address, None).is_ok_and(|mut client| client.get("/").status() == 200));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    std::thread::sleep(Duration::from_millis(200));
    stop.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().expect("never refused"));
    eprintln!("the longest that anybody waited for an answer: {} ms", longest.load(Relaxed));
    assert!(longest.load(Relaxed) < 2000);
    let said = server.said();
    assert!(said.contains("killed by SIGKILL (signal 9"), "{said}");
    assert_eq!(said.matches("listening on").count(), 1, "{said}");
    let status = server.tell("status");
    assert!(status.contains("restarts: 1 × killed by SIGKILL"), "{status}");
    // One that ends itself, in the middle of a request.
    let before = server.server();
    let mut client = server.connect();
    client.send(get("/.amped-test/abort"));
    assert!(client.try_answer(false).is_err());
    wait_until("another server process", || server.servers("ready").first().is_some_and(|now| *now != before));
    let status = server.tell("status");
    assert!(status.contains("1 × killed by SIGABRT (signal 6)"), "{status}");
}

#[test]
fn an_endless_loop_is_found_named_and_replaced() {
    // The names are in the binary's file, which a sandbox must not shut.
    for toml in ["workers = 2", "workers = 2\nsandbox = true"] {
        let server = Supervised::start(toml);
        let before = server.server();
        let start = Instant::now();
        let mut stuck = server.connect();
        stuck.send(get("/.amped-test/spin"));
        wait_until("it is said", || server.said().contains("is in one turn for"));
        eprintln!("said after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(2), "said after {:?}", start.elapsed());
        wait_until("it is replaced", || server.servers("ready").first().is_some_and(|now| *now != before));
        eprintln!("replaced after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(4), "replaced after {:?}", start.elapsed());
        (0..20).for_each(|_| assert_eq!(server.get("/").status(), 200));
        wait_until("the stuck one is gone", || !is_alive(before));
        let said = server.said();
        assert_eq!(said.matches("is in one turn for 1").count(), 2, "once as slow and once as stuck: {said}");
        assert!(said.contains("endless_loop (faults.rs:") && said.contains("turn (h1.rs:"), "{said}");
        let status = server.tell("status");
        assert!(status.contains("restarts: 1 × stuck"), "{status}");
    }
}

#[test]
fn a_worker_that_is_lost_is_replaced() {
    for toml in ["workers = 2", "workers = 1"] {
        let mut server = Supervised::start(toml);
        server.may_panic = true;
        let before = server.server();
        assert_eq!(server.get("/.amped-test/lose-worker").status(), 404);
        wait_until("another takes its place", || server.servers("ready").first().is_some_and(|now| *now != before));
        (0..20).for_each(|_| assert_eq!(server.get("/").status(), 200));
        let (said, status) = (server.said(), server.tell("status"));
        assert!(said.contains("a test asked for it") && said.contains("panicked, so this process ends"), "{said}");
        assert!(status.contains("restarts: 1 × killed by SIGABRT"), "{status}");
    }
}

#[test]
fn a_stopped_machine_is_not_a_stuck_one() {
    let server = Supervised::start("workers = 2");
    let before = server.server();
    for _ in 0..3 {
        kill(before, Signal::STOP);
        std::thread::sleep(Duration::from_millis(1500));
        kill(before, Signal::CONT);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(server.get("/").status(), 200);
    assert_eq!(server.server(), before);
    assert!(!server.said().contains("in one turn"), "{}", server.said());
}

#[test]
fn reloads_under_load_fail_nobody_and_keep_connections() {
    let settings = "workers = 2\n";
    let server = Supervised::start(settings);
    let before = server.server();
    let mut kept: Vec<Client> = (0..10).map(|_| server.connect()).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "one\n"));
    let load = Load::on(server.address(), 4);
    let one = format!("{settings}{SITE}");
    let other = one.replace("site\"", "other\"");
    let reload = |round: usize| {
        server.configure(if round.is_multiple_of(2) { &other } else { &one });
        server.tell("reload");
        let expected = if round.is_multiple_of(2) { "other\n" } else { "one\n" };
        let client = &mut kept[round % 10];
        // What is served is what the file says, from the moment that the command returns, on connections made before it.
        assert_eq!(client.get("/").text(), expected, "round {round}");
    };
    let mut rounds = (0..200).map(reload);
    assert_eq!(rounds.by_ref().take(40).count(), 40);
    let (memory, descriptors) = size(before);
    let supervisor = size(server.child.id() as i32);
    assert_eq!(rounds.count(), 160);
    wait_until("no descriptor is left over", || size(before).1 <= descriptors + 8);
    let now = size(before);
    assert!(now.0 < memory + 4096, "{memory} KB became {} KB", now.0);
    let grown = size(server.child.id() as i32);
    assert!(grown.0 < supervisor.0 + 512 && grown.1 == supervisor.1, "{supervisor:?} became {grown:?}");
    assert!(load.end() > 1000);
    assert_eq!(server.server(), before, "another process: {}", server.said());
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "one\n"));
    // The same by signal.
    server.configure(&other);
    server.signal(Signal::HUP);
    wait_until("the reload", || server.get("/").text() == "other\n");
}

#[test]
fn what_a_sandbox_shuts_is_reloaded_in_another_process() {
    let server = Supervised::start("workers = 2\nsandbox = true");
    let load = Load::on(server.address(), 3);
    let first = server.server();
    // What it serves already it may open again.
    let more = "[[sites.routes]]\nmatch = \"/a\"\nstatus = 200\nbody = \"a\"\n";
    server.configure(&format!("workers = 2\nsandbox = true\n{SITE}{more}"));
    server.tell("reload");
    assert_eq!((server.get("/a").text().as_str(), server.server()), ("a", first));
    // A folder that was not in the plan.
    server.configure(&format!("workers = 2\nsandbox = true\n{}", SITE.replace("site\"", "other\"")));
    assert!(server.tell("reload").contains("in another process"), "{}", server.said());
    // What the first had accepted by then it answers as before.
    wait_until("the other folder", || server.get("/").text() == "other\n");
    let second = server.server();
    assert_ne!(second, first);
    // Another folder under the same name, which only the one that has tried to open it knows.
    fs::rename(server.path("other"), server.path("old")).expect("own folder");
    fs::create_dir(server.path("other")).expect("own folder");
    fs::write(server.path("other/index.html"), "new\n").expect("own folder");
    server.tell("reload");
    wait_until("the new folder", || server.get("/").text() == "new\n");
    wait_until("the first is gone", || !is_alive(first));
    assert!(load.end() > 100);
}

#[test]
fn a_release_behind_a_link_is_served_by_whoever_may_open_it() {
    for sandbox in [false, true] {
        let server = Supervised::start_as(&format!("sandbox = {sandbox}\n{CURRENT}"), |_, folder| {
            symlink("site", folder.join("current")).expect("own link");
        });
        let load = Load::on(server.address(), 3);
        let first = server.server();
        let confined = sandbox && server.said().contains("alone (Landlock)");
        symlink("other", server.path("next")).expect("own link");
        fs::rename(server.path("next"), server.path("current")).expect("own link");
        wait_until("the other folder", || server.get("/").text() == "other\n");
        // The other process answers before its supervisor has heard that it is ready.
        wait_until("the right server", || matches!(server.servers("ready")[..], [only] if (only != first) == confined));
        // Nothing is left to be done: it stays with this process.
        std::thread::sleep(Duration::from_millis(1500));
        assert_eq!(server.said().matches("is another folder now").count(), 1, "{}", server.said());
        assert!(load.end() > 100);
    }
}

const CURRENT: &str = "[[sites]]\nroot = \"current\"";

#[test]
fn the_numbers_tell_of_the_supervision() {
    let server = Supervised::start("");
    let admin = server.path("admin");
    let settings = format!("admin = \"unix:{}\"", admin.display());
    server.configure(&settings);
    server.tell("reload");
    let ask = |path: &str| {
        let mut stream = UnixStream::connect(&admin).expect("somebody answers");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        answer
    };
    let before = server.server();
    let status = ask("/status");
    assert!(status.contains("\"restarts\":0") && status.contains("\"state\":\"ready\""), "{status}");
    assert!(status.contains(&format!("\"id\":{before}")), "{status}");
    kill(before, Signal::KILL);
    wait_until("another server process", || server.servers("ready").first().is_some_and(|now| *now != before));
    let metrics = ask("/metrics");
    assert!(metrics.contains("\namped_restarts_total 1\n"), "{metrics}");
    // Whoever has taken over answers for the server, also after an upgrade.
    server.tell("upgrade");
    wait_until("the next one answers", || ask("/status").contains(&format!("\"id\":{}", server.server())));
    wait_until("it is ready", || ask("/readyz").starts_with("HTTP/1.1 200"));
    server.configure(&format!("{settings}\nadmin_token = \"0123456789abcdef\""));
    server.tell("reload");
    wait_until("a token is asked for", || ask("/status").starts_with("HTTP/1.1 401"));
}

#[test]
fn memory_keeps_what_a_reload_does_not_concern() {
    let sites = |body: &str| {
        format!(
            "revalidate = \"1h\"\n[[sites]]\nroot = \"site\"\n[[sites.routes]]\nmatch = \"/a\"\nstatus = 200\nbody = \"{body}\"\n"
        )
    };
    let server = Supervised::start(&sites("1"));
    let mut client = server.connect();
    assert_eq!((client.get("/").text(), client.get("/a").text()), ("one\n".into(), "1".into()));
    // Memory vouches for an hour: if what it holds is asked for, the change is not seen.
    fs::write(server.path("site/index.html"), "changed\n").expect("own folder");
    server.configure(&sites("2"));
    server.tell("reload");
    assert_eq!((client.get("/").text(), client.get("/a").text()), ("one\n".into(), "2".into()));
    // Another folder under the same name is another matter.
    fs::rename(server.path("site"), server.path("old")).expect("own folder");
    fs::create_dir(server.path("site")).expect("own folder");
    fs::write(server.path("site/index.html"), "new\n").expect("own folder");
    server.tell("reload");
    assert_eq!(client.get("/").text(), "new\n");
}

#[test]
fn a_bad_configuration_changes_nothing_and_says_why() {
    let server = Supervised::start("");
    let before = server.server();
    let mut client = server.connect();
    client.get("/");
    for (toml, words) in [
        ("workers = \"many\"", &["workers", "amped.toml"][..]),
        ("listen = \"127.0.0.1:0\"\n[[sites]]\nroot = \"/no/such/folder\"", &["/no/such/folder"]),
        ("user = \"root\"\nlisten = [\"127.0.0.1:0\", \"192.0.2.1:80\"]", &["192.0.2.1:80", "no interface"]),
    ] {
        server.configure(toml);
        let said = server.refused("reload");
        words.iter().for_each(|word| assert!(said.contains(word), "no {word:?}: {said}"));
        assert!(server.said().contains("reload refused, nothing has changed"), "{}", server.said());
        assert_eq!(client.get("/").text(), "one\n");
    }
    assert_eq!(server.server(), before);
    // A crash now must not find the bad file.
    kill(before, Signal::KILL);
    wait_until("another server process", || server.servers("ready").first().is_some_and(|now| *now != before));
    assert_eq!(server.get("/").text(), "one\n");
}

#[test]
fn listeners_come_and_go_and_what_was_queued_is_answered() {
    let one = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let server = Supervised::start(&format!("listen = [\"127.0.0.1:0\", \"{one}\"]"));
    assert_eq!(server.addresses()[1], one);
    let before = server.server();
    let mut kept = Client::connect(one, None).expect("a connection");
    assert_eq!(kept.get("/").text(), "one\n");
    for _ in 0..3 {
        // Connections come all the time while the address is taken away.
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let asking = std::thread::spawn(move || {
            let mut answered = 0;
            while !stopped.load(Relaxed) {
                // One that is refused says that the address is gone; one that connected is answered.
                let Ok(mut client) = Client::connect(one, None) else { break };
                match client.try_send(get("/")).and_then(|()| client.try_answer(false)) {
                    Ok(answer) => assert_eq!(answer.status(), 200),
                    Err(error) => panic!("a connection was lost: {error}"),
                }
                answered += 1;
            }
            answered
        });
        server.configure("");
        server.tell("reload");
        wait_until("the address is gone", || Client::connect(one, None).is_err());
        stop.store(true, Relaxed);
        let answered = asking.join().expect("no connection is lost");
        assert!(answered > 0);
        assert_eq!(kept.get("/").text(), "one\n", "a connection outlives its listener");
        server.configure(&format!("listen = [\"127.0.0.1:0\", \"{one}\"]"));
        server.tell("reload");
        assert_eq!(Client::connect(one, None).expect("a connection").get("/").text(), "one\n");
    }
    assert_eq!(server.server(), before);
}

#[test]
fn what_threads_were_made_for_is_reloaded_in_another_process() {
    let server = Supervised::start("workers = 1");
    let before = server.server();
    let load = Load::on(server.address(), 3);
    for (toml, words) in [("workers = 3", "3 workers"), ("workers = 2\ncache = \"32MB\"", "cache 32 MB")] {
        server.configure(toml);
        assert!(server.tell("reload").contains("in another process"));
        wait_until("it says what runs", || server.said().contains(words));
    }
    assert_ne!(server.server(), before);
    wait_until("the first is gone", || !is_alive(before));
    assert!(load.end() > 100);
}

#[test]
fn upgrades_under_load_fail_nobody() {
    for toml in ["workers = 2", "workers = 2\ndriver = \"epoll-edge\"", "workers = 2\ndriver = \"poll\""] {
        let server = Supervised::start(toml);
        let supervisor = server.child.id() as i32;
        let load = Load::on(server.address(), 4);
        let mut servers = vec![server.server()];
        server.tell("upgrade");
        // Answered by the next one, which is all there then.
        servers.push(server.server());
        let first = size(supervisor);
        for _ in 0..4 {
            assert!(server.tell("upgrade").contains("upgraded"));
            servers.push(server.server());
        }
        servers.dedup();
        assert_eq!(servers.len(), 6, "{}", server.said());
        servers.pop();
        wait_until("the earlier ones are gone", || servers.iter().all(|server| !is_alive(*server)));
        wait_until("no descriptor is left over", || size(supervisor).1 <= first.1);
        assert!(load.end() > 100);
        assert_eq!(server.said().matches("upgraded").count(), 5);
        assert!(!server.said().contains("could not be upgraded"), "{}", server.said());
        // What was executed anew still supervises: it notices, replaces and counts.
        let before = server.server();
        kill(before, Signal::KILL);
        wait_until("another server process", || server.servers("ready").first().is_some_and(|now| *now != before));
        assert_eq!(server.get("/").text(), "one\n");
    }
}

#[test]
fn a_bad_binary_changes_nothing() {
    let server = Supervised::start("");
    let (before, path) = (server.server(), server.path("amped"));
    let good = server.path("good");
    fs::rename(&path, &good).expect("own folder");
    // Gone, not a program, one that fails, one that never serves.
    assert!(server.refused("upgrade").contains("cannot start"));
    for (text, words) in [("no program", "cannot start"), ("#!/bin/sh\nexit 7\n", "exit code 7")] {
        fs::write(&path, text).expect("own folder");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("own file");
        // A process that another test forks meanwhile may have the file open for writing (ETXTBSY).
        wait_until(words, || server.refused("upgrade").contains(words));
        assert_eq!((server.server(), server.get("/").status()), (before, 200));
    }
    fs::write(server.path("faults/hang"), "").expect("own folder");
    fs::rename(&good, &path).expect("own folder");
    let said = server.refused("upgrade");
    assert!(said.contains("before it was ready"), "{said}");
    assert_eq!((server.server(), server.get("/").status()), (before, 200));
    fs::remove_file(server.path("faults/hang")).expect("own folder");
    // And then a good one, by signal.
    server.signal(Signal::USR2);
    wait_until("the upgrade", || server.servers("ready").first().is_some_and(|now| *now != before));
}

#[test]
fn two_who_ask_at_once_are_both_answered() {
    let mut server = Supervised::start("");
    let pid_file = server.path("amped.pid");
    for word in ["reload", "upgrade"] {
        let asked: Vec<_> =
            (0..4).map(|_| command(word, &pid_file).stdout(Stdio::null()).spawn().expect("it starts")).collect();
        asked
            .into_iter()
            .for_each(|mut asked| assert!(asked.wait().expect("own child").success(), "{}", server.said()));
        assert_eq!(server.get("/").text(), "one\n");
    }
    // Somebody is being served, who has time.
    fs::write(server.path("site/huge.bin"), vec![7; 8 << 20]).expect("own folder");
    let mut client = Client::connect(server.address(), Some(16 * 1024)).expect("a connection");
    client.send(get("/huge.bin"));
    client.try_head().expect("a head");
    let serving = server.server();
    let mut asked: Vec<_> =
        (0..2).map(|_| command("stop", &pid_file).stdout(Stdio::piped()).spawn().expect("it starts")).collect();
    wait_until("nobody accepts any more", || Client::connect(server.address(), None).is_err());
    std::thread::sleep(Duration::from_millis(100));
    assert!(asked.iter_mut().all(|asked| asked.try_wait().expect("own child").is_none()), "it still serves");
    let mut body = client.unread().len();
    while body < 8 << 20 {
        let more = client.read_once(1 << 20).expect("the download goes on");
        assert!(!more.is_empty(), "cut off after {body} bytes");
        body += more.len();
    }
    asked.into_iter().for_each(|mut asked| assert!(asked.wait().expect("own child").success()));
    assert_eq!(server.wait(), Some(0));
    assert!(!is_alive(serving) && !pid_file.exists());
    // Nobody is there: to stop is done, the rest is not.
    assert!(server.tell("stop").contains("not running"));
    assert!(server.refused("reload").contains("not running"));
    assert_eq!(server.ask("status").status.code(), Some(1));
}

#[test]
fn a_crash_loop_backs_off_says_so_and_recovers() {
    let server = Supervised::start("");
    fs::write(server.path("faults/start"), "").expect("own folder");
    kill(server.server(), Signal::KILL);
    wait_until("it backs off", || server.tell("status").contains("backing off"));
    wait_until("the pauses grow", || server.said().contains("attempt 5 in a row"));
    let said = server.said();
    assert!(said.contains("backing off: attempt 2 in a row is due in"), "{said}");
    assert!(said.contains("which was starting, has ended: exit code 3"), "{said}");
    // The sockets are there all the time: who comes now is served later.
    let mut early = server.connect();
    early.send(get("/"));
    fs::remove_file(server.path("faults/start")).expect("own folder");
    assert_eq!(early.answer().text(), "one\n");
    let status = server.tell("status");
    assert!(status.contains("× exit code 3") && status.contains("1 × killed by SIGKILL"), "{status}");
}

#[test]
fn a_server_outlives_no_supervisor() {
    for toml in ["", "architecture = \"mp\"\nworkers = 2"] {
        let mut server = Supervised::start(toml);
        let serving = server.server();
        let mut idle = server.connect();
        idle.get("/");
        server.signal(Signal::KILL);
        assert_eq!(server.wait(), None);
        idle.expect_end("it drains");
        wait_until("the server process has ended", || !is_alive(serving));
        assert!(Client::connect(server.address(), None).is_err(), "somebody listens still");
    }
}

#[test]
fn what_nobody_hears_stops_nothing() {
    for (ears, toml) in [(Ears::Shut, ""), (Ears::Gone, ""), (Ears::Gone, "architecture = \"mp\"\nworkers = 2")] {
        let mut server = Supervised::start(toml);
        let before = server.server();
        server.hear(ears);
        // Everything that is worth a line: a panic, a folder that is gone, a reload, a death.
        assert_eq!(server.get("/.amped-test/panic").status(), 500);
        fs::rename(server.path("site"), server.path("moved")).expect("own folder");
        std::thread::sleep(Duration::from_millis(2500));
        fs::rename(server.path("moved"), server.path("site")).expect("own folder");
        assert_eq!(server.get("/").text(), "one\n");
        server.tell("reload");
        let before = if toml.is_empty() { before } else { server.server() };
        kill(before, Signal::KILL);
        wait_until("another takes its place", || server.servers("ready").first().is_some_and(|now| *now != before));
        assert_eq!(server.get("/").text(), "one\n");
        let serving = server.server();
        server.signal(Signal::KILL);
        assert_eq!(server.wait(), None);
        wait_until("the server process has ended", || !is_alive(serving));
    }
}

#[test]
fn pools_are_supervised_as_well() {
    for architecture in ["mp", "mt"] {
        let mut server = Supervised::start(&format!("architecture = \"{architecture}\"\nworkers = 3"));
        let before = server.server();
        assert_eq!(server.get("/").text(), "one\n");
        server.configure(&format!(
            "architecture = \"{architecture}\"\nworkers = 2\n{}",
            SITE.replace("site\"", "other\"")
        ));
        server.tell("reload");
        // A process that is about to end may have accepted a connection in that very moment (docs/operate.md).
        let ask = || {
            let mut client = server.connect();
            client.try_send(get("/")).and_then(|()| client.try_answer(false))
        };
        wait_until("the other folder", || ask().is_ok_and(|answer| answer.text() == "other\n"));
        assert_ne!(server.server(), before);
        kill(server.server(), Signal::KILL);
        wait_until("another one", || server.servers("ready").len() == 1);
        assert_eq!(server.get("/").text(), "other\n");
        server.tell("stop");
        assert_eq!(server.wait(), Some(0));
    }
}

#[test]
fn signals_do_what_they_do_without_a_supervisor() {
    let mut server = Supervised::start("access_log = \"log\"");
    server.get("/");
    let log = server.path("log");
    wait_until("a line", || fs::read_to_string(&log).is_ok_and(|text| text.contains("GET / ")));
    fs::rename(&log, server.path("log.1")).expect("own folder");
    server.signal(Signal::USR1);
    wait_until("the log is there again", || log.exists());
    // Twice means at once, whatever is being sent.
    fs::write(server.path("site/huge.bin"), vec![7; 64 << 20]).expect("own folder");
    let mut client = Client::connect(server.address(), Some(16 * 1024)).expect("a connection");
    client.send(get("/huge.bin"));
    client.try_head().expect("a head");
    let serving = server.server();
    server.signal(Signal::TERM);
    wait_until("it drains", || Client::connect(server.address(), None).is_err());
    server.signal(Signal::INT);
    assert_eq!(server.wait(), Some(1));
    wait_until("it says so", || server.said().contains("told twice"));
    wait_until("the server process has ended", || !is_alive(serving));
}

#[test]
fn a_second_server_does_not_take_the_pid_file() {
    let server = Supervised::start("");
    let pid_file = server.path("amped.pid");
    let written = fs::read_to_string(&pid_file).expect("a PID file");
    assert_eq!(written.trim(), server.child.id().to_string());
    let mut second = binary();
    second.arg("serve").arg(server.path("site")).args(["--listen", "127.0.0.1:0", "--pid-file"]).arg(&pid_file);
    let output = second.stdin(Stdio::null()).output().expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains(written.trim()), "{said}");
    assert_eq!(fs::read_to_string(&pid_file).expect("a PID file"), written);
}

#[test]
fn the_service_manager_is_told() {
    let place = tempfile::tempdir().expect("a temporary folder");
    let path = place.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut server = Supervised::start_as("", |command, _| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "300000");
    });
    let told = |wanted: &str| {
        let start = Instant::now();
        loop {
            let mut bytes = [0; 4096];
            let length = manager.recv(&mut bytes).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if message.split('\n').any(|line| line.starts_with(wanted)) {
                return message;
            }
            assert!(start.elapsed() < PATIENCE, "no {wanted}");
        }
    };
    let ready = told("READY=1");
    assert!(ready.contains(&format!("MAINPID={}", server.child.id())), "{ready}");
    assert!(ready.contains(&format!("STATUS=serving on {}", server.address())), "{ready}");
    (0..3).for_each(|_| drop(told("WATCHDOG=1")));
    server.signal(Signal::HUP);
    assert!(told("RELOADING=1").contains("MONOTONIC_USEC="));
    told("READY=1");
    server.tell("upgrade");
    told("RELOADING=1");
    told("READY=1");
    told("WATCHDOG=1");
    server.signal(Signal::TERM);
    told("STOPPING=1");
    assert_eq!(server.wait(), Some(0));
}

/// A shell puts the sockets where a service manager would: at 3 and 4, and the process's own number into LISTEN_PID.
#[test]
fn sockets_are_taken_from_the_service_manager() {
    use std::os::fd::{AsFd, AsRawFd};
    for alone in [false, true] {
        let sockets = ["127.0.0.1:0", "[::1]:0"].map(|address| std::net::TcpListener::bind(address).expect("a port"));
        let addresses = sockets.each_ref().map(|socket| socket.local_addr().expect("a socket"));
        let [first, second] = sockets.each_ref().map(|socket| {
            rustix::io::fcntl_setfd(socket.as_fd(), rustix::io::FdFlags::empty()).expect("a descriptor");
            socket.as_raw_fd()
        });
        let server = Supervised::start_as("workers = 2", |command, folder| {
            let mut shell = Command::new("/bin/bash");
            let own = if alone { String::new() } else { format!("--pid-file {}/amped.pid", folder.display()) };
            let flag = if alone { "--no-supervisor" } else { "" };
            shell.arg("-c").arg(format!(
                "exec 3<&{first} 4<&{second}; export LISTEN_FDS=2 LISTEN_PID=$$; exec {0}/amped run -c {0}/amped.toml {own} {flag}",
                folder.display()
            ));
            shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
            shell.env("AMPED_TEST_FAULTS_AT_START", folder.join("faults"));
            *command = shell;
        });
        wait_until("both addresses", || server.addresses().len() == 2);
        assert_eq!(server.addresses(), addresses);
        drop(sockets);
        for address in addresses {
            (0..10).for_each(|_| {
                assert_eq!(Client::connect(address, None).expect("a connection").get("/").text(), "one\n")
            });
        }
        if alone {
            continue;
        }
        // They are kept over everything.
        let before = server.server();
        server.tell("upgrade");
        server.tell("reload");
        kill(server.server(), Signal::KILL);
        wait_until("another one", || server.servers("ready").first().is_some_and(|now| *now != before));
        for address in addresses {
            assert_eq!(Client::connect(address, None).expect("a connection").get("/").text(), "one\n");
        }
    }
}

#[test]
fn without_a_supervisor_it_reloads_itself() {
    let server = Supervised::start_as("", |command, folder| {
        let mut alone = Command::new(folder.join("amped"));
        alone.args(["run", "--no-supervisor", "-c"]).arg(folder.join("amped.toml"));
        alone.env("AMPED_TEST_FAULTS", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        *command = alone;
    });
    let mut client = server.connect();
    assert_eq!(client.get("/").text(), "one\n");
    server.configure(&format!("listen = [\"127.0.0.1:0\", \"[::1]:0\"]\n{}", SITE.replace("site\"", "other\"")));
    server.signal(Signal::HUP);
    wait_until("the other folder", || client.get("/").text() == "other\n");
    server.configure("workers = 7");
    server.signal(Signal::HUP);
    wait_until("it says why not", || server.said().contains("needs another process"));
    assert_eq!(client.get("/").text(), "other\n");
    // A worker that is busy for longer than anybody waits takes over what the others serve by already.
    std::thread::scope(|scope| {
        let mut busy = server.connect();
        let stuck = scope.spawn(move || busy.get("/.amped-test/burn/10000000").status());
        wait_until("it is stuck", || server.said().contains("in one turn for"));
        server.configure(SITE);
        server.signal(Signal::HUP);
        wait_until("this is said", || server.said().contains("takes over what has changed when"));
        wait_until("it is no refusal", || server.said().lines().filter(|line| line.ends_with("reloaded")).count() == 2);
        assert_eq!(stuck.join().expect("an answer"), 404);
        wait_until("the first folder", || client.get("/").text() == "one\n");
    });
    // What there can be only one of is not taken along.
    let output = binary().args(["run", "--no-supervisor", "--pid-file", "x"]).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(2));
}
