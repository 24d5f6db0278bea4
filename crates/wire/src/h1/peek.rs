//! A guess at what a request asks for, before it is parsed.

/// The path of a GET, as it was sent: what stands between its first two spaces, without the query. Nothing is checked, so it is good for
/// guesses only.
pub fn path(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(b"GET ")?;
    let end = rest.iter().take(LONGEST).position(|byte| matches!(byte, b' ' | b'?'))?;
    Some(&rest[..end])
}

/// Longer paths are not guessed at.
const LONGEST: usize = 256;

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn a_guess() {
        assert_eq!(path(b"GET /a/b HTTP/1.1\r\n"), Some(&b"/a/b"[..]));
        assert_eq!(path(b"GET /a?b HTTP/1.1\r\n"), Some(&b"/a"[..]));
        assert_eq!(path(b"GET /a"), None);
        assert_eq!(path(b"POST / HTTP/1.1\r\n"), None);
        assert_eq!(path(b""), None);
    }
}
