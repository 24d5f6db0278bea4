//! The style that can be checked: what every file opens with, where unsafe code may be, which way imports point.

use std::fs;
use std::path::{Path, PathBuf};

/// One file of Rust, by its path from the project's top.
struct Source {
    path: String,
    text: String,
}

#[test]
fn every_file_opens_with_what_it_is() {
    complain(sources().iter().filter(|source| !source.text.starts_with("//! ")).map(|source| source.path.clone()));
}

#[test]
fn no_file_is_longer_than_can_be_read() {
    let lengths = sources().into_iter().map(|source| (source.text.lines().count(), source.path));
    complain(lengths.filter(|(lines, _)| *lines > MAX_LINES).map(|(lines, path)| format!("{path}: {lines} lines")));
}

#[test]
fn unsafe_code_is_in_one_crate_and_says_why_it_is_sound() {
    let mut faults = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate().filter(|(_, line)| has_word(&code(line), "unsafe")) {
            let place = format!("{}: {}", source.path, line.trim());
            let above = &lines[at.saturating_sub(SAFETY_WITHIN)..=at];
            let is_contract = ["unsafe fn", "unsafe trait", "unsafe extern"].iter().any(|word| line.contains(word));
            let why = if is_contract { ["# Safety", "SAFETY"] } else { ["SAFETY", "SAFETY"] };
            if !source.path.starts_with("crates/runtime/") {
                faults.push(format!("{place} (outside of crates/runtime)"));
            } else if !above.iter().any(|line| why.iter().any(|word| line.contains(word))) {
                faults.push(format!("{place} (no SAFETY above it)"));
            }
        }
    }
    complain(faults);
    for crate_root in ["crates/wire/src/lib.rs", "crates/server/src/lib.rs"] {
        assert!(read(&top().join(crate_root)).contains("#![forbid(unsafe_code)]"), "{crate_root} allows unsafe code");
    }
}

#[test]
fn imports_point_down() {
    let mut faults = Vec::new();
    for source in sources() {
        let Some(inside) = source.path.strip_prefix("crates/server/src/") else { continue };
        let room = inside.split(['/', '.']).next().unwrap_or_default();
        // The library's own file names the rooms; the binary calls the first of them.
        let Some(height) = ROOMS.iter().position(|rooms| rooms.contains(&room)) else {
            assert!(["lib", "main"].contains(&room), "{} is in no room of the design", source.path);
            continue;
        };
        for (line, imported) in source.text.lines().flat_map(imported_rooms) {
            let imported = imported.as_str();
            let Some(depth) = ROOMS.iter().position(|rooms| rooms.contains(&imported)) else { continue };
            if imported != room && !FOR_ALL.contains(&imported) && depth <= height {
                faults.push(format!("{}: {}", source.path, line.trim()));
            }
        }
    }
    complain(faults);
}

#[test]
fn wire_and_runtime_never_meet() {
    for (of, others) in [
        ("crates/wire", &["amped_runtime", "amped-runtime", "amped-server", "rustix", "libc"][..]),
        ("crates/runtime", &["amped_wire", "amped-wire", "amped-server", "amped::"]),
    ] {
        let manifest = Source { path: format!("{of}/Cargo.toml"), text: read(&top().join(of).join("Cargo.toml")) };
        let within = sources().into_iter().filter(|source| source.path.starts_with(of)).chain([manifest]);
        complain(within.flat_map(|source| {
            let meets = |line: &&str| others.iter().any(|other| code(line).contains(other));
            source.text.lines().filter(meets).map(|line| format!("{}: {line}", source.path)).collect::<Vec<_>>()
        }));
    }
}

#[test]
fn no_file_is_a_drawer_for_everything() {
    let is_drawer = |path: &str| {
        let stem = Path::new(path).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let in_folder = path.split('/').any(|part| DRAWERS.contains(&part));
        // The runtime's helpers are the threads that wait for the disk.
        let is_the_disks = stem == "helpers" && path.starts_with("crates/runtime/");
        (DRAWERS.contains(&stem) || in_folder) && !is_the_disks
    };
    complain(sources().into_iter().map(|source| source.path).filter(|path| is_drawer(path)));
}

#[test]
fn nothing_is_left_for_later() {
    let later = ["todo!(", "unimplemented!(", "#[ignore", "dbg!("];
    complain(sources().into_iter().filter(|source| !source.path.ends_with("tests/tidy.rs")).flat_map(|source| {
        let is_later = |line: &&str| later.iter().any(|word| code(line).contains(word));
        source.text.lines().filter(is_later).map(|line| format!("{}: {}", source.path, line.trim())).collect::<Vec<_>>()
    }));
}

