//! Peers that others wrote: curl, Python's client, h2load, wrk and a browser agree with what the server says.
//!
//! A program that is missing fails its test with the name of its Debian package: `cargo xtask test` installs it.

mod harness;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use harness::{Driver, Folder, Server, on_every_driver, pattern};

on_every_driver!(
    curl_reads_what_is_there,
    curl_resumes_a_download,
    python_keeps_its_connection,
    h2load_sees_no_errors,
    wrk_sees_no_errors,
    a_browser_shows_the_example_site,
);

/// Runs a program of the system's to its end.
fn run(program: &str, package: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    match command.output() {
        Ok(output) => output,
        Err(error) => panic!("{program}: {error}; as root, type: apt-get install {package}"),
    }
}

fn curl(arguments: &[&str]) -> Vec<u8> {
    let always = ["--silent", "--show-error", "--max-time", "30", "--noproxy", "*"];
    let output = run("curl", "curl", &[&always, arguments].concat());
    assert!(output.status.success(), "curl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn curl_reads_what_is_there(driver: Driver) {
    let folder = Folder::usual();
    let huge = pattern(1, 20 << 20);
    folder.put("huge.bin", &huge);
    folder.put("a b/index.html", "spaced\n");
    let server = Server::serve(driver, folder.path());
    let url = |path: &str| format!("http://{}{path}", server.address());
    assert_eq!(text(&curl(&[&url("/page.html")])), "a page\n");
    assert!(curl(&[&url("/huge.bin")]) == huge);
    assert_eq!(text(&curl(&["--http1.0", &url("/page.html")])), "a page\n");
    assert!(curl(&["--http1.0", &url("/huge.bin")]) == huge);
    // Asking for a compressed answer, or for HTTP/2 by upgrade, changes nothing.
    assert_eq!(text(&curl(&["--compressed", &url("/page.html")])), "a page\n");
    assert_eq!(text(&curl(&["--http2", &url("/page.html")])), "a page\n");
    let head = text(&curl(&["--head", &url("/large.bin")])).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 ok\r\n") && head.contains("content-length: 300000\r\n"), "{head}");
    assert_eq!(text(&curl(&["--location", &url("/a%20b")])), "spaced\n");
    let code = ["--output", "/dev/null", "--write-out", "%{http_code}"];
    for (arguments, expected) in [
        (&["--request", "OPTIONS"][..], "204"),
        (&["--request", "BREW"], "501"),
        (&["--data", "a=b"], "405"),
        (&["--header", "Expect: 100-continue", "--data", "a=b"], "405"),
        (&["--header", "If-None-Match: *"], "304"),
        (&["--header", "Range: bytes=0-1,3-4"], "206"),
        (&["--range", "99-"], "416"),
    ] {
        let page = url("/page.html");
        let all = [&code[..], arguments, &[&page]].concat();
        assert_eq!(text(&curl(&all)), expected, "{arguments:?}");
    }
    // An upload that is refused is told so, however much of it there is.
    let upload = folder.at("huge.bin");
    let upload = upload.to_str().expect("a plain path");
    let page = url("/page.html");
    for more in [&["--upload-file", upload][..], &["--header", "Expect:", "--upload-file", upload]] {
        assert_eq!(text(&curl(&[&code[..], more, &[&page]].concat())), "413", "{more:?}");
    }
    // One connection for all of these.
    let urls: Vec<String> = (0..30).map(|at| url(if at % 3 == 0 { "/none" } else { "/page.html" })).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let connections = curl(&[&["--write-out", "%{num_connects}\n"], &urls[..]].concat());
    let opened = text(&connections).lines().filter(|line| *line == "1").count();
    assert_eq!(opened, 1, "curl opened {opened} connections");
    let validators = folder.at("etag");
    let validators = validators.to_str().expect("a plain path");
    curl(&["--etag-save", validators, &url("/page.html")]);
    assert_eq!(text(&curl(&["--etag-compare", validators, "--write-out", "%{http_code}", &url("/page.html")])), "304");
}

fn curl_resumes_a_download(driver: Driver) {
    let folder = Folder::usual();
    let huge = pattern(2, 5_000_000);
    folder.put("huge.bin", &huge);
    let server = Server::serve(driver, folder.path());
    let url = format!("http://{}/huge.bin", server.address());
    let copies = Folder::on_disk();
    for begun in [0, 1, 70_000, 4_999_999] {
        let copy = copies.put("copy", &huge[..begun]);
        let copy = copy.to_str().expect("a plain path");
        curl(&["--continue-at", "-", "--output", copy, &url]);
        assert!(fs::read(copy).expect("a copy") == huge, "resumed at {begun}");
    }
    // Four at once, on connections of their own.
    let ranges = ["0-1249999", "1250000-2499999", "2500000-3749999", "3750000-"];
    let parts = std::thread::scope(|scope| {
        let threads = ranges.map(|range| scope.spawn(|| curl(&["--range", range, &url])));
        threads.map(|thread| thread.join().expect("curl ends")).concat()
    });
    assert!(parts == huge);
}

const SESSION: &str = r#"
import http.client, sys
host, port = sys.argv[1].rsplit(":", 1)
session = http.client.HTTPConnection(host, int(port), timeout=20)
session.connect()
socket = session.sock
for turn in range(200):
    for method, path, body, status, length in [
        ("GET", "/page.html", None, 200, 7),
        ("GET", "/large.bin", None, 200, 300000),
        ("HEAD", "/large.bin", None, 200, 0),
        ("GET", "/none", None, 404, 14),
        ("POST", "/page.html", b"x" * 5000, 405, 23),
        ("PUT", "/page.html", iter([b"ab", b"c" * 9000]), 405, 23),
        ("OPTIONS", "/page.html", None, 204, 0),
        ("GET", "/", None, 200, 3),
    ]:
        session.request(method, path, body, encode_chunked=True)
        answer = session.getresponse()
        read = answer.read()
        assert (answer.status, len(read)) == (status, length), (method, path, answer.status, read[:200])
        assert session.sock is socket, "another connection"
session.request("GET", "/page.html", headers={"Connection": "close"})
assert session.getresponse().read() == b"a page\n"
print("well")
"#;

fn python_keeps_its_connection(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    let output = run("python3", "python3", &["-c", SESSION, &server.address().to_string()]);
    assert_eq!(text(&output.stdout), "well\n", "{}", text(&output.stderr));
    assert_eq!(server.number("/counters/accepted"), 1);
}

fn h2load_sees_no_errors(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    for (path, requests, pipelined) in [("/page.html", "40000", "16"), ("/large.bin", "1000", "1"), ("/", "20000", "1")]
    {
        let url = format!("http://{}{path}", server.address());
        let arguments = ["--h1", "-n", requests, "-c", "50", "-m", pipelined, "-t", "1", &url];
        let report = text(&run("h2load", "nghttp2-client", &arguments).stdout);
        let all = format!("{requests} succeeded, 0 failed, 0 errored, 0 timeout");
        assert!(report.contains(&all), "{path}: {report}");
        assert!(report.contains(&format!("status codes: {requests} 2xx, 0 3xx, 0 4xx, 0 5xx")), "{path}: {report}");
    }
}

fn wrk_sees_no_errors(driver: Driver) {
    let folder = Folder::usual();
    let server = Server::serve(driver, folder.path());
    for (path, more) in [("/page.html", &[][..]), ("/large.bin", &[]), ("/page.html", &["-H", "Connection: close"])] {
        let url = format!("http://{}{path}", server.address());
        let arguments = [&["-t", "1", "-c", "60", "-d", "1s"], more, &[&url]].concat();
        let report = text(&run("wrk", "wrk", &arguments).stdout);
        assert!(report.contains("requests in"), "{report}");
        assert!(!report.contains("Socket errors") && !report.contains("Non-2xx"), "{path} {more:?}: {report}");
    }
}

fn a_browser_shows_the_example_site(driver: Driver) {
    let site = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/site");
    let logs = Folder::on_disk();
    let log = logs.at("access.json");
    let toml = format!(
        "access_log = \"{}\"\naccess_log_format = \"json\"\n[[sites]]\nroot = \"{}\"",
        log.display(),
        site.display()
    );
    let mut server = Server::run(driver, &toml);
    let profile = tempfile::tempdir().expect("a temporary folder");
    let profile = format!("--user-data-dir={}", profile.path().display());
    for (page, words) in [("/", "never waits"), ("/gallery.html", "Gallery")] {
        let url = format!("http://{}{page}", server.address());
        let arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", &profile];
        let more = ["--virtual-time-budget=3000", "--dump-dom", &url];
        let output = run("chromium", "chromium", &[&arguments[..], &more].concat());
        assert!(text(&output.stdout).contains(words), "{page}: {}", text(&output.stderr));
    }
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.wait(), Some(0));
    let lines: Vec<serde_json::Value> = fs::read_to_string(&log)
        .expect("a log")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    let asked =
        |path: &str| lines.iter().any(|line| line["request"].as_str().is_some_and(|asked| asked.contains(path)));
    for path in ["/style.css", "/favicon.svg", "/images/coil.svg", "/images/ridges.jpg", "/images/interference.webp"] {
        assert!(asked(path), "the browser did not ask for {path}: {lines:?}");
    }
    let wrong: Vec<_> = lines.iter().filter(|line| !matches!(line["status"].as_u64(), Some(200 | 206 | 304))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}
