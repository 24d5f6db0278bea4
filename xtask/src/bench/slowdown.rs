//! A core that is several times slower for whoever runs on it, so that a load generator with one core of the same make can offer a
//! server many times what it can do. A spinner ahead of everybody (SCHED_FIFO) takes the rest in slices of a millisecond or two:
//! a control group's quota would stop the server for longer, and rarer.

use std::io::{Error, Result};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The core is slow until this is dropped.
pub struct Slowdown {
    spinner: Child,
}

impl Slowdown {
    /// Leaves one part in `times` of the core to everybody else. Below 20: the kernel keeps 5% from such spinners (sched(7)).
    ///
    /// # Errors
    /// Not allowed to run ahead of everybody (not root).
    pub fn start(core: &str, times: u32) -> Result<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", core, "setpriv", "--pdeathsig", "KILL", "chrt", "--fifo", "1"]);
        command.arg(std::env::current_exe()?).args(["spin", &times.to_string()]);
        let mut spinner = command.stdin(Stdio::null()).spawn()?;
        std::thread::sleep(Duration::from_millis(200));
        match spinner.try_wait()? {
            None => Ok(Self { spinner }),
            Some(_) => Err(Error::other("a core can only be made slow by root (chrt --fifo)")),
        }
    }
}

impl Drop for Slowdown {
    fn drop(&mut self) {
        let _ = self.spinner.kill();
        let _ = self.spinner.wait();
    }
}

/// The spinner itself; ends when it is killed.
///
/// # Errors
/// A word that is no number above 1.
pub fn spin(words: &[String]) -> Result<()> {
    let times = words.first().and_then(|word| word.parse::<u32>().ok()).filter(|times| *times > 1);
    let times = times.ok_or_else(|| Error::other("spin needs a number above 1"))?;
    let mut last = Instant::now();
    loop {
        std::thread::sleep(FREE);
        // However long that really was, except where the whole machine stood still.
        let until = Instant::now() + last.elapsed().min(FREE * 20) * (times - 1);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        last = Instant::now();
    }
}

/// What the others have at a time.
const FREE: Duration = Duration::from_micros(100);
