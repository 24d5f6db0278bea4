//! Host and path to the route that answers: pure, and without allocating.
//!
//! Goal: a plan of one folder costs one comparison. Cost otherwise: a hash of the host, a hash of
//! the path, then a comparison per prefix and per pattern of one site.

mod hosts;

use std::collections::HashMap;

use foldhash::quality::RandomState;

use crate::config::plan::{Pattern, Plan, Route, Site};
use hosts::Hosts;

/// Finds routes; built once per plan, shared by workers.
#[derive(Debug)]
pub struct Router {
    /// The answer to everything, where a plan has but one.
    only: Option<RouteId>,
    hosts: Hosts,
    sites: Vec<SiteRoutes>,
}

/// A route's place in its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteId {
    /// Index into [`Plan::sites`].
    pub site: u16,
    /// Index into [`Site::routes`].
    pub route: u16,
}

/// The routes of one site by the order in which they are tried.
#[derive(Debug)]
struct SiteRoutes {
    exact: HashMap<Box<[u8]>, u16, RandomState>,
    /// Longest prefix first, then patterns in order of appearance, then `/*`.
    others: Vec<(Pattern, u16)>,
}

impl Router {
    /// A router of at most 65,536 sites of 65,536 routes; what is beyond is not found.
    pub fn new(plan: &Plan) -> Router {
        Router {
            only: only_route(plan),
            hosts: Hosts::new(&plan.sites),
            sites: plan.sites.iter().map(SiteRoutes::new).collect(),
        }
    }

    /// The route for a request.
    ///
    /// `host` is the field's value, port and all; empty when there is none (HTTP/1.0). `path` is
    /// decoded, without dot segments and query: `/a%2e` and `/b/../a.` are `/a.` here. Sites:
    /// the exact name, else the longest `*.` name, else the one without names, else the first.
    /// Routes: the exact path, else the longest `/a/*`, else the first other pattern that
    /// matches, else `/*`. `None`: that site has no route for the path (404).
    #[inline]
    pub fn find(&self, host: &[u8], path: &[u8]) -> Option<RouteId> {
        if self.only.is_some() {
            return self.only;
        }
        let site = self.site(host);
        let route = self.sites.get(usize::from(site))?.find(path)?;
        Some(RouteId { site, route })
    }

    /// The index of the site for a host, whatever the path: whose error pages to show where `find`
    /// finds nothing. 0 for a plan without sites.
    pub fn site(&self, host: &[u8]) -> u16 {
        self.hosts.find(host)
    }
}

impl RouteId {
    /// The site of this route in the plan that its router was built from.
    pub fn site(self, plan: &Plan) -> &Site {
        &plan.sites[usize::from(self.site)]
    }

    /// The route itself, likewise.
    pub fn route(self, plan: &Plan) -> &Route {
        &self.site(plan).routes[usize::from(self.route)]
    }
}

impl SiteRoutes {
    fn new(site: &Site) -> SiteRoutes {
        let mut exact = HashMap::default();
        let mut others = Vec::new();
        for (route, at) in site.routes.iter().zip(0_u16..) {
            match route.pattern.exact() {
                Some(path) => drop(exact.entry(path.into()).or_insert(at)),
                None => others.push((route.pattern.clone(), at)),
            }
        }
        others.sort_by_key(|(pattern, _)| pattern.rank());
        SiteRoutes { exact, others }
    }

    fn find(&self, path: &[u8]) -> Option<u16> {
        if !self.exact.is_empty()
            && let Some(route) = self.exact.get(path)
        {
            return Some(*route);
        }
        self.others.iter().find(|(pattern, _)| pattern.matches(path)).map(|(_, route)| *route)
    }
}

/// One site whose first route is for everything, and which has no other.
fn only_route(plan: &Plan) -> Option<RouteId> {
    match plan.sites.as_slice() {
        [site] => match site.routes.as_slice() {
            [route] if route.pattern.is_everything() => Some(RouteId { site: 0, route: 0 }),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::plan::Action;

    fn site(names: &[&str], patterns: &[&str]) -> Site {
        let mut site = Site::for_folder(Path::new("/nowhere"));
        site.names = names.iter().map(|name| (*name).to_owned()).collect();
        let route = |typed: &&str| Route::new(Pattern::parse(typed).unwrap(), Action::Status { code: 200, body: None });
        site.routes = patterns.iter().map(route).collect();
        site
    }

    fn find(sites: &[Site], host: &str, path: &str) -> Option<(u16, u16)> {
        let plan = Plan { sites: sites.to_vec(), ..Plan::default() };
        let found = Router::new(&plan).find(host.as_bytes(), path.as_bytes())?;
        assert_eq!(found.route(&plan), &plan.sites[found.site as usize].routes[found.route as usize]);
        Some((found.site, found.route))
    }

    #[test]
    fn one_folder_is_the_answer_to_everything() {
        let plan = Plan::for_folder(Path::new("/nowhere"));
        let router = Router::new(&plan);
        assert!(router.only.is_some());
        assert_eq!(router.find(b"any", b"*"), Some(RouteId { site: 0, route: 0 }));
    }

    #[test]
    fn routes_in_the_documented_order() {
        let sites = [site(&[], &["/*", "*.png", "/a/*", "/a/b/*", "/a/b/c.png", "/x/*.png", "/a/b"])];
        for (path, route) in [
            ("/", 0),
            ("/x.html", 0),
            ("/x.png", 1),
            ("/x/y.png", 1),
            ("/a/x.png", 2),
            ("/a/b", 6),
            ("/a/b/", 3),
            ("/a/b/d.png", 3),
            ("/a/b/c.png", 4),
        ] {
            assert_eq!(find(&sites, "", path), Some((0, route)), "{path}");
        }
    }

    #[test]
    fn order_of_appearance_changes_nothing_but_between_patterns() {
        let patterns = ["/*", "/a/*", "/a/b/*", "/a/b/c", "*.png"];
        for turn in 0..patterns.len() {
            let mut turned = patterns;
            turned.rotate_left(turn);
            let sites = [site(&[], &turned)];
            for (path, pattern) in [("/a/b/c", "/a/b/c"), ("/a/b/x.png", "/a/b/*"), ("/c.png", "*.png"), ("/", "/*")] {
                let (_, route) = find(&sites, "", path).unwrap();
                assert_eq!(turned[route as usize], pattern, "{path}");
            }
        }
    }

    #[test]
    fn a_site_may_have_no_answer() {
        let sites = [site(&["a.example"], &["/a"]), site(&[], &["/b"])];
        assert_eq!(find(&sites, "a.example", "/b"), None);
        assert_eq!(find(&sites, "other", "/b"), Some((1, 0)));
        let plan = Plan { sites: sites.to_vec(), ..Plan::default() };
        assert_eq!(Router::new(&plan).site(b"A.example:80"), 0);
    }

    #[test]
    fn no_site_is_no_answer() {
        assert_eq!(find(&[], "a", "/"), None);
    }
}
