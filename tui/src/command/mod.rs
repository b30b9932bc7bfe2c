//! The grammar of all commands. The command line, the console's `:` line and the help of both are generated from it.
//!
//! [`verbs`] and [`subverbs`] are the grammar, [`values`] its argument types, [`registry`] lists its commands, [`mod@line`] parses
//! and completes the `:` line, [`nouns`] gives commands a second name, and [`alias`] expands the user's aliases before parsing. Names and job numbers are checked while
//! parsing, so that invalid ones never reach the network. `help` groups the commands for `--help`.

pub mod adding;
pub mod alias;
pub mod deploying;
pub mod file_pattern;
mod help;
pub mod line;
pub mod nouns;
pub mod reaching;
pub mod reading;
pub mod registry;
pub mod selection;
pub mod starting;
pub mod subverbs;
#[cfg(test)]
mod tests;
pub mod values;
pub mod verbs;
pub mod wanted_rows;

use std::ffi::OsString;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use idunno_shared::names::NameError;
use thiserror::Error;

use nouns::ByNoun;
pub use subverbs::{
    ClusterVerb, DeadLettersVerb, IdentityVerb, KeyVerb, LocalVerb, MemberOf, ModelVerb, NewKey, OneMember,
};
pub use values::{JobRef, MemberRef, MinLevel, Since};
pub use verbs::Verb;

/// Exit codes, as `idunno --help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  error
  2  invalid command line
  3  the named file, version, job, model or member does not exist
  4  no coordinator, or no member is reachable
  5  timed out
  6  refused: invalid input, or not possible in the current state
  7  partly done
  130  interrupted
  143  terminated by SIGTERM or SIGHUP

The cluster is taken from the first of these that is given: --cluster, --dir, --context, IDUNNO_CLUSTER, IDUNNO_CONTEXT,
the default context in config.toml, the local cluster's file DIR/cluster.json, and finally 127.0.0.1:7401.
A JOB is a number (job-3), the name given to add-job, or a model's name, which stands for the model's newest job that is
not over. If several jobs match, the command lists them and changes nothing.
Data goes to stdout, everything else to stderr. NO_COLOR is respected.

Example:
  idunno                                  open the console
  idunno put report.pdf docs/report.pdf   store a file
  idunno -o json get-job-stats            statistics for a program";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "idunno", version, about = "The console and the command line of an IDunno cluster.")]
#[command(
    long_about = "The console and the command line of an IDunno cluster. Without a command, the console opens."
)]
#[command(after_help = EXIT_CODES)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    /// The command; without one, the console opens.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

impl Arguments {
    /// Parses a command line. A directory given on it takes precedence over a cluster from the environment.
    pub fn read(words: &[OsString]) -> Result<Self, clap::Error> {
        let by_noun =
            alias::command_position(words, 1).and_then(|at| nouns::expanded(words, at, OsString::from));
        let words = match by_noun {
            Some(ByNoun::Help(text)) => return Err(clap::Error::raw(ErrorKind::DisplayHelp, text)),
            Some(ByNoun::Command(words)) => words,
            None => words.to_vec(),
        };
        let matches = help::grouped(Self::command()).try_get_matches_from(words)?;
        let mut read = Self::from_arg_matches(&matches)?;
        let given = |name| matches.value_source(name) == Some(ValueSource::CommandLine);
        if (given("dir") || given("context")) && !given("cluster") {
            read.global.cluster = Seeds::default();
        }
        // The command line takes precedence over a context from the environment or a file.
        read.global.cluster_given = given("dir") || !read.global.cluster.0.is_empty();
        read.global.own_member = member_of_environment()?;
        Ok(read)
    }
}

/// Read here and not by each command's grammar: `idunno shell --member` outweighs it for all lines that follow.
fn member_of_environment() -> Result<Option<MemberRef>, clap::Error> {
    let Some(text) = std::env::var_os("IDUNNO_MEMBER") else { return Ok(None) };
    // What is not UTF-8 is not a name either.
    text.to_string_lossy().parse().map(Some).map_err(|error: NameError| {
        Arguments::command().error(ErrorKind::ValueValidation, format!("IDUNNO_MEMBER: {error}"))
    })
}

