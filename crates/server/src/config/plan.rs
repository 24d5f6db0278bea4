//! The configuration as meant: every default filled in, every mistake already refused.
//!
//! Goal: workers share one `Arc<Plan>` and read plain fields; nothing here is parsed, allocated or
//! checked again while serving. Cost: a reload builds a new plan and swaps the pointer.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use amped_runtime::process::memory_limit;

pub use super::admin::Secret;
use super::architecture::{Shape, Wish};
pub use super::choice::{AccessLog, Architecture, DiskMode, DriverChoice, LogFormat, Priority, Symlinks};
use super::network::Network;
pub use super::pattern::Pattern;
pub use super::template::{Parts, Template};
pub use super::user::User;

/// Everything one server process does, checked and immutable.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Addresses to listen on; never empty, no two alike.
    pub listen: Vec<SocketAddr>,
    /// How connections are shared out.
    pub architecture: Architecture,
    /// Worker threads, each with its own loop, or processes; at least 1.
    pub workers: usize,
    /// The system interface of the loops.
    pub driver: DriverChoice,
    /// Where work that may wait on the disk is done.
    pub disk: DiskMode,
    /// Budget of the memory cache in bytes, for the whole process; 0 turns it off.
    pub cache_bytes: u64,
    /// How long a cached entry is trusted before the file is looked at again.
    pub revalidate: Duration,
    /// Whether the kernel is asked to tell of changes (inotify).
    pub watch_folders: bool,
    /// Disk helper threads, for the whole process; at least 1.
    pub helpers: usize,
    /// Disk jobs that may wait for a helper; beyond it a request is answered 503.
    pub helper_queue: usize,
    /// Whether requests for the same file share one helper job.
    pub shared_jobs: bool,
    /// Where the access log goes.
    pub access_log: AccessLog,
    /// Timeouts and bounds of a connection.
    pub limits: Limits,
    /// The sites, in order of appearance; never empty, each with at least one route.
    pub sites: Vec<Site>,
    /// What a 503 of the overloaded disk carries instead of a line of text.
    pub overload_body: Option<OverloadBody>,
    /// The least seconds in the `Retry-After` of such a 503; it is up to half as many more, so that not all come back at once.
    pub retry_after: u32,
    /// What delays are aimed at, and what is reaped.
    pub overload: Overload,
    /// What one client may have.
    pub clients: ClientLimits,
    /// The admin address: `ADDR:PORT` or `unix:PATH`.
    pub admin: Option<String>,
    /// What one must know to ask there; always there when other machines can reach the address.
    pub admin_token: Option<Secret>,
    /// Whom the server becomes when it has bound its addresses; `None`: it stays who it is.
    pub user: Option<User>,
    /// Whether the server may open its folders and its log alone, where the kernel has Landlock.
    pub sandbox: bool,
    /// The largest core file in bytes, 0 for none; `None`: what the process was started with.
    pub core_limit: Option<u64>,
}

/// Timeouts and bounds of a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// An idle keep-alive connection is closed after this.
    pub idle_timeout: Duration,
    /// A request's head must be complete this long after its first byte.
    pub head_timeout: Duration,
    /// An answer of which the client takes no byte for this long is given up.
    pub write_timeout: Duration,
    /// A request's body of which no byte comes for this long is given up.
    pub body_timeout: Duration,
    /// Bytes per second of a request's body, averaged over `body_timeout`; 0: any pace.
    pub min_body_rate: u64,
    /// Bytes per second that a client takes of an answer, averaged over `write_timeout`; 0: any pace.
    pub min_send_rate: u64,
    /// A peer that does not answer the kernel's questions for this long is taken for dead.
    pub dead_peer_timeout: Duration,
    /// At shutdown, answers under way may go on for this long.
    pub drain_timeout: Duration,
    /// Bytes of an unwanted request body that are read and discarded to keep the connection.
    pub max_body: u64,
    /// Connections at one time, for the whole process; `None`: as the descriptor limit allows.
    pub max_connections: Option<usize>,
}

/// When there is too much to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Overload {
    /// A disk job may wait so long for a helper before that is too long.
    pub disk_delay: Duration,
    /// A turn of a loop may take so long before that is too long.
    pub loop_delay: Duration,
    /// A connection that has idled for less is not ended to make room.
    pub reap_idle: Duration,
}

/// What one client may have: an IPv4 address, or a /64 of IPv6.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClientLimits {
    /// Connections at one time; `None`: as many as it likes.
    pub connections: Option<u32>,
    /// Requests per second, in the long run; `None`: as many as it likes.
    pub requests: Option<u32>,
    /// Requests at once, after a pause; at least 1 where there is a rate.
    pub burst: u32,
    /// Who may have what it likes.
    pub trusted: Vec<Network>,
}

