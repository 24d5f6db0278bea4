//! The report for people: as few lines as tell the run, figures in columns.

use std::fmt::Write;
use std::time::Duration;

use super::{Summary, per};
use crate::tally::{Latencies, Tally};

/// The summary in lines, without a last newline.
pub fn text(summary: &Summary) -> String {
    let (total, main) = (&summary.total, &summary.total.main);
    let mut out = format!("{}: {}\n", summary.shape.url, summary.shape.description);
    let line = |out: &mut String, name: &str, value: String| {
        let _ = writeln!(out, "  {name:<12} {value}");
    };
    if summary.shape.connections > 0 {
        out.push('\n');
        let seconds = total.length.as_secs_f64();
        let (answers, rate) = (show_count(main.counts.answers), show_rate(summary.rate()));
        line(&mut out, "requests", format!("{answers} in {seconds:.2} s, {rate}/s"));
        let received = show_bytes(main.counts.received as f64);
        let speed = show_bytes(per(main.counts.received as f64, total.length));
        line(&mut out, "received", format!("{received}, {speed}/s"));
        line(&mut out, "statuses", statuses(main));
        line(&mut out, "errors", errors(main));
        line(&mut out, "connections", connections(main));
        if main.counts.unfinished > 0 && main.counts.answers == 0 {
            line(&mut out, "unfinished", format!("{}: nothing was answered", show_count(main.counts.unfinished)));
        }
        let rows = [("latency", Some(&main.latency)), ("  from sending", main.service.as_ref())];
        columns(&mut out, &[rows[0], rows[1], ("wrong status", Some(&main.refused))]);
    }
    if summary.shape.idle > 0 {
        let crowd = &total.crowd;
        out.push('\n');
        let (connected, all) = (show_count(total.idle_connected), show_count(summary.shape.idle as u64));
        line(&mut out, "idle crowd", format!("{connected} of {all} connected at the end"));
        line(&mut out, "requests", show_count(crowd.counts.answers));
        line(&mut out, "errors", errors(crowd));
        line(&mut out, "connections", connections(crowd));
        columns(&mut out, &[("latency", Some(&crowd.latency))]);
    }
    let _ = write!(out, "\n  {:<12} {:.2} s", "processor", total.processor.as_secs_f64());
    if let Some(rate) = summary.per_processor_second() {
        let _ = write!(out, ", {} requests per second of it", show_rate(rate));
    }
    out
}

fn columns(out: &mut String, rows: &[(&str, Option<&Latencies>)]) {
    let rows: Vec<_> = rows.iter().filter_map(|(name, row)| Some((name, row.filter(|row| row.count() > 0)?))).collect();
    if rows.is_empty() {
        return;
    }
    let _ = write!(out, "\n  {:<14}", "");
    for name in ["p50", "p90", "p99", "p99.9", "max", "mean"] {
        let _ = write!(out, "{name:>11}");
    }
    let _ = writeln!(out);
    for (name, latency) in rows {
        let _ = write!(out, "  {name:<14}");
        let quantiles = [0.5, 0.9, 0.99, 0.999].map(|share| latency.quantile(share));
        for value in quantiles.into_iter().chain([latency.max(), latency.mean()]) {
            let _ = write!(out, "{:>11}", show_duration(value));
        }
        let _ = writeln!(out);
    }
}

fn statuses(tally: &Tally) -> String {
    let mut statuses = tally.counts.statuses.clone();
    statuses.sort_unstable();
    let each: Vec<String> =
        statuses.iter().map(|(status, count)| format!("{status}: {}", show_count(*count))).collect();
    if each.is_empty() { "none".into() } else { each.join(", ") }
}

fn errors(tally: &Tally) -> String {
    let each: Vec<String> =
        tally.counts.errors.each().map(|(name, count)| format!("{name}: {}", show_count(count))).collect();
    if each.is_empty() { "none".into() } else { each.join(", ") }
}

fn connections(tally: &Tally) -> String {
    let made = show_count(tally.counts.connections);
    match tally.counts.closed_idle {
        0 => format!("{made} made"),
        closed => format!("{made} made, {} closed by the server while idle", show_count(closed)),
    }
}

/// Three digits and a unit.
pub fn show_duration(time: Duration) -> String {
    let nanos = time.as_nanos() as f64;
    let (value, unit) = match nanos {
        0.0..1e6 => (nanos / 1e3, "us"),
        1e6..1e9 => (nanos / 1e6, "ms"),
        _ => (nanos / 1e9, "s"),
    };
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {unit}")
}

/// Thousands apart.
pub fn show_count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn show_rate(rate: f64) -> String {
    if rate < 100.0 { format!("{rate:.1}") } else { show_count(rate.round() as u64) }
}

fn show_bytes(bytes: f64) -> String {
    let (value, unit) = match bytes {
        0.0..1e3 => return format!("{bytes:.0} B"),
        1e3..1e6 => (bytes / 1e3, "KB"),
        1e6..1e9 => (bytes / 1e6, "MB"),
        _ => (bytes / 1e9, "GB"),
    };
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let shown = |nanos: u64| show_duration(Duration::from_nanos(nanos));
        assert_eq!(shown(0), "0.00 us");
        assert_eq!(shown(1_234), "1.23 us");
        assert_eq!(shown(99_960), "100 us");
        assert_eq!(shown(1_500_000), "1.50 ms");
        assert_eq!(shown(204_000_000), "204 ms");
        assert_eq!(shown(12_340_000_000), "12.3 s");
        assert_eq!(
            (show_count(7), show_count(1000), show_count(1_234_567)),
            ("7".into(), "1,000".into(), "1,234,567".into())
        );
        assert_eq!((show_rate(9.94), show_rate(123_456.7)), ("9.9".into(), "123,457".into()));
        assert_eq!(
            (show_bytes(12.0), show_bytes(1.5e6), show_bytes(2e9)),
            ("12 B".into(), "1.5 MB".into(), "2.0 GB".into())
        );
    }

    #[test]
    fn a_report_tells_what_there_was() {
        let mut summary = Summary::default();
        summary.shape.connections = 3;
        let mut interval = crate::tally::Interval { length: Duration::from_secs(2), ..Default::default() };
        interval.main.counts.answer(503, 10);
        interval.main.counts.errors.add(crate::tally::Failure::Status, 1);
        interval.main.latency.record(Duration::from_millis(5));
        summary.add(&interval);
        let report = text(&summary);
        for part in ["1 in 2.00 s, 0.5/s", "503: 1", "status: 1", "p99.9", "5.00 ms"] {
            assert!(report.contains(part), "{part} is missing:\n{report}");
        }
        assert!(!report.contains("idle crowd"), "{report}");
    }
}
