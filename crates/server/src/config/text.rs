//! The configuration as typed: the keys of `amped.toml`, their types and their descriptions.
//!
//! Goal: one place says what can be typed; the reader, the JSON Schema and its descriptions come
//! from it. What a value means, and whether it can be, is for `check`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::choice::{Architecture, DiskMode, DriverChoice, LogFormat, Priority, Symlinks};
use super::network::Network;
use super::pattern::Pattern;
use super::template::Template;
use super::typed::{At, OneOrMany, Pairs, Word};
use super::units::{Listen, Size, Wait};

/// The configuration of amped. Relative paths start at the folder of this file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "amped.toml")]
pub struct FileText {
    /// Addresses to listen on: `127.0.0.1:8080`, `[::1]:8080`, or `:8080` for every IPv4 address.
    #[schemars(extend("default" = "127.0.0.1:8080"))]
    pub listen: Option<OneOrMany<Listen>>,
    /// How connections are shared out over loops, threads and processes. Default: `amped` with one
    /// worker, `symped` with more, `mt` with the driver `blocking`.
    pub architecture: Option<At<Word<Architecture>>>,
    /// Worker threads, each with its own event loop, 1 to 1024. Default: the cores this process
    /// may use; with `mt` threads, with `mp` processes, one for each connection, and 64.
    #[schemars(range(min = 1, max = 1024))]
    pub workers: Option<At<i64>>,
    /// The system interface of the event loops.
    #[schemars(extend("default" = "auto"))]
    pub driver: Option<At<Word<DriverChoice>>>,
    /// Where work that may wait on the disk is done.
    #[schemars(extend("default" = "amped"))]
    pub disk: Option<At<Word<DiskMode>>>,
    /// Budget of the memory cache; 0 turns it off. Default: an eighth of the memory this process may use.
    pub cache: Option<At<Word<Size>>>,
    /// How long a cached file is trusted before it is looked at again, up to 1h; 0: every time.
    #[schemars(extend("default" = "1s"))]
    pub revalidate: Option<At<Word<Wait>>>,
    /// Whether the kernel is asked to tell of changes in folders, so that their files are looked at less often than `revalidate` says.
    #[schemars(extend("default" = true))]
    pub watch_folders: Option<At<bool>>,
    /// Disk helper threads, 1 to 1024.
    #[schemars(range(min = 1, max = 1024), extend("default" = 32))]
    pub helpers: Option<At<i64>>,
    /// Disk jobs that may wait for a helper, 1 to 1000000; beyond it requests are answered 503.
    #[schemars(range(min = 1, max = 1_000_000), extend("default" = 1024))]
    pub helper_queue: Option<At<i64>>,
    /// Whether requests for the same file share one helper job; `false` is for comparison.
    #[schemars(extend("default" = true))]
    pub shared_jobs: Option<At<bool>>,
    /// Where the access log goes: `off`, `stderr`, or the path of a file.
    #[schemars(extend("default" = "off"))]
    pub access_log: Option<At<String>>,
    /// How a line of the access log is written.
    #[schemars(extend("default" = "combined"))]
    pub access_log_format: Option<At<Word<LogFormat>>>,
    /// Where the dashboard, metrics and health are served: `ADDR:PORT` or `unix:PATH`. Default: nowhere.
    pub admin: Option<At<String>>,
    /// What one must know to ask there: 16 to 256 letters, digits or `-._~+/=`. Needed where other machines can reach the
    /// address. Default: the environment variable `AMPED_ADMIN_TOKEN`, if it is set.
    pub admin_token: Option<At<String>>,
    /// Whom the server becomes when it has bound its addresses: a name, or `UID:GID`. Default: it stays who it is; as root it
    /// then serves this machine alone.
    pub user: Option<At<String>>,
    /// Whether the server may open its folders (to read) and its log (to write) alone, where the kernel has Landlock.
    /// What memory has not costs about an eighth more processor time then.
    #[schemars(extend("default" = false))]
    pub sandbox: Option<At<bool>>,
    /// The largest core file that a crash may leave, for the server's processes; 0: none. Default: what they are started with.
    pub core_limit: Option<At<Word<Size>>>,
    /// Timeouts and bounds of a connection.
    pub limits: LimitsText,
    /// When there is too much to do: what is answered, and from when on.
    pub overload: OverloadText,
    /// What one client may have: an IPv4 address, or a /64 of IPv6. Nothing is limited by default.
    pub clients: ClientsText,
    /// The sites. A request goes to the site that names its host, else to the site without names,
    /// else to the first.
    pub sites: Vec<At<SiteText>>,
}

/// Timeouts and bounds of a connection.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsText {
    /// An idle keep-alive connection is closed after this, 1ms to 24h.
    #[schemars(extend("default" = "60s"))]
    pub idle_timeout: Option<At<Word<Wait>>>,
    /// A request's head must be complete this long after its first byte, 1ms to 24h.
    #[schemars(extend("default" = "10s"))]
    pub head_timeout: Option<At<Word<Wait>>>,
    /// An answer of which the client takes no byte for this long is given up, 1ms to 24h.
    #[schemars(extend("default" = "60s"))]
    pub write_timeout: Option<At<Word<Wait>>>,
    /// A request's body of which no byte comes for this long is given up, 1ms to 24h.
    #[schemars(extend("default" = "30s"))]
    pub body_timeout: Option<At<Word<Wait>>>,
    /// Bytes per second of a request's body, averaged over `body_timeout`; 0: any pace.
    #[schemars(extend("default" = "240"))]
    pub min_body_rate: Option<At<Word<Size>>>,
    /// Bytes per second that a client takes of an answer, averaged over `write_timeout`; 0: any
    /// pace.
    #[schemars(extend("default" = "240"))]
    pub min_send_rate: Option<At<Word<Size>>>,
    /// A peer that does not answer the kernel's questions for this long is taken for dead, 1s to
    /// 24h.
    #[schemars(extend("default" = "60s"))]
    pub dead_peer_timeout: Option<At<Word<Wait>>>,
    /// At shutdown, answers under way may go on for this long, up to 24h; 0: not at all.
    #[schemars(extend("default" = "30s"))]
    pub drain_timeout: Option<At<Word<Wait>>>,
    /// An unwanted request body up to this size is read and discarded to keep the connection.
    #[schemars(extend("default" = "1MiB"))]
    pub max_body: Option<At<Word<Size>>>,
    /// Connections at one time, at least 1. Default: as the limit on open files allows.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_connections: Option<At<i64>>,
}

