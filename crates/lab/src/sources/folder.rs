//! A folder's files as paths: what a server of that folder can be asked for.
//!
//! Hidden files are left out, as the server leaves them out; links are followed to files and not to folders.

use std::fs;
use std::path::Path;

/// The paths of all files below `folder`, percent-encoded, in the order of their names.
///
/// # Errors
/// What could not be read.
pub fn list_folder(folder: &Path) -> Result<Vec<String>, String> {
    let mut paths = Vec::new();
    list(folder, "", &mut paths).map_err(|error| format!("cannot list {}: {error}", folder.display()))?;
    paths.sort_unstable();
    if paths.is_empty() {
        return Err(format!("{} has no file in it that a server would show", folder.display()));
    }
    Ok(paths)
}

fn list(folder: &Path, above: &str, paths: &mut Vec<String>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().first() == Some(&b'.') {
            continue;
        }
        let path = format!("{above}/{}", encode(name.as_encoded_bytes()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            list(&entry.path(), &path, paths)?;
        } else if kind.is_file() {
            // Without a stat: it would warm up what a cold test is about.
            paths.push(path);
        } else if fs::metadata(entry.path()).is_ok_and(|entry| entry.is_file()) {
            paths.push(path);
        }
    }
    Ok(())
}

/// RFC 3986's unreserved characters stay; everything else is safe when encoded.
fn encode(name: &[u8]) -> String {
    let mut encoded = String::with_capacity(name.len());
    for &byte in name {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_and_named_as_urls() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("b/c")).unwrap();
        fs::create_dir(at(".hidden")).unwrap();
        for name in ["a.txt", "b/c/d e%.txt", "b/\u{e4}", ".secret", ".hidden/x"] {
            fs::write(at(name), "x").unwrap();
        }
        std::os::unix::fs::symlink("a.txt", at("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("broken")).unwrap();
        assert_eq!(list_folder(folder.path()).unwrap(), ["/a.txt", "/b/%C3%A4", "/b/c/d%20e%25.txt", "/link"]);
        assert!(list_folder(&at(".hidden/x")).unwrap_err().contains("cannot list"));
        fs::create_dir(at("empty")).unwrap();
        assert!(list_folder(&at("empty")).unwrap_err().contains("no file"));
    }
}
