//! A disk that hangs when it is told to: a file system of a few files in memory, served by this process through /dev/fuse.
//!
//! The kernel's protocol is spoken directly (linux/fuse.h, version 7.31), as much of it as reading needs. While it hangs,
//! requests are kept unanswered; whoever waits for them waits in the kernel, as with a dead disk or a lost network mount.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

/// A mounted folder of files that can be made to hang.
#[derive(Debug)]
pub struct Hanging {
    device: Arc<Device>,
    place: tempfile::TempDir,
}

/// An ext4 on a block device that can be made to hang: the files are cached as those of a real disk are.
#[derive(Debug)]
pub struct HangingExt4 {
    place: tempfile::TempDir,
    device: String,
    below: Hanging,
}

#[derive(Debug)]
struct Device {
    channel: File,
    files: Vec<(String, Vec<u8>)>,
    /// While it hangs: the requests that are not answered.
    kept: Mutex<Option<Vec<Request>>>,
    /// Looking up and reading answer EIO.
    fails: AtomicBool,
}

#[derive(Debug)]
struct Request {
    operation: u32,
    unique: u64,
    node: u64,
    rest: Vec<u8>,
}

impl Hanging {
    /// Mounts a folder with these files; `None` without the right to mount, and the test's output says so.
    pub fn mount(files: BTreeMap<String, Vec<u8>>) -> Option<Self> {
        Self::mount_in(&std::env::temp_dir(), files)
    }

    /// The same, in a new folder below `parent`.
    pub fn mount_in(parent: &Path, files: BTreeMap<String, Vec<u8>>) -> Option<Self> {
        match Self::try_mount(parent, files) {
            Ok(mounted) => Some(mounted),
            Err(error) => {
                eprintln!("NOT TESTED: a hung disk needs /dev/fuse and the right to mount: {error}");
                assert!(!super::is_root() || !Path::new("/dev/fuse").exists(), "root could not mount: {error}");
                None
            }
        }
    }

