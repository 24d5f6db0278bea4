//! Whole files: what they mean. How their mistakes are shown, and whether the documents tell the
//! truth, stand beside.

mod documents;
mod mistakes;

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::plan::{AccessLog, Action, DriverChoice, FilesPlan, LogFormat, Symlinks};

/// A file of one good site, to put other keys before or after.
const SITE: &str = "[[sites]]\nroot = \"site\"\n";

#[test]
fn a_site_alone_is_the_defaults() {
    let plan = meant(SITE);
    let expected = Plan { sites: plan.sites.clone(), ..Plan::default() };
    assert_eq!(plan, expected);
    assert_eq!(plan.sites[0].names, Vec::<String>::new());
    let Action::Files(files) = &plan.sites[0].routes[0].action else { panic!("not files") };
    assert_eq!(files, &FilesPlan::new(examples().join("site")));
}

#[test]
fn every_key_reaches_the_plan() {
    let plan = meant(
        r#"
        listen = [":8080", "[::1]:8081"]
        workers = 3
        driver = "poll"
        disk = "inline"
        cache = "1GiB"
        revalidate = "500ms"
        helpers = 4
        helper_queue = 10
        watch_folders = false
        shared_jobs = false
        access_log = "stderr"
        access_log_format = "json"
        admin = "127.0.0.1:9000"
        core_limit = "1GB"
        [limits]
        idle_timeout = "1m"
        head_timeout = "2s"
        write_timeout = "3s"
        drain_timeout = "0"
        max_body = "64KB"
        max_connections = 100
        [overload]
        body = "site/favicon.svg"
        retry_after = 5
        [[sites]]
        names = ["Example.org.", "*.example.org"]
        root = "site"
        symlinks = "never"
        hidden = true
        index = ["a.html", "b.html"]
        error_pages = { 404 = "404.html" }
        "#,
    );
    assert_eq!(plan.listen, ["0.0.0.0:8080".parse().unwrap(), "[::1]:8081".parse().unwrap()]);
    assert_eq!((plan.workers, plan.helpers, plan.helper_queue, plan.retry_after), (3, 4, 10, 5));
    assert!(!plan.shared_jobs && !plan.watch_folders);
    assert_eq!(plan.core_limit, Some(1_000_000_000));
    assert_eq!(plan.driver, DriverChoice::Poll);
    assert_eq!((plan.cache_bytes, plan.limits.max_body), (1 << 30, 64_000));
    assert_eq!(plan.revalidate, Duration::from_millis(500));
    assert_eq!(plan.access_log, AccessLog::Stderr { format: LogFormat::Json });
    assert_eq!(plan.limits.drain_timeout, Duration::ZERO);
    assert_eq!(plan.limits.max_connections, Some(100));
    assert!(plan.overload_body.is_some_and(|body| !body.bytes.is_empty()));
    assert_eq!(plan.admin.as_deref(), Some("127.0.0.1:9000"));
    let site = &plan.sites[0];
    assert_eq!(site.names, ["example.org", "*.example.org"]);
    assert_eq!(site.error_page(404), Some(examples().join("site/404.html").as_path()));
    let Action::Files(files) = &site.routes[0].action else { panic!("not files") };
    assert_eq!((files.symlinks, files.hidden, files.index.len()), (Symlinks::Never, true, 2));
}

#[test]
fn a_route_of_files_takes_from_its_site_and_gets_its_slash() {
    let plan = meant("[[sites]]\nhidden = true\n[[sites.routes]]\nmatch = \"/pictures/*\"\nroot = \"site\"\n");
    let [files, slash] = plan.sites[0].routes.as_slice() else { panic!("two routes") };
    let Action::Files(found) = &files.action else { panic!("not files") };
    assert_eq!((found.strip, found.hidden), ("/pictures".len(), true));
    assert_eq!(slash.pattern.as_str(), "/pictures");
    assert!(matches!(slash.action, Action::Redirect { status: 301, .. }));
}

fn meant(text: &str) -> Plan {
    parse(text, Path::new("amped.toml"), &examples()).unwrap_or_else(|report| panic!("{report}"))
}

fn report(text: &str) -> String {
    parse(text, Path::new("amped.toml"), &examples()).unwrap_err().to_string()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}
