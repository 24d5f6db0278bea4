//! Whole files: what they mean, how their mistakes are shown, and that the examples, the manual
//! and the schema are true.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::config::plan::{AccessLog, Action, DriverChoice, FilesPlan, LogFormat, Symlinks};

/// A file of one good site, to put other keys before or after.
const SITE: &str = "[[sites]]\nroot = \"site\"\n";

#[test]
fn a_site_alone_is_the_defaults() {
    let plan = meant(SITE);
    let expected = Plan {
        sites: plan.sites.clone(),
        ..Plan::default()
    };
    assert_eq!(plan, expected);
    assert_eq!(plan.sites[0].names, Vec::<String>::new());
    let Action::Files(files) = &plan.sites[0].routes[0].action else {
        panic!("not files")
    };
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
        access_log = "stderr"
        access_log_format = "json"
        admin = "127.0.0.1:9000"
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
    assert_eq!(
        plan.listen,
        [
            "0.0.0.0:8080".parse().unwrap(),
            "[::1]:8081".parse().unwrap()
        ]
    );
    assert_eq!(
        (
            plan.workers,
            plan.helpers,
            plan.helper_queue,
            plan.retry_after
        ),
        (3, 4, 10, 5)
    );
    assert_eq!(plan.driver, DriverChoice::Poll);
    assert_eq!((plan.cache_bytes, plan.limits.max_body), (1 << 30, 64_000));
    assert_eq!(plan.revalidate, Duration::from_millis(500));
    assert_eq!(
        plan.access_log,
        AccessLog::Stderr {
            format: LogFormat::Json
        }
    );
    assert_eq!(plan.limits.drain_timeout, Duration::ZERO);
    assert_eq!(plan.limits.max_connections, Some(100));
    assert!(
        plan.overload_body
            .is_some_and(|body| !body.bytes.is_empty())
    );
    assert_eq!(plan.admin.as_deref(), Some("127.0.0.1:9000"));
    let site = &plan.sites[0];
    assert_eq!(site.names, ["example.org", "*.example.org"]);
    assert_eq!(
        site.error_page(404),
        Some(examples().join("site/404.html").as_path())
    );
    let Action::Files(files) = &site.routes[0].action else {
        panic!("not files")
    };
    assert_eq!(
        (files.symlinks, files.hidden, files.index.len()),
        (Symlinks::Never, true, 2)
    );
}

#[test]
fn a_route_of_files_takes_from_its_site_and_gets_its_slash() {
    let plan = meant(
        "[[sites]]\nhidden = true\n[[sites.routes]]\nmatch = \"/pictures/*\"\nroot = \"site\"\n",
    );
    let [files, slash] = plan.sites[0].routes.as_slice() else {
        panic!("two routes")
    };
    let Action::Files(found) = &files.action else {
        panic!("not files")
    };
    assert_eq!((found.strip, found.hidden), ("/pictures".len(), true));
    assert_eq!(slash.pattern.as_str(), "/pictures");
    assert!(matches!(slash.action, Action::Redirect { status: 301, .. }));
}

#[test]
fn an_unknown_key_is_shown_with_the_nearest() {
    assert_eq!(
        report("workers = 2\nlisten_ = \":8080\"\n[limits]\n"),
        "error: unknown key `listen_`\n --> amped.toml:2:1\n  |\n2 | listen_ = \":8080\"\n  \
         | ^^^^^^^ did you mean `listen`?\n  = valid keys: `listen`, `workers`, `driver`, `disk`, \
         `cache`, `revalidate`, `helpers`, `helper_queue`, `access_log`, `access_log_format`, \
         `admin`, `limits`, `overload`, `sites`\n"
    );
    assert!(report("[[sites]]\nserver_name = \"a\"").contains("did you mean `names`?"));
    assert!(report("zebra = 1").contains("not a key of this table"));
}

