//! Metrics: the server's numbers in the text formats of Prometheus (0.0.4) and OpenMetrics (1.0.0).
//!
//! Rendered from the same document as `/status`, when somebody asks: whatever is counted there is here, also when several
//! processes have been added up. What labels can be is the plan's to say and never a client's, so there are as many series after
//! a year as in the first minute.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;

use super::counters::{KNOWN, STATES};

/// Which of the two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text, which everything reads.
    Text,
    /// OpenMetrics, for whoever asks for it.
    OpenMetrics,
}

impl Format {
    /// What a client accepts; scrapers that can read OpenMetrics name it first.
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Text }
    }

    /// Its `Content-Type`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics of what `/status` says.
pub fn render(status: &Value, format: Format) -> String {
    let mut page = Page { text: String::with_capacity(16 * 1024), format };
    let word = |name: &str| status[name].as_str().unwrap_or("unknown").to_owned();
    page.info("amped_build", "The program that answers.", &[("version", word("version"))]);
    let driver = [("driver", word("driver")), ("architecture", word("architecture"))];
    page.info("amped_driver", "How the loops wait for the kernel, and how connections are shared out.", &driver);
    page.gauge("amped_workers", "Loops, or threads or processes that serve a connection each.", &status["workers"]);
    page.gauge("amped_uptime_seconds", "Since the server started.", &status["uptime_seconds"]);
    page.gauge(
        "amped_draining",
        "1 while no new requests are wanted.",
        &Value::from(u8::from(status["draining"] == true)),
    );
    requests(&mut page, status);
    counters(&mut page, status);
    connections(&mut page, status);
    cache(&mut page, &status["cache"]);
    page.gauge("amped_watched_folders", "Folders of which the kernel tells changes.", &status["watched_folders"]);
    memory(&mut page, &status["memory"]);
    helpers(&mut page, &status["helpers"]);
    turns(&mut page, status);
    page.gauge(
        "amped_overload_step",
        "Steps of the overload ladder that are taken, summed over the workers; 0: none.",
        &Value::from(status["counters"][STEP].as_u64().unwrap_or(0)),
    );
    let restarts = status["processes"]["restarts"].as_u64().unwrap_or(0);
    page.counter(
        "amped_restarts_total",
        "Server processes that ended unasked and were replaced.",
        &[(vec![], restarts)],
    );
    page.finish()
}

fn requests(page: &mut Page, status: &Value) {
    let mut samples = Vec::new();
    for (site, classes) in status["sites"].as_object().into_iter().flatten() {
        for (class, count) in classes.as_object().into_iter().flatten() {
            let labels = vec![("site", site.as_str().into()), ("code", class.as_str().into())];
            samples.push((labels, count.as_u64().unwrap_or(0)));
        }
    }
    page.counter("amped_requests_total", "Requests answered, by site and class of status.", &samples);
    let latency = &status["latency"];
    // Whole doublings only: as exact as a plot needs, a quarter of the series.
    let buckets = numbers(&latency["buckets"]);
    page.histogram(
        "amped_request_duration_seconds",
        "From the turn in which a request was read until its answer began to leave; estimated from samples.",
        (0..=24).map(|doubling| 1 << doubling),
        &buckets,
        latency["micros"].as_u64().unwrap_or(0),
    );
}

/// Counters by the table of `counters`; those of one metric stand together.
fn counters(page: &mut Page, status: &Value) {
    let value = |name: &str| status["counters"][name].as_u64().unwrap_or(0);
    for (at, known) in KNOWN.iter().enumerate() {
        // A state and no count.
        if known.name == STEP {
            continue;
        }
        if KNOWN[..at].iter().any(|earlier| earlier.metric == known.metric) {
            continue;
        }
        let family = KNOWN.iter().filter(|other| other.metric == known.metric);
        let samples: Vec<Sample<'_>> = family
            .map(|one| (one.label.iter().map(|(name, value)| (*name, (*value).into())).collect(), value(one.name)))
            .collect();
        let help =
            FAMILIES.iter().find(|(metric, _)| *metric == known.metric).map_or(known.help.trim(), |(_, help)| help);
        page.counter(known.metric, help, &samples);
    }
}

fn connections(page: &mut Page, status: &Value) {
    let states =
        STATES.iter().map(|state| (vec![("state", (*state).into())], status["states"][*state].as_u64().unwrap_or(0)));
    page.gauges("amped_connections", "Open connections by what they are waiting for.", &states.collect::<Vec<_>>());
    page.counter(
        "amped_signal_queue_overflows_total",
        "Times that the queue of realtime signals was full (driver sigio).",
        &[(vec![], status["signal_queue_overflows"].as_u64().unwrap_or(0))],
    );
}

fn cache(page: &mut Page, cache: &Value) {
    page.gauge("amped_cache_size_bytes", "Memory in use by cached files.", &cache["bytes"]);
    page.gauge("amped_cache_limit_bytes", "What cached files may use.", &cache["budget"]);
    page.gauge("amped_cache_entries", "Files and absences in memory.", &cache["entries"]);
}

