//! Quantities as people type them: `10s`, `500ms`, `28.8k`, `10k`, `64KB`.
//!
//! Each parser says what it expected, with an example, since its error is what the user sees.

use std::time::Duration;

/// A time: `10s`, `1.5s`, `500ms`, `100us`, `2m`, `1h`; a bare number counts seconds.
///
/// # Errors
/// What was expected instead.
pub fn parse_duration(typed: &str) -> Result<Duration, String> {
    let expected = || format!("`{typed}` is no time: write 10s, 500ms, 100us, 2m or 1h");
    let (number, unit) = split(typed).ok_or_else(expected)?;
    let seconds = match unit {
        "ns" => 1e-9,
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    Duration::try_from_secs_f64(number * seconds).map_err(|_| expected())
}

/// A rate of a line in bits per second: `28.8k`, `56k`, `1M`, `64000`.
///
/// # Errors
/// What was expected instead.
pub fn parse_bits(typed: &str) -> Result<u64, String> {
    let expected = || format!("`{typed}` is no rate of a line: write bits per second as 28.8k, 56k or 1M");
    let (number, unit) = split(typed).ok_or_else(expected)?;
    let unit = unit.strip_suffix("bit/s").or_else(|| unit.strip_suffix("bps")).unwrap_or(unit);
    let bits = number * thousands(unit).ok_or_else(expected)?;
    // A byte a second is the slowest that still moves.
    if bits < 8.0 { Err(expected()) } else { Ok(bits as u64) }
}

/// A number of things: `100`, `10k`, `1M`.
///
/// # Errors
/// What was expected instead.
pub fn parse_count(typed: &str) -> Result<u64, String> {
    let expected = || format!("`{typed}` is no number: write 100, 10k or 1M");
    let (number, unit) = split(typed).ok_or_else(expected)?;
    let count = number * thousands(unit).ok_or_else(expected)?;
    if count.fract() == 0.0 && count <= 1e15 { Ok(count as u64) } else { Err(expected()) }
}

/// As `parse_count`, for what must be at least one.
///
/// # Errors
/// What was expected instead.
pub fn parse_positive(typed: &str) -> Result<u64, String> {
    match parse_count(typed)? {
        0 => Err("0 is too few: write at least 1".into()),
        count => Ok(count),
    }
}

/// Requests per second, possibly less than one: `1000`, `50k`, `0.5`.
///
/// # Errors
/// What was expected instead.
pub fn parse_rate(typed: &str) -> Result<f64, String> {
    let expected = || format!("`{typed}` is no rate: write requests per second as 1000, 50k or 0.5");
    let (number, unit) = split(typed.strip_suffix("/s").unwrap_or(typed)).ok_or_else(expected)?;
    let rate = number * thousands(unit).ok_or_else(expected)?;
    if rate > 0.0 && rate <= 1e9 { Ok(rate) } else { Err(expected()) }
}

/// A size in bytes: `4096`, `4KB`, `1MB`, `64KiB`.
///
/// # Errors
/// What was expected instead.
pub fn parse_size(typed: &str) -> Result<usize, String> {
    let expected = || format!("`{typed}` is no size: write 4096, 4KB or 1MB");
    let (number, unit) = split(typed).ok_or_else(expected)?;
    let factor = match unit {
        "" | "B" => 1.0,
        "KB" | "k" | "K" => 1e3,
        "KiB" => 1024.0,
        "MB" | "M" => 1e6,
        "MiB" => 1024.0 * 1024.0,
        _ => return Err(expected()),
    };
    let size = number * factor;
    if (1.0..=1e9).contains(&size) { Ok(size as usize) } else { Err(expected()) }
}

/// The number and what follows it. Neither signs nor exponents are numbers here.
fn split(typed: &str) -> Option<(f64, &str)> {
    let typed = typed.trim();
    let end = typed.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(typed.len());
    let number: f64 = typed[..end].parse().ok()?;
    Some((number, typed[end..].trim()))
}

fn thousands(unit: &str) -> Option<f64> {
    Some(match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "m" | "M" => 1e6,
        "g" | "G" => 1e9,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (typed, millis) in [("10s", 10_000), ("1.5s", 1500), ("500ms", 500), ("2m", 120_000), ("7", 7000)] {
            assert_eq!(parse_duration(typed), Ok(Duration::from_millis(millis)), "{typed}");
        }
        assert_eq!(parse_duration("100us"), Ok(Duration::from_micros(100)));
        for typed in ["", "s", "-1s", "10 parsecs", "1e3s", "1.2.3s", "99999999999999999999h"] {
            assert!(parse_duration(typed).unwrap_err().contains("10s"), "{typed}");
        }
    }

    #[test]
    fn rates_of_lines() {
        assert_eq!(parse_bits("28.8k"), Ok(28_800));
        assert_eq!(parse_bits("56k"), Ok(56_000));
        assert_eq!(parse_bits("56kbit/s"), Ok(56_000));
        assert_eq!(parse_bits("1M"), Ok(1_000_000));
        assert_eq!(parse_bits("64000"), Ok(64_000));
        for typed in ["", "fast", "0", "7", "-8", "56kk"] {
            assert!(parse_bits(typed).unwrap_err().contains("28.8k"), "{typed}");
        }
    }

    #[test]
    fn counts_rates_and_sizes() {
        assert_eq!((parse_count("100"), parse_count("10k"), parse_count("1M")), (Ok(100), Ok(10_000), Ok(1_000_000)));
        assert!(parse_count("1.5").is_err() && parse_count("ten").is_err() && parse_positive("0").is_err());
        assert_eq!((parse_rate("0.5"), parse_rate("50k"), parse_rate("9/s")), (Ok(0.5), Ok(50_000.0), Ok(9.0)));
        assert!(parse_rate("0").is_err() && parse_rate("x").is_err());
        assert_eq!((parse_size("4KB"), parse_size("4KiB"), parse_size("512")), (Ok(4000), Ok(4096), Ok(512)));
        assert!(parse_size("0").is_err() && parse_size("4 bananas").is_err());
    }
}
