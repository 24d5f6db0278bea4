//! The report for programs: one object. docs/lab.md describes it; what is there stays.

use std::collections::BTreeMap;

use serde_json::{Value, json as object};

use super::{Summary, millis, per};
use crate::assertion::Assertion;
use crate::tally::{Failure, Latencies, Tally};

/// The summary as JSON text.
pub fn json(summary: &Summary, assertions: &[Assertion]) -> String {
    let total = &summary.total;
    let main = &total.main;
    let checks: Vec<Value> = assertions
        .iter()
        .map(|assertion| {
            let outcome = assertion.check(summary);
            object!({"condition": assertion.to_string(), "holds": outcome.is_ok(), "seen": assertion.seen(summary)})
        })
        .collect();
    let report = object!({
        "program": "amped-lab",
        "version": env!("CARGO_PKG_VERSION"),
        "shape": summary.shape,
        "seconds": total.length.as_secs_f64(),
        "requests": main.counts.answers,
        "errors": errors(main),
        "statuses": statuses(main),
        "unfinished": main.counts.unfinished,
        "bytes": bytes(main),
        "rates": {
            "requests_per_second": summary.rate(),
            "bytes_received_per_second": per(main.counts.received as f64, total.length),
        },
        "connections": {"made": main.counts.connections, "closed_while_idle": main.counts.closed_idle},
        "latency_ms": latency(&main.latency),
        "service_ms": main.service.as_ref().map(latency),
        "refused_ms": latency(&main.refused),
        "idle": (summary.shape.idle > 0).then(|| idle(summary)),
        "processor": {
            "seconds": total.processor.as_secs_f64(),
            "requests_per_second": summary.per_processor_second(),
        },
        "series": summary.series,
        "assertions": checks,
    });
    serde_json::to_string_pretty(&report).expect("numbers and strings")
}

fn idle(summary: &Summary) -> Value {
    let crowd = &summary.total.crowd;
    object!({
        "requests": crowd.counts.answers,
        "errors": errors(crowd),
        "statuses": statuses(crowd),
        "bytes": bytes(crowd),
        "connected": summary.total.idle_connected,
        "connections": {"made": crowd.counts.connections, "closed_while_idle": crowd.counts.closed_idle},
        "latency_ms": latency(&crowd.latency),
    })
}

fn errors(tally: &Tally) -> Value {
    let kinds = Failure::ALL.into_iter().map(|kind| (kind.name().replace(' ', "_"), tally.counts.errors.of(kind)));
    let total = ("total".to_owned(), tally.counts.errors.total());
    object!(kinds.chain([total]).collect::<BTreeMap<_, _>>())
}

fn statuses(tally: &Tally) -> Value {
    object!(
        tally.counts.statuses.iter().map(|(status, count)| (status.to_string(), *count)).collect::<BTreeMap<_, _>>()
    )
}

fn bytes(tally: &Tally) -> Value {
    object!({"received": tally.counts.received, "bodies": tally.counts.bodies, "sent": tally.counts.sent})
}

/// `null` when there is none: a zero would be taken for a fast one.
fn latency(latency: &Latencies) -> Value {
    if latency.count() == 0 {
        return Value::Null;
    }
    let at = |share: f64| millis(latency.quantile(share));
    object!({
        "count": latency.count(),
        "min": millis(latency.min()),
        "mean": millis(latency.mean()),
        "deviation": millis(latency.deviation()),
        "p50": at(0.5),
        "p75": at(0.75),
        "p90": at(0.9),
        "p99": at(0.99),
        "p99.9": at(0.999),
        "p99.99": at(0.9999),
        "max": millis(latency.max()),
    })
}