fn memory(page: &mut Page, memory: &Value) {
    page.gauge("amped_memory_used_bytes", "Resident memory that no file backs.", &memory["used"]);
    page.gauge(
        "amped_memory_limit_bytes",
        "The least limit on it: the control group's or the machine's; 0: none known.",
        &memory["limit"],
    );
}

fn helpers(page: &mut Page, helpers: &Value) {
    let count = |name: &str| helpers[name].as_u64().unwrap_or(0);
    let idle = count("threads").saturating_sub(count("busy"));
    let working = count("busy").saturating_sub(count("stuck"));
    let states = [("idle", idle), ("working", working), ("stuck", count("stuck"))];
    let states = states.map(|(state, threads)| (vec![("state", state.into())], threads));
    page.gauges("amped_helpers", "Disk helpers; stuck: with a job of more than a second.", &states);
    page.gauge("amped_helper_queue_jobs", "Jobs that wait for a helper.", &helpers["queued"]);
    let jobs = [("ran", count("ran")), ("refused", count("refused")), ("dropped", count("dropped"))];
    let jobs = jobs.map(|(outcome, jobs)| (vec![("outcome", outcome.into())], jobs));
    page.counter(
        "amped_helper_jobs_total",
        "Jobs by outcome; refused: the queue was full, dropped: nobody wanted them any more.",
        &jobs,
    );
    page.histogram(
        "amped_helper_queue_delay_seconds",
        "How long jobs waited for a helper.",
        (0..LAST_DOUBLING).map(|doubling| 1 << doubling),
        &numbers(&helpers["delays"]),
        helpers["delay_micros"].as_u64().unwrap_or(0),
    );
}

fn turns(page: &mut Page, status: &Value) {
    let (mut buckets, mut micros, mut longest) = (Vec::new(), 0, 0);
    for worker in status["turns"].as_array().into_iter().flatten() {
        let pairs = worker["below_us"].as_array().into_iter().flatten();
        buckets.extend(pairs.map(|pair| (pair[0].as_u64().unwrap_or(0), pair[1].as_u64().unwrap_or(0))));
        micros += worker["micros"].as_u64().unwrap_or(0);
        longest = longest.max(worker["longest"]["us"].as_u64().unwrap_or(0));
    }
    page.histogram(
        "amped_turn_duration_seconds",
        "Turns of the loops: what one request can be made to wait for others.",
        (0..LAST_DOUBLING).map(|doubling| 1 << doubling),
        &buckets,
        micros,
    );
    page.gauge("amped_turn_longest_seconds", "The longest turn since the start.", &Value::from(longest as f64 / 1e6));
}

/// `{"128": 7}` as bounds and counts.
fn numbers(object: &Value) -> Vec<(u64, u64)> {
    let pairs = object.as_object().into_iter().flatten();
    pairs.filter_map(|(bound, count)| Some((bound.parse().ok()?, count.as_u64()?))).collect()
}

/// Labels and a value.
type Sample<'a> = (Vec<(&'static str, Cow<'a, str>)>, u64);

/// A text that grows by whole families.
struct Page {
    text: String,
    format: Format,
}