/// One site: the host names it answers to, and what is found there.
#[derive(Debug, Clone, PartialEq)]
pub struct Site {
    /// Host names in lower case without port; `*.example.org` is every name below it.
    /// Empty: the site for every host that no other site names.
    pub names: Vec<String>,
    /// What answers which path, in order of appearance. `Router` applies the precedence.
    pub routes: Vec<Route>,
    /// Fields for whatever path they match, whichever route answers; in order of appearance.
    pub headers: Vec<HeaderRule>,
    /// Status and absolute path of the file that is its body.
    pub error_pages: Vec<(u16, PathBuf)>,
}

/// One pattern of paths and what answers them.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// The paths it is for.
    pub pattern: Pattern,
    /// What answers.
    pub action: Action,
    /// Fields of this route alone; they come after the site's and win over them.
    /// Read them through [`Site::fields_for`].
    pub headers: Vec<(String, String)>,
    /// `Cache-Control` of this route alone.
    pub cache_control: Option<String>,
    /// How soon its requests are refused when there is too much to do.
    pub priority: Priority,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Serve files below a folder.
    Files(FilesPlan),
    /// Send the client elsewhere.
    Redirect {
        /// The `Location`, once filled.
        to: Template,
        /// One of 301, 302, 303, 307, 308.
        status: u16,
    },
    /// Answer with a status and a fixed body.
    Status {
        /// 200 to 599, but for 304.
        code: u16,
        /// `text/plain` body; `None`: the site's error page or amped's own line.
        body: Option<Arc<str>>,
    },
}

/// How files below a folder are served.
#[derive(Debug, Clone, PartialEq)]
pub struct FilesPlan {
    /// The folder; absolute, checked to be one at load.
    pub root: PathBuf,
    /// Bytes of the decoded path to leave out before it is looked up below `root`: 0 for a site's
    /// own files; for the route `/media/*` the length of `/media`, so that what is left starts
    /// with its slash.
    pub strip: usize,
    /// Names tried in a folder, in this order.
    pub index: Vec<String>,
    /// Which symbolic links are followed.
    pub symlinks: Symlinks,
    /// Whether names that start with a dot are served.
    pub hidden: bool,
}

/// Fields set on every answer whose path matches.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderRule {
    /// The paths it is for.
    pub pattern: Pattern,
    /// Field names and values, valid as they stand.
    pub set: Vec<(String, String)>,
    /// `Cache-Control` of these paths.
    pub cache_control: Option<String>,
}

/// The small body of an overloaded disk's 503, held in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct OverloadBody {
    /// Where it was read from; its ending tells the media type.
    pub path: PathBuf,
    /// At most [`OverloadBody::MAX_BYTES`].
    pub bytes: Arc<[u8]>,
}

/// The fields that configuration adds to one answer.
#[derive(Debug, Default, PartialEq)]
pub struct Fields<'a> {
    /// Names and values, no name twice (compared without case).
    pub set: Vec<(&'a str, &'a str)>,
    /// The `Cache-Control` value.
    pub cache_control: Option<&'a str>,
}

impl Plan {
    /// What `amped serve DIR` means. The folder is not looked at: see `config::check_folder`.
    pub fn for_folder(dir: &Path) -> Plan {
        let root = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
        Plan { sites: vec![Site::for_folder(&root)], ..Plan::default() }
    }

    /// Whether a worker serves a connection to its end before it accepts another.
    pub fn serves_one_by_one(&self) -> bool {
        matches!(self.architecture, Architecture::Mt | Architecture::Mp)
    }

    /// The same with another architecture and what goes with it.
    pub fn with_shape(self, shape: Shape) -> Plan {
        let Shape { architecture, driver, disk, workers } = shape;
        Plan { architecture, driver, disk, workers, ..self }
    }
}

impl Default for Plan {
    /// The defaults of every key, with no site.
    fn default() -> Plan {
        let Shape { architecture, driver, disk, workers } = Wish::default().settle().expect("no wish, no conflict");
        Plan {
            listen: vec![Plan::DEFAULT_LISTEN],
            architecture,
            workers,
            driver,
            disk,
            cache_bytes: default_cache(),
            revalidate: Duration::from_secs(1),
            watch_folders: true,
            helpers: 32,
            helper_queue: 1024,
            shared_jobs: true,
            access_log: AccessLog::Off,
            limits: Limits::default(),
            sites: Vec::new(),
            overload_body: None,
            retry_after: 1,
            overload: Overload::default(),
            clients: ClientLimits::default(),
            admin: None,
            admin_token: None,
            user: None,
            sandbox: false,
            core_limit: None,
        }
    }
}

/// A part of the memory that this process may use, in whole megabytes. The same whenever it is asked: a control group's limit may change,
/// and a reload would take that for another wish.
fn default_cache() -> u64 {
    static CACHE: OnceLock<u64> = OnceLock::new();
    *CACHE.get_or_init(|| memory_limit().map_or(UNKNOWN_CACHE, |limit| limit / CACHE_PART / MEGABYTE * MEGABYTE))
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            idle_timeout: Duration::from_secs(60),
            head_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            min_body_rate: 240,
            min_send_rate: 240,
            dead_peer_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(30),
            max_body: 1024 * 1024,
            max_connections: None,
        }
    }
}

