//! A client: it connects, asks in its own manner, reads at its own pace, and ends in its own way.

use std::collections::VecDeque;
use std::net::IpAddr;

use amped_runtime::sim::{Line, Random, Received, World};

use crate::model::{Asked, Model, What};
use crate::response;
use crate::site::Site;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Manner {
    /// Rounds of requests.
    pub rounds: u64,
    /// Requests of a round at most, sent at once.
    pub pipeline: u64,
    /// Nanoseconds between rounds, at most.
    pub think: u64,
    /// Bytes of a read, and nanoseconds between two.
    pub read: (usize, u64),
    /// Bytes of a write, and nanoseconds between two; `None`: all at once.
    pub write: Option<(usize, u64)>,
    /// Requests that are none, or have methods and bodies, in a million.
    pub garbage: u32,
    pub methods: u32,
    pub end: End,
    /// Breaks off after so many nanoseconds, in this way.
    pub abort: Option<(u64, End)>,
    /// Every request must have its right answer, and nothing may end before.
    pub is_strict: bool,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last request says so.
    Said,
    Leave,
    /// Finishes sending, and waits for the server.
    Finish,
    /// Waits until the server has had enough.
    Idle,
    Reset,
    Vanish,
}

#[derive(Debug)]
pub struct Client {
    pub manner: Manner,
    address: IpAddr,
    line: Option<Line>,
    outstanding: VecDeque<Asked>,
    input: Vec<u8>,
    output: VecDeque<u8>,
    /// What becomes of the requests in `output` when they are sent: bytes left, and all there were.
    unsent: VecDeque<(usize, usize, Asked)>,
    /// It finished sending in the middle of this one, which may be answered or not.
    cut_off: Option<Asked>,
    /// Of those that are being sent, so many have their answer.
    answered_early: usize,
    rounds: u64,
    began: u64,
    next_read: u64,
    next_write: u64,
    next_round: u64,
    /// Nothing is sent any more.
    is_silent: bool,
    pub is_over: bool,
    /// The last answer has said that it is the last.
    was_told: bool,
    /// When something last moved.
    pub moved: u64,
}

impl Client {
    pub fn new(manner: Manner, address: IpAddr) -> Self {
        Self {
            manner,
            address,
            line: None,
            outstanding: VecDeque::new(),
            input: Vec::new(),
            output: VecDeque::new(),
            unsent: VecDeque::new(),
            cut_off: None,
            answered_early: 0,
            rounds: 0,
            began: 0,
            next_read: 0,
            next_write: 0,
            next_round: 0,
            is_silent: false,
            is_over: false,
            was_told: false,
            moved: 0,
        }
    }

    /// All is well: nothing is slow any more. A head or body that came in drops comes whole.
    pub fn hurry(&mut self) {
        (self.manner.read, self.manner.write) = ((1 << 20, 0), None);
        (self.next_read, self.next_write) = (0, 0);
    }

    /// Waits for something that the server owes.
    pub fn is_owed(&self) -> bool {
        !self.is_over && self.line.is_some() && (!self.outstanding.is_empty() || self.was_told)
    }

    /// For how long nothing has come although it is owed something, and takes it at once; in nanoseconds.
    pub fn has_waited(&self, now: u64) -> u64 {
        let is_prompt = self.manner.read.1 == 0 && self.output.is_empty();
        if self.is_owed() && is_prompt { now.saturating_sub(self.moved) } else { 0 }
    }

    /// What it is about, for a report.
    pub fn describe(&self) -> String {
        format!("{:?} waits for {:?}, input {}", self.manner, self.outstanding.front(), self.input.len())
    }

    /// Its turn.
    pub fn act(&mut self, world: &mut World, who: u32, site: &Site, model: &mut Model) -> Result<(), String> {
        if self.is_over {
            return Ok(());
        }
        let now = world.now();
        let Some(line) = self.line else {
            self.line = Some(world.connect(who, self.address));
            (self.began, self.moved) = (now, now);
            if let Some((after, _)) = self.manner.abort {
                world.call_at(now + after, who);
            }
            return Ok(());
        };
        if let Some((after, how)) = self.manner.abort
            && now >= self.began + after
        {
            self.manner.abort = None;
            self.end(world, line, how);
            if self.is_over {
                return Ok(());
            }
        }
        self.read(world, who, line, site, model)?;
        if !self.is_over && world.is_made(line) {
            self.write(world, who, line, site, model);
        }
        Ok(())
    }

