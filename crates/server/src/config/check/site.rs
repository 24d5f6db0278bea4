//! One `[[sites]]` table: its root, its error pages, its routes put together.

use std::path::{Path, PathBuf};

use super::{Check, check_folder};
use crate::config::pattern::Pattern;
use crate::config::plan::{Action, FilesPlan, HeaderRule, Route, Site};
use crate::config::problem::Problem;
use crate::config::text::{HeadersText, SiteText};
use crate::config::typed::{At, OneOrMany, Pairs, Word};

impl Check {
    pub(super) fn sites(&mut self, typed: &[At<SiteText>]) -> Vec<Site> {
        if typed.is_empty() {
            self.problems.push(
                Problem::whole("there is no site: add one to the file")
                    .note("for example:\n\n    [[sites]]\n    root = \"/srv/www\"\n"),
            );
        }
        self.unique_names(typed);
        typed.iter().map(|site| self.site(site)).collect()
    }

    fn site(&mut self, typed: &At<SiteText>) -> Site {
        let site = &typed.value;
        let files = self.site_files(site);
        if site.root.is_none() && site.routes.is_empty() {
            self.wrong(typed, "this site has nothing to serve: add `root` or a `[[sites.routes]]`");
        }
        let mut routes = self.routes(&site.routes, &files);
        if site.root.is_some() && !routes.iter().any(|r| r.pattern.is_everything()) {
            let action = Action::Files(files.clone());
            routes.push(Route::new(Pattern::everything(), action));
        }
        Site {
            names: self.names(&site.names),
            routes,
            headers: site.headers.iter().map(|block| self.header_rule(block)).collect(),
            error_pages: self.error_pages(&site.error_pages, &files.root),
        }
    }

    /// How the site's own files are served; its routes take from it what they do not say.
    fn site_files(&mut self, site: &SiteText) -> FilesPlan {
        let root = site.root.as_ref().map_or(self.base.clone(), |root| self.root(root));
        let default = FilesPlan::new(root);
        FilesPlan {
            index: self.index(&site.index).unwrap_or(default.index),
            symlinks: self.word(&site.symlinks).unwrap_or(default.symlinks),
            hidden: site.hidden.as_ref().map_or(default.hidden, |typed| typed.value),
            ..default
        }
    }

    pub(super) fn root(&mut self, typed: &At<String>) -> PathBuf {
        let root = self.base.join(&typed.value);
        if typed.value.is_empty() {
            self.wrong(typed, "the root is empty: write `.` for the folder of this file");
        } else if let Err(sentence) = check_folder(&root) {
            self.wrong(typed, sentence);
        }
        root
    }

    pub(super) fn index(&mut self, typed: &Option<OneOrMany<String>>) -> Option<Vec<String>> {
        let OneOrMany(typed) = typed.as_ref()?;
        for word in typed {
            let name = word.value.text();
            if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
                self.wrong(word, "this is not a file's name: write one such as `index.html`");
            }
        }
        Some(typed.iter().map(|word| word.value.text().to_owned()).collect())
    }

    fn header_rule(&mut self, typed: &At<HeadersText>) -> HeaderRule {
        let block = &typed.value;
        if block.set.0.is_empty() && block.cache_control.is_none() {
            self.wrong(typed, "this block sets nothing: add `set` or `cache_control`");
        }
        HeaderRule {
            pattern: self.pattern(&block.r#match),
            set: self.fields(&block.set),
            cache_control: self.cache_control(&block.cache_control),
        }
    }

    pub(super) fn pattern(&mut self, typed: &At<Word<Pattern>>) -> Pattern {
        self.read(typed).unwrap_or_else(Pattern::everything)
    }

    fn error_pages(&mut self, typed: &Pairs, root: &Path) -> Vec<(u16, PathBuf)> {
        let mut pages = Vec::new();
        for (key, value) in &typed.0 {
            let status = key.value.parse().ok().filter(|status| (400..=599).contains(status));
            let path = root.join(&value.value);
            match status {
                Some(status) => pages.push((status, path.clone())),
                None => {
                    let typed = &key.value;
                    self.wrong(key, format!("`{typed}` is not an error's status: write 400 to 599"));
                }
            }
            if !path.is_file() {
                let shown = path.display();
                self.wrong(value, format!("`{shown}` is not a file: expected the page to show"));
            }
        }
        pages
    }
}