impl Default for Overload {
    fn default() -> Overload {
        Overload {
            disk_delay: Duration::from_secs(1),
            loop_delay: Duration::from_millis(10),
            reap_idle: Duration::from_secs(5),
        }
    }
}

impl ClientLimits {
    /// Whether there is any.
    pub fn is_set(&self) -> bool {
        self.connections.is_some() || self.requests.is_some()
    }

    /// Whether a client may have what it likes.
    pub fn trusts(&self, address: std::net::IpAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(address))
    }
}

impl Site {
    /// A site for every host that serves the files below `root` (absolute).
    pub fn for_folder(root: &Path) -> Site {
        let files = FilesPlan::new(root.to_path_buf());
        let route = Route::new(Pattern::everything(), Action::Files(files));
        let found = root.join("404.html");
        let error_pages = if found.is_file() { vec![(404, found)] } else { Vec::new() };
        Site { names: Vec::new(), routes: vec![route], headers: Vec::new(), error_pages }
    }

    /// What it is called where it is counted: its first name, `default` without any.
    pub fn name(&self) -> String {
        self.names.first().map_or("default", String::as_str).to_owned()
    }

    /// The fields that configuration adds to the answer that `route` gives for `path` (decoded).
    ///
    /// Every matching block applies, in order of appearance, then the route's own; where two set
    /// the same name, the later one wins. Allocates: call it when a head is built, not per hit.
    pub fn fields_for<'a>(&'a self, route: &'a Route, path: &[u8]) -> Fields<'a> {
        let mut fields = Fields::default();
        for rule in self.headers.iter().filter(|rule| rule.pattern.matches(path)) {
            fields.add(&rule.set, rule.cache_control.as_deref());
        }
        fields.add(&route.headers, route.cache_control.as_deref());
        fields
    }

    /// The file of the site's own page for a status.
    pub fn error_page(&self, status: u16) -> Option<&Path> {
        self.error_pages.iter().find(|(code, _)| *code == status).map(|(_, path)| path.as_path())
    }
}

impl Route {
    /// A route that sets no fields.
    pub fn new(pattern: Pattern, action: Action) -> Route {
        Route { pattern, action, headers: Vec::new(), cache_control: None, priority: Priority::Normal }
    }
}

impl FilesPlan {
    /// The files below `root`, with the defaults.
    pub fn new(root: PathBuf) -> FilesPlan {
        let index = vec!["index.html".to_owned()];
        FilesPlan { root, strip: 0, index, symlinks: Symlinks::Within, hidden: false }
    }
}

impl<'a> Fields<'a> {
    fn add(&mut self, set: &'a [(String, String)], cache_control: Option<&'a str>) {
        for (name, value) in set {
            self.set.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
            self.set.push((name, value));
        }
        self.cache_control = cache_control.or(self.cache_control);
    }
}

impl Plan {
    /// Where `amped` listens when nobody says otherwise: this machine alone can reach it.
    pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
}

/// The memory cache takes one part of so many unless it is told otherwise. Of small files that are kept here the kernel may drop its own copy, so
/// little is lost where memory is short; and what is found here need not be opened, read and closed for each request.
const CACHE_PART: u64 = 8;
/// The cache where the system does not say how much memory there is.
const UNKNOWN_CACHE: u64 = 256 * MEGABYTE;
const MEGABYTE: u64 = 1_000_000;

impl OverloadBody {
    /// It must fit one socket buffer, so that sending it never waits.
    pub const MAX_BYTES: u64 = 64 * 1024;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_fields_win_whatever_their_case() {
        let mut site = Site::for_folder(Path::new("/nowhere"));
        for (pattern, value, cache) in [("*", "a", Some("no-store")), ("*.png", "b", None)] {
            site.headers.push(HeaderRule {
                pattern: Pattern::parse(pattern).unwrap(),
                set: vec![("X-Where".into(), value.into())],
                cache_control: cache.map(str::to_owned),
            });
        }
        site.routes[0].headers.push(("x-own".into(), "1".into()));
        let image = site.fields_for(&site.routes[0], b"/a.png");
        assert_eq!(image.set, [("X-Where", "b"), ("x-own", "1")]);
        assert_eq!(image.cache_control, Some("no-store"));
        site.routes[0].headers.push(("x-WHERE".into(), "c".into()));
        let page = site.fields_for(&site.routes[0], b"/a.html");
        assert_eq!(page.set, [("x-own", "1"), ("x-WHERE", "c")]);
    }

    #[test]
    fn the_cache_takes_a_part_of_the_memory() {
        let limit = memory_limit().expect("Linux says how much memory there is");
        let cache = Plan::default().cache_bytes;
        assert!(cache <= limit / 8 && cache + MEGABYTE > limit / 8, "{cache} of {limit}");
        assert_eq!(Plan::default(), Plan::default());
    }

    #[test]
    fn a_plan_can_be_shared() {
        fn shared<T: Send + Sync>(_: &T) {}
        let plan = Plan::for_folder(Path::new("."));
        shared(&plan);
        assert!(plan.workers >= 1 && plan.sites[0].routes.len() == 1);
    }
}