    fn read(&mut self, world: &mut World, who: u32, line: Line, site: &Site, model: &mut Model) -> Result<(), String> {
        let (limit, pause) = self.manner.read;
        loop {
            if world.now() < self.next_read {
                return Ok(());
            }
            match world.read(line, limit) {
                Received::Nothing => return Ok(()),
                Received::Bytes(bytes) => {
                    self.input.extend_from_slice(&bytes);
                    self.moved = world.now();
                    self.understand(world, site, model)?;
                    if pause > 0 {
                        self.next_read = world.now() + pause;
                        world.call_at(self.next_read, who);
                    }
                }
                end => return self.ended(world, line, &end, model),
            }
        }
    }

    fn understand(&mut self, world: &World, site: &Site, model: &mut Model) -> Result<(), String> {
        while !self.input.is_empty() {
            if self.was_told {
                return Err("bytes after the last answer".into());
            }
            // A head that is not whole may be answered too.
            let early = self.unsent.get(self.answered_early).map(|(.., asked)| asked).or(self.cut_off.as_ref());
            let early = early.map(|asked| Asked { at: world.now(), ..asked.clone() });
            if early.is_none() && self.outstanding.is_empty() && self.is_silent && self.input.starts_with(LATE) {
                // It broke off in the middle of a head, and is told so.
                self.was_told = true;
                self.input.clear();
                return Ok(());
            }
            let Some(asked) = self.outstanding.front().cloned().or(early) else {
                return Err(format!("an answer that nobody asked for: {}", String::from_utf8_lossy(&self.input)));
            };
            let Some(answer) = response::take(&mut self.input, asked.head_only)? else { return Ok(()) };
            let is_early = self.outstanding.pop_front().is_none();
            if is_early && self.cut_off.take().is_none() && asked.what == What::Method {
                self.answered_early += 1;
            }
            // A body that is on its way is read and forgotten.
            if is_early && !answer.closes && asked.what != What::Method {
                return Err(format!("an answer before its request, and no end: {answer:?}"));
            }
            model.judge(world, &site.names[asked.name].file, &asked, &answer)?;
            let is_excused = (answer.status == 429 && model.excuses.limits)
                || (answer.status == 503 && model.excuses.overload && model.excuses.waits);
            if self.manner.is_strict && answer.status >= 400 && !matches!(answer.status, 403 | 404 | 416) && !is_excused
            {
                return Err(format!("{} where all is well, to {asked:?}", answer.status));
            }
            if answer.closes {
                self.was_told = true;
                // A server that is stopped answers what it has read.
                let is_owed = !asked.says_close && !self.outstanding.is_empty() && !model.is_stopped;
                if self.manner.is_strict && is_owed {
                    return Err(format!("the connection ends early where all is well, after {asked:?}"));
                }
                self.outstanding.clear();
                self.unsent.clear();
                self.output.clear();
                self.is_silent = true;
            }
        }
        Ok(())
    }

    /// The server has ended the connection.
    fn ended(&mut self, world: &mut World, line: Line, how: &Received, model: &Model) -> Result<(), String> {
        let is_owed = !self.outstanding.is_empty() || !self.input.is_empty();
        // A connection that idles when the server is stopped may end while a request is on its way.
        let is_stopped = model.is_stopped && self.input.is_empty();
        if self.manner.is_strict && is_owed && !is_stopped {
            return Err(format!("{how:?} where all is well: {}", self.describe()));
        }
        world.leave(line);
        self.is_over = true;
        Ok(())
    }

    fn write(&mut self, world: &mut World, who: u32, line: Line, site: &Site, model: &mut Model) {
        let now = world.now();
        if self.output.is_empty() && self.outstanding.is_empty() && !self.is_silent && now >= self.next_round {
            if self.rounds == self.manner.rounds {
                let end = if self.manner.end == End::Said { End::Leave } else { self.manner.end };
                return self.end(world, line, end);
            }
            self.rounds += 1;
            self.ask(world.random(), site);
            self.next_round = now + world.random().below(self.manner.think.max(1));
            world.call_at(self.next_round, who);
        }
        while !self.output.is_empty() && world.now() >= self.next_write {
            let count = self.manner.write.map_or(self.output.len(), |(size, _)| size.min(self.output.len()));
            let bytes: Vec<u8> = self.output.drain(..count).collect();
            world.write(line, &bytes);
            self.moved = now;
            self.sent(count, now, model.stale());
            if let Some((_, pause)) = self.manner.write {
                self.next_write = now + pause;
                world.call_at(self.next_write, who);
            }
        }
    }

