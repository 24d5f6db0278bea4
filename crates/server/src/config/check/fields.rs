//! Header fields that configuration adds: valid bytes (RFC 9110, section 5), and none that amped
//! must set itself.

use super::Check;
use crate::config::typed::{At, Pairs};

impl Check {
    pub(super) fn fields(&mut self, typed: &Pairs) -> Vec<(String, String)> {
        for (at, (name, value)) in typed.0.iter().enumerate() {
            if let Err(sentence) = check_field_name(&name.value) {
                self.wrong(name, sentence);
            }
            if let Err(sentence) = check_field_value(&value.value) {
                self.wrong(value, sentence);
            }
            if typed.0[..at].iter().any(|(known, _)| known.value.eq_ignore_ascii_case(&name.value)) {
                let name_typed = &name.value;
                self.wrong(name, format!("`{name_typed}` is set twice: case does not matter here"));
            }
        }
        typed.0.iter().map(|(name, value)| (name.value.clone(), value.value.clone())).collect()
    }

    pub(super) fn cache_control(&mut self, typed: &Option<At<String>>) -> Option<String> {
        let typed = typed.as_ref()?;
        if typed.value.is_empty() {
            self.wrong(typed, "this is empty: write one such as `max-age=3600`, or leave it out");
        } else if let Err(sentence) = check_field_value(&typed.value) {
            self.wrong(typed, sentence);
        }
        Some(typed.value.clone())
    }
}

fn check_field_name(name: &str) -> Result<(), String> {
    let good = |c: &char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*c);
    if name.is_empty() {
        return Err("the field has no name: write one such as `X-Frame-Options`".into());
    }
    if let Some(bad) = name.chars().find(|c| !good(c)) {
        return Err(format!("{name:?} is not a field name: {bad:?} is not allowed in one"));
    }
    if name.eq_ignore_ascii_case("cache-control") {
        return Err("`Cache-Control` has its own key: write `cache_control = \"…\"`".into());
    }
    if OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) {
        return Err(format!("`{name}` cannot be set: amped answers for it itself"));
    }
    Ok(())
}

/// Visible ASCII, spaces and tabs inside, and what is beyond ASCII (obs-text) as it stands.
fn check_field_value(value: &str) -> Result<(), String> {
    if let Some(bad) = value.chars().find(|c| c.is_ascii_control() && *c != '\t') {
        return Err(format!("a field's value cannot hold {bad:?}: write it in one line"));
    }
    if value.trim_matches([' ', '\t']) != value {
        return Err("a field's value starts or ends with a space: take it away".into());
    }
    Ok(())
}

/// Fields that frame the message or describe the file: a second opinion would be a wrong one.
const OWN: [&str; 15] = [
    "accept-ranges",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "location",
    "retry-after",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values() {
        assert_eq!(check_field_name("X-Frame-Options"), Ok(()));
        assert!(check_field_name("X Frame").unwrap_err().contains("' '"));
        assert!(check_field_name("content-Length").unwrap_err().contains("itself"));
        assert!(check_field_name("Cache-Control").unwrap_err().contains("cache_control"));
        assert!(check_field_name("é").is_err() && check_field_name("").is_err());
        assert_eq!(check_field_value("default-src 'self'"), Ok(()));
        assert_eq!(check_field_value(""), Ok(()));
        assert!(check_field_value("a\r\nb: c").is_err());
        assert!(check_field_value(" a").is_err());
    }
}
