//! The files served: a few of fixed sizes, and the 200,000 of the tail, made once from a fixed seed and kept.

use std::fs;
use std::io::{Read, Result, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Where everything is kept between runs.
pub fn home() -> Result<PathBuf> {
    let home = std::env::var_os("AMPED_BENCH_DIR").map_or_else(|| PathBuf::from("/var/tmp/amped-bench"), PathBuf::from);
    fs::create_dir_all(&home)?;
    // Some peers read as a user of their own.
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755))?;
    Ok(home)
}

/// The files of fixed sizes, by name.
pub fn plain() -> Result<PathBuf> {
    let root = home()?.join("plain");
    fs::create_dir_all(&root)?;
    for (name, size) in PLAIN {
        let path = root.join(name);
        if fs::metadata(&path).map_or(0, |found| found.len()) != *size {
            write(&path, *size, 1)?;
        }
    }
    Ok(root)
}

/// The many files: `/D/N.html`, N from 0 to 199,999, D its thousand.
pub fn tail() -> Result<PathBuf> {
    let root = home()?.join("tail");
    let made = home()?.join("tail-made");
    if fs::read_to_string(&made).is_ok_and(|recipe| recipe == RECIPE) {
        return Ok(root);
    }
    println!("making {FILES} files in {} (once)", root.display());
    let _ = fs::remove_file(&made);
    let mut random = Random(SEED);
    for directory in 0..FILES / A_DIRECTORY {
        let directory_path = root.join(directory.to_string());
        fs::create_dir_all(&directory_path)?;
        for file in directory * A_DIRECTORY..(directory + 1) * A_DIRECTORY {
            let path = directory_path.join(format!("{file}.html"));
            write(&path, random.size(), u64::from(file))?;
        }
    }
    rustix::fs::sync();
    fs::write(made, RECIPE)?;
    Ok(root)
}

/// The size of a tail file, for checks.
pub fn tail_size(root: &Path, file: u32) -> Result<u64> {
    Ok(fs::metadata(root.join(format!("{}/{file}.html", file / A_DIRECTORY)))?.len())
}

/// Reads every file of the tail, so that the page cache holds them.
pub fn read_all(root: &Path) -> Result<()> {
    let mut chunk = vec![0; 256 * 1024];
    for file in 0..FILES {
        let mut file = fs::File::open(root.join(format!("{}/{file}.html", file / A_DIRECTORY)))?;
        while file.read(&mut chunk)? > 0 {}
    }
    Ok(())
}

fn write(path: &Path, size: u64, seed: u64) -> Result<()> {
    let line = format!("{seed:016x} the quick brown fox jumps over the lazy dog\n");
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let mut left = size as usize;
    while left > 0 {
        let part = left.min(line.len());
        file.write_all(&line.as_bytes()[..part])?;
        left -= part;
    }
    file.flush()
}

/// Lehmer's generator (Park and Miller): small, and the same everywhere.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0 * 16807 % 2_147_483_647;
        self.0 as f64 / 2_147_483_647.0
    }

    /// Log-normal: the mean is twice the median when sigma is the root of 2 ln 2.
    fn size(&mut self) -> u64 {
        let sigma = (2.0 * 2_f64.ln()).sqrt();
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        let size = MEDIAN * (sigma * normal).exp();
        (size as u64).clamp(1, LARGEST)
    }
}

const PLAIN: &[(&str, u64)] = &[
    ("100.html", 100),
    ("1k.html", 1024),
    ("4k5.html", 4608),
    ("64k.bin", 64 * 1024),
    ("100m.bin", 100 * 1024 * 1024),
];
pub const FILES: u32 = 200_000;
const A_DIRECTORY: u32 = 1000;
const MEDIAN: f64 = 4500.0;
const LARGEST: u64 = 4 * 1024 * 1024;
const SEED: u64 = 1999;
/// Changed with anything above that changes the files.
const RECIPE: &str = "200000 files, median 4500, seed 1999\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_the_median_and_mean_promised() {
        let mut random = Random(SEED);
        let mut sizes: Vec<u64> = (0..FILES).map(|_| random.size()).collect();
        sizes.sort_unstable();
        let mean = sizes.iter().sum::<u64>() / u64::from(FILES);
        assert!((4400..4600).contains(&sizes[sizes.len() / 2]));
        assert!((8700..9300).contains(&mean), "{mean}");
    }
}
