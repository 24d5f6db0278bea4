//! Mistakes in a configuration, shown as a compiler shows them: line, caret, what to type instead.
//!
//! Goal: nobody needs the manual to mend a file. Cost: the file's text is kept until the report
//! is printed.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::nearest::{list, nearest};

/// Every mistake of one file. `Display` prints them all.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    file: PathBuf,
    text: String,
    problems: Vec<Problem>,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// What is wrong.
    pub title: String,
    /// The bytes of the file that are wrong; `None` when something is missing from all of it.
    pub span: Option<Range<usize>>,
    /// What to type instead; stands beside the caret.
    pub hint: String,
    /// What else there is to know.
    pub note: Option<String>,
}

impl Report {
    /// A report of at least one problem, in the order of the file.
    pub fn new(file: &Path, text: &str, mut problems: Vec<Problem>) -> Report {
        debug_assert!(!problems.is_empty());
        problems.sort_by_key(|problem| problem.span.as_ref().map_or(usize::MAX, |s| s.start));
        Report { file: file.to_path_buf(), text: text.to_owned(), problems }
    }

    /// The problems, in the order of the file.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl std::error::Error for Report {}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            show(f, self, problem)?;
        }
        Ok(())
    }
}

impl Problem {
    /// A problem at a place. The sentence's part after its first colon stands beside the caret.
    pub fn at(span: &Range<usize>, sentence: impl AsRef<str>) -> Problem {
        Problem { span: Some(span.clone()), ..Problem::whole(sentence) }
    }

    /// A problem of the whole file.
    pub fn whole(sentence: impl AsRef<str>) -> Problem {
        let (title, hint) = halves(sentence.as_ref());
        Problem { title: title.to_owned(), span: None, hint: hint.to_owned(), note: None }
    }

    /// The same with more to know.
    pub fn note(mut self, note: impl Into<String>) -> Problem {
        self.note = Some(note.into());
        self
    }

    /// What the TOML reader found, in the words of the configuration.
    pub fn from_toml(error: &toml::de::Error) -> Problem {
        let message = error.message().lines().collect::<Vec<_>>().join(": ");
        let mut problem = unknown_key(&message).unwrap_or_else(|| Problem::whole(plain(&message)));
        problem.span = error.span();
        problem
    }
}

/// The first colon outside of backquotes parts what is wrong from what to do.
fn halves(sentence: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in sentence.char_indices() {
        quoted ^= c == '`';
        if !quoted && sentence[at..].starts_with(": ") {
            return (&sentence[..at], &sentence[at + 2..]);
        }
    }
    (sentence, "")
}

fn unknown_key(message: &str) -> Option<Problem> {
    let rest = message.strip_prefix("unknown field `")?;
    let (typed, expected) = rest.split_once('`')?;
    let valid: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
    let other = || SAME_ELSEWHERE.iter().find(|(word, key)| *word == typed && valid.contains(key));
    let hint = match nearest(typed, &valid).or_else(|| other().map(|(_, key)| *key)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "not a key of this table".to_owned(),
    };
    let problem = Problem::whole(format!("unknown key `{typed}`: {hint}"));
    Some(problem.note(format!("valid keys: {}", list(&valid))))
}

/// The reader's words, in everybody's: what is wrong, then after a colon what was expected.
fn plain(message: &str) -> String {
    let mut plain = message.to_owned();
    for (theirs, ours) in WORDS {
        plain = plain.replace(theirs, ours);
    }
    let Some((found, expected)) = plain.split_once(", expected ") else {
        return plain;
    };
    let expected = if expected.starts_with("struct ") { "a table" } else { expected };
    match found.strip_prefix("wrong type: ") {
        Some("table") if expected == "a list" => {
            "this is one table: write its name in double brackets, as in `[[sites]]`".into()
        }
        Some(found) => format!("this is {}: expected {expected}", with_article(found)),
        None => format!("{found}: expected {expected}"),
    }
}

fn with_article(found: &str) -> String {
    match found.as_bytes().first() {
        Some(b'a' | b'e' | b'i' | b'o' | b'u') => format!("an {found}"),
        _ => format!("a {found}"),
    }
}

