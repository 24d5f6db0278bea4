//! From what was typed to what is meant: defaults filled in, every mistake collected.
//!
//! Goal: one run shows all mistakes of a file, each at its line. Cost: looks at the folders and
//! files that the configuration names; nothing is opened but the overload body.

mod fields;
mod hosts;
mod overload;
mod routes;
mod site;

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::admin::{self, Secret};
use super::architecture::{Conflict, Shape, Wish, With};
use super::choice::{AccessLog, LogFormat};
use super::plan::{Limits, Plan};
use super::problem::Problem;
use super::text::{FileText, LimitsText};
use super::typed::{At, OneOrMany, Word};
use super::units::{Listen, Size, Wait};
use super::user::User;

/// The plan of a file that stands in the folder `base`, or all its mistakes.
pub fn check(text: &FileText, base: &Path) -> Result<Plan, Vec<Problem>> {
    let mut check = Check { base: base.to_path_buf(), problems: Vec::new() };
    let plan = check.plan(text);
    if check.problems.is_empty() { Ok(plan) } else { Err(check.problems) }
}

/// Whether a path is a folder that can be served; the error says what it is instead.
pub fn check_folder(path: &Path) -> Result<(), String> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(format!("`{shown}` is not a folder: expected the folder to serve")),
        Err(error) => Err(format!("`{shown}` cannot be served: {}", reason(&error))),
    }
}

/// A check under way. Its methods answer with a default where they find a mistake.
struct Check {
    base: PathBuf,
    problems: Vec<Problem>,
}

impl Check {
    fn plan(&mut self, text: &FileText) -> Plan {
        let default = Plan::default();
        let format = self.word(&text.access_log_format).unwrap_or_default();
        let Shape { architecture, driver, disk, workers } = self.shape(text);
        let admin_token = self.admin_token(&text.admin_token);
        Plan {
            listen: self.listen(text.listen.as_ref()),
            architecture,
            workers,
            driver,
            disk,
            cache_bytes: self.size(&text.cache, default.cache_bytes),
            revalidate: self.wait(&text.revalidate, NONE..=HOUR, default.revalidate),
            helpers: self.count(&text.helpers, "helpers", 1..=1024, default.helpers),
            helper_queue: self.count(&text.helper_queue, "helper_queue", 1..=1_000_000, default.helper_queue),
            watch_folders: text.watch_folders.as_ref().map_or(default.watch_folders, |typed| typed.value),
            shared_jobs: text.shared_jobs.as_ref().map_or(default.shared_jobs, |typed| typed.value),
            access_log: self.access_log(&text.access_log, format),
            limits: self.limits(&text.limits),
            sites: self.sites(&text.sites),
            overload_body: self.overload_body(&text.overload),
            retry_after: self.count(&text.overload.retry_after, "retry_after", 0..=86400, default.retry_after),
            overload: self.overload(&text.overload),
            clients: self.clients(&text.clients),
            admin: self.admin(&text.admin, admin_token.as_ref()),
            admin_token,
            user: self.user(&text.user),
            sandbox: text.sandbox.as_ref().map_or(default.sandbox, |typed| typed.value),
            core_limit: self.word(&text.core_limit).map(|Size(bytes)| bytes),
        }
    }

    fn shape(&mut self, text: &FileText) -> Shape {
        let wish = Wish {
            architecture: self.word(&text.architecture),
            driver: self.word(&text.driver),
            disk: self.word(&text.disk),
            workers: text.workers.as_ref().map(|_| self.count(&text.workers, "workers", 1..=1024, 1)),
        };
        wish.settle().unwrap_or_else(|Conflict { with, sentence }| {
            let span = match with {
                With::Driver => text.driver.as_ref().map(|typed| typed.span.clone()),
                With::Disk => text.disk.as_ref().map(|typed| typed.span.clone()),
                With::Workers => text.workers.as_ref().map(|typed| typed.span.clone()),
            };
            self.problems.push(Problem { span, ..Problem::whole(sentence) });
            Wish::default().settle().expect("no wish, no conflict")
        })
    }

    fn limits(&mut self, text: &LimitsText) -> Limits {
        let default = Limits::default();
        Limits {
            idle_timeout: self.wait(&text.idle_timeout, SHORT..=DAY, default.idle_timeout),
            head_timeout: self.wait(&text.head_timeout, SHORT..=DAY, default.head_timeout),
            write_timeout: self.wait(&text.write_timeout, SHORT..=DAY, default.write_timeout),
            body_timeout: self.wait(&text.body_timeout, SHORT..=DAY, default.body_timeout),
            min_body_rate: self.size(&text.min_body_rate, default.min_body_rate),
            min_send_rate: self.size(&text.min_send_rate, default.min_send_rate),
            dead_peer_timeout: self.wait(&text.dead_peer_timeout, SECOND..=DAY, default.dead_peer_timeout),
            drain_timeout: self.wait(&text.drain_timeout, NONE..=DAY, default.drain_timeout),
            max_body: self.size(&text.max_body, default.max_body),
            max_connections: text.max_connections.as_ref().map(|typed| {
                let typed = Some(typed.clone());
                self.count(&typed, "max_connections", 1..=100_000_000, 1)
            }),
        }
    }