    fn sent(&mut self, mut count: usize, at: u64, stale: u64) {
        while let Some((left, _, asked)) = self.unsent.front_mut() {
            if *left > count {
                *left -= count;
                return;
            }
            count -= *left;
            let asked = Asked { at, stale, ..asked.clone() };
            self.unsent.pop_front();
            match self.answered_early {
                0 => self.outstanding.push_back(asked),
                _ => self.answered_early -= 1,
            }
        }
    }

    fn ask(&mut self, random: &mut Random, site: &Site) {
        let count = random.between(1, self.manner.pipeline);
        for number in 0..count {
            let is_last = self.rounds == self.manner.rounds && number + 1 == count;
            let says_close = is_last && self.manner.end == End::Said;
            let (bytes, asked) = request(random, site, &self.manner, says_close);
            self.output.extend(&bytes);
            let is_garbage = asked.what == What::Garbage;
            self.unsent.push_back((bytes.len(), bytes.len(), asked));
            if is_garbage {
                // Nobody knows where a request would begin after that.
                self.is_silent = true;
                return;
            }
        }
    }

    fn end(&mut self, world: &mut World, line: Line, how: End) {
        self.is_silent = true;
        self.output.clear();
        let begun = self.unsent.drain(..).next().filter(|(left, whole, _)| left < whole);
        self.cut_off = begun.filter(|_| self.answered_early == 0).map(|(.., asked)| asked);
        match how {
            End::Finish => return world.finish(line),
            End::Idle | End::Said => return,
            End::Leave => world.leave(line),
            End::Reset => world.reset(line),
            End::Vanish => world.vanish(line),
        }
        self.is_over = true;
    }
}

fn request(random: &mut Random, site: &Site, manner: &Manner, says_close: bool) -> (Vec<u8>, Asked) {
    // Some names are asked for more often than others.
    let count = site.names.len() as u64;
    let name = if random.chance(500_000) { random.below(count.min(3)) } else { random.below(count) } as usize;
    let target = &site.names[name].target;
    let mut asked = Asked { what: What::File, name, head_only: false, range: None, says_close, at: 0, stale: 0 };
    let close = if says_close { "Connection: close\r\n" } else { "" };
    if random.chance(manner.garbage) {
        asked = Asked { what: What::Garbage, says_close: false, ..asked };
        let garbage = random.pick(GARBAGE);
        return (garbage.as_bytes().to_vec(), asked);
    }
    if random.chance(manner.methods) {
        asked.what = What::Method;
        let size = random.between(0, 3000) as usize;
        let text = match random.below(3) {
            0 => format!("DELETE {target} HTTP/1.1\r\nHost: a\r\n{close}\r\n"),
            1 => format!("POST {target} HTTP/1.1\r\nHost: a\r\n{close}Content-Length: {size}\r\n\r\n{:size$}", ""),
            _ => {
                let chunk = format!("{size:x}\r\n{:size$}\r\n", "");
                let chunk = if size == 0 { String::new() } else { chunk };
                format!("PUT {target} HTTP/1.1\r\nHost: a\r\n{close}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")
            }
        };
        return (text.into_bytes(), asked);
    }
    let mut range = String::new();
    if random.chance(100_000) {
        let first = random.below(3000);
        let last = first + random.below(100_000);
        range = format!("Range: bytes={first}-{last}\r\n");
        asked.range = Some((first, last));
    }
    asked.head_only = random.chance(50_000);
    let method = if asked.head_only { "HEAD" } else { "GET" };
    (format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{close}{range}\r\n").into_bytes(), asked)
}

const LATE: &[u8] = b"HTTP/1.1 408 ";
const GARBAGE: &[&str] = &[
    "\r\nGET\r\n\r\n",
    "GET / HTTP/1.1\r\n\r\n",
    "GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "\0\0\0\x01\x02 \r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nName\x01: x\r\n\r\n",
];
