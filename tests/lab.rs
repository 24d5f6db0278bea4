//! amped-lab against servers whose counts are known: amped itself, nginx's log, and a server that is stopped on purpose.
//!
//! Machines that run tests are busy, so bounds on time are wide; counts are exact.

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use harness::{Driver, Folder, Server, on_every_loop, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

on_every_loop!(
    what_is_counted_is_what_was_served,
    an_open_loop_loses_no_request,
    a_stall_is_charged_to_all_it_delays,
    modems_are_slow,
    a_crowd_asks_now_and_then,
);

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amped-lab"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The report of a run that must go well.
fn report(command: &mut Command) -> Value {
    finished(command.arg("--json").output().expect("the binary starts"))
}

fn finished(output: Output) -> Value {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(text(&output.stderr), "", "no progress where there is no terminal");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer}: {report}"))
}

fn count(report: &Value, pointer: &str) -> u64 {
    number(report, pointer) as u64
}

/// The driver's option, where the driver works.
fn with(driver: Driver) -> [&'static str; 2] {
    let probe = lab(&["http://127.0.0.1:1/", "--driver", driver.name()]).output().expect("the binary starts");
    if text(&probe.stderr).contains("does not work here") { ["--driver", "auto"] } else { ["--driver", driver.name()] }
}

/// nginx, which logs each request it has answered.
struct Nginx {
    child: Child,
    address: SocketAddr,
    folder: Folder,
}

impl Nginx {
    fn start() -> Self {
        let folder = Folder::in_memory();
        folder.put("page.html", vec![b'x'; 1024]);
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
        let at = folder.path().display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {at}/{kind};"))
            .join(" ");
        let user = if harness::is_root() { "user root;" } else { "" };
        let config = format!(
            "daemon off; master_process off; {user} pid {at}/pid; error_log stderr error;\n\
             events {{ worker_connections 1000; }}\n\
             http {{ {temporary} access_log {at}/access.log; keepalive_requests 100;\n\
             server {{ listen {free}; root {at}; }} }}\n"
        );
        let file = folder.put("nginx.conf", config);
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-p").arg(folder.path()).args(["-e", "stderr"]).stdin(Stdio::null());
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("nginx: {error}; as root, type: apt-get install nginx-light"));
        wait_until("nginx listens", || TcpStream::connect(free).is_ok());
        Self { child, address: free, folder }
    }

    fn served(&self) -> usize {
        fs::read_to_string(self.folder.at("access.log")).expect("its log").lines().count()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server of a page of 1,000 bytes, and the page's URL.
fn page(driver: Driver) -> (Server, Folder, String) {
    let folder = Folder::usual();
    folder.put("1000", vec![b'x'; 1000]);
    let server = Server::serve(driver, folder.path());
    let url = format!("http://{}/1000", server.address());
    (server, folder, url)
}

fn what_is_counted_is_what_was_served(driver: Driver) {
    let nginx = Nginx::start();
    let url = format!("http://{}/page.html", nginx.address);
    let mut served = 0;
    for shape in [
        &["-c", "5"][..],
        &["-c", "3", "--pipeline", "7"],
        &["-c", "4", "--close"],
        &["-c", "4", "--requests-per-connection", "10", "--pipeline", "4"],
        &["-c", "4", "--rate", "5k"],
        &["-c", "4", "--rate", "5k", "--poisson", "--processes", "2"],
    ] {
        let command = &mut lab(&[&url, "-n", "1000"]);
        let report = report(command.args(shape).args(with(driver)));
        let figures = ["/requests", "/statuses/200", "/errors/total", "/bytes/bodies", "/latency_ms/count"];
        let seen = figures.map(|pointer| count(&report, pointer));
        assert_eq!(seen, [1000, 1000, 0, 1_024_000, 1000], "{shape:?}: {report}");
        wait_until("all are in the log", || nginx.served() >= served + 1000);
        // nginx ends a connection after 100 requests: what was pipelined behind the last one is not answered, and asked again.
        assert_eq!(nginx.served(), served + 1000, "{shape:?}");
        served += 1000;
    }
}

fn an_open_loop_loses_no_request(driver: Driver) {
    let (server, _folder, url) = page(driver);
    let rate = &["--rate", "500", "-d", "1s", "--timeout", "300ms"];
    let run = lab(&[&url, "--json", "-c", "10"]).args(rate).args(with(driver)).spawn().expect("the binary starts");
    sleep(Duration::from_millis(600));
    server.signal(Signal::STOP);
    let report = finished(run.wait_with_output().expect("own child"));
    server.signal(Signal::CONT);
    let (answered, failed) = (count(&report, "/requests"), count(&report, "/errors/total"));
    assert_eq!(answered + failed, 500, "each request that was due has an end: {report}");
    assert!(failed > 50 && count(&report, "/errors/timeout") + count(&report, "/errors/connect") == failed, "{report}");
}

/// Ten times what the server can do: a connection's requests take 20 ms each.
#[test]
fn an_overload_goes_on_being_measured() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("a name"));
    // The first connection is to see whether anybody is there.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map(|stream| stream.expect("a client")) {
            let mut memory = [0; 4096];
            while matches!(stream.read(&mut memory), Ok(1..)) {
                sleep(Duration::from_millis(20));
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx").expect("it listens");
            }
        }
    });
    let rate = ["-c", "1", "--rate", "500", "--timeout", "200ms", "--warm-up", "1s", "-d", "1s"];
    let report = report(lab(&[&url]).args(rate));
    let (answered, late) = (count(&report, "/requests"), count(&report, "/errors/timeout"));
    assert_eq!(answered + late, 500, "each request that was due has an end: {report}");
    // Those of the warm-up do not stand before them for ever.
    assert!((10..=60).contains(&answered), "{report}");
    assert!(number(&report, "/latency_ms/max") >= 180.0, "who was answered had waited for the connection: {report}");
}