#[test]
fn documents_cite_names_and_not_lines() {
    let mut documents = files(&top(), "md");
    documents.retain(|path| !path.starts_with(top().join("bench/runs")));
    assert!(documents.iter().any(|path| path.ends_with("docs/config.md")), "the manual is somewhere else");
    complain(documents.iter().flat_map(|path| {
        let text = read(path);
        let cites = text.lines().filter(|line| cites_a_line(line)).map(str::to_owned).collect::<Vec<_>>();
        cites.into_iter().map(|line| format!("{}: {line}", path.display())).collect::<Vec<_>>()
    }));
}

#[test]
fn the_checks_can_fail() {
    assert_eq!(
        imported_rooms("use crate::{answer::X, route};").iter().map(|(_, room)| room).collect::<Vec<_>>(),
        ["answer", "route"]
    );
    assert_eq!(code("let a = \"// crate::b\\\"\"; // crate::c"), "let a = ; ");
    assert!(has_word("unsafe { x }", "unsafe") && !has_word("unsafe_code", "unsafe"));
    let lines = ["`a.rs:12`", "a.rs#L12", "in `a.rs`, line 12"];
    assert!(lines.into_iter().all(cites_a_line) && !cites_a_line("a.rs: 12 lines"));
}

/// `file.rs:12`, `file.rs#L12`, `file.rs, line 12`.
fn cites_a_line(line: &str) -> bool {
    line.match_indices(".rs").any(|(at, _)| {
        let rest = &line[at + 3..];
        let digits = |rest: &str| rest.starts_with(|first: char| first.is_ascii_digit());
        rest.strip_prefix(':').is_some_and(digits)
            || rest.strip_prefix("#L").is_some_and(digits)
            || rest.trim_start_matches(['`', ',', ' ']).strip_prefix("line ").is_some_and(digits)
    })
}

/// A line and the rooms it names: `use crate::answer::…`, `crate::{answer, route}`.
fn imported_rooms(line: &str) -> Vec<(&str, String)> {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    let code = code(line);
    code.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => list.split(['{', '}', ',']).map(str::trim).collect(),
            None => vec![rest],
        })
        .filter_map(|path| path.split(|character| !is_name(character)).next())
        .filter(|room| !room.is_empty())
        .map(|room| (line, room.to_owned()))
        .collect()
}

/// A line without its comment and without what stands in quotes.
fn code(line: &str) -> String {
    let mut code = String::new();
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if quoted => drop(characters.next()),
            '"' => quoted = !quoted,
            '/' if !quoted && characters.peek() == Some(&'/') => break,
            other if !quoted => code.push(other),
            _ => {}
        }
    }
    code
}

fn has_word(line: &str, word: &str) -> bool {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    line.split(|character| !is_name(character)).any(|part| part == word)
}

fn complain(faults: impl IntoIterator<Item = String>) {
    let faults: Vec<String> = faults.into_iter().collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn sources() -> Vec<Source> {
    let top = top();
    let relative = |path: &PathBuf| path.strip_prefix(&top).expect("below the top").to_string_lossy().into_owned();
    let sources: Vec<Source> =
        files(&top, "rs").iter().map(|path| Source { path: relative(path), text: read(path) }).collect();
    assert!(sources.len() > 50, "only {} files were found", sources.len());
    sources
}

/// The project's files with this extension; what builds make and what begins with a dot is not the project's.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("own folder").map(|entry| entry.expect("own folder")) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let is_built = path.join("CACHEDIR.TAG").exists() || ["corpus", "artifacts"].contains(&name.as_str());
        if name.starts_with('.') || is_built {
            continue;
        }
        if entry.file_type().expect("own folder").is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|present| present == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the project's top")
}

/// The rooms of crates/server from top to bottom: imports point down, and not sideways.
const ROOMS: &[&[&str]] = &[
    &["cli"],
    &["supervise"],
    &["prefork"],
    &["worker"],
    &["listen"],
    &["converse"],
    &["answer"],
    &["route"],
    &["overload"],
    &["config", "observe"],
];
/// What a plan says and what is counted is everybody's business.
const FOR_ALL: &[&str] = &["config", "observe"];
const DRAWERS: &[&str] = &["common", "util", "utils", "prelude", "helpers", "misc", "shared"];
const MAX_LINES: usize = 700;
const SAFETY_WITHIN: usize = 6;
