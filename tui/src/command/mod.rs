//! The one grammar of commands: the command line, the console's `:` line and the help of both are made from it.
//!
//! [`alias`] puts people's own words in place of commands before it is asked. [`verbs`] and [`subverbs`] are the grammar, [`values`] what its arguments stand for, [`registry`] lists it, [`line`] reads and completes what is typed at the `:` line.
//! Names and job numbers are checked while parsing, so that bad ones never reach the network.

pub mod alias;
pub mod line;
pub mod registry;
pub mod subverbs;
#[cfg(test)]
mod tests;
pub mod values;
pub mod verbs;

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};

pub use subverbs::{ClusterVerb, DeadLettersVerb, LocalVerb, MemberOf, OneMember};
pub use values::{JobRef, LeastLevel, MemberRef, Since};
pub use verbs::Verb;

/// Exit codes, as `idunno --help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  error
  2  the command line is not understood
  3  the named file, version, job, model or member does not exist
  4  no coordinator, or nobody reachable
  5  not done in time
  6  refused: the input is not acceptable, or the state does not allow it
  7  done in part
  130  interrupted

The cluster is found by --cluster, else by --dir, else by --context, else by IDUNNO_CLUSTER, else by IDUNNO_CONTEXT,
else by the context that config.toml names, else by the local cluster's file DIR/cluster.json, else at 127.0.0.1:7401.
A JOB is a number (job-3), the name that add-job gave it, or a model's name, which stands for the model's job that is
not over. Where there are several the command says which, and does nothing.
Data goes to stdout, everything else to stderr. NO_COLOR is respected.

Example:
  idunno                                  open the console
  idunno put report.pdf docs/report.pdf   store a file
  idunno --output json get-job-stats      figures for a program";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "idunno", version, about = "The console and the command line of an IDunno cluster.")]
#[command(
    long_about = "The console and the command line of an IDunno cluster. Without a command: the console."
)]
#[command(after_help = EXIT_CODES)]
pub struct Arguments {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do; the console without one.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

impl Arguments {
    /// Reads a command line. A directory named on it outweighs a cluster that the environment names.
    pub fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        let matches = Self::command().try_get_matches_from(words)?;
        let mut read = Self::from_arg_matches(&matches)?;
        let given = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        if (given("dir") || given("context")) && !given("cluster") {
            read.global.cluster = Seeds::default();
        }
        // What is named on the command line outweighs a context that the environment or a file names.
        read.global.cluster_given = given("dir") || !read.global.cluster.0.is_empty();
        Ok(read)
    }
}

/// What holds for every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Addresses of members, or of the introducer, with ports, separated by commas
    #[arg(long, global = true, env = "IDUNNO_CLUSTER", value_name = "ADDR,...", default_value = "")]
    #[arg(hide_default_value = true)]
    pub cluster: Seeds,
    /// Directory of the local cluster
    #[arg(long, global = true, value_name = "DIR", default_value = ".idunno-local")]
    pub dir: PathBuf,
    /// How long to try, in seconds [default: 30; 60 for 'local up'; no limit for --wait]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: Option<u64>,
    /// The cluster of this name in config.toml; see 'idunno info'
    #[arg(long, global = true, env = "IDUNNO_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Who you are: a file made by 'idunno cluster issue', or the cluster's secret [default: the local cluster's]
    #[arg(long, global = true, env = "IDUNNO_IDENTITY", value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Refuse whatever changes the cluster
    #[arg(long, global = true, env = "IDUNNO_READ_ONLY", value_parser = clap::builder::BoolishValueParser::new())]
    #[arg(default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    #[arg(hide_default_value = true, value_name = "BOOL")]
    pub read_only: bool,
    /// Say what a command would change, and change nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// How to print data
    #[arg(long, global = true, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
    /// Print again whenever the answer changes, until Ctrl-C
    #[arg(long, global = true)]
    pub watch: bool,
    /// The console's colours: dark, light, colour-blind or mono [default: as config.toml says, else dark]
    #[arg(long, env = "IDUNNO_THEME", value_name = "NAME")]
    pub theme: Option<Palette>,
    /// The console draws with plain characters only
    #[arg(long)]
    pub ascii: bool,
    /// Where the console's log page finds logs [default: the local cluster's, else the members send theirs]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Who one is in the context, where nothing else was said.
    #[arg(skip)]
    pub context_identity: Option<PathBuf>,
    /// The member that the context names as one's own.
    #[arg(skip)]
    pub context_member: Option<MemberRef>,
    /// Whether the cluster was named, so that no context of a file counts.
    #[arg(skip)]
    pub cluster_given: bool,
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs: stdout carries JSON and nothing else, errors are JSON on stderr.
    Json,
    /// The same, one line a row.
    Jsonl,
}

/// The console's colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Palette {
    /// For a dark screen.
    #[default]
    Dark,
    /// For a light screen.
    Light,
    /// Blue and orange in place of green and red.
    ColourBlind,
    /// No colours: bold, dim and reversed only.
    Mono,
}

/// Where a cluster is looked for; nothing means the local one. An empty variable is as good as none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeds(pub Vec<SocketAddr>);

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(addresses)
            .collect::<Result<Vec<_>, _>>()
            .map(|found| Self(found.concat()))
    }
}

/// An address, or all those of a host's name and a port: only some of them may be listened on.
fn addresses(text: &str) -> Result<Vec<SocketAddr>, String> {
    let found = text.to_socket_addrs().map_err(|error| format!("'{text}': {error}: write HOST:PORT"))?;
    let found: Vec<SocketAddr> = found.collect();
    if found.is_empty() { Err(format!("'{text}' has no address")) } else { Ok(found) }
}
