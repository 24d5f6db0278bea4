//! `[overload]` and `[clients]`: what is aimed at, what is answered beyond it, and what one client may have.

use std::path::Path;

use super::{Check, DAY, HOUR, SHORT, reason};
use crate::config::plan::{ClientLimits, Overload, OverloadBody};
use crate::config::text::{ClientsText, OverloadText};
use crate::config::typed::{At, OneOrMany};

impl Check {
    pub(super) fn overload(&mut self, text: &OverloadText) -> Overload {
        let default = Overload::default();
        Overload {
            disk_delay: self.wait(&text.disk_delay, SHORT..=HOUR, default.disk_delay),
            loop_delay: self.wait(&text.loop_delay, SHORT..=HOUR, default.loop_delay),
            reap_idle: self.wait(&text.reap_idle, SHORT..=DAY, default.reap_idle),
        }
    }

    pub(super) fn overload_body(&mut self, text: &OverloadText) -> Option<OverloadBody> {
        let typed = text.body.as_ref()?;
        let path = self.base.join(&typed.value);
        match read_small(&path) {
            Ok(bytes) => Some(OverloadBody { path, bytes: bytes.into() }),
            Err(sentence) => {
                self.wrong(typed, sentence);
                None
            }
        }
    }

    pub(super) fn clients(&mut self, text: &ClientsText) -> ClientLimits {
        let requests = self.limit(&text.requests, "requests");
        if let (None, Some(burst)) = (&text.requests, &text.burst) {
            self.wrong(burst, "`burst` means nothing here: it goes with `requests`");
        }
        let burst = self.limit(&text.burst, "burst").or(requests).unwrap_or(0);
        let trusted = text.trusted.as_ref().map_or(&[][..], |OneOrMany(typed)| typed);
        ClientLimits {
            connections: self.limit(&text.connections, "connections"),
            requests,
            burst,
            trusted: trusted.iter().filter_map(|word| self.read(word)).collect(),
        }
    }

    fn limit(&mut self, typed: &Option<At<i64>>, key: &str) -> Option<u32> {
        typed.as_ref().map(|_| self.count(typed, key, 1..=1_000_000, 1))
    }
}

fn read_small(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let failed = |error| format!("`{shown}` cannot be read: {}", reason(&error));
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(format!("`{shown}` is not a file: expected a small one, such as an image"));
    }
    if found.len() > OverloadBody::MAX_BYTES {
        let bytes = found.len();
        return Err(format!("`{shown}` has {bytes} bytes: expected at most 64KiB"));
    }
    std::fs::read(path).map_err(failed)
}
