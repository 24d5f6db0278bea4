//! Files: the disk contract's order, on the loop's thread.
//!
//! 1. The memory cache: no system call.
//! 2. What the kernel holds in memory: a cached open and a no-wait read, on mounts that can.
//! 3. One helper job per file, shared by all who ask for it.
//!
//! An entry is looked at again at most once per `revalidate`; if the disk is slow to say whether the file has changed, memory
//! goes on answering.

mod entry;
mod fetch;
mod load;
mod shelf;
mod transfer;
mod trust;
mod usage;
mod window;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use amped_runtime::Runtime;
use amped_runtime::disk::{self, Ability, Class, Helpers, Root, Watches};
use amped_wire::h1::peek;

pub use self::entry::{Content, Entry, FileContent, Representation};
use self::fetch::Fetches;
pub use self::fetch::Later;
use self::load::{Errand, Look, Manner, Passing, Reading, Target};
use self::shelf::Key;
pub use self::shelf::Shelf;
pub use self::transfer::{Budget, Means, Transfer};
use self::trust::Trust;
use self::usage::UnderWay;
pub use self::usage::Usage;
use super::opening::{self, Opening};
use crate::config::plan::{Action, DiskMode, Plan, Priority, Route, Site, Symlinks};
use crate::observe::counters::Counters;
use crate::overload::Gate;
use crate::route::RouteId;

/// One worker's way to the files of all routes.
#[derive(Debug)]
pub struct Files {
    runtime: Rc<Runtime>,
    plan: Arc<Plan>,
    roots: Arc<Roots>,
    shelf: Arc<Shelf>,
    helpers: Helpers,
    fetches: Rc<Fetches>,
    counters: Arc<Counters>,
    mode: DiskMode,
    revalidate_ms: u64,
    trust: Trust,
    passing: Passing,
    opening: Opening,
    gate: Rc<Gate>,
    usage: Arc<Usage>,
    /// See `note_reading`.
    in_a_row: Cell<u32>,
    /// The route that was asked for last, by its number in memory.
    recent: Cell<u32>,
    /// See `Shelf::prefetch`.
    hashes: RefCell<Vec<u64>>,
}

/// The open folder of every route that serves files.
#[derive(Debug, Default)]
pub struct Roots {
    folders: Vec<Vec<Option<Folder>>>,
    /// The number of the next route that is new.
    next: u32,
}

/// An open folder, and the number under which memory keeps what was found in it.
#[derive(Debug)]
struct Folder {
    root: Arc<Root>,
    memory: u32,
}

/// What became of a look-up.
pub enum Found {
    /// Memory knows.
    Now(Arc<Entry>),
    /// A helper has been asked.
    Later(Later),
    /// Memory does not know, and there is no time to find out.
    Refused,
}

impl Roots {
    /// Opens the folders of a plan. Waits for the disk: for start-up and reloads, not for loops.
    ///
    /// What memory holds of the routes of `before` stays valid for those that are the same, in the same folder.
    ///
    /// # Errors
    /// The folder's path and what the system said.
    pub fn open(plan: &Plan, before: Option<(&Plan, &Self)>) -> Result<Self, String> {
        let mut next = before.map_or(0, |(_, before)| before.next);
        let mut folders = Vec::with_capacity(plan.sites.len());
        for site in &plan.sites {
            let mut theirs = Vec::with_capacity(site.routes.len());
            for route in &site.routes {
                let Action::Files(files) = &route.action else {
                    theirs.push(None);
                    continue;
                };
                let root = Root::open(&files.root, policy(files.symlinks))
                    .map_err(|error| format!("cannot open the folder {}: {error}", files.root.display()))?;
                let known = before.and_then(|(plan, before)| before.memory_of(plan, site, route, &root));
                let memory = known.unwrap_or_else(|| {
                    next = next.wrapping_add(1);
                    next
                });
                theirs.push(Some(Folder { root: Arc::new(root), memory }));
            }
            folders.push(theirs);
        }
        Ok(Self { folders, next })
    }