impl Page {
    fn info(&mut self, family: &str, help: &str, labels: &[(&'static str, String)]) {
        let kind = if self.format == Format::OpenMetrics { "info" } else { "gauge" };
        let declared = if self.format == Format::OpenMetrics { family.to_owned() } else { format!("{family}_info") };
        self.declare(&declared, kind, help);
        let labels: Vec<_> = labels.iter().map(|(name, value)| (*name, Cow::from(value))).collect();
        self.sample(&format!("{family}_info"), &labels, "1");
    }

    /// `name` ends with `_total`.
    fn counter(&mut self, name: &str, help: &str, samples: &[Sample<'_>]) {
        // OpenMetrics declares the family, Prometheus the series.
        let declared = if self.format == Format::OpenMetrics { name.trim_end_matches("_total") } else { name };
        self.declare(declared, "counter", help);
        samples.iter().for_each(|(labels, value)| self.sample(name, labels, &value.to_string()));
    }

    fn gauge(&mut self, name: &str, help: &str, value: &Value) {
        self.declare(name, "gauge", help);
        self.sample(name, &[], &value.as_f64().unwrap_or(0.0).to_string());
    }

    fn gauges(&mut self, name: &str, help: &str, samples: &[Sample<'_>]) {
        self.declare(name, "gauge", help);
        samples.iter().for_each(|(labels, value)| self.sample(name, labels, &value.to_string()));
    }

    /// Counts by upper bound in microseconds, as series of at most `bounds`. What is above the last of these is in +Inf alone.
    fn histogram(
        &mut self,
        name: &str,
        help: &str,
        bounds: impl Iterator<Item = u64>,
        counts: &[(u64, u64)],
        micros: u64,
    ) {
        self.declare(name, "histogram", help);
        let all: u64 = counts.iter().map(|(_, count)| count).sum();
        let bucket = format!("{name}_bucket");
        for bound in bounds {
            let below: u64 = counts.iter().filter(|(upper, _)| *upper <= bound).map(|(_, count)| count).sum();
            self.sample(&bucket, &[("le", seconds(bound).into())], &below.to_string());
        }
        self.sample(&bucket, &[("le", "+Inf".into())], &all.to_string());
        self.sample(&format!("{name}_sum"), &[], &seconds(micros));
        self.sample(&format!("{name}_count"), &[], &all.to_string());
    }

    /// Without UNIT, which OpenMetrics leaves to taste: the unit is the name's last word.
    fn declare(&mut self, family: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# TYPE {family} {kind}");
        let _ = writeln!(self.text, "# HELP {family} {help}");
    }

    fn sample(&mut self, name: &str, labels: &[(&'static str, Cow<'_, str>)], value: &str) {
        self.text.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            self.text.push_str(if at == 0 { "{" } else { "," });
            let _ = write!(self.text, "{label}=\"");
            escape(&mut self.text, value);
            self.text.push('"');
        }
        self.text.push_str(if labels.is_empty() { " " } else { "} " });
        self.text.push_str(value);
        self.text.push('\n');
    }

    fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

/// A label's value, as both formats want it.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// Microseconds as seconds, exact and with a point: 1 is `0.000001`, 1,000,000 is `1.0`.
fn seconds(micros: u64) -> String {
    let text = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

const STEP: &str = "ladder_step";
const SHED: &str = "amped_shed_total";
/// What metrics of several counters count.
const FAMILIES: &[(&str, &str)] = &[
    (SHED, "Work refused or put off because there was too much of it, by reason."),
    ("amped_cache_lookups_total", "Look-ups in the memory cache."),
];
/// The runtime's histograms end at half a second; what is longer is in their last bucket, which has no bound.
const LAST_DOUBLING: u32 = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Value {
        serde_json::json!({
            "version": "1", "driver": "uring", "architecture": "amped", "workers": 2, "draining": false,
            "sites": { "a\"b\\": { "2xx": 5, "4xx": 1 } },
            "counters": { "hits": 3, "turned_away": 2, "shed_disk": 9, "ladder_step": 2 },
            "states": { "idle": 4 },
            "latency": { "buckets": { "5": 1, "8": 2, "99000000": 4 }, "micros": 1_500_000 },
            "turns": [{ "below_us": [[1, 2], [1048576, 1]], "micros": 7 }, { "below_us": [[4, 3]] }],
            "helpers": { "threads": 5, "busy": 2, "stuck": 1, "refused": 9, "delays": { "2": 1 }, "delay_micros": 1 },
        })
    }

    #[test]
    fn every_number_has_its_line() {
        let text = render(&status(), Format::Text);
        for line in [
            "amped_build_info{version=\"1\"} 1",
            "amped_requests_total{site=\"a\\\"b\\\\\",code=\"2xx\"} 5",
            "amped_cache_lookups_total{result=\"hit\"} 3",
            "amped_shed_total{reason=\"connections\"} 2",
            "amped_shed_total{reason=\"disk\"} 9",
            "amped_connections{state=\"idle\"} 4",
            "amped_helpers{state=\"idle\"} 3",
            "amped_helpers{state=\"stuck\"} 1",
            "amped_request_duration_seconds_bucket{le=\"0.000004\"} 0",
            "amped_request_duration_seconds_bucket{le=\"0.000008\"} 3",
            "amped_request_duration_seconds_bucket{le=\"16.777216\"} 3",
            "amped_request_duration_seconds_bucket{le=\"+Inf\"} 7",
            "amped_request_duration_seconds_sum 1.5",
            "amped_turn_duration_seconds_bucket{le=\"0.524288\"} 5",
            "amped_turn_duration_seconds_bucket{le=\"+Inf\"} 6",
            "amped_overload_step 2",
            "amped_restarts_total 0",
        ] {
            assert!(text.lines().any(|present| present == line), "no {line}:\n{text}");
        }
        assert!(!text.contains("# EOF") && text.contains("# TYPE amped_shed_total counter"));
        let open = render(&status(), Format::OpenMetrics);
        assert!(open.ends_with("# EOF\n") && open.contains("# TYPE amped_shed counter"));
    }

    #[test]
    fn seconds_are_exact() {
        let shown: Vec<_> = [0, 1, 1024, 1_000_000, 1_500_000].into_iter().map(seconds).collect();
        assert_eq!(shown, ["0.0", "0.000001", "0.001024", "1.0", "1.5"]);
    }

    #[test]
    fn the_format_is_the_clients_choice() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(Format::accepted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::accepted("*/*"), Format::Text);
    }
}