/// Requests above 100 ms, of the percentile table.
fn slow(table: &Path) -> u64 {
    let text = fs::read_to_string(table).expect("the table");
    let rows: Vec<Vec<f64>> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
        .filter(|row: &Vec<f64>| row.len() >= 3)
        .collect();
    let fast = rows.iter().rfind(|row| row[0] <= 100.0).map_or(0.0, |row| row[2]);
    (rows.last().expect("rows")[2] - fast) as u64
}

/// What a server stopped for 200 ms does to a run: the stall's true length, the longest latency, and how many were above 100 ms.
fn stalled(driver: Driver, shape: &[&str]) -> (f64, f64, u64) {
    let (server, folder, url) = page(driver);
    let table = folder.at("table");
    let arguments = [&url, "--json", "-d", "2s", "--hdr", table.to_str().expect("a plain path")];
    let run = lab(&arguments).args(shape).args(with(driver)).spawn().expect("the binary starts");
    sleep(Duration::from_millis(800));
    let began = Instant::now();
    server.signal(Signal::STOP);
    sleep(Duration::from_millis(200));
    server.signal(Signal::CONT);
    let stall = began.elapsed().as_secs_f64();
    let report = finished(run.wait_with_output().expect("own child"));
    assert_eq!(count(&report, "/errors/total"), 0, "{report}");
    (stall, number(&report, "/latency_ms/max") / 1000.0, slow(&table))
}

fn a_stall_is_charged_to_all_it_delays(driver: Driver) {
    let (stall, longest, slow) = stalled(driver, &["-c", "4", "--rate", "1000"]);
    assert!(longest > 0.19, "the longest of a stall of {stall} s was {longest} s");
    // Of the requests due meanwhile those of all but the last 100 ms waited longer than that; the backlog adds some, and a busy machine.
    let expected = (stall - 0.1) * 1000.0;
    assert!(slow as f64 > expected * 0.8, "{slow} of {expected} requests felt a stall of {stall} s");
    assert!((slow as f64) < expected * 4.0 + 400.0, "{slow} of {expected} requests felt a stall of {stall} s");

    // The closed loop sees the same stall, once a connection. A busy machine may add to it.
    let (stall, longest, slow) = stalled(driver, &["-c", "4"]);
    assert!(longest > 0.19, "the longest of a stall of {stall} s was {longest} s");
    assert!((1..=16).contains(&slow), "{slow} requests of 4 connections felt a stall of {stall} s");
}

