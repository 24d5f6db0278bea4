//! Sizes, durations and addresses as people type them: `256MB`, `500ms`, `:8080`.
//!
//! Goal: one reading for the command line and the file, and errors that say what to type instead.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// Bytes. `KB`, `MB`, `GB` are powers of 1000, `KiB`, `MiB`, `GiB` powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

/// A duration in `ms`, `s`, `m` or `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait(pub Duration);

/// An address to listen on; `:8080` is every IPv4 address of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen(pub SocketAddr);

/// Reads `65536`, `64KB` (64,000 bytes), `64KiB` (65,536 bytes) and so on, case aside.
pub fn parse_size(typed: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(typed);
    let known = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
    let (Ok(number), Some((_, bytes))) = (number.parse::<u64>(), known) else {
        return Err(format!("`{typed}` is not a size: {}", size_hint(number, unit)));
    };
    number.checked_mul(*bytes).ok_or(format!("`{typed}` is too large: expected less than 16EiB"))
}

/// Reads `500ms`, `10s`, `2m`, `1h`; `0` needs no unit.
pub fn parse_duration(typed: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(typed);
    let known = WAITS.iter().find(|(name, _)| *name == unit);
    match (number.parse::<u64>(), known) {
        (Ok(0), None) if unit.is_empty() => Ok(Duration::ZERO),
        (Ok(number), Some((_, millis))) => number
            .checked_mul(*millis)
            .map(Duration::from_millis)
            .ok_or(format!("`{typed}` is too long: expected at most some years")),
        _ => Err(format!("`{typed}` is not a duration: {}", wait_hint(number, unit))),
    }
}

/// Reads `127.0.0.1:8080`, `[::1]:8080` and `:8080`, which is `0.0.0.0:8080`.
pub fn parse_listen(typed: &str) -> Result<SocketAddr, String> {
    if let Some(port) = typed.strip_prefix(':').and_then(port) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port));
    }
    typed.parse().map_err(|_| format!("`{typed}` is not an address to listen on: {}", listen_hint(typed)))
}

fn number_and_unit(typed: &str) -> (&str, &str) {
    let end = typed.find(|c: char| !c.is_ascii_digit()).unwrap_or(typed.len());
    (&typed[..end], typed[end..].trim())
}

fn size_hint(number: &str, unit: &str) -> String {
    if number.is_empty() || unit.starts_with(['.', ',', '_']) {
        return "write a whole number and a unit, such as `64KB` or `256MB`".into();
    }
    match unit.to_ascii_uppercase().as_str() {
        letter @ ("K" | "M" | "G" | "T") => {
            format!("write `{number}{letter}B` (powers of 1000) or `{number}{letter}iB` (powers of 1024)")
        }
        _ => format!("write `{number}KB`, `{number}MB` or `{number}GiB`"),
    }
}

fn wait_hint(number: &str, unit: &str) -> String {
    if number.is_empty() || unit.starts_with(['.', ',', '_']) {
        return "write a whole number and a unit, such as `500ms`, `10s` or `2m`".into();
    }
    let unit = match unit.to_ascii_lowercase().as_str() {
        "min" | "mins" | "minute" | "minutes" => "m",
        "hour" | "hours" | "hr" => "h",
        "msec" | "millis" => "ms",
        _ => "s",
    };
    format!("write `{number}{unit}` (units: `ms`, `s`, `m`, `h`)")
}

