//! All latencies in a file that other tools read: HdrHistogram's interval log, or its percentile table.
//!
//! The log (`*.hlog`) has a line for each interval, values in nanoseconds, the idle crowd's tagged `idle`. The table is the
//! one that HdrHistogram's plotter takes, values in milliseconds.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use super::{Summary, millis};
use crate::tally::{Interval, Latencies};

/// The file, and the intervals of a log until it is written.
#[derive(Debug)]
pub struct HdrFile {
    path: PathBuf,
    file: File,
    /// Kept only for a log.
    intervals: Option<Vec<Interval>>,
    began: SystemTime,
}

impl HdrFile {
    /// Creates the file, so that a wrong path is known before the run.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path) -> Result<Self, String> {
        let file = File::create(path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let is_log = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("hlog"));
        let intervals = is_log.then(Vec::new);
        Ok(Self { path: path.to_owned(), file, intervals, began: SystemTime::now() })
    }

    /// Another interval.
    ///
    /// # Errors
    /// None so far; the log is written at the end.
    pub fn interval(&mut self, interval: &Interval) -> Result<(), String> {
        if let Some(intervals) = &mut self.intervals {
            if intervals.is_empty() {
                self.began = SystemTime::now().checked_sub(interval.length).unwrap_or(self.began);
            }
            intervals.push(interval.clone());
        }
        Ok(())
    }

    /// Writes what there is to write.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn finish(self, summary: &Summary) -> Result<(), String> {
        let Self { path, file, intervals, began } = self;
        let mut writer = BufWriter::new(file);
        let outcome = match &intervals {
            Some(intervals) => write_log(&mut writer, intervals, began),
            None => write_table(&mut writer, &summary.total.main.latency).map_err(|error| error.to_string()),
        };
        let outcome = outcome.and_then(|()| writer.flush().map_err(|error| error.to_string()));
        outcome.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

fn write_log(writer: &mut impl Write, intervals: &[Interval], began: SystemTime) -> Result<(), String> {
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(concat!("[amped-lab ", env!("CARGO_PKG_VERSION"), "; values in nanoseconds]"))
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(1e6)
        .begin_log_with(writer, &mut serializer)
        .map_err(|error| error.to_string())?;
    for interval in intervals {
        let idle = Tag::new("idle").filter(|_| interval.crowd.latency.count() > 0);
        let crowd = idle.map(|tag| (&interval.crowd.latency, Some(tag)));
        for (latency, tag) in std::iter::once((&interval.main.latency, None)).chain(crowd) {
            log.write_histogram(latency.histogram(), interval.start, interval.length, tag)
                .map_err(|error| format!("{error:?}"))?;
        }
    }
    Ok(())
}

fn write_table(writer: &mut impl Write, latency: &Latencies) -> std::io::Result<()> {
    writeln!(writer, "{:>12} {:>14} {:>10} {:>14}\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")?;
    let histogram = latency.histogram();
    let mut seen = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        seen += step.count_since_last_iteration();
        let share = step.quantile_iterated_to();
        let value = millis(Duration::from_nanos(step.value_iterated_to().min(histogram.max())));
        write!(writer, "{value:>12.6} {share:>14.12} {seen:>10}")?;
        // The last line has no inverse.
        if share < 1.0 { writeln!(writer, " {:>14.2}", 1.0 / (1.0 - share))? } else { writeln!(writer)? }
    }
    let (mean, deviation) = (millis(latency.mean()), millis(latency.deviation()));
    writeln!(writer, "#[Mean    = {mean:>12.6}, StdDeviation   = {deviation:>12.6}]")?;
    writeln!(writer, "#[Max     = {:>12.6}, Total count    = {:>12}]", millis(latency.max()), latency.count())?;
    writeln!(writer, "#[Buckets = {:>12}, SubBuckets     = {:>12}]", histogram.buckets(), SUB_BUCKETS)
}

/// As HdrHistogram's own tools.
const TICKS_PER_HALF: u32 = 5;
/// Of three digits.
const SUB_BUCKETS: u32 = 2048;

#[cfg(test)]
mod tests {
    use super::*;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    fn interval(index: u32, millis: u64) -> Interval {
        let second = Duration::from_secs(1);
        let mut interval = Interval { index, start: second * index, length: second, ..Interval::default() };
        interval.main.latency.record(Duration::from_millis(millis));
        interval
    }

    fn written(name: &str, intervals: &[Interval]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let (mut file, mut summary) = (HdrFile::create(&path).unwrap(), Summary::default());
        for interval in intervals {
            file.interval(interval).unwrap();
            summary.add(interval);
        }
        file.finish(&summary).unwrap();
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_log_is_read_back() {
        let mut second = interval(1, 30);
        second.crowd.latency.record(Duration::from_millis(7));
        let text = written("x.hlog", &[interval(0, 20), second]);
        let seen: Vec<(f64, u64, Option<String>)> = IntervalLogIterator::new(text.as_bytes())
            .filter_map(|entry| match entry.unwrap() {
                LogEntry::Interval(line) => {
                    use base64::Engine;
                    let bytes = base64::engine::general_purpose::STANDARD.decode(line.encoded_histogram()).unwrap();
                    let histogram: hdrhistogram::Histogram<u64> =
                        Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
                    let tag = line.tag().map(|tag| tag.as_str().to_owned());
                    Some((line.start_timestamp().as_secs_f64(), histogram.max() / 1_000_000, tag))
                }
                _ => None,
            })
            .collect();
        assert_eq!(seen, [(0.0, 20, None), (1.0, 30, None), (1.0, 7, Some("idle".into()))], "{text}");
    }

    #[test]
    fn the_table_is_what_the_plotter_takes() {
        let text = written("x.txt", &[interval(0, 20), interval(1, 30)]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].trim_start().starts_with("Value     Percentile"), "{text}");
        let last: Vec<&str> = lines.iter().rfind(|line| !line.starts_with('#')).unwrap().split_whitespace().collect();
        assert!(last[0].starts_with("30.0") && last[1..] == ["1.000000000000", "2"], "{text}");
        assert!(text.contains("Total count    =            2]"), "{text}");
        assert!(HdrFile::create(Path::new("/nowhere/at/all")).unwrap_err().contains("cannot write"));
    }
}
