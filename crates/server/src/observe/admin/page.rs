//! The dashboard: one file inside the binary, which asks nobody but this server for anything.

use std::hash::{BuildHasher, RandomState};

use super::{Answer, Body};

/// The page, with a nonce of its own: no script and no style but its own can run in it (CSP level 3).
pub fn show() -> Answer {
    let random = RandomState::new();
    let nonce = format!("{:016x}{:016x}", random.hash_one(0), random.hash_one(1));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Answer {
        status: "200 OK",
        fields: vec![("Content-Type", "text/html; charset=utf-8".into()), ("Content-Security-Policy", policy)],
        body: Body::Whole(PAGE.replace("{nonce}", &nonce)),
    }
}

const PAGE: &str = include_str!("../dashboard.html");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_comes_from_elsewhere_and_each_page_has_its_own_nonce() {
        assert!(!PAGE.contains("http://") && !PAGE.contains("https://") && !PAGE.contains("//cdn"), "an outside asset");
        assert_eq!(PAGE.matches("nonce=\"{nonce}\"").count(), 2, "one style, one script");
        let nonces: Vec<String> = (0..2).map(|_| show().fields[1].1.clone()).collect();
        assert_ne!(nonces[0], nonces[1]);
        let Body::Whole(page) = show().body else { panic!("a whole page") };
        assert!(!page.contains("{nonce}"));
    }
}
