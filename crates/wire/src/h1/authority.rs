//! Whom a request is for: the Host field, or the authority in the target (RFC 9112 sections 3.2 and 3.3).
//! Goal: one host, checked byte by byte, so that virtual hosts and caches cannot be played against each other.
//! Costs: a table look-up a byte.

use crate::head::{Fields, Known, Target, Version};
use crate::status::Reject;
use memchr::memchr;

/// The host a request is for; what the target says wins over the Host field, which must be right all the same.
#[inline]
pub(super) fn choose<'b>(target: &Target<'b>, fields: &Fields<'b>, version: Version) -> Result<&'b [u8], Reject> {
    let host = match fields.known(Known::Host) {
        _ if fields.repeated(Known::Host) => return Err(TWO_HOSTS),
        Some(host) if is_valid(host) => host,
        Some(_) => return Err(WRONG_HOST),
        None if version == Version::Http11 => return Err(NO_HOST),
        None => b"",
    };
    Ok(match *target {
        Target::Origin { .. } | Target::Asterisk => host,
        Target::Absolute { authority, .. } | Target::Authority(authority) => authority,
    })
}

/// Whether this is `uri-host [ ":" port ]` (RFC 3986 section 3.2, without the user part that RFC 9110 section
/// 4.2.4 forbids); the empty host counts, a port may be empty.
#[inline]
pub(super) fn is_valid(authority: &[u8]) -> bool {
    match authority.iter().position(|&b| !IN_NAME[b as usize]) {
        None => true,
        Some(end) if authority[end] == b':' => authority[end + 1..].iter().all(u8::is_ascii_digit),
        Some(0) if authority[0] == b'[' => is_literal(authority),
        Some(_) => false,
    }
}

/// What stands behind the port's colon, if there is one.
pub(super) fn port(authority: &[u8]) -> Option<&[u8]> {
    let host_end = memchr(b']', authority).unwrap_or(0);
    let colon = host_end + memchr(b':', &authority[host_end..])?;
    Some(&authority[colon + 1..])
}

/// `[` address `]` and an optional port. The address is held to its alphabet only: nothing ever dials it.
fn is_literal(authority: &[u8]) -> bool {
    let Some((address, rest)) = authority.strip_prefix(b"[").and_then(|inner| {
        let end = memchr(b']', inner)?;
        Some((&inner[..end], &inner[end + 1..]))
    }) else {
        return false;
    };
    let alphabet = |b: &u8| b.is_ascii_alphanumeric() || b":.%-_~".contains(b);
    let port_is_right = match rest {
        [] => true,
        [b':', digits @ ..] => digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    !address.is_empty() && address.contains(&b':') && address.iter().all(alphabet) && port_is_right
}

const NO_HOST: Reject = Reject::bad("no Host field");
const TWO_HOSTS: Reject = Reject::bad("more than one Host field");
const WRONG_HOST: Reject = Reject::bad("malformed Host field");

/// What a host's name is made of: RFC 3986 section 3.2.2, with the percent sign of its encoding.
const IN_NAME: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-._~!$&'()*+,;=%";
    let mut i = 0;
    while i < marks.len() {
        table[marks[i] as usize] = true;
        i += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_ports_are_right() {
        for host in ["", "a", "a.b-c_d", "127.0.0.1:8080", "a:", "[::1]", "[::1]:80", "[fe80::1%25eth0]:", "%41", ":80"]
        {
            assert!(is_valid(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn anything_else_is_wrong() {
        for host in [
            "a b",
            "a/b",
            "u@a",
            "a:b",
            "a:80:81",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[a]",
            "[::1]x",
            "[::1]:x",
            "[[::1]]",
            "a#",
            "a?",
            "a\\b",
            "a,b c",
            "\"a\"",
            "<a>",
            "a\tb",
            "ä",
            "a[::1]",
            "[::1]:8:0",
            "[:/:]",
        ] {
            assert!(!is_valid(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn the_port_is_what_follows_the_host() {
        assert_eq!(port(b"a:80"), Some(&b"80"[..]));
        assert_eq!(port(b"[::1]:80"), Some(&b"80"[..]));
        assert_eq!(port(b"[::1]"), None);
        assert_eq!(port(b"a"), None);
        assert_eq!(port(b"a:"), Some(&b""[..]));
    }
}
