//! A log to replay: the common log format (and the combined one), as web servers have written it since NCSA httpd.
//!
//! ```text
//! 127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "GET /apache_pb.gif HTTP/1.0" 200 2326
//! ```
//!
//! Only GET and HEAD lines can be asked again without harm; the others are skipped and counted.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::target::check_path;

/// The targets asked for in `file`, in order, and how many lines were left out.
///
/// # Errors
/// When the file cannot be read or holds no such line.
pub fn read_log(file: &Path) -> Result<(Vec<String>, usize), String> {
    let cannot = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
    let mut lines = BufReader::new(File::open(file).map_err(cannot)?);
    let (mut targets, mut skipped, mut line) = (Vec::new(), 0, Vec::new());
    while lines.read_until(b'\n', &mut line).map_err(cannot)? > 0 {
        // A log may hold any bytes; a line that is no text is no line to replay.
        match std::str::from_utf8(&line).ok().and_then(target_of) {
            Some(target) => targets.push(target.to_owned()),
            None => skipped += 1,
        }
        line.clear();
    }
    if targets.is_empty() {
        return Err(format!(
            "{} has no GET in the common log format, such as: 127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 5",
            file.display()
        ));
    }
    Ok((targets, skipped))
}

/// The path and query that a line's request asked for, if it can be asked again.
pub fn target_of(line: &str) -> Option<&str> {
    // The user's name may hold brackets and the time never does: the request is what follows `] "`.
    let request = line.split_once("] \"")?.1;
    let request = request.split('"').next()?;
    let mut words = request.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next());
    let is_http = version.is_none_or(|version| version.starts_with("HTTP/"));
    if !matches!(method, "GET" | "HEAD") || !is_http || words.next().is_some() {
        return None;
    }
    // Proxies log the absolute form.
    let path = match target.strip_prefix("http://").or_else(|| target.strip_prefix("https://")) {
        Some(rest) => &rest[rest.find('/')?..],
        None => target,
    };
    check_path(path).is_ok().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = |request: &str| format!("1.2.3.4 - joe [10/Oct/2000:13:55:36 -0700] \"{request}\" 200 2326");
        for (request, target) in [
            ("GET /apache_pb.gif HTTP/1.0", Some("/apache_pb.gif")),
            ("HEAD /a?b=c HTTP/1.1", Some("/a?b=c")),
            ("GET /old", Some("/old")),
            ("GET http://proxy.example/x HTTP/1.1", Some("/x")),
            ("POST / HTTP/1.1", None),
            ("GET /a b HTTP/1.1", None),
            ("GET x HTTP/1.1", None),
            ("-", None),
            ("\\x16\\x03", None),
            ("", None),
        ] {
            assert_eq!(target_of(&line(request)), target, "{request}");
            let combined = format!("{} \"http://r/] \\\"GET /no HTTP/1.1\" \"agent\"", line(request));
            assert_eq!(target_of(&combined), target, "{request}, combined");
        }
        assert_eq!(target_of("nonsense"), None);
    }

    #[test]
    fn a_log_keeps_its_order_and_counts_what_it_skips() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = |request: &str| format!("h - - [t] \"{request}\" 200 -\n");
        let mut text = (line("GET /b HTTP/1.1") + &line("PUT /x HTTP/1.1") + &line("GET /a HTTP/1.1")).into_bytes();
        text.extend_from_slice(b"\xff\xfe\n");
        std::fs::write(file.path(), &text).unwrap();
        assert_eq!(read_log(file.path()).unwrap(), (vec!["/b".to_owned(), "/a".to_owned()], 2));
        std::fs::write(file.path(), "nothing\n").unwrap();
        assert!(read_log(file.path()).unwrap_err().contains("common log format"));
        assert!(read_log(Path::new("/nowhere/at/all")).unwrap_err().contains("cannot read"));
    }
}
