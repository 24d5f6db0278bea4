//! What was typed behind `cargo xtask bench`.

use std::io::{Error, Result};
use std::path::PathBuf;

/// The options, checked.
pub struct Options {
    pub scenarios: Vec<String>,
    pub rounds: u32,
    pub seconds: u32,
    /// Beginnings of servers' names; none means all.
    pub servers: Vec<String>,
    /// Short rounds, nothing written: to see that everything runs.
    pub quick: bool,
    pub install: bool,
    /// Another congestion control than the machine's.
    pub congestion: Option<String>,
    /// amped's memory for files, whatever the scenario says.
    pub cache: Option<String>,
    pub amped: Option<PathBuf>,
    pub null: Option<PathBuf>,
    /// An older amped, to be measured beside.
    pub before: Option<PathBuf>,
}

impl Options {
    /// `None` when help was asked for.
    pub fn parse(args: &[String]) -> Result<Option<Self>> {
        let mut options = Self {
            scenarios: Vec::new(),
            rounds: 0,
            seconds: 0,
            servers: Vec::new(),
            quick: false,
            install: true,
            congestion: None,
            cache: None,
            amped: None,
            null: None,
            before: None,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| Error::other(format!("{arg} needs a value")));
            match arg.as_str() {
                "--rounds" => options.rounds = number(arg, value()?)?,
                "--seconds" => options.seconds = number(arg, value()?)?,
                "--servers" => options.servers = value()?.split(',').map(String::from).collect(),
                "--congestion" => options.congestion = Some(value()?.clone()),
                "--cache" => options.cache = Some(value()?.clone()),
                "--amped" => options.amped = Some(value()?.into()),
                "--null" => options.null = Some(value()?.into()),
                "--before" => options.before = Some(value()?.into()),
                "--quick" => options.quick = true,
                "--no-install" => options.install = false,
                "--help" | "-h" => return Ok(None),
                name if SCENARIOS.contains(&name) => options.scenarios.push(name.into()),
                "tail" => options.scenarios.extend(["tail10".into(), "tail100".into()]),
                other => {
                    return Err(Error::other(format!("no scenario or option `{other}`\n{HELP}")));
                }
            }
        }
        let (rounds, seconds) = if options.quick { (1, 1) } else { (5, 4) };
        options.rounds = if options.rounds == 0 { rounds } else { options.rounds };
        options.seconds = if options.seconds == 0 { seconds } else { options.seconds };
        if options.scenarios.is_empty() {
            options.scenarios = SCENARIOS.iter().map(|name| (*name).into()).collect();
        }
        Ok(Some(options))
    }
}

fn number(name: &str, value: &str) -> Result<u32> {
    let number = value.parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| Error::other(format!("{name} needs a number above 0, not `{value}`")))
}

const SCENARIOS: &[&str] =
    &["hot", "hot4k", "pipeline", "close", "medium", "large", "paced", "tail10", "tail100", "cold", "idle"];

pub const HELP: &str = "\
cargo xtask bench [SCENARIO...] [OPTIONS]

  hot       1 KB, 64 keep-alive connections          tail10    200,000 files, 10% of requests uniform
  hot4k     4.5 KB                                   tail100   the same, all uniform (`tail`: both)
  pipeline  16 requests in one write, 100 B          cold      the same, memory and disk scarce, beside a probe
  close     a connection per request, 100 B          idle      memory of 15,000 keep-alive connections
  medium    64 KB                                    large     100 MB, as fast as can be
                                                     paced     100 MB, 4 clients at 200 MiB/s

  --rounds N       rounds per server, interleaved (5)
  --seconds N      length of a round (4)
  --servers A,B    only these: beginnings of nginx lighttpd h2o caddy apache2
                   amped-epoll-edge amped-poll amped-uring amped-auto null-epoll null-poll null-uring
  --congestion C   in a network namespace whose loopback uses this TCP congestion control: cubic, bbr, reno
  --cache SIZE     amped's memory for files: 64MB (tail: an eighth of the machine's) if nothing is said
  --quick          one round of one second, nothing written
  --amped PATH     measure this binary instead of building one    --null PATH  the same for the null server
  --before PATH    measure this amped too, beside each of amped's rows: what did a change bring?
  --no-install     say what is missing instead of installing it

Files are kept in $AMPED_BENCH_DIR (/var/tmp/amped-bench), 2 GB for tail and cold.";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Options>> {
        let args: Vec<String> = line.split_whitespace().map(String::from).collect();
        Options::parse(&args)
    }

    #[test]
    fn nothing_typed_means_everything_in_full() {
        let options = parse("").unwrap().unwrap();
        assert_eq!((options.scenarios.len(), options.rounds, options.seconds), (SCENARIOS.len(), 5, 4));
    }

    #[test]
    fn options_in_any_order() {
        let options =
            parse("--rounds 7 tail --servers nginx,amped --quick --congestion reno --cache 1GB").unwrap().unwrap();
        assert_eq!(options.cache.as_deref(), Some("1GB"));
        assert_eq!(options.congestion.as_deref(), Some("reno"));
        assert_eq!(options.scenarios, ["tail10", "tail100"]);
        assert_eq!((options.rounds, options.seconds), (7, 1));
        assert_eq!(options.servers, ["nginx", "amped"]);
    }

    #[test]
    fn mistakes_are_told() {
        assert!(parse("hott").is_err());
        assert!(parse("--rounds 0").is_err());
        assert!(parse("--rounds").is_err());
        assert!(parse("--help").unwrap().is_none());
    }
}