    /// Every folder, for the start-up line.
    pub fn iter(&self) -> impl Iterator<Item = &Root> {
        self.folders.iter().flatten().flatten().map(|folder| &*folder.root)
    }

    /// Every folder with the path by which `plan`, which is theirs, names it.
    pub fn with_paths<'a>(&'a self, plan: &'a Plan) -> impl Iterator<Item = (&'a Path, &'a Root)> {
        let routes = plan.sites.iter().zip(&self.folders).flat_map(|(site, folders)| site.routes.iter().zip(folders));
        routes.filter_map(|(route, folder)| match (&route.action, folder) {
            (Action::Files(files), Some(folder)) => Some((&*files.root, &*folder.root)),
            _ => None,
        })
    }

    fn get(&self, id: RouteId) -> &Folder {
        let folder = &self.folders[usize::from(id.site)][usize::from(id.route)];
        folder.as_ref().expect("a route that serves files has a folder")
    }

    /// The number of the route of `plan` that answers alike from this very folder: all that goes into an entry is the same.
    fn memory_of(&self, plan: &Plan, site: &Site, route: &Route, root: &Root) -> Option<u32> {
        let alike = |(other, folders): (&Site, &Vec<Option<Folder>>)| {
            let mut routes = other.routes.iter().zip(folders);
            let found = routes.find(|(other, folder)| {
                *other == route && folder.as_ref().is_some_and(|folder| folder.root.identity() == root.identity())
            });
            found.filter(|_| other.headers == site.headers)?.1.as_ref().map(|folder| folder.memory)
        };
        plan.sites.iter().zip(&self.folders).find_map(alike)
    }
}

fn policy(symlinks: Symlinks) -> disk::Symlinks {
    match symlinks {
        Symlinks::Within => disk::Symlinks::Within,
        Symlinks::Never => disk::Symlinks::Never,
        Symlinks::Anywhere => disk::Symlinks::Anywhere,
    }
}

impl Files {
    /// The files of `plan`, for the worker that runs on `runtime`.
    pub fn new(
        runtime: &Rc<Runtime>,
        plan: &Arc<Plan>,
        (roots, shelf, helpers, usage): (&Arc<Roots>, &Arc<Shelf>, &Helpers, &Arc<Usage>),
        watches: Option<&Arc<Watches>>,
        gate: &Rc<Gate>,
        counters: &Arc<Counters>,
    ) -> Rc<Self> {
        Rc::new(Self {
            runtime: Rc::clone(runtime),
            plan: Arc::clone(plan),
            roots: Arc::clone(roots),
            shelf: Arc::clone(shelf),
            helpers: helpers.clone(),
            fetches: Rc::default(),
            counters: Arc::clone(counters),
            mode: plan.disk,
            revalidate_ms: plan.revalidate.as_millis() as u64,
            trust: Trust::new(watches, plan.revalidate.as_millis() as u64),
            passing: Passing::default(),
            opening: Opening::default(),
            gate: Rc::clone(gate),
            usage: Arc::clone(usage),
            in_a_row: Cell::new(0),
            recent: Cell::new(0),
            hashes: RefCell::default(),
        })
    }

    /// What is given up when there is too much to do.
    pub fn gate(&self) -> &Rc<Gate> {
        &self.gate
    }

    /// Counts a request that the helpers had no time for.
    pub fn count_refusal(&self) {
        self.counters.shed_disk.add(1);
    }

    /// The loop these files are for.
    pub fn runtime(&self) -> &Rc<Runtime> {
        &self.runtime
    }

