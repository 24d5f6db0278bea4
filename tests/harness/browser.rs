//! A headless Chromium that is told what to do over a pipe (the DevTools protocol): pages are loaded, looked at and photographed.
//!
//! The protocol's two descriptors, 3 and 4, are given by the shell: a test has no other lawful way to pass them on.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::PATIENCE;

/// A browser with one page.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    commands: File,
    answers: BufReader<File>,
    session: Value,
    number: u64,
    /// Its profile and its pipes.
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts it.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [commands, answers] = ["commands", "answers"].map(|name| {
            let path = folder.path().join(name);
            let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
            rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("own folder");
            path
        });
        let child = Command::new("sh")
            .arg("-c")
            .arg("exec chromium \"$@\" 3<>\"$0/commands\" 4<>\"$0/answers\"")
            .arg(folder.path())
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .args(["--remote-debugging-pipe", "about:blank"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        // Open both ways, so that nobody waits for the other to open its end.
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).expect("own pipe");
        let (commands, answers) = (open(&commands), BufReader::new(open(&answers)));
        let mut browser = Self { child, commands, answers, session: Value::Null, number: 0, _folder: folder };
        let targets = browser.call("Target.getTargets", json!({}));
        let pages = targets["targetInfos"].as_array().expect("a list");
        let page = pages.iter().find(|target| target["type"] == "page").expect("a page")["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": page, "flatten": true }));
        browser.session = attached["sessionId"].clone();
        browser.call("Runtime.enable", json!({}));
        browser
    }

    /// One call of the protocol, and its result.
    pub fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.number += 1;
        let mut command = json!({ "id": self.number, "method": method, "params": parameters });
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).expect("own pipe");
        let start = Instant::now();
        loop {
            let ended = self.child.try_wait().expect("own child");
            assert!(ended.is_none(), "chromium has ended ({ended:?}); as root, type: apt-get install chromium");
            assert!(start.elapsed() < PATIENCE * 2, "no answer to {method}");
            let Some(message) = self.message() else { continue };
            if message["id"] == self.number {
                assert!(message.get("error").is_none(), "{method}: {message}");
                return message["result"].clone();
            }
            // Whatever a page complains of is a fault: a script that throws, a style that the policy refuses.
            assert!(message["method"] != "Runtime.exceptionThrown", "{message}");
        }
    }

    /// The next message, if there is one within a moment.
    fn message(&mut self) -> Option<Value> {
        use std::os::fd::AsFd;
        if self.answers.buffer().is_empty() {
            let moment = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            let mut fds =
                [rustix::event::PollFd::from_borrowed_fd(self.answers.get_ref().as_fd(), rustix::event::PollFlags::IN)];
            if rustix::event::poll(&mut fds, Some(&moment)).expect("poll(2)") == 0 {
                return None;
            }
        }
        let mut bytes = Vec::new();
        self.answers.read_until(0, &mut bytes).expect("own pipe");
        bytes.pop();
        serde_json::from_slice(&bytes).ok()
    }

    /// Opens an address, as a screen of this size that likes light or dark.
    pub fn open(&mut self, url: &str, (width, height): (u32, u32), scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.call("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// What an expression is on the page.
    pub fn value(&mut self, expression: &str) -> Value {
        self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }))["result"]["value"]
            .clone()
    }

    /// Waits until an expression is true on the page.
    pub fn wait_until(&mut self, expression: &str) {
        let start = Instant::now();
        while self.value(expression) != true {
            assert!(start.elapsed() < PATIENCE, "in vain: {expression}; {}", self.value("document.body.innerText"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The page as a picture (PNG).
    pub fn picture(&mut self) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({ "format": "png" }));
        base64(shot["data"].as_str().expect("a picture"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its own way out ends its helpers too.
        self.session = Value::Null;
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let start = Instant::now();
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && start.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// RFC 4648 section 4, undone.
fn base64(text: &str) -> Vec<u8> {
    let value = |byte| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'=').map(value).collect();
    let four = |group: &[u8]| {
        let bits = group.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    digits.chunks(4).flat_map(four).collect()
}
