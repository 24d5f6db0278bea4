//! A disk with arms: an ext4 of the same files on a block device whose reads take as long as told, one at a time for each arm.
//!
//! A control group limits a rate: within it a read takes no time, beyond it the kernel makes it wait for a tenth of a second. A
//! disk takes the same time for every read, and two arms do two of them at once. Here a file system of one file (FUSE) is the disk's
//! surface, a loop device reads it without a cache of its own, and the arms are threads that sleep.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Error, Result};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::{LOAD_CORE, corpus};

/// A mounted copy of a folder on a disk with arms. Unmounted on drop: whoever uses it must be gone by then.
pub struct Spindles {
    place: PathBuf,
    below: PathBuf,
    surface: Option<BackgroundSession>,
    pace: Arc<Pace>,
}

/// What all arms have in common.
#[derive(Default)]
struct Pace {
    /// For each read.
    nanoseconds: AtomicU64,
    /// Done so far.
    reads: AtomicU64,
}

impl Spindles {
    /// A copy of `root`, on a disk of so many arms, that reads at once for now.
    ///
    /// # Errors
    /// Not root, no /dev/fuse, no loop device left; a tool's own words.
    pub fn mount(root: &Path, arms: u32) -> Result<Self> {
        let image = image_of(root)?;
        let pace = Arc::new(Pace::default());
        let below = corpus::home()?.join("spindles");
        let place = corpus::home()?.join("spindles-files");
        for folder in [&below, &place] {
            // What an interrupted run has left.
            let _ = unmount(folder, UnmountFlags::DETACH);
            fs::create_dir_all(folder)?;
        }
        let surface = spin(&image, arms, &pace, &below)?;
        let spindles = Self { place, below, surface: Some(surface), pace };
        let losetup = ["--find", "--show", "--read-only", "--direct-io=on"];
        let device = said(Command::new("losetup").args(losetup).arg(spindles.below.join(NAME)))?;
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NOATIME;
        let mounted = mount(&device, &spindles.place, "ext4", flags, None);
        // It goes with its last user, who is the mount, however this program ends.
        said(Command::new("losetup").arg("--detach").arg(&device))?;
        mounted?;
        Ok(spindles)
    }

    /// Where the files are.
    pub fn path(&self) -> &Path {
        &self.place
    }

    /// How long an arm takes for a read, of up to 1 MB, from now on.
    pub fn take(&self, time: Duration) {
        self.pace.nanoseconds.store(time.as_nanos() as u64, Relaxed);
    }

    /// Reads so far.
    pub fn reads(&self) -> u64 {
        self.pace.reads.load(Relaxed)
    }
}

impl Drop for Spindles {
    fn drop(&mut self) {
        self.take(Duration::ZERO);
        let _ = unmount(&self.place, UnmountFlags::DETACH);
        // The loop device may close what it has of it a moment later.
        if let Some(surface) = self.surface.take()
            && surface.umount_and_join().is_err()
        {
            let _ = unmount(&self.below, UnmountFlags::DETACH);
        }
    }
}

/// The folder as an ext4 in a file, made once, or again when the folder has been.
fn image_of(root: &Path) -> Result<PathBuf> {
    let image = root.with_extension("ext4");
    let made = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    if made(&image).is_ok_and(|image| made(root).is_ok_and(|root| image >= root)) {
        return Ok(image);
    }
    println!("making {} of {} (once)", image.display(), root.display());
    let part = root.with_extension("part");
    File::create(&part)?.set_len(IMAGE)?;
    // It is only ever read.
    said(Command::new("mkfs.ext4").args(["-q", "-F", "-O", "^has_journal", "-d"]).arg(root).arg(&part))?;
    fs::rename(&part, &image)?;
    Ok(image)
}

/// Starts the arms and mounts the surface below which they are.
fn spin(image: &Path, arms: u32, pace: &Arc<Pace>, place: &Path) -> Result<BackgroundSession> {
    let image = Arc::new(File::open(image)?);
    let size = image.metadata()?.len();
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("amped-spindles".into())];
    let (pace, place) = (Arc::clone(pace), place.to_owned());
    // Threads are on the core of whoever starts them; the server's is not to be disturbed.
    let start = move || {
        pin()?;
        let arm = |_| {
            let (sender, reads) = channel();
            let (image, pace) = (Arc::clone(&image), Arc::clone(&pace));
            std::thread::spawn(move || move_arm(&image, &pace, &reads));
            sender
        };
        let surface = Surface { size, arms: (0..arms).map(arm).collect() };
        fuser::spawn_mount(surface, place, &config)
    };
    std::thread::spawn(start).join().map_err(|_| Error::other("the arms' thread panicked"))?
}

fn pin() -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(LOAD_CORE.parse().expect("a number"));
    Ok(rustix::thread::sched_setaffinity(None, &set)?)
}

/// Reads one after the other, each as long as a read takes.
fn move_arm(image: &File, pace: &Pace, reads: &Receiver<Read>) {
    let mut memory = Vec::new();
    let mut free = Instant::now();
    for read in reads {
        free = free.max(Instant::now()) + Duration::from_nanos(pace.nanoseconds.load(Relaxed));
        pace.reads.fetch_add(1, Relaxed);
        memory.resize(read.size as usize, 0);
        let outcome = image.read_exact_at(&mut memory, read.offset);
        std::thread::sleep(free.saturating_duration_since(Instant::now()));
        match outcome {
            Ok(()) => read.reply.data(&memory),
            Err(_) => read.reply.error(Errno::EIO),
        }
    }
}

struct Read {
    offset: u64,
    size: u32,
    reply: ReplyData,
}

/// The one file, and who reads which part of it.
struct Surface {
    size: u64,
    arms: Vec<Sender<Read>>,
}

impl Surface {
    fn attributes(&self, node: INodeNo) -> FileAttr {
        let is_file = node == FILE;
        FileAttr {
            ino: node,
            size: if is_file { self.size } else { 0 },
            blocks: self.size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_file { FileType::RegularFile } else { FileType::Directory },
            perm: 0o755,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Surface {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> Result<()> {
        // Otherwise the loop device would have one read under way at a time, or 16 for all arms.
        let refused = |_| Error::other("FUSE without asynchronous reads");
        config.set_max_background(READS_UNDER_WAY).map_err(refused)?;
        config.set_congestion_threshold(READS_UNDER_WAY).map_err(refused)?;
        config.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(|_| Error::other("FUSE without asynchronous reads"))
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name == NAME {
            true => reply.entry(&FOREVER, &self.attributes(FILE), Generation(0)),
            false => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(node));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = u64::from(size).min(self.size.saturating_sub(offset)) as u32;
        let arm = (offset / STRIPE) as usize % self.arms.len();
        // An arm lives as long as this value.
        let _ = self.arms[arm].send(Read { offset, size, reply });
    }
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Error::other(format!("{}: {words}", command.get_program().display())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

const NAME: &str = "surface";
const FILE: INodeNo = INodeNo(2);
const FOREVER: Duration = Duration::from_secs(1 << 30);
/// What lies together lies below one arm.
const STRIPE: u64 = 256 * 1024;
const READS_UNDER_WAY: u16 = 1024;
/// Room for the tail with whole blocks; what is not written takes none.
const IMAGE: u64 = 6 << 30;