fn modems_are_slow(driver: Driver) {
    let (server, _folder, _) = page(driver);
    let url = format!("http://{}/large.bin", server.address());
    let shape = &["-c", "4", "--modem", "28.8k", "-d", "1500ms"];
    let report = report(lab(&[&url]).args(shape).args(with(driver)));
    let expected = 4.0 * 1.5 * 3600.0;
    let received = number(&report, "/bytes/received");
    // A piece of half a second is read ahead.
    assert!((expected * 0.6..expected * 1.5).contains(&received), "{received} of {expected} bytes");
    assert_eq!((count(&report, "/requests"), count(&report, "/unfinished")), (0, 4), "{report}");

    // A kilobyte takes such a line a third of a second, and the next request waits for it.
    let url = format!("http://{}/1000", server.address());
    let report = self::report(lab(&[&url, "-c", "1", "-n", "2", "--modem", "28.8k"]).args(with(driver)));
    let fastest = number(&report, "/latency_ms/min");
    assert!(fastest > 250.0, "{report}");
}

fn a_crowd_asks_now_and_then(driver: Driver) {
    let (_server, _folder, url) = page(driver);
    let shape = &["-c", "2", "--rate", "100", "--idle", "200", "--idle-every", "500ms", "-d", "1s", "--processes", "2"];
    let report = report(lab(&[&url]).args(shape).args(with(driver)));
    assert_eq!(count(&report, "/idle/connected"), 200, "{report}");
    assert_eq!(count(&report, "/idle/connections/made"), 200, "{report}");
    assert_eq!(count(&report, "/requests") + count(&report, "/errors/total"), 100, "{report}");
    let asked = count(&report, "/idle/requests");
    assert!((200..=450).contains(&asked), "200 that ask twice a second asked {asked} times");
    assert_eq!(report.pointer("/series").and_then(Value::as_array).map(Vec::len), Some(1), "{report}");
}

/// Little's law: the requests under way are the rate times the mean latency. A closed loop has as many as connections, so all
/// time of a run is in somebody's latency.
#[test]
fn a_closed_loop_accounts_for_all_its_time() {
    let (_server, _folder, url) = page(Driver::EpollEdge);
    for connections in [1, 8] {
        let report = report(&mut lab(&[&url, "-d", "700ms", "-c", &connections.to_string()]));
        let under_way = number(&report, "/rates/requests_per_second") * number(&report, "/latency_ms/mean") / 1000.0;
        let share = under_way / f64::from(connections);
        assert!((0.8..1.01).contains(&share), "{share} of the time of {connections} connections: {report}");
    }
}

#[test]
fn a_slow_sender_sends_a_byte_at_a_time() {
    let (_server, _folder, url) = page(Driver::EpollEdge);
    let report = report(&mut lab(&[&url, "-c", "2", "-n", "2", "--trickle", "5ms"]));
    let sent = number(&report, "/bytes/sent") / 2.0;
    let fastest = number(&report, "/latency_ms/min");
    assert!(sent > 30.0 && fastest >= (sent - 2.0) * 5.0, "{sent} bytes in {fastest} ms");
    assert_eq!(count(&report, "/errors/total"), 0, "{report}");
}

