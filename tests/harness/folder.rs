//! Folders to be served, on a real disk or in memory, gone at the end.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A folder that lives as long as this value.
#[derive(Debug)]
pub struct Folder(tempfile::TempDir);

impl Folder {
    /// An empty folder where the build is: a real disk.
    pub fn on_disk() -> Self {
        Self::below(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    /// An empty folder in memory, which is another kind of mount for the server.
    pub fn in_memory() -> Self {
        Self::below(Path::new("/dev/shm"))
    }

    /// An empty folder that every user may reach: builds may lie where only their owner may look.
    pub fn for_all() -> Self {
        Self::below(&std::env::temp_dir())
    }

    fn below(parent: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("amped-test-").tempdir_in(parent).expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
        Self(folder)
    }

    /// A folder on disk with an index of three bytes, a small page and a file too large for memory.
    pub fn usual() -> Self {
        let folder = Self::on_disk();
        folder.put("index.html", "hi\n");
        folder.put("page.html", "a page\n");
        folder.put("large.bin", pattern(0, LARGE));
        folder
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where a file of it is.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, its folders included, that looks as if it were an hour old.
    pub fn put(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        self.write(name, bytes, SystemTime::now() - Duration::from_secs(3600))
    }

    /// Writes a file and dates it.
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>, modified: SystemTime) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("own folder");
        let mut file = File::create(&path).expect("own folder");
        file.write_all(bytes.as_ref()).expect("room on the disk");
        file.set_modified(modified).expect("own file");
        path
    }

    /// Puts a new version of a file into the old one's place at once.
    pub fn replace(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let new = self.write(format!("{name}.new"), bytes, SystemTime::now());
        fs::rename(new, self.at(name)).expect("own folder");
    }

    /// Has the kernel forget a file's contents, so that the next read goes to the disk.
    pub fn evict(&self, name: impl AsRef<Path>) {
        let file = File::open(self.at(name)).expect("own file");
        file.sync_all().expect("own file");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("a file");
    }
}

/// Bytes of which every place and version is recognisable.
pub fn pattern(version: u8, length: usize) -> Vec<u8> {
    let word =
        |at: usize| ((at as u64 / 8).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(version) << 56).to_be_bytes();
    (0..length).step_by(8).flat_map(word).take(length).collect()
}

/// More than the server keeps in memory, less than a window.
const LARGE: usize = 300_000;
