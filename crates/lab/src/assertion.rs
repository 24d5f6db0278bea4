//! `--assert 'p99<2ms'`: what must be true of a run, for scripts and CI.
//!
//! A figure, a comparison, a bound with its unit. A figure that does not exist (no request was answered) meets no bound.

use std::fmt;
use std::time::Duration;

use crate::quantity::{parse_duration, parse_rate};
use crate::report::{Summary, show_duration};

/// One condition.
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    typed: String,
    figure: Figure,
    comparison: Comparison,
    bound: f64,
}

/// What is compared. Times are in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Figure {
    Quantile(f64),
    Max,
    Mean,
    Min,
    Rate,
    Requests,
    Errors,
    /// Errors as a share of all requests.
    ErrorShare,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
}

impl Assertion {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong, with an example.
    pub fn parse(typed: &str) -> Result<Self, String> {
        let compact: String = typed.chars().filter(|character| !character.is_whitespace()).collect();
        let comparisons = [
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("==", Comparison::Equal),
            ("<", Comparison::Less),
            (">", Comparison::More),
            ("=", Comparison::Equal),
        ];
        let split = comparisons.iter().find_map(|(sign, comparison)| {
            compact.split_once(sign).map(|(figure, bound)| (figure.to_owned(), *comparison, bound.to_owned()))
        });
        let (figure, comparison, bound) =
            split.ok_or_else(|| format!("`{typed}` compares nothing: write for example 'p99<2ms' or 'rate>=1000'"))?;
        let figure = Figure::parse(&figure).ok_or_else(|| {
            format!("`{figure}` is no figure: p50, p90, p99, p99.9 and so on, max, mean, min, rate, requests or errors")
        })?;
        let (figure, bound) = figure.bound(&bound).map_err(|why| format!("`{typed}`: {why}"))?;
        Ok(Self { typed: compact, figure, comparison, bound })
    }

    /// Whether it holds.
    ///
    /// # Errors
    /// The condition and what was seen instead.
    pub fn check(&self, summary: &Summary) -> Result<(), String> {
        let Some(seen) = self.figure.of(summary) else {
            return Err(format!("{}: no request was answered", self.typed));
        };
        let holds = match self.comparison {
            Comparison::Less => seen < self.bound,
            Comparison::AtMost => seen <= self.bound,
            Comparison::More => seen > self.bound,
            Comparison::AtLeast => seen >= self.bound,
            Comparison::Equal => seen == self.bound,
        };
        if holds { Ok(()) } else { Err(format!("{}: it was {}", self.typed, self.figure.show(seen))) }
    }
}

impl Assertion {
    /// The figure as it was seen, if there is one.
    pub fn seen(&self, summary: &Summary) -> Option<String> {
        self.figure.of(summary).map(|seen| self.figure.show(seen))
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.typed)
    }
}

