//! A figure: what was measured, as a plot, as a table, and in a sentence. Written under docs/lab/ with the day in its name.

use std::fmt::Write as _;
use std::fs;
use std::io::Result;

use super::plot::{self, Plot};
use crate::bench::machine;
use crate::bench::report::table;
use crate::root;

/// One experiment's result.
pub struct Figure {
    pub title: String,
    /// What was done.
    pub about: String,
    /// What it shows, made of the figures.
    pub shows: String,
    pub plots: Vec<Plot>,
    pub columns: Vec<String>,
    /// The first cell is the row's name.
    pub rows: Vec<Vec<String>>,
    pub notes: Vec<String>,
}

impl Figure {
    /// Prints it and writes it.
    ///
    /// # Errors
    /// A file could not be written.
    pub fn publish(&self, name: &str, quick: bool, facts: &str) -> Result<()> {
        let day = machine::today();
        let table = table(&self.columns, &self.rows);
        println!("\n{}\n\n{table}\n{}\n", self.about, self.shows);
        let folder = root().join("docs/lab");
        fs::create_dir_all(&folder)?;
        let mut text = format!("# {}, {day}\n\n**{}**\n\n{}\n", self.title, self.shows, self.about);
        let drawn = self.plots.iter().filter(|plot| plot.lines.iter().any(|line| !line.points.is_empty()));
        for (at, plot) in drawn.enumerate() {
            let file = if at == 0 { format!("{day}-{name}.svg") } else { format!("{day}-{name}-{}.svg", at + 1) };
            plot::write(plot, &folder.join(&file))?;
            let _ = write!(text, "\n![{}]({file})\n", plot.title);
        }
        let _ = write!(text, "\n{table}");
        for note in &self.notes {
            println!("- {note}");
            let _ = write!(text, "\n- {note}");
        }
        let quick = if quick { " --quick" } else { "" };
        let _ = write!(
            text,
            "\n\nRepeat it: `cargo xtask lab {name}{quick}`. Servers on core 0, load on core 1.\n\n{facts}\n"
        );
        let file = format!("docs/lab/{day}-{name}.md");
        fs::write(root().join(&file), text)?;
        println!("written to {file}");
        Ok(())
    }
}
