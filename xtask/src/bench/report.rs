//! Tables: on standard output, and dated under bench/runs/.

use std::fmt::Write as _;
use std::fs;
use std::io::Result;

use super::{Bench, machine};
use crate::root;

/// One scenario's results.
pub struct Report {
    pub scenario: String,
    /// What was done, one sentence.
    pub about: String,
    pub columns: Vec<&'static str>,
    /// The first cell is the server's name.
    pub rows: Vec<Vec<String>>,
    /// Lines below the table.
    pub notes: Vec<String>,
    /// Servers took turns of a second.
    pub in_turns: bool,
}

impl Report {
    /// Prints, and writes the file unless the run was a quick one.
    pub fn publish(&self, bench: &Bench) -> Result<()> {
        let columns: Vec<String> = self.columns.iter().map(|column| (*column).to_owned()).collect();
        let table = table(&columns, &self.rows);
        println!("\n{}\n\n{table}", self.about);
        for note in &self.notes {
            println!("- {note}");
        }
        if bench.options.quick {
            return Ok(());
        }
        let mut text = format!("# {}, {}\n\n{}\n\n{table}", self.scenario, machine::today(), self.about);
        for note in &self.notes {
            let _ = write!(text, "\n- {note}");
        }
        let (rounds, seconds) = (bench.options.rounds, bench.options.seconds);
        let turns = if self.in_turns { ", in turns of one; ratios are the medians of the turns' ratios" } else { "" };
        let _ = write!(
            text,
            "\n\nHow: one worker per server on core 0, the load on core 1, medians of {rounds} interleaved rounds of {seconds} s{turns}.\n\n{}\n",
            bench.facts
        );
        let options = [&bench.options.congestion, &bench.options.cache];
        let suffix: String = options.into_iter().flatten().map(|option| format!("-{option}")).collect();
        let name = format!("bench/runs/{}-{}{suffix}.md", machine::today(), self.scenario);
        fs::create_dir_all(root().join("bench/runs"))?;
        fs::write(root().join(&name), text)?;
        println!("\nwritten to {name}");
        Ok(())
    }
}

/// A Markdown table whose columns line up.
pub fn table(columns: &Vec<String>, rows: &[Vec<String>]) -> String {
    let lines: Vec<&Vec<String>> = std::iter::once(columns).chain(rows).collect();
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (at, cell) in line.iter().enumerate() {
            let width = widths[at];
            // Names to the left, figures to the right.
            let _ = if at == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if number == 0 {
            for (at, width) in widths.iter().enumerate() {
                let line = "-".repeat(width + 1);
                let _ = if at == 0 { write!(text, "|{line}-") } else { write!(text, "|{line}:") };
            }
            text.push_str("|\n");
        }
    }
    text
}

/// The middle of some figures; 0 of none.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => figures[odd / 2],
        even => f64::midpoint(figures[even / 2 - 1], figures[even / 2]),
    }
}

/// `1,234,567`; below a hundred with decimals.
pub fn count(figure: f64) -> String {
    if figure < 100.0 {
        return format!("{figure:.1}");
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Milliseconds with three figures that mean something; a dash where nothing was answered at all.
pub fn millis(figure: f64) -> String {
    match figure {
        0.0 => "–".into(),
        small if small < 10.0 => format!("{small:.2} ms"),
        middle if middle < 100.0 => format!("{middle:.1} ms"),
        large => format!("{} ms", count(large)),
    }
}

/// A ratio, or a dash where one side is missing.
pub fn ratio(figure: f64, beside: Option<f64>) -> String {
    match beside {
        Some(beside) if beside > 0.0 => format!("{:.2}", figure / beside),
        _ => "–".into(),
    }
}

pub fn megabytes(bytes: u64) -> String {
    format!("{:.1}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_to_be_read() {
        assert_eq!(count(1_234_567.4), "1,234,567");
        assert_eq!(count(123.0), "123");
        assert_eq!(count(12.34), "12.3");
        assert_eq!(millis(1200.0), "1,200 ms");
        assert_eq!(millis(0.05), "0.05 ms");
        assert_eq!(ratio(3.0, Some(2.0)), "1.50");
        assert_eq!(ratio(3.0, None), "–");
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median([]), 0.0);
    }
}
