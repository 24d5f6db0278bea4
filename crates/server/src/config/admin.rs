//! The admin address and who may ask there: this machine alone, or whoever knows the token.
//!
//! Goal: numbers and paths of a site are never open to a network by a slip. Checked once, at start.

use std::fmt;

use super::units::parse_listen;

/// A word that must not appear in any message.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A token as RFC 6750 allows it in a field, long enough not to be guessed.
    ///
    /// # Errors
    /// In words, without the token.
    pub fn parse(typed: &str) -> Result<Secret, String> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !(SHORTEST..=LONGEST).contains(&typed.len()) || !typed.bytes().all(allowed) {
            return Err(format!(
                "the admin token must have {SHORTEST} to {LONGEST} letters, digits or `-._~+/=`: `openssl rand -hex 16` makes one"
            ));
        }
        Ok(Secret(typed.to_owned()))
    }

    /// The token in the environment variable `AMPED_ADMIN_TOKEN`, if it is set.
    ///
    /// # Errors
    /// As `parse`.
    pub fn from_environment() -> Result<Option<Secret>, String> {
        let Some(typed) = std::env::var_os(VARIABLE).filter(|typed| !typed.is_empty()) else { return Ok(None) };
        Secret::parse(&typed.to_string_lossy()).map(Some).map_err(|error| format!("{VARIABLE}: {error}"))
    }

    /// Whether somebody knows it. Takes equally long for every wrong word of the right length.
    pub fn is(&self, offered: &str) -> bool {
        let difference = |(one, other): (u8, u8)| one ^ other;
        let differs = self.0.bytes().zip(offered.bytes()).map(difference).fold(0, |all, one| all | one);
        self.0.len() == offered.len() && std::hint::black_box(differs) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(..)")
    }
}

/// The address as it is bound: `unix:PATH`, or an address of this machine's own unless there is a token.
///
/// # Errors
/// What is wrong with it, or why it needs a token.
pub fn settle(typed: &str, token: Option<&Secret>) -> Result<String, String> {
    match typed.strip_prefix("unix:") {
        Some("") => return Err("the socket has no path: write `unix:PATH`".into()),
        Some(_) => return Ok(typed.to_owned()),
        None => {}
    }
    let address = parse_listen(typed).map_err(|sentence| format!("{sentence}, or `unix:PATH`"))?;
    if !address.ip().is_loopback() && token.is_none() {
        return Err(format!(
            "the admin address {address} can be reached from other machines: set a token (`admin_token`, or the environment \
             variable {VARIABLE}), or use 127.0.0.1:{} or `unix:PATH`",
            address.port()
        ));
    }
    Ok(address.to_string())
}

const VARIABLE: &str = "AMPED_ADMIN_TOKEN";
const SHORTEST: usize = 16;
const LONGEST: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_a_token() {
        let token = Secret::parse("0123456789abcdef").unwrap();
        for (typed, without, with) in [
            ("127.0.0.1:9000", Some("127.0.0.1:9000"), "127.0.0.1:9000"),
            ("[::1]:9000", Some("[::1]:9000"), "[::1]:9000"),
            (":9000", None, "0.0.0.0:9000"),
            ("192.0.2.1:9000", None, "192.0.2.1:9000"),
            ("unix:/run/a", Some("unix:/run/a"), "unix:/run/a"),
        ] {
            assert_eq!(settle(typed, None).ok().as_deref(), without, "{typed}");
            assert_eq!(settle(typed, Some(&token)).unwrap(), with, "{typed}");
        }
        assert!(settle(":9000", None).unwrap_err().contains("AMPED_ADMIN_TOKEN"));
        assert!(settle("unix:", None).is_err() && settle("here", Some(&token)).is_err());
    }

    #[test]
    fn a_token_is_long_and_is_not_told() {
        for wrong in ["short", "with space 0123456789", "quote\"0123456789abcdef", &"x".repeat(257)] {
            assert!(!Secret::parse(wrong).unwrap_err().contains(wrong));
        }
        let token = Secret::parse("0123456789abcdef").unwrap();
        assert!(token.is("0123456789abcdef"));
        for other in ["0123456789abcdeF", "0123456789abcde", "0123456789abcdef0", ""] {
            assert!(!token.is(other));
        }
        assert_eq!(format!("{token:?}"), "Secret(..)");
    }
}