fn show(f: &mut fmt::Formatter<'_>, report: &Report, problem: &Problem) -> fmt::Result {
    writeln!(f, "error: {}", problem.title)?;
    let file = report.file.display();
    match &problem.span {
        Some(span) => show_line(f, &file.to_string(), &report.text, span, &problem.hint)?,
        None => {
            writeln!(f, " --> {file}")?;
            if !problem.hint.is_empty() {
                writeln!(f, "  = {}", problem.hint)?;
            }
        }
    }
    problem.note.iter().try_for_each(|note| writeln!(f, "  = {note}"))
}

fn show_line(f: &mut fmt::Formatter<'_>, file: &str, text: &str, span: &Range<usize>, hint: &str) -> fmt::Result {
    let place = Place::of(text, span);
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    writeln!(f, "{margin}--> {file}:{number}:{}", place.column)?;
    writeln!(f, "{margin} |")?;
    writeln!(f, "{number} | {}", place.text)?;
    let line = format!("{margin} | {}{} {hint}", " ".repeat(place.before), "^".repeat(place.width));
    writeln!(f, "{}", line.trim_end())
}

/// Where a span starts, and the line it starts in.
struct Place {
    line: usize,
    column: usize,
    text: String,
    before: usize,
    width: usize,
}

impl Place {
    fn of(text: &str, span: &Range<usize>) -> Place {
        let start = floor(text, span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = floor(text, span.end).clamp(start, line_end);
        let columns = |part: &str| show_tabs(part).chars().count();
        Place {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: show_tabs(text[line_start..line_end].trim_end()),
            before: columns(&text[line_start..start]),
            width: columns(&text[start..end]).max(1),
        }
    }
}

fn floor(text: &str, mut at: usize) -> usize {
    at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn show_tabs(text: &str) -> String {
    text.replace('\t', "    ")
}

/// serde's expressions and ours.
const WORDS: [(&str, &str); 8] = [
    ("missing field `", "missing key `"),
    ("invalid type: map", "wrong type: table"),
    ("invalid type: ", "wrong type: "),
    ("expected i64", "expected a whole number"),
    ("expected a sequence", "expected a list"),
    ("expected a string", "expected a text in quotes"),
    ("expected a boolean", "expected `true` or `false`"),
    (
        "string values must be quoted, expected literal string",
        "a value is missing, expected one: texts stand in quotes",
    ),
];

/// What other servers call it, and what it is called here.
const SAME_ELSEWHERE: [(&str, &str); 20] = [
    ("address", "listen"),
    ("bind", "listen"),
    ("port", "listen"),
    ("threads", "workers"),
    ("log", "access_log"),
    ("host", "names"),
    ("hosts", "names"),
    ("domain", "names"),
    ("server_name", "names"),
    ("dir", "root"),
    ("directory", "root"),
    ("folder", "root"),
    ("files", "root"),
    ("path", "match"),
    ("pattern", "match"),
    ("location", "match"),
    ("to", "redirect"),
    ("code", "status"),
    ("keepalive_timeout", "idle_timeout"),
    ("site", "sites"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_reads_like_a_compilers() {
        let text = "a = 1\n\tb = \"é\" # c\n";
        let problem = Problem::at(&(11..15), "`é` is no b: write `b: c`").note("see b");
        let report = Report::new(Path::new("x.toml"), text, vec![problem]);
        assert_eq!(
            report.to_string(),
            "error: `é` is no b\n --> x.toml:2:6\n  |\n2 |     b = \"é\" # c\n  \
             |         ^^^ write `b: c`\n  = see b\n"
        );
    }

    #[test]
    fn spans_beyond_the_text_do_no_harm() {
        for span in [0..0, 3..99, 99..100, 1..2] {
            let report = Report::new(Path::new("x"), "é\n", vec![Problem::at(&span, "oops")]);
            assert!(report.to_string().contains('^'));
        }
    }

    #[test]
    fn colons_in_quotes_do_not_part() {
        assert_eq!(halves("`a: b` is bad: c: d"), ("`a: b` is bad", "c: d"));
        assert_eq!(halves("nothing else"), ("nothing else", ""));
    }
}
