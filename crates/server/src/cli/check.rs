//! `amped check`: whether a configuration file is right, and if not, where and why.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, print};
use crate::answer::error_page::ErrorPages;
use crate::config;

/// Check a configuration file.
#[derive(Debug, Args)]
pub struct Check {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "amped.toml")]
    config: PathBuf,
    /// Print the JSON Schema of configuration files instead, for editors
    #[arg(long)]
    schema: bool,
}

impl Check {
    pub(super) fn execute(self) -> Result<(), Failure> {
        if self.schema {
            return print(config::schema());
        }
        let plan = config::load(&self.config).map_err(|report| Failure::Usage(report.to_string()))?;
        ErrorPages::load(&plan).map_err(|error| Failure::Usage(format!("amped: {error}")))?;
        let routes: usize = plan.sites.iter().map(|site| site.routes.len()).sum();
        print(format_args!("{}: {} sites, {routes} routes, nothing wrong", self.config.display(), plan.sites.len()))
    }
}
