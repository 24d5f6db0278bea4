//! What is served: names, what they may lead to, and whoever changes them.

use std::sync::Arc;

use amped_runtime::sim::{Change, Random, World};

/// The names that clients ask for.
#[derive(Debug)]
pub struct Site {
    pub names: Vec<Name>,
    /// How often something changes, in nanoseconds; 0: never.
    pub change_every: u64,
    versions: u64,
    /// Files are replaced as they should be, and never written in place: whoever is downloading one keeps it.
    is_gentle: bool,
}

/// One name.
#[derive(Clone, Debug)]
pub struct Name {
    /// As asked for.
    pub target: String,
    /// Where it lies on the disk.
    pub file: Vec<u8>,
    /// Bytes, about.
    size: u64,
}

impl Site {
    /// Names of a seed; the files are made in `world`.
    pub fn new(world: &mut World, small: u64, large: u64, huge: bool, change_every: u64, is_gentle: bool) -> Self {
        let mut site = Self { names: Vec::new(), change_every, versions: 0, is_gentle };
        for number in 0..small {
            let size = world.random().pick(&[0, 1, 100, 1000, 1400, 4000, 16_000]);
            site.name(format!("/small/{number}.html"), size);
        }
        for number in 0..large {
            let size = world.random().between(65_000, 200_000);
            site.name(format!("/large/{number}.bin"), size);
        }
        if huge {
            site.name("/huge.bin".into(), 2_500_000);
        }
        site.name("/missing.txt".into(), 10);
        site.name("/folder/".into(), 500);
        for folder in ["", "small", "large", "folder"] {
            world.change(folder.as_bytes(), Change::Folder);
        }
        for at in 0..site.names.len() {
            if site.names[at].target != "/missing.txt" {
                let bytes = site.bytes(world.random(), at);
                world.change(&site.names[at].file.clone(), Change::Replace(bytes));
            }
        }
        site
    }

    fn name(&mut self, target: String, size: u64) {
        let file = target.trim_start_matches('/').to_owned();
        let file = if file.ends_with('/') { file + "index.html" } else { file };
        self.names.push(Name { target, file: file.into_bytes(), size });
    }

    /// Bytes that no other version of any file has, the empty ones but for.
    fn bytes(&mut self, random: &mut Random, at: usize) -> Arc<[u8]> {
        self.versions += 1;
        let size = self.names[at].size;
        // Sometimes of the same size, so that only its times tell a version from another.
        let size = if random.chance(300_000) { size } else { random.between(size / 2, size) };
        let mut noise = Random::new(self.versions);
        let (stamp, word) = (self.versions.to_le_bytes(), noise.draw());
        let mut bytes = Vec::with_capacity(size as usize + 16);
        for place in 0..size.div_ceil(16) {
            bytes.extend_from_slice(&stamp);
            bytes.extend_from_slice(&(word ^ place).to_le_bytes());
        }
        bytes.truncate(size as usize);
        bytes.into()
    }

    /// Somebody changes something.
    pub fn change(&mut self, world: &mut World) {
        let at = world.random().below(self.names.len() as u64) as usize;
        let bytes = self.bytes(world.random(), at);
        let how = if self.is_gentle { 0 } else { world.random().below(10) };
        let change = match how {
            0..=4 => Change::Replace(bytes),
            // Larger files are written anew with another size: what is written in place within the same tick of the file
            // system's clock, and with the same size, cannot be told from what was there.
            5..=7 if self.names[at].size > 60_000 => {
                let other = bytes.len() - (self.versions as usize % 1000) - 1;
                Change::Rewrite(bytes[..other].into())
            }
            5..=7 => Change::Rewrite(bytes),
            8 => Change::Rewrite(bytes[..bytes.len() / 2].into()),
            _ => Change::Remove,
        };
        world.change(&self.names[at].file.clone(), change);
    }
}