#[test]
fn all_wrong_values_are_shown_at_once() {
    let text = r#"
listen = ["8080", ":80", ":80"]
workers = 0
driver = "epol-edge"
cache = "64K"
admin = "nowhere"
[limits]
idle_timeout = "10"
head_timeout = "0"
[[sites]]
root = "nowhere"
names = ["a.example:80"]
"#;
    let report = parse(text, Path::new("amped.toml"), &examples()).unwrap_err();
    let lines: Vec<usize> = report
        .problems()
        .iter()
        .map(|p| text[..p.span.as_ref().unwrap().start].matches('\n').count() + 1)
        .collect();
    assert_eq!(lines, [2, 2, 3, 4, 5, 6, 8, 9, 11, 12]);
}

/// Each with what its report must say, and the text above its caret.
#[test]
fn mistakes_point_to_their_place() {
    let site = |more: &str| format!("{SITE}{more}\n");
    let route = |more: &str| format!("{SITE}[[sites.routes]]\n{more}\n");
    let headers = |more: &str| format!("{SITE}[[sites.headers]]\nmatch = \"*\"\n{more}\n");
    for (text, says, at) in [
        ("listen = ".into(), "", ""),
        (format!("listen = []\n{SITE}"), "empty list", ""),
        (format!("listen = 80\n{SITE}"), "expected a text", "80"),
        (
            format!("workers = \"two\"\n{SITE}"),
            "expected a whole number",
            "\"two\"",
        ),
        (format!("workers = -1\n{SITE}"), "expected 1 to 1024", "-1"),
        (
            format!("revalidate = \"2h\"\n{SITE}"),
            "out of range",
            "\"2h\"",
        ),
        (
            format!("access_log = \"no/where\"\n{SITE}"),
            "cannot be written",
            "\"no/where\"",
        ),
        (
            format!("[overload]\nbody = \"site\"\n{SITE}"),
            "not a file",
            "\"site\"",
        ),
        (
            format!("workers = 1\nworkers = 2\n{SITE}"),
            "duplicate key",
            "workers",
        ),
        ("[[sites]]\n".into(), "nothing to serve", "[[sites]]"),
        (
            "[[sites]]\nroot = \"minimal.toml\"\n".into(),
            "not a folder",
            "\"minimal.toml\"",
        ),
        (site("names = [\"a\", \"A.\"]"), "named twice", "\"A.\""),
        (
            format!("{SITE}{SITE}"),
            "second site without names",
            "[[sites]]",
        ),
        (site("index = [\"a/b\"]"), "not a file's name", "\"a/b\""),
        (
            site("symlinks = \"inside\""),
            "unknown symlink policy",
            "\"inside\"",
        ),
        (
            site("error_pages = { 200 = \"404.html\" }"),
            "400 to 599",
            "200",
        ),
        (
            site("error_pages = { 404 = \"none\" }"),
            "not a file",
            "\"none\"",
        ),
        (
            route("status = 200"),
            "missing key `match`",
            "[[sites.routes]]",
        ),
        (route("match = \"/a\""), "does nothing", "[[sites.routes]]"),
        (route("match = \"a\"\nstatus = 200"), "write `/a`", "\"a\""),
        (
            route("match = \"/a\"\nstatus = 304"),
            "cannot be answered",
            "304",
        ),
        (
            route("match = \"/a\"\nstatus = 301"),
            "add `redirect`",
            "301",
        ),
        (
            route("match = \"/a\"\nstatus = 204\nbody = \"x\""),
            "no body",
            "\"x\"",
        ),
        (
            route("match = \"/a\"\nredirect = \"/b\"\nstatus = 200"),
            "not a redirect",
            "200",
        ),
        (
            route("match = \"/a\"\nredirect = \"b\""),
            "starts with",
            "\"b\"",
        ),
        (
            route("match = \"/a\"\nredirect = \"/b\"\nbody = \"x\""),
            "means nothing",
            "\"x\"",
        ),
        (
            route("match = \"/a\"\nredirect = \"/b\"\nindex = \"x\""),
            "means nothing",
            "\"x\"",
        ),
        (
            route("match = \"/a\"\nroot = \"site\"\nstatus = 200"),
            "two things",
            "\"site\"",
        ),
        (
            route("match = \"/a\"\nstatus = 200\n[[sites.routes]]\nmatch = '/a'\nstatus = 404"),
            "has a route already",
            "'/a'",
        ),
        (headers(""), "sets nothing", "[[sites.headers]]"),
        (
            headers("set = { \"A B\" = \"c\" }"),
            "not a field name",
            "\"A B\"",
        ),
        (
            headers("set = { A = \"b\\nc\" }"),
            "cannot hold",
            "\"b\\nc\"",
        ),
        (headers("set = { Date = \"c\" }"), "amped answers", "Date"),
        (headers("set = { A = \"b\", a = \"c\" }"), "set twice", "a"),
        (headers("cache_control = \"\""), "is empty", "\"\""),
    ] {
        let report = parse(&text, Path::new("amped.toml"), &examples()).unwrap_err();
        let shown = report.to_string();
        assert!(shown.contains(says), "{text}\n{shown}");
        let span = report.problems()[0].span.clone().unwrap_or(0..0);
        assert!(
            at.is_empty() || text[span.clone()].starts_with(at),
            "{:?}\n{shown}",
            &text[span]
        );
    }
}

