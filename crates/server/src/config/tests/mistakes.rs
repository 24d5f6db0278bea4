//! How the mistakes of a file are shown.

use super::*;

#[test]
fn an_unknown_key_is_shown_with_the_nearest() {
    assert_eq!(
        report("workers = 2\nlisten_ = \":8080\"\n[limits]\n"),
        "error: unknown key `listen_`\n --> amped.toml:2:1\n  |\n2 | listen_ = \":8080\"\n  \
         | ^^^^^^^ did you mean `listen`?\n  = valid keys: `listen`, `architecture`, `workers`, `driver`, `disk`, \
         `cache`, `revalidate`, `watch_folders`, `helpers`, `helper_queue`, `shared_jobs`, \
         `access_log`, `access_log_format`, `admin`, `admin_token`, `user`, `sandbox`, `core_limit`, `limits`, \
         `overload`, `clients`, `sites`\n"
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
    let lines: Vec<usize> =
        report.problems().iter().map(|p| text[..p.span.as_ref().unwrap().start].matches('\n').count() + 1).collect();
    assert_eq!(lines, [2, 2, 3, 4, 5, 6, 8, 9, 11, 12]);
}

/// Each with what its report must say, and the text above its caret.
#[test]
fn mistakes_point_to_their_place() {
    let site = |more: &str| format!("{SITE}{more}\n");
    let route = |more: &str| format!("{SITE}[[sites.routes]]\n{more}\n");
    let headers = |more: &str| format!("{SITE}[[sites.headers]]\nmatch = \"*\"\n{more}\n");
    for (text, says, at) in [
        ("listen = ".into(), "a value is missing", ""),
        ("[sites]\nroot = \"site\"".into(), "double brackets", "[sites]"),
        (format!("limits = 3\n{SITE}"), "expected a table", "3"),
        ("[[sites]]\nroot = \"site".into(), "expected `\"`", ""),
        (format!("listen = []\n{SITE}"), "empty list", ""),
        (format!("listen = 80\n{SITE}"), "expected a text", "80"),
        (format!("workers = \"two\"\n{SITE}"), "expected a whole number", "\"two\""),
        (format!("workers = -1\n{SITE}"), "expected 1 to 1024", "-1"),
        (format!("architecture = \"mtt\"\n{SITE}"), "did you mean `mt`?", "\"mtt\""),
        (format!("architecture = \"mt\"\ndriver = \"poll\"\n{SITE}"), "`mt` and driver `poll`", "\"poll\""),
        (format!("architecture = \"mp\"\ndisk = \"helpers\"\n{SITE}"), "`mp` and disk `helpers`", "\"helpers\""),
        (format!("architecture = \"amped\"\nworkers = 2\n{SITE}"), "`amped` and 2 workers", "2"),
        (format!("revalidate = \"2h\"\n{SITE}"), "out of range", "\"2h\""),
        (format!("access_log = \"no/where\"\n{SITE}"), "cannot be written", "\"no/where\""),
        (format!("[overload]\nbody = \"site\"\n{SITE}"), "not a file", "\"site\""),
        (format!("workers = 1\nworkers = 2\n{SITE}"), "duplicate key", "workers"),
        ("[[sites]]\n".into(), "nothing to serve", "[[sites]]"),
        ("[[sites]]\nroot = \"minimal.toml\"\n".into(), "not a folder", "\"minimal.toml\""),
        (site("names = [\"a\", \"A.\"]"), "named twice", "\"A.\""),
        (format!("{SITE}{SITE}"), "second site without names", "[[sites]]"),
        (site("index = [\"a/b\"]"), "not a file's name", "\"a/b\""),
        (site("symlinks = \"inside\""), "unknown symlink policy", "\"inside\""),
        (site("error_pages = { 200 = \"404.html\" }"), "400 to 599", "200"),
        (site("error_pages = { 404 = \"none\" }"), "not a file", "\"none\""),
        (route("status = 200"), "missing key `match`", "[[sites.routes]]"),
        (route("match = \"/a\""), "does nothing", "[[sites.routes]]"),
        (route("match = \"a\"\nstatus = 200"), "write `/a`", "\"a\""),
        (route("match = \"/a\"\nstatus = 304"), "cannot be answered", "304"),
        (route("match = \"/a\"\nstatus = 301"), "add `redirect`", "301"),
        (route("match = \"/a\"\nstatus = 204\nbody = \"x\""), "no body", "\"x\""),
        (route("match = \"/a\"\nredirect = \"/b\"\nstatus = 200"), "not a redirect", "200"),
        (route("match = \"/a\"\nredirect = \"b\""), "starts with", "\"b\""),
        (route("match = \"/a\"\nredirect = \"/b\"\nbody = \"x\""), "means nothing", "\"x\""),
        (route("match = \"/a\"\nredirect = \"/b\"\nindex = \"x\""), "means nothing", "\"x\""),
        (route("match = \"/a\"\nroot = \"site\"\nstatus = 200"), "two things", "\"site\""),
        (
            route("match = \"/a\"\nstatus = 200\n[[sites.routes]]\nmatch = '/a'\nstatus = 404"),
            "has a route already",
            "'/a'",
        ),
        (headers(""), "sets nothing", "[[sites.headers]]"),
        (headers("set = { \"A B\" = \"c\" }"), "not a field name", "\"A B\""),
        (headers("set = { A = \"b\\nc\" }"), "cannot hold", "\"b\\nc\""),
        (headers("set = { Date = \"c\" }"), "amped answers", "Date"),
        (headers("set = { A = \"b\", a = \"c\" }"), "set twice", "a"),
        (headers("cache_control = \"\""), "is empty", "\"\""),
    ] {
        let report = parse(&text, Path::new("amped.toml"), &examples()).unwrap_err();
        let shown = report.to_string();
        assert!(shown.contains(says), "{text}\n{shown}");
        let span = report.problems()[0].span.clone().unwrap_or(0..0);
        assert!(at.is_empty() || text[span.clone()].starts_with(at), "{:?}\n{shown}", &text[span]);
    }
}

#[test]
fn a_missing_file_says_what_to_type() {
    let report = load(Path::new("/nowhere/amped.toml")).unwrap_err().to_string();
    assert!(report.contains("does not exist") && report.contains("amped serve DIR"), "{report}");
}