/// Options of all commands.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// Addresses of members or of the introducer, with ports, separated by commas
    #[arg(long, global = true, env = "IDUNNO_CLUSTER", value_name = "ADDR,...", default_value = "")]
    #[arg(hide_default_value = true)]
    pub cluster: Seeds,
    /// Directory of the local cluster
    #[arg(long, global = true, value_name = "DIR", default_value = ".idunno-local")]
    pub dir: PathBuf,
    /// Time limit in seconds [default: 30; 60 for 'local up'; none for --wait]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: Option<u64>,
    /// Name of a cluster in config.toml; see 'idunno info'
    #[arg(long, global = true, env = "IDUNNO_CONTEXT", value_name = "NAME")]
    pub context: Option<String>,
    /// Identity file from 'idunno identity create', or the cluster's secret [default: the local cluster's]
    #[arg(long, global = true, env = "IDUNNO_IDENTITY", value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Refuse all commands that change the cluster
    #[arg(long, global = true, env = "IDUNNO_READ_ONLY", value_parser = clap::builder::BoolishValueParser::new())]
    #[arg(default_value = "false", default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    #[arg(hide_default_value = true, value_name = "BOOL")]
    pub read_only: bool,
    /// Show what a command would change, without changing it
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// Output format
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
    /// Print the answer again whenever it changes, until Ctrl-C
    #[arg(short, long, global = true)]
    pub watch: bool,
    /// The console's colours: dark, light, colour-blind or mono [default: from config.toml, otherwise dark]
    #[arg(long, env = "IDUNNO_THEME", value_name = "NAME")]
    pub theme: Option<Palette>,
    /// Draw the console with ASCII characters only
    #[arg(long)]
    pub ascii: bool,
    /// Directory of the logs for the console's log page [default: the local cluster's; other members send theirs]
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// The context's identity, used if no other is given.
    #[arg(skip)]
    pub context_identity: Option<PathBuf>,
    /// The member for commands that name none: IDUNNO_MEMBER, or the context's.
    #[arg(skip)]
    pub own_member: Option<MemberRef>,
    /// Whether the command line or environment names the cluster, so that a context from a file is ignored.
    #[arg(skip)]
    pub cluster_given: bool,
}

/// The output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables for people, as wide as the terminal
    #[default]
    Table,
    /// Tables with all columns
    Wide,
    /// One name per line
    Name,
    /// JSON on stdout, and errors as JSON on stderr
    Json,
    /// JSON with one line per row
    Jsonl,
    /// CSV with a header line
    Csv,
}

impl Output {
    /// Whether errors and remarks are JSON, too.
    pub const fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Jsonl)
    }
}

/// The console's colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Palette {
    /// For dark terminals
    #[default]
    Dark,
    /// For light terminals
    Light,
    /// Blue and orange in place of green and red
    ColourBlind,
    /// No colours: bold, dim and reversed text only
    Mono,
}

/// Addresses at which to look for the cluster. Empty, as from an empty variable, means the local cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeds(pub Vec<SocketAddr>);

/// An address cannot be resolved.
#[derive(Debug, Error)]
pub enum SeedsError {
    #[error("cannot resolve '{address}': {source}; write HOST:PORT")]
    Resolve { address: String, source: io::Error },
    #[error("'{0}' has no address")]
    NoAddress(String),
}

impl FromStr for Seeds {
    type Err = SeedsError;

    fn from_str(text: &str) -> Result<Self, SeedsError> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(addresses)
            .collect::<Result<Vec<_>, _>>()
            .map(|found| Self(found.concat()))
    }
}

/// All addresses of `HOST:PORT`: a daemon may listen on only some of them.
fn addresses(text: &str) -> Result<Vec<SocketAddr>, SeedsError> {
    let resolved = text.to_socket_addrs();
    let resolved = resolved.map_err(|source| SeedsError::Resolve { address: text.to_owned(), source })?;
    let addresses: Vec<SocketAddr> = resolved.collect();
    if addresses.is_empty() { Err(SeedsError::NoAddress(text.to_owned())) } else { Ok(addresses) }
}