#[test]
fn a_missing_file_says_what_to_type() {
    let report = load(Path::new("/nowhere/amped.toml"))
        .unwrap_err()
        .to_string();
    assert!(
        report.contains("does not exist") && report.contains("amped serve DIR"),
        "{report}"
    );
}

#[test]
fn the_examples_load() {
    let files = std::fs::read_dir(examples())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut loaded = 0;
    for file in files.filter(|file| file.extension().is_some_and(|end| end == "toml")) {
        load(&file).unwrap_or_else(|report| panic!("{report}"));
        loaded += 1;
    }
    assert!(loaded >= 3);
}

#[test]
fn the_manuals_blocks_load() {
    let manual = std::fs::read_to_string(docs().join("config.md")).unwrap();
    let blocks: Vec<&str> = manual
        .split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        let site = if block.contains("[[sites]]") {
            ""
        } else {
            SITE
        };
        meant(&format!("{block}{site}"));
    }
}

#[test]
fn the_schema_is_up_to_date() {
    let file = docs().join("amped.schema.json");
    if std::env::var_os("AMPED_BLESS").is_some() {
        std::fs::write(&file, schema()).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == schema(),
        "run the tests once with AMPED_BLESS=1 to write {file:?} anew"
    );
}

/// A default that the schema tells, typed, changes nothing.
#[test]
fn the_schemas_defaults_are_the_plans() {
    let schema: serde_json::Value = serde_json::from_str(&schema()).unwrap();
    let tables = [
        ("", &schema["properties"]),
        ("limits", &schema["definitions"]["LimitsText"]["properties"]),
    ];
    for (table, keys) in tables {
        for (key, about) in keys.as_object().unwrap() {
            let Some(default) = about
                .get("default")
                .filter(|d| !d.is_object() && !d.is_array())
            else {
                continue;
            };
            let line = if table.is_empty() {
                format!("{key} = {default}\n")
            } else {
                format!("[{table}]\n{key} = {default}\n")
            };
            assert_eq!(meant(&format!("{line}{SITE}")), meant(SITE), "{line}");
        }
    }
}

fn meant(text: &str) -> Plan {
    parse(text, Path::new("amped.toml"), &examples()).unwrap_or_else(|report| panic!("{report}"))
}

fn report(text: &str) -> String {
    parse(text, Path::new("amped.toml"), &examples())
        .unwrap_err()
        .to_string()
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}