    fn listen(&mut self, typed: Option<&OneOrMany<Listen>>) -> Vec<SocketAddr> {
        let Some(OneOrMany(typed)) = typed else {
            return vec![Plan::DEFAULT_LISTEN];
        };
        let mut listen = Vec::new();
        for word in typed {
            let Some(Listen(address)) = self.read(word) else {
                continue;
            };
            if listen.contains(&address) && address.port() != 0 {
                self.wrong(word, format!("`{address}` stands here twice: leave one out"));
            }
            listen.push(address);
        }
        if typed.is_empty() {
            self.problems.push(Problem::whole("`listen` is an empty list: name an address, or leave the key out"));
        }
        listen
    }

    fn access_log(&mut self, typed: &Option<At<String>>, format: LogFormat) -> AccessLog {
        let Some(typed) = typed else {
            return AccessLog::Off;
        };
        if matches!(typed.value.as_str(), "off" | "stderr") {
            return AccessLog::from_word(&typed.value, format);
        }
        let path = self.base.join(&typed.value);
        let folder = path.parent().unwrap_or(Path::new("/"));
        if typed.value.is_empty() || !folder.is_dir() || path.is_dir() {
            let shown = path.display();
            self.wrong(
                typed,
                format!("`{shown}` cannot be written: name a file in a folder that exists, `stderr` or `off`"),
            );
        }
        AccessLog::File { path, format }
    }

    fn admin(&mut self, typed: &Option<At<String>>, token: Option<&Secret>) -> Option<String> {
        let typed = typed.as_ref()?;
        let address = match typed.value.strip_prefix("unix:") {
            Some(path) if !path.is_empty() => format!("unix:{}", self.base.join(path).display()),
            _ => typed.value.clone(),
        };
        let settled = admin::settle(&address, token);
        settled.map_err(|sentence| self.wrong(typed, sentence)).ok()
    }

    fn user(&mut self, typed: &Option<At<String>>) -> Option<User> {
        let typed = typed.as_ref()?;
        User::parse(&typed.value).map_err(|sentence| self.wrong(typed, sentence)).ok()
    }

    fn admin_token(&mut self, typed: &Option<At<String>>) -> Option<Secret> {
        match typed {
            Some(typed) => Secret::parse(&typed.value).map_err(|sentence| self.wrong(typed, sentence)).ok(),
            None => Secret::from_environment().unwrap_or_else(|sentence| {
                self.problems.push(Problem::whole(sentence));
                None
            }),
        }
    }

    fn size(&mut self, typed: &Option<At<Word<Size>>>, default: u64) -> u64 {
        self.word(typed).map_or(default, |Size(bytes)| bytes)
    }

    fn wait(&mut self, typed: &Option<At<Word<Wait>>>, range: RangeInclusive<Duration>, default: Duration) -> Duration {
        let (Some(typed), Some(Wait(wait))) = (typed, self.word(typed)) else {
            return default;
        };
        if !range.contains(&wait) {
            let (least, most) = (range.start(), range.end());
            self.wrong(typed, format!("this is out of range: expected {least:?} to {most:?}"));
        }
        wait
    }

    /// A whole number within a range, as whatever type the plan has.
    fn count<T: TryFrom<i64>>(
        &mut self,
        typed: &Option<At<i64>>,
        key: &str,
        range: RangeInclusive<i64>,
        default: T,
    ) -> T {
        let Some(typed) = typed else { return default };
        if !range.contains(&typed.value) {
            let (value, least, most) = (typed.value, range.start(), range.end());
            self.wrong(typed, format!("`{key}` cannot be {value}: expected {least} to {most}"));
        }
        T::try_from(typed.value).unwrap_or(default)
    }

    fn word<T: FromStr<Err = String>>(&mut self, typed: &Option<At<Word<T>>>) -> Option<T> {
        typed.as_ref().and_then(|typed| self.read(typed))
    }

    fn read<T: FromStr<Err = String>>(&mut self, typed: &At<Word<T>>) -> Option<T> {
        typed.value.read().map_err(|sentence| self.wrong(typed, sentence)).ok()
    }

    fn wrong<T>(&mut self, typed: &At<T>, sentence: impl AsRef<str>) {
        self.problems.push(Problem::at(&typed.span, sentence));
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "it does not exist".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

const NONE: Duration = Duration::ZERO;
const SECOND: Duration = Duration::from_secs(1);
const SHORT: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