impl Figure {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "max" => Self::Max,
            "mean" => Self::Mean,
            "min" => Self::Min,
            "rate" => Self::Rate,
            "requests" => Self::Requests,
            "errors" => Self::Errors,
            _ => {
                let digits = name.strip_prefix('p')?;
                let is_number = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
                let percent: f64 = digits.parse().ok().filter(|_| is_number)?;
                (0.0..=100.0).contains(&percent).then(|| Self::Quantile(percent / 100.0))?
            }
        })
    }

    /// The bound as this figure counts, and the figure it makes of this one.
    fn bound(self, typed: &str) -> Result<(Self, f64), String> {
        match self {
            Self::Errors | Self::ErrorShare => match typed.strip_suffix('%') {
                Some(percent) => Ok((Self::ErrorShare, number(percent)? / 100.0)),
                None => Ok((Self::Errors, number(typed)?)),
            },
            Self::Requests => Ok((self, number(typed)?)),
            Self::Rate => Ok((self, if typed == "0" { 0.0 } else { parse_rate(typed)? })),
            _ if typed.ends_with(|last: char| last.is_ascii_digit()) && number(typed) != Ok(0.0) => {
                Err(format!("{typed} of what? Write a unit: {typed}ms"))
            }
            _ => Ok((self, parse_duration(typed)?.as_secs_f64())),
        }
    }

    fn of(self, summary: &Summary) -> Option<f64> {
        let tally = &summary.total.main;
        let errors = summary.errors() as f64;
        let latency = &tally.latency;
        let time = |latency: Duration| Some(latency.as_secs_f64());
        match self {
            Self::Errors => Some(errors),
            Self::Requests => Some(tally.counts.answers as f64),
            Self::Rate => Some(summary.rate()),
            Self::ErrorShare => {
                let all = summary.requests() as f64;
                (all > 0.0).then_some(errors / all)
            }
            _ if latency.count() == 0 => None,
            Self::Quantile(share) => time(latency.quantile(share)),
            Self::Max => time(latency.max()),
            Self::Mean => time(latency.mean()),
            Self::Min => time(latency.min()),
        }
    }

    fn show(self, seen: f64) -> String {
        match self {
            Self::Errors | Self::Requests => format!("{seen}"),
            Self::ErrorShare => format!("{:.3}%", seen * 100.0),
            Self::Rate => format!("{seen:.1}/s"),
            _ => show_duration(Duration::from_secs_f64(seen)),
        }
    }
}

fn number(typed: &str) -> Result<f64, String> {
    let is_number = !typed.is_empty() && typed.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    typed.parse().ok().filter(|_| is_number).ok_or_else(|| format!("`{typed}` is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::Failure;

    fn summary() -> Summary {
        let mut summary = Summary::default();
        for millis in 1..=100 {
            summary.total.main.counts.answer(200, 0);
            summary.total.main.latency.record(Duration::from_millis(millis));
        }
        summary.total.main.counts.errors.add(Failure::Reset, 1);
        summary.total.length = Duration::from_secs(2);
        summary
    }

    fn check(typed: &str) -> Result<(), String> {
        Assertion::parse(typed).unwrap_or_else(|error| panic!("{error}")).check(&summary())
    }

    #[test]
    fn what_holds_holds() {
        for typed in [
            "p50<51ms",
            "p99 <= 100 ms",
            "p99.9<0.2s",
            "max<=101ms",
            "mean>40ms",
            "min<1100us",
            "rate>=50",
            "rate<0.1k",
            "requests==100",
            "requests=100",
            "errors<2",
            "errors<=1",
            "errors<1%",
            "p0<2ms",
            "p100>99ms",
        ] {
            assert_eq!(check(typed), Ok(()), "{typed}");
        }
    }

    #[test]
    fn what_does_not_says_what_was_seen() {
        for (typed, word) in [
            ("p99<2ms", "p99<2ms: it was 99"),
            ("max < 1s", ""),
            ("errors==0", "errors==0: it was 1"),
            ("errors<0.5%", "0.990%"),
            ("rate>=1000", "it was 50.0/s"),
            ("p50<0", "it was"),
        ] {
            match check(typed) {
                Err(error) => assert!(error.contains(word), "{typed}: {error}"),
                Ok(()) => assert_eq!(word, "", "{typed} holds"),
            }
        }
        let nothing = Assertion::parse("p99<2ms").unwrap().check(&Summary::default());
        assert!(nothing.unwrap_err().contains("no request was answered"));
        assert!(Assertion::parse("rate>=1").unwrap().check(&Summary::default()).is_err());
    }

    #[test]
    fn what_cannot_be_read_says_what_to_write() {
        for (typed, word) in [
            ("p99", "compares nothing"),
            ("p999<2ms", "no figure"),
            ("p<2ms", "no figure"),
            ("pNaN<2ms", "no figure"),
            ("speed>9", "no figure"),
            ("p99<2", "2 of what? Write a unit: 2ms"),
            ("p99<fast", "no time"),
            ("errors<few", "no number"),
            ("errors<-1", "no number"),
            ("rate>=x", "no rate"),
        ] {
            let error = Assertion::parse(typed).unwrap_err();
            assert!(error.contains(word), "{typed}: {error}");
        }
    }
}