    /// Where look-ups are counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Looks `path` (normalized, with its slash) up; `strip` bytes of it belong to the route.
    pub fn find(&self, id: RouteId, strip: usize, path: &[u8], priority: Priority) -> Found {
        let key = Key { memory: self.roots.get(id).memory, path };
        let now = self.runtime.clock().ticks();
        self.recent.set(key.memory);
        let Some(entry) = self.shelf.get(&key, now, &self.opening()) else {
            self.counters.misses.add(1);
            if !self.gate.admits(priority) {
                return Found::Refused;
            }
            return self.read(id, strip, path, None, priority);
        };
        let age = entry.age(now);
        if age < self.revalidate_ms || self.trust.holds(&entry, now) {
            self.counters.hits.add(1);
            return Found::Now(entry);
        }
        self.counters.revalidations.add(1);
        // What memory holds is an answer, if not the newest: no more is done for it than there is time for.
        if age < STALE_LIMIT_MS && !self.gate.has_time(priority) {
            self.counters.stale.add(1);
            return Found::Now(entry);
        }
        self.read(id, strip, path, Some(entry), priority)
    }

    fn opening(&self) -> opening::Bytes {
        self.opening.at(self.runtime.clock().unix_seconds())
    }

    /// Whether `foresee` would be of use.
    pub fn is_worth_foreseeing(&self) -> bool {
        self.shelf.is_worth_fetching()
    }