#[test]
fn a_slow_body_comes_after_a_head_at_once() {
    let (_server, _folder, url) = page(Driver::EpollEdge);
    let report = report(&mut lab(&[&url, "-c", "2", "-n", "2", "--trickle", "50ms", "--body", "10"]));
    let times = [number(&report, "/latency_ms/min"), number(&report, "/latency_ms/max")];
    // The server may answer before the body has come; with a byte of the head each time it would be two seconds at least.
    assert!(times[1] < 2000.0, "{times:?}");
    assert_eq!((count(&report, "/statuses/200"), number(&report, "/bytes/sent") > 20.0), (2, true), "{report}");
}

#[test]
fn bodies_are_sent_whole() {
    let (_server, _folder, url) = page(Driver::EpollEdge);
    let report = report(&mut lab(&[&url, "-c", "2", "-n", "10", "--body", "2KiB"]));
    assert!(number(&report, "/bytes/sent") > 10.0 * 2048.0, "{report}");
    assert_eq!((count(&report, "/statuses/200"), count(&report, "/errors/total")), (10, 0), "{report}");
}

/// How fast a server refuses says nothing of how fast it serves.
#[test]
fn answers_of_a_wrong_status_have_latencies_of_their_own() {
    let (_server, _folder, url) = page(Driver::EpollEdge);
    let lists = Folder::on_disk();
    let urls = lists.put("urls", "/\n/none\n/none\n");
    let report = report(&mut lab(&[&url, "-n", "30", "-c", "3", "--urls", urls.to_str().expect("a plain path")]));
    assert_eq!((count(&report, "/requests"), count(&report, "/errors/status")), (30, 20), "{report}");
    assert_eq!((count(&report, "/latency_ms/count"), count(&report, "/refused_ms/count")), (10, 20), "{report}");
}

#[test]
fn files_are_chosen_as_told() {
    let folder = Folder::on_disk();
    for file in 0..20 {
        folder.put(format!("{}/{file}.html", file / 10), vec![b'x'; 100 + file]);
    }
    let server = Server::serve(Driver::EpollEdge, folder.path());
    let url = format!("http://{}/", server.address());
    let root = folder.path().to_str().expect("a plain path");
    let all = (100..120).sum::<u64>();
    let once = report(&mut lab(&[&url, "-n", "40", "--folder", root]));
    assert_eq!((count(&once, "/statuses/200"), count(&once, "/bytes/bodies")), (40, 2 * all), "{once}");
    let shared = report(&mut lab(&[&url, "-n", "40", "--folder", root, "-c", "2", "--processes", "2"]));
    assert_eq!(count(&shared, "/bytes/bodies"), 2 * all, "two processes ask for each file once a round: {shared}");
    for choice in [&["--zipf", "0.9"][..], &["--uniform"], &["--mix", "90%:10,10%:all"]] {
        let chosen = report(lab(&[&url, "-n", "500", "--folder", root]).args(choice));
        assert_eq!(count(&chosen, "/statuses/200"), 500, "{choice:?}: {chosen}");
    }
    let lists = Folder::on_disk();
    let log = lists.put("log", "h - - [t] \"GET /0/3.html HTTP/1.1\" 200 1\nh - - [t] \"GET /none HTTP/1.1\" 404 1\n");
    let replayed = report(&mut lab(&[&url, "-n", "10", "--log", log.to_str().expect("a plain path")]));
    assert_eq!((count(&replayed, "/statuses/200"), count(&replayed, "/errors/status")), (5, 5), "{replayed}");
    let urls = lists.put("urls", format!("/0/1.html\n{url}1/11.html\n"));
    let listed = report(&mut lab(&[&url, "-n", "2", "--urls", urls.to_str().expect("a plain path")]));
    assert_eq!(count(&listed, "/bytes/bodies"), 101 + 111, "{listed}");
}