/// When there is too much to do: what is answered, and from when on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OverloadText {
    /// A small file, at most 64KiB, that is the body of the 503; it is kept in memory.
    pub body: Option<At<String>>,
    /// Seconds in the `Retry-After` of the 503, 0 to 86400; up to half as many are added at random.
    #[schemars(range(min = 0, max = 86400), extend("default" = 1))]
    pub retry_after: Option<At<i64>>,
    /// A disk job waits so long for a helper at most, once the queue does not drain: 1ms to 1h.
    #[schemars(extend("default" = "1s"))]
    pub disk_delay: Option<At<Word<Wait>>>,
    /// A turn of an event loop takes so long at most, once it does so time after time: 1ms to 1h.
    #[schemars(extend("default" = "10ms"))]
    pub loop_delay: Option<At<Word<Wait>>>,
    /// A connection that has idled for less is not ended to make room, 1ms to 24h.
    #[schemars(extend("default" = "5s"))]
    pub reap_idle: Option<At<Word<Wait>>>,
}

/// What one client may have: an IPv4 address, or a /64 of IPv6.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClientsText {
    /// Connections at one time, 1 to 1000000. Default: any number.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub connections: Option<At<i64>>,
    /// Requests per second in the long run, 1 to 1000000; beyond it: 429. Default: any number.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: Option<At<i64>>,
    /// Requests at once after a pause, 1 to 1000000. Default: those of one second.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: Option<At<i64>>,
    /// Addresses and networks that are not limited: `192.0.2.7`, `10.0.0.0/8`, `2001:db8::/32`.
    pub trusted: Option<OneOrMany<Network>>,
}

/// One site: the host names it answers to, and what is found there.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SiteText {
    /// Host names without port; `*.example.org` is every name below it. Without names: the site
    /// for every other host.
    pub names: Option<OneOrMany<String>>,
    /// The folder whose files are served where no route says otherwise.
    pub root: Option<At<String>>,
    /// Names tried in a folder, in this order.
    #[schemars(extend("default" = ["index.html"]))]
    pub index: Option<OneOrMany<String>>,
    /// Which symbolic links are followed.
    #[schemars(extend("default" = "within"))]
    pub symlinks: Option<At<Word<Symlinks>>>,
    /// Whether names that start with a dot are served.
    #[schemars(extend("default" = false))]
    pub hidden: Option<At<bool>>,
    /// Files that are the bodies of error answers, by status; relative to the root.
    pub error_pages: Pairs,
    /// Paths that are answered another way. An exact path is tried first, then the longest
    /// `/a/*`, then the other patterns in order of appearance, then `/*`.
    pub routes: Vec<At<RouteText>>,
    /// Fields added to answers, by path. All blocks that match apply; a later one wins.
    pub headers: Vec<At<HeadersText>>,
}

/// A pattern of paths and what answers them: one of `root`, `redirect`, `status`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteText {
    /// The paths: `/a`, `/a/*`, `*.png`, `/a/*.js`. A star stands for anything, slashes too.
    pub r#match: At<Word<Pattern>>,
    /// A folder whose files are served; for `/a/*`, what follows `/a` is looked up in it.
    pub root: Option<At<String>>,
    /// Names tried in a folder, in this order. Default: the site's.
    pub index: Option<OneOrMany<String>>,
    /// Which symbolic links are followed. Default: the site's.
    pub symlinks: Option<At<Word<Symlinks>>>,
    /// Whether names that start with a dot are served. Default: the site's.
    pub hidden: Option<At<bool>>,
    /// Where the client is sent: `https://example.org{path}{query}`, `/new/{rest}`.
    pub redirect: Option<At<Word<Template>>>,
    /// Of a redirect: 301, 302, 303, 307 or 308 (default 302). Else the status to answer with.
    #[schemars(range(min = 200, max = 599))]
    pub status: Option<At<i64>>,
    /// The text that is answered with `status`.
    pub body: Option<At<String>>,
    /// Fields added to the answers of this route; they win over the site's.
    #[serde(default)]
    pub headers: Pairs,
    /// The `Cache-Control` of the answers of this route.
    pub cache_control: Option<At<String>>,
    /// How soon its requests are refused when there is too much to do.
    #[schemars(extend("default" = "normal"))]
    pub priority: Option<At<Word<Priority>>>,
}

/// Fields added to answers whose path matches.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeadersText {
    /// The paths: `/a`, `/a/*`, `*.png`, `/a/*.js`. A star stands for anything, slashes too.
    pub r#match: At<Word<Pattern>>,
    /// Field names and values.
    #[serde(default)]
    pub set: Pairs,
    /// The `Cache-Control` of these paths.
    pub cache_control: Option<At<String>>,
}
