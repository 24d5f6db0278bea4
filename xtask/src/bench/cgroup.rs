//! A scarce machine: control groups that limit the page cache and the disk's reads.
//! Version 1 groups only: version 2 counts page cache differently, and the figures would not compare. Where they are
//! missing, `Scarce::new` says so and the scenario is left out.

use std::fs;
use std::io::{Error, Result};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Groups, that of the memory first, removed again on drop: the processes in them must be gone by then.
pub struct Scarce {
    groups: Vec<PathBuf>,
    /// Whose reads are limited and counted, `MAJOR:MINOR`.
    disk: Option<String>,
}

impl Scarce {
    /// `memory` bytes of memory, page cache included, and `reads` reads a second from the disk below `directory`.
    ///
    /// # Errors
    /// No version 1 groups here, not root, or a file system without a block device of its own.
    pub fn new(memory: u64, reads: u32, directory: &Path) -> Result<Self> {
        let mut scarce = Self::grouped(&["memory", "blkio"], memory)?;
        scarce.disk = Some(disk_of(directory)?);
        scarce.limit_reads(reads)?;
        Ok(scarce)
    }

    /// So many reads a second from now on; with 0, as many as the disk can do.
    ///
    /// # Errors
    /// The group has gone.
    pub fn limit_reads(&self, reads: u32) -> Result<()> {
        let Some(disk) = &self.disk else { return Ok(()) };
        write(&self.groups[1].join("blkio.throttle.read_iops_device"), &format!("{disk} {reads}"))
    }

    /// Reads of the disk so far.
    ///
    /// # Errors
    /// The group has gone.
    pub fn reads(&self) -> Result<u64> {
        let Some(disk) = &self.disk else { return Ok(0) };
        let counted = fs::read_to_string(self.groups[1].join("blkio.throttle.io_serviced"))?;
        let start = format!("{disk} Read ");
        let reads = counted.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok());
        Ok(reads.unwrap_or(0))
    }

    /// `memory` bytes of memory, page cache included, and a disk as it is.
    ///
    /// # Errors
    /// No version 1 groups here, or not root.
    pub fn of_memory(memory: u64) -> Result<Self> {
        Self::grouped(&["memory"], memory)
    }

    fn grouped(kinds: &[&str], memory: u64) -> Result<Self> {
        let groups = kinds.iter().map(|kind| Path::new(CGROUPS).join(kind).join(NAME)).collect();
        let scarce = Self { groups, disk: None };
        for group in &scarce.groups {
            let parent = group.parent().expect("a group lies in its kind's folder");
            if !parent.join("tasks").exists() {
                let parent = parent.display();
                return Err(Error::other(format!("no version 1 control group at {parent}")));
            }
            fs::create_dir_all(group)?;
        }
        write(&scarce.groups[0].join("memory.limit_in_bytes"), &memory.to_string())?;
        Ok(scarce)
    }

    /// A shell's line that moves the shell into the memory group only.
    pub fn enter_memory(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.groups[0].display())
    }

    /// A shell's line that moves the shell into the groups.
    pub fn enter(&self) -> String {
        let lines = self.groups.iter().map(|group| format!("echo $$ > {}/cgroup.procs", group.display()));
        lines.collect::<Vec<_>>().join(" && ")
    }
}

impl Drop for Scarce {
    fn drop(&mut self) {
        for group in &self.groups {
            // A group is busy for a moment after its last process has ended.
            for _ in 0..50 {
                if fs::remove_dir(group).is_ok() || !group.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Everything that can be read again leaves memory.
pub fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    write(Path::new("/proc/sys/vm/drop_caches"), "3")
}

/// `MAJOR:MINOR` of the whole disk: a limit cannot be set for a partition.
fn disk_of(directory: &Path) -> Result<String> {
    let device = fs::metadata(directory)?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let system = PathBuf::from(format!("/sys/dev/block/{number}"));
    if !system.exists() {
        let directory = directory.display();
        return Err(Error::other(format!("{directory} lies on no block device of its own")));
    }
    if !system.join("partition").exists() {
        return Ok(number);
    }
    let disk = fs::canonicalize(system)?.join("../dev");
    Ok(fs::read_to_string(disk)?.trim().to_owned())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|error| Error::other(format!("{}: {error}", path.display())))
}

const CGROUPS: &str = "/sys/fs/cgroup";
const NAME: &str = "amped-bench";