fn listen_hint(typed: &str) -> String {
    let bare = typed.split_once("://").map_or(typed, |(_, rest)| rest).trim_end_matches('/');
    if let Some(port) = port(bare) {
        return format!("write `127.0.0.1:{port}`, or `:{port}` for every IPv4 address");
    }
    if let Ok(address) = bare.trim_matches(['[', ']']).parse::<IpAddr>() {
        return format!("write `{}`", SocketAddr::new(address, 8080));
    }
    match bare.rsplit_once(':').map(|(host, after)| (host, port(after))) {
        Some(("*" | "", Some(port))) => format!("write `:{port}`"),
        Some(("localhost", Some(port))) => format!("write `127.0.0.1:{port}` or `[::1]:{port}`"),
        Some((_, Some(port))) => {
            format!("write the address in numbers, such as `127.0.0.1:{port}`")
        }
        Some((_, None)) if bare.contains(':') => "the port is 0 to 65535, as in `:8080`".into(),
        _ => "write `127.0.0.1:8080`, `[::1]:8080` or `:8080`".into(),
    }
}

fn port(typed: &str) -> Option<u16> {
    typed.bytes().all(|byte| byte.is_ascii_digit()).then(|| typed.parse().ok())?
}

/// `FromStr` and the schema of a text that a function reads.
macro_rules! read_by {
    ($type:ident, $read:ident, $pattern:literal) => {
        impl FromStr for $type {
            type Err = String;

            fn from_str(typed: &str) -> Result<$type, String> {
                $read(typed).map($type)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    };
}

read_by!(Size, parse_size, r"^[0-9]+ *([KkMmGgTt][Ii]?)?[Bb]?$");
read_by!(Wait, parse_duration, r"^(0|[0-9]+ *(ms|s|m|h))$");
read_by!(Listen, parse_listen, r"^(\[[0-9A-Fa-f:.%]+\]|[0-9.]*):[0-9]+$");

const SIZES: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

const WAITS: [(&str, u64); 4] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (typed, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64KB", 64_000),
            ("64kb", 64_000),
            ("64KiB", 65_536),
            ("256MB", 256_000_000),
            ("1GiB", 1 << 30),
            ("2 TB", 2_000_000_000_000),
        ] {
            assert_eq!(parse_size(typed), Ok(bytes), "{typed}");
        }
    }

    #[test]
    fn wrong_sizes_say_what_to_type() {
        for (typed, says) in [
            ("64K", "`64KB` (powers of 1000) or `64KiB`"),
            ("MB", "a whole number and a unit"),
            ("1.5GB", "a whole number"),
            ("-1", "a whole number"),
            ("12 apples", "`12MB`"),
            ("99999999TB", "too large"),
            ("99999999999999999999", "is not a size"),
            ("", "such as `64KB`"),
        ] {
            let error = parse_size(typed).unwrap_err();
            assert!(error.contains(says), "{typed}: {error}");
        }
    }

    #[test]
    fn durations() {
        for (typed, millis) in [("0", 0), ("500ms", 500), ("1s", 1000), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(typed), Ok(Duration::from_millis(millis)), "{typed}");
        }
        for (typed, says) in [
            ("10", "write `10s`"),
            ("2min", "write `2m`"),
            ("1.5s", "a whole number"),
            ("s", "a whole number"),
            ("99999999999999999h", "too long"),
        ] {
            let error = parse_duration(typed).unwrap_err();
            assert!(error.contains(says), "{typed}: {error}");
        }
    }

    #[test]
    fn addresses() {
        for (typed, means) in [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            (":80", "0.0.0.0:80"),
            ("[::1]:8080", "[::1]:8080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
        ] {
            assert_eq!(parse_listen(typed), Ok(means.parse().unwrap()), "{typed}");
        }
        for (typed, says) in [
            ("8080", "write `127.0.0.1:8080`, or `:8080`"),
            ("127.0.0.1", "write `127.0.0.1:8080`"),
            ("::1", "write `[::1]:8080`"),
            ("*:80", "write `:80`"),
            ("localhost:80", "write `127.0.0.1:80`"),
            ("http://localhost:80/", "write `127.0.0.1:80`"),
            ("example.org:80", "in numbers"),
            (":99999", "0 to 65535"),
            ("", "write `127.0.0.1:8080`"),
        ] {
            let error = parse_listen(typed).unwrap_err();
            assert!(error.contains(says), "{typed}: {error}");
        }
    }
}
