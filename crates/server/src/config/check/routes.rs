//! `[[sites.routes]]`: one action each, no two for the same pattern.

use super::Check;
use crate::config::pattern::Pattern;
use crate::config::plan::{Action, FilesPlan, Route, Template};
use crate::config::problem::Problem;
use crate::config::text::RouteText;
use crate::config::typed::{At, Word};

impl Check {
    /// The routes, and for each folder of files `/a/*` a redirect from `/a` to `/a/`.
    pub(super) fn routes(&mut self, typed: &[At<RouteText>], site: &FilesPlan) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::new();
        for route in typed {
            let made = self.route(route, site);
            if routes.iter().any(|other| same(&other.pattern, &made.pattern)) {
                let pattern = &made.pattern;
                let at = &route.value.r#match;
                self.wrong(at, format!("`{pattern}` has a route already: this one would never answer"));
            }
            routes.push(made);
        }
        let slashes: Vec<Route> = routes.iter().filter_map(|r| to_slash(r, &routes)).collect();
        routes.extend(slashes);
        routes
    }

    fn route(&mut self, typed: &At<RouteText>, site: &FilesPlan) -> Route {
        let route = &typed.value;
        let pattern = self.pattern(&route.r#match);
        let action = self.action(typed, &pattern, site);
        self.useless_keys(route);
        Route {
            pattern,
            action,
            headers: self.fields(&route.headers),
            cache_control: self.cache_control(&route.cache_control),
            priority: self.word(&route.priority).unwrap_or_default(),
        }
    }

    fn action(&mut self, typed: &At<RouteText>, pattern: &Pattern, site: &FilesPlan) -> Action {
        let route = &typed.value;
        match (&route.root, &route.redirect, &route.status) {
            (Some(root), None, None) => {
                let root = self.root(root);
                Action::Files(self.route_files(route, pattern, FilesPlan { root, ..site.clone() }))
            }
            (None, Some(to), status) => self.redirect(to, status.as_ref()),
            (None, None, Some(status)) => self.status(status, route),
            (None, None, None) => {
                self.wrong(typed, "this route does nothing: add `root`, `redirect` or `status`");
                NOTHING
            }
            (Some(root), _, _) => {
                self.wrong(root, "this route does two things: keep `root`, `redirect` or `status`");
                NOTHING
            }
        }
    }

    fn route_files(&mut self, route: &RouteText, pattern: &Pattern, site: FilesPlan) -> FilesPlan {
        FilesPlan {
            strip: pattern.folder().map_or(0, |folder| folder.len() - 1),
            index: self.index(&route.index).unwrap_or(site.index),
            symlinks: self.word(&route.symlinks).unwrap_or(site.symlinks),
            hidden: route.hidden.as_ref().map_or(site.hidden, |typed| typed.value),
            root: site.root,
        }
    }

    fn redirect(&mut self, to: &At<Word<Template>>, status: Option<&At<i64>>) -> Action {
        let Some(to) = self.read(to) else {
            return NOTHING;
        };
        let Some(typed) = status else {
            return Action::Redirect { to, status: 302 };
        };
        if !REDIRECTS.contains(&typed.value) {
            let status = typed.value;
            self.wrong(typed, format!("{status} is not a redirect: write 301, 302, 303, 307 or 308"));
        }
        Action::Redirect { to, status: u16::try_from(typed.value).unwrap_or(302) }
    }

    fn status(&mut self, typed: &At<i64>, route: &RouteText) -> Action {
        let code = match u16::try_from(typed.value) {
            Ok(code) if (200..=599).contains(&code) && code != 304 => code,
            _ => {
                let code = typed.value;
                self.wrong(typed, format!("{code} cannot be answered: expected 200 to 599, not 304"));
                500
            }
        };
        if REDIRECTS.contains(&typed.value) {
            self.wrong(typed, format!("{code} leads nowhere: add `redirect`"));
        }
        if let Some(body) = route.body.as_ref().filter(|_| matches!(code, 204 | 205)) {
            self.wrong(body, format!("{code} has no body: leave `body` out"));
        }
        Action::Status { code, body: route.body.as_ref().map(|body| body.value.as_str().into()) }
    }

    /// Keys that mean nothing beside the route's action: a slip worth telling.
    fn useless_keys(&mut self, route: &RouteText) {
        if let Some(body) = route.body.as_ref().filter(|_| route.status.is_none() || route.redirect.is_some()) {
            self.wrong(body, "`body` means nothing here: it belongs to a route with `status` alone");
        }
        if route.root.is_some() {
            return;
        }
        let index = route.index.as_ref().and_then(|index| index.0.first()).map(|word| &word.span);
        let symlinks = route.symlinks.as_ref().map(|word| &word.span);
        let hidden = route.hidden.as_ref().map(|typed| &typed.span);
        for span in [index, symlinks, hidden].into_iter().flatten() {
            let sentence = "this means nothing here: it belongs to a route with `root`";
            self.problems.push(Problem::at(span, sentence));
        }
    }
}

fn same(a: &Pattern, b: &Pattern) -> bool {
    a.as_str() == b.as_str() || (a.is_everything() && b.is_everything())
}

fn to_slash(route: &Route, routes: &[Route]) -> Option<Route> {
    let folder = route.pattern.folder().filter(|_| matches!(route.action, Action::Files(_)))?;
    let bare = Pattern::parse(folder.strip_suffix('/')?).ok()?;
    if routes.iter().any(|other| same(&other.pattern, &bare)) {
        return None;
    }
    let to = Template::parse("{path}/{query}").ok()?;
    Some(Route::new(bare, Action::Redirect { to, status: 301 }))
}

/// Stands in for an action that was reported.
const NOTHING: Action = Action::Status { code: 500, body: None };

const REDIRECTS: [i64; 5] = [301, 302, 303, 307, 308];