    /// Has memory fetched for requests that are about to be answered, as these first bytes of theirs let it be guessed: by the route of
    /// the request before, and with paths that need no decoding. A wrong guess costs no more than a right one.
    pub fn foresee<'a>(&self, arrivals: impl Iterator<Item = &'a [u8]>) {
        let paths = arrivals.filter_map(peek::path);
        self.shelf.prefetch(self.recent.get(), paths, &mut self.hashes.borrow_mut());
    }

    /// Steps 2 and 3 of the order; `known` is what memory holds and no longer vouches for.
    fn read(&self, id: RouteId, strip: usize, path: &[u8], known: Option<Arc<Entry>>, priority: Priority) -> Found {
        let key = Key { memory: self.roots.get(id).memory, path };
        // Somebody has asked a helper already: the answer is on its way, and asking the kernel again would only repeat its no.
        if self.plan.shared_jobs
            && let Some(later) = self.fetches.join(&key, &self.helpers)
        {
            return self.or_memory(later, known);
        }
        let target = Target { plan: &self.plan, root: &self.roots.get(id).root, id, path, strip };
        if self.mode != DiskMode::Helpers {
            let reading = if self.mode == DiskMode::Inline { Reading::Wait } else { self.without_waiting() };
            let mark = self.trust.prepare(&target, known.as_deref(), &self.runtime, &self.helpers);
            let (passing, opening) = (Some(&self.passing), self.opening());
            let manner = Manner { reading, plainly: mark.is_some(), passing, opening: &opening };
            let load = || target.load(manner, known.as_deref());
            let look = self.runtime.meter().timed("disk: open and read", load);
            self.note_reading(target.root, look.as_ref().map(|look| &look.loaded));
            match look {
                Some(Look { loaded, is_plain }) => {
                    let entry = self.keep(&key, loaded, known);
                    mark.filter(|_| is_plain).inspect(|mark| entry.trust(*mark, self.runtime.clock().ticks()));
                    return Found::Now(entry);
                }
                None => self.counters.not_in_memory.add(1),
            }
        }
        self.or_memory(self.ask_helper(&key, &target, known.clone(), priority), known)
    }

    /// How the loop reads. To try and fail costs the loop 0.1 to 0.3 ms and the disk a read that nobody may wait for, and such reads are
    /// bounded by nothing. To ask first costs a system call, so it is done while misses are not long ago, nor one in thousands.
    fn without_waiting(&self) -> Reading {
        if self.is_disk_in_use() && self.in_a_row.get() < SELDOM {
            Reading::Resident { or_try: !self.helpers.may_refuse() }
        } else {
            Reading::NoWait
        }
    }

    /// Counts the bodies that were read without waiting since the last that was not in memory, where the kernel tells.
    fn note_reading(&self, root: &Root, loaded: Option<&load::Loaded>) {
        match loaded {
            None if root.mount().ability() == Ability::NoWait => self.in_a_row.set(0),
            Some(load::Loaded::New(Content::Memory(_))) => self.in_a_row.set(self.in_a_row.get().saturating_add(1)),
            _ => {}
        }
    }

    /// Whether files have been found not to be in memory lately, or are being read: then others may be leaving it.
    pub fn is_disk_in_use(&self) -> bool {
        self.usage.is_in_use(self.runtime.clock().ticks())
    }

    /// Something was not in memory, and may just have come.
    fn note_miss(&self) {
        self.usage.note_miss(self.runtime.clock().ticks());
    }

    /// Something is not in memory: to be kept by the job that reads it, for as long as it may.
    fn begin_reading(&self) -> UnderWay {
        self.usage.begin(self.runtime.clock().ticks())
    }

    fn ask_helper(
        &self,
        key: &Key<&[u8]>,
        target: &Target<'_>,
        known: Option<Arc<Entry>>,
        priority: Priority,
    ) -> Later {
        let class = match priority {
            _ if known.is_some() => Class::Urgent,
            Priority::Normal => Class::Serve,
            Priority::Essential => Class::Essential,
            Priority::Sheddable => Class::Sheddable,
        };
        let before = known.clone();
        let errand = Errand::new(target, &self.plan);
        let is_disk = target.root.mount().ability() == Ability::NoWait;
        let under_way = is_disk.then(|| self.begin_reading());
        let job = self.helpers.submit_in(folder(target.root), class, move || {
            let _under_way = under_way;
            errand.run(known.as_deref())
        });
        let shelf = Arc::clone(&self.shelf);
        let runtime = Rc::clone(&self.runtime);
        let usage = is_disk.then(|| Arc::clone(&self.usage));
        let owned = key.into_owned();
        self.fetches.start(&self.runtime, key, job, move |loaded| {
            let now = runtime.clock().ticks();
            usage.inspect(|usage| usage.note_miss(now));
            shelf.keep(&owned.as_ref(), loaded, before.clone(), now)
        })
    }

    /// While a helper looks at a file that memory holds, memory answers at the latest after `PATIENCE`, and at once when the
    /// helper is late already: whoever asks for a file in memory does not wait for a drowned disk.
    fn or_memory(&self, later: Later, known: Option<Arc<Entry>>) -> Found {
        let Some(known) = known else { return Found::Later(later) };
        let age = later.age(self.runtime.clock().now());
        if age >= LONG {
            self.helpers.relieve();
        }
        if known.age(self.runtime.clock().ticks()) >= STALE_LIMIT_MS {
            // Nobody refuses what is urgent, and a dead disk never answers.
            self.fetches.see_through(&self.runtime, &later);
            return Found::Later(later.or_refused_after(self.runtime.sleep(HOPELESS)));
        }
        if age >= PATIENCE {
            self.counters.stale.add(1);
            return Found::Now(known);
        }
        let sleep = self.runtime.sleep(PATIENCE);
        self.fetches.see_through(&self.runtime, &later);
        Found::Later(later.or_after(sleep, known, Arc::clone(&self.counters)))
    }

    fn keep(&self, key: &Key<&[u8]>, loaded: load::Loaded, known: Option<Arc<Entry>>) -> Arc<Entry> {
        self.shelf.keep(key, loaded, known, self.runtime.clock().ticks())
    }
}

/// What tells a folder from others, for the helpers: a place in memory is as good as any number.
fn folder(root: &Arc<Root>) -> usize {
    Arc::as_ptr(root).addr()
}

/// After so many bodies that were in memory it costs less to try the next one than to ask first: a call is 0.3 us.
const SELDOM: u32 = 2048;
/// How long a request for a file in memory waits to learn whether the file has changed.
const PATIENCE: Duration = Duration::from_millis(2);
/// Who asks for a file that a helper has looked at for so long sees to it that nothing else waits behind that one.
const LONG: Duration = Duration::from_secs(1);
/// How long a request for a file in memory waits for the disk when memory may not answer any more.
const HOPELESS: Duration = Duration::from_secs(2);
/// Memory stops answering for a disk that has said nothing for so long: the file's state is anybody's guess then.
const STALE_LIMIT_MS: u64 = 60_000;
