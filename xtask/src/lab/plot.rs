//! Line plots as SVG: one line for each server, a legend, a linear or a logarithmic axis each way.

use std::io::{Error, Result};
use std::ops::Range;
use std::path::Path;

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// A plot and its lines.
pub struct Plot {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
}

pub struct Axis {
    pub label: &'static str,
    pub log: bool,
}

/// One server's points, by x.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

impl Axis {
    pub const fn linear(label: &'static str) -> Self {
        Self { label, log: false }
    }

    pub const fn log(label: &'static str) -> Self {
        Self { label, log: true }
    }

    /// From nought, or from below the least, to above the most.
    fn range(&self, values: impl Iterator<Item = f64>) -> Range<f64> {
        let values: Vec<f64> = values.filter(|value| value.is_finite() && (!self.log || *value > 0.0)).collect();
        let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        if self.log {
            let least = values.iter().copied().fold(most, f64::min);
            least * 0.8..most * 1.25
        } else {
            0.0..(most * 1.08).max(1e-9)
        }
    }
}

/// Draws it.
///
/// # Errors
/// The file could not be written.
pub fn write(plot: &Plot, file: &Path) -> Result<()> {
    let points = || plot.lines.iter().flat_map(|line| line.points.iter().copied());
    let x = beside_the_legend(plot.x.log, plot.x.range(points().map(|point| point.0)));
    let y = plot.y.range(points().map(|point| point.1));
    let drawn = match (plot.x.log, plot.y.log) {
        (false, false) => draw(plot, file, x, y),
        (true, false) => draw(plot, file, x.log_scale(), y),
        (false, true) => draw(plot, file, x, y.log_scale()),
        (true, true) => draw(plot, file, x.log_scale(), y.log_scale()),
    };
    drawn.map_err(|error| Error::other(format!("{}: {error}", file.display())))
}

fn draw<X, Y>(plot: &Plot, file: &Path, x: X, y: Y) -> std::result::Result<(), Box<dyn std::error::Error>>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let area = SVGBackend::new(file, (900, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(&plot.title, ("sans-serif", 20))
        .margin(12)
        .margin_right(28)
        .x_label_area_size(44)
        .y_label_area_size(84)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(RGBColor(228, 228, 228))
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|value| short(*value))
        .y_label_formatter(&|value| short(*value))
        .x_desc(plot.x.label)
        .y_desc(plot.y.label)
        .draw()?;
    for (at, line) in plot.lines.iter().filter(|line| !line.points.is_empty()).enumerate() {
        let (red, green, blue) = COLOURS[at % COLOURS.len()];
        let colour = RGBColor(red, green, blue);
        let style = colour.stroke_width(if at < COLOURS.len() { 2 } else { 1 });
        // Nought has no place on a logarithmic axis.
        let fits = |point: &(f64, f64)| (!plot.x.log || point.0 > 0.0) && (!plot.y.log || point.1 > 0.0);
        let points: Vec<(f64, f64)> = line.points.iter().copied().filter(fits).collect();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(&line.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 13))
        .position(SeriesLabelPosition::UpperRight)
        .draw()?;
    area.present()?;
    Ok(())
}

/// Room on the right, where no line runs under the legend.
fn beside_the_legend(log: bool, Range { start, end }: Range<f64>) -> Range<f64> {
    start..if log { end * (end / start).powf(0.22) } else { end + (end - start) * 0.22 }
}

/// `12k`, `1.5M`, `0.25`.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        large if large >= 1e6 => (value / 1e6, "M"),
        large if large >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = if value.abs() >= 10.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// Okabe and Ito's colours, which the colour-blind can tell apart, without the yellow.
const COLOURS: [(u8, u8, u8); 8] = [
    (0, 114, 178),
    (230, 159, 0),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (86, 180, 233),
    (0, 0, 0),
    (140, 110, 60),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_on_an_axis_are_short() {
        let shorts: Vec<_> = [0.0, 0.25, 5.0, 1500.0, 19_000.0, 1_500_000.0].into_iter().map(short).collect();
        assert_eq!(shorts, ["0", "0.25", "5", "1500", "19k", "1.5M"]);
    }

    #[test]
    fn a_plot_is_an_svg_with_its_names() {
        let folder = std::env::temp_dir().join(format!("amped-plot-{}", std::process::id()));
        let line = Line { name: "poll".into(), points: vec![(0.0, 10.0), (1000.0, 5.0)] };
        let (x, y) = (Axis::linear("idle connections"), Axis::log("ms"));
        let plot = Plot { title: "Idle".into(), x, y, lines: vec![line] };
        write(&plot, &folder).expect("written");
        let svg = std::fs::read_to_string(&folder).expect("read");
        let _ = std::fs::remove_file(&folder);
        assert!(svg.starts_with("<svg") && ["Idle", "idle connections", "poll"].iter().all(|text| svg.contains(text)));
    }
}
