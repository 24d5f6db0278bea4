//! A file of URLs: one a line, a path or a whole URL of the same server; empty lines and `#` lines are skipped.

use std::fs;
use std::path::Path;

use crate::target::{Url, check_path};

/// The paths in `file`, in order.
///
/// # Errors
/// What is wrong, with the file's name and the line.
pub fn read_list(file: &Path, server: &Url) -> Result<Vec<String>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
    let paths = lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| path_of(line, server).map_err(|why| format!("{}, line {number}: {why}", file.display())));
    let paths: Vec<String> = paths.collect::<Result<_, _>>()?;
    if paths.is_empty() { Err(format!("{} has no URL in it: write one a line", file.display())) } else { Ok(paths) }
}

fn path_of(line: &str, server: &Url) -> Result<String, String> {
    if line.starts_with('/') {
        check_path(line)?;
        return Ok(line.to_owned());
    }
    let url = Url::parse(line)?;
    if (&url.host, url.port) != (&server.host, server.port) {
        let (theirs, ours) = (url.authority(), server.authority());
        return Err(format!("{theirs} is another server than {ours}: one run asks one server"));
    }
    Ok(url.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        read_list(file.path(), &Url::parse("http://a:81/").unwrap())
    }

    #[test]
    fn paths_and_urls_of_the_server_are_read() {
        let paths = read("# two\n/x?1\n\n  http://a:81/y  \n").unwrap();
        assert_eq!(paths, ["/x?1", "/y"]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        assert!(read("/x\nhttp://b:81/\n").unwrap_err().contains("line 2: b:81 is another server"));
        assert!(read("/x y\n").unwrap_err().contains("line 1"));
        assert!(read("x\n").unwrap_err().contains("no scheme"));
        assert!(read("\n# nothing\n").unwrap_err().contains("no URL"));
        assert!(read_list(Path::new("/nowhere/at/all"), &Url::parse("http://a/").unwrap()).is_err());
    }
}