    fn try_mount(parent: &Path, files: BTreeMap<String, Vec<u8>>) -> io::Result<Self> {
        let channel = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let place = tempfile::Builder::new().prefix("hanging-").tempdir_in(parent)?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", channel.as_raw_fd());
        let options = CString::new(options)?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        mount("amped-test", place.path(), "fuse", flags, options.as_c_str())?;
        let device = Arc::new(Device {
            channel,
            files: files.into_iter().collect(),
            kept: Mutex::new(None),
            fails: AtomicBool::new(false),
        });
        let server = Arc::clone(&device);
        // It ends with the mount, whose last user may outlive this value.
        std::thread::spawn(move || server.serve());
        Ok(Self { device, place })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// From now on nothing is answered.
    pub fn hang(&self) {
        self.device.kept.lock().expect("nobody panics with it").get_or_insert_default();
    }

    /// From now on looking up and reading fail as on a broken disk, or do not.
    pub fn fail(&self, fails: bool) {
        self.device.fails.store(fails, Relaxed);
    }

    /// Requests that wait for an answer.
    pub fn waiting(&self) -> usize {
        self.device.kept.lock().expect("nobody panics with it").as_ref().map_or(0, Vec::len)
    }

    /// Answers everything that was kept, and goes on.
    pub fn recover(&self) {
        let kept = self.device.kept.lock().expect("nobody panics with it").take();
        kept.into_iter().flatten().for_each(|request| self.device.answer(&request));
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.recover();
        let _ = unmount(self.place.path(), UnmountFlags::DETACH);
    }
}

impl HangingExt4 {
    /// Makes an ext4 of the files in `folder` and mounts it through a loop device.
    pub fn mount(folder: &Path) -> Option<Self> {
        let images = tempfile::tempdir().expect("a temporary folder");
        let image = images.path().join("image");
        File::create(&image).and_then(|file| file.set_len(IMAGE)).expect("room for an image");
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-O", "^has_journal", "-d"]).arg(folder).arg(&image))?;
        let bytes = std::fs::read(&image).expect("own file");
        let below = Hanging::mount(BTreeMap::from([("image".to_owned(), bytes)]))?;
        let image: PathBuf = below.path().join("image");
        let device = run(Command::new("losetup").args(["--find", "--show", "--read-only"]).arg(image))?;
        let place = tempfile::tempdir().expect("a temporary folder");
        let mounted = Self { place, device: device.trim().to_owned(), below };
        let flags = MountFlags::RDONLY | MountFlags::NOSUID;
        mount(&mounted.device, mounted.path(), "ext4", flags, None).expect("root may mount");
        Some(mounted)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// The disk below.
    pub fn disk(&self) -> &Hanging {
        &self.below
    }
}

impl Drop for HangingExt4 {
    fn drop(&mut self) {
        self.below.recover();
        let _ = unmount(self.place.path(), UnmountFlags::DETACH);
        let _ = Command::new("losetup").arg("--detach").arg(&self.device).status();
    }
}

/// Runs a command of the system's and returns what it printed; `None` when it is not there or may not do it.
fn run(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(output) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        other => {
            eprintln!("NOT TESTED: a hung block device: {command:?}: {other:?}");
            assert!(!super::is_root(), "root could not: {command:?}: {other:?}");
            None
        }
    }
}

impl Device {
    /// Answers requests until the mount is gone.
    fn serve(&self) {
        let mut buffer = vec![0; LARGEST_REQUEST];
        loop {
            match (&self.channel).read(&mut buffer) {
                Ok(length) => self.take(Request::parse(&buffer[..length])),
                // A request was withdrawn before it was read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn take(&self, request: Request) {
        let mut kept = self.kept.lock().expect("nobody panics with it");
        match &mut *kept {
            Some(kept) if !matches!(request.operation, INIT | FORGET | BATCH_FORGET | INTERRUPT) => kept.push(request),
            _ => {
                drop(kept);
                self.answer(&request);
            }
        }
    }

    fn answer(&self, request: &Request) {
        let answer = match request.operation {
            FORGET | BATCH_FORGET | INTERRUPT => return,
            INIT => Ok(init()),
            LOOKUP | READ if self.fails.load(Relaxed) => Err(INPUT_OUTPUT),
            LOOKUP => self.look_up(&request.rest),
            GETATTR => self.attributes(request.node).map(|facts| [vec![0; 16], facts].concat()),
            OPEN | OPENDIR => Ok(vec![0; 16]),
            READ => self.read(request),
            STATFS => Ok(vec![0; 80]),
            READDIR | RELEASE | RELEASEDIR | FLUSH => Ok(Vec::new()),
            _ => Err(NOT_SUPPORTED),
        };
        let (error, bytes) = match answer {
            Ok(bytes) => (0, bytes),
            Err(number) => (-number, Vec::new()),
        };
        let mut message = (16 + bytes.len() as u32).to_ne_bytes().to_vec();
        message.extend(error.to_ne_bytes());
        message.extend(request.unique.to_ne_bytes());
        message.extend(bytes);
        // Whoever asked may have been killed meanwhile.
        let _ = (&self.channel).write(&message);
    }

    fn look_up(&self, name: &[u8]) -> Result<Vec<u8>, i32> {
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        let place = self.files.iter().position(|(present, _)| present.as_bytes() == name).ok_or(NO_ENTRY)?;
        let node = place as u64 + 2;
        // The node, its generation, and no time at all for which the kernel may believe it.
        let mut entry = node.to_ne_bytes().to_vec();
        entry.resize(40, 0);
        entry.extend(self.attributes(node)?);
        Ok(entry)
    }

    fn attributes(&self, node: u64) -> Result<Vec<u8>, i32> {
        let (mode, size) = match node {
            1 => (0o40755, 0),
            _ => (0o100_644, self.file(node)?.len() as u64),
        };
        let mut facts: Vec<u8> = [node, size, size.div_ceil(512), CHANGED, CHANGED, CHANGED]
            .iter()
            .flat_map(|number| number.to_ne_bytes())
            .collect();
        facts.extend([0u32, 0, 0, mode, 1, 0, 0, 0, 4096, 0].iter().flat_map(|number| number.to_ne_bytes()));
        Ok(facts)
    }

    fn read(&self, request: &Request) -> Result<Vec<u8>, i32> {
        let bytes = self.file(request.node)?;
        let number = |at: usize| u64::from_ne_bytes(request.rest[at..at + 8].try_into().expect("eight bytes"));
        let (offset, size) = (number(8) as usize, number(16) as u32 as usize);
        let start = offset.min(bytes.len());
        Ok(bytes[start..(start + size).min(bytes.len())].to_vec())
    }

    fn file(&self, node: u64) -> Result<&[u8], i32> {
        node.checked_sub(2).and_then(|place| self.files.get(place as usize)).map(|(_, bytes)| &**bytes).ok_or(NO_ENTRY)
    }
}

impl Request {
    fn parse(bytes: &[u8]) -> Self {
        let four = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let eight = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Self { operation: four(4), unique: eight(8), node: eight(16), rest: bytes[40..].to_vec() }
    }
}

/// Version 7.31, no flags, requests of up to 128 KB.
fn init() -> Vec<u8> {
    let mut answer: Vec<u8> = [7u32, 31, 128 * 1024, 0].iter().flat_map(|number| number.to_ne_bytes()).collect();
    // Background requests: as many as anybody will make here.
    answer.extend([1024u16, 1024].iter().flat_map(|number| number.to_ne_bytes()));
    answer.extend([128 * 1024u32, 1].iter().flat_map(|number| number.to_ne_bytes()));
    answer.resize(64, 0);
    answer
}

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
const RELEASEDIR: u32 = 29;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;
const NO_ENTRY: i32 = 2;
const INPUT_OUTPUT: i32 = 5;
const NOT_SUPPORTED: i32 = 38;
const CHANGED: u64 = 1_600_000_000;
const LARGEST_REQUEST: usize = 1 << 20;
const IMAGE: u64 = 48 << 20;