#[test]
fn conditions_decide_the_exit_code() {
    let (_server, _folder, url) = page(Driver::EpollEdge);
    let run = |more: &[&str]| lab(&[&url, "-n", "100"]).args(more).output().expect("the binary starts");
    let held = run(&["--assert", "errors=0", "--assert", "p99<20s", "--assert", "requests=100", "--assert", "rate>1"]);
    assert_eq!(held.status.code(), Some(0), "{}", text(&held.stderr));
    assert!(text(&held.stdout).contains("p99.9"), "{}", text(&held.stdout));
    let failed = run(&["--assert", "p50<1us", "--assert", "errors=0", "--json"]);
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("does not hold: p50<1us: it was "), "{}", text(&failed.stderr));
    let report: Value = serde_json::from_slice(&failed.stdout).expect("the report is there all the same");
    assert_eq!(report["assertions"][0]["holds"], false);
    assert_eq!(report["assertions"][1]["holds"], true);
    let missing = run(&["--assert", "speed>9"]);
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
}

#[test]
fn what_cannot_be_done_is_said_at_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let nobody = format!("http://{nobody}/");
    for (arguments, code, words) in [
        (&[&nobody[..]][..], 1, "nobody listens there"),
        (&["http://no-such-host.invalid/"], 2, "has no address"),
        (&["https://127.0.0.1/"], 2, "only plain HTTP"),
        (&["127.0.0.1:8080/x"], 2, "write http://127.0.0.1:8080/x"),
        (&["http://127.0.0.1:99999/"], 2, "no port"),
        (&[&nobody, "--connections", "900k", "--processes", "1"], 2, "descriptors open here"),
        (&[&nobody, "--connections", "ten"], 2, "write 100, 10k or 1M"),
        (&[&nobody, "--hdr", "/nowhere/at/all"], 1, "nobody listens"),
        (&[&nobody, "--poisson"], 2, "--rate"),
    ] {
        let began = Instant::now();
        let output = lab(arguments).output().expect("the binary starts");
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.contains(words)), (Some(code), true), "{arguments:?}: {said}");
        assert!(began.elapsed() < Duration::from_secs(5), "{arguments:?} took {:?}", began.elapsed());
    }
}

#[test]
fn a_server_that_says_nothing_is_a_failure() {
    // The kernel accepts for it.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", silent.local_addr().expect("a socket"));
    for rate in [&[][..], &["--rate", "50", "--timeout", "300ms"]] {
        let output = lab(&[&[&url, "-c", "4", "-d", "300ms"], rate].concat()).output().expect("the binary starts");
        let said = text(&output.stderr);
        assert_eq!((output.status.code(), said.contains("no request was answered")), (Some(1), true), "{said}");
    }
    // Who has not said all has nothing to wait for.
    let slow = lab(&[&url, "-c", "4", "-d", "300ms", "--trickle", "100ms"]).output().expect("the binary starts");
    assert_eq!(slow.status.code(), Some(0), "{}", text(&slow.stderr));
}

#[test]
fn a_server_that_dies_is_told_of() {
    let (server, _folder, url) = page(Driver::EpollEdge);
    let run = lab(&[&url, "--json", "-c", "8", "-d", "1s"]).spawn().expect("the binary starts");
    sleep(Duration::from_millis(400));
    drop(server);
    let report = finished(run.wait_with_output().expect("own child"));
    let (total, refused) = (count(&report, "/errors/total"), count(&report, "/errors/connect"));
    assert!(count(&report, "/requests") > 0 && refused > 0 && refused < 200, "{report}");
    assert!(total >= refused, "{report}");
}

#[test]
fn an_interrupt_ends_the_run_with_a_report() {
    let (_server, _folder, url) = page(Driver::EpollEdge);
    for processes in ["1", "2"] {
        let mut command = lab(&[&url, "--json", "-c", "4", "-d", "1h", "--processes", processes]);
        let run = command.spawn().expect("the binary starts");
        sleep(Duration::from_millis(700));
        kill_process(Pid::from_child(&run), Signal::INT).expect("own child");
        let report = finished(run.wait_with_output().expect("own child"));
        assert!(count(&report, "/requests") > 0 && number(&report, "/seconds") < 20.0, "{report}");
    }
}
