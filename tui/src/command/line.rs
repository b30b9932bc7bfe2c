//! The `:` line of the console and the lines of `idunno shell`: parsing and completion.

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};

pub use shell_words::split;

use super::registry::{CommandInfo, entries};
use super::{Output, Verb};

/// The only way in which a line cannot be split into words.
pub const UNCLOSED_QUOTE: &str = "a quote is not closed";

/// A parsed line.
#[derive(Debug)]
pub enum Line {
    Verb {
        verb: Box<Verb>,
        output: Output,
    },
    /// Help to show.
    Show(String),
    /// The line is not a command, for this reason.
    Invalid(String),
}

#[derive(Debug, Parser)]
#[command(name = "idunno", no_binary_name = true, disable_version_flag = true)]
struct TypedLine {
    #[command(subcommand)]
    verb: Verb,
    #[arg(long, global = true)]
    output: Option<Output>,
}

/// Parses a line typed into the console.
pub fn parse(text: &str) -> Line {
    read(text, Output::Table, "ctrl-p searches all commands")
}

/// Parses a line. `output_default` is the output format unless the line sets one; `hint` says how to find commands.
pub fn read(text: &str, output_default: Output, hint: &str) -> Line {
    let Ok(words) = split(text) else { return Line::Invalid(String::from(UNCLOSED_QUOTE)) };
    match TypedLine::try_parse_from(words) {
        Ok(TypedLine { verb, output }) => {
            Line::Verb { verb: Box::new(verb), output: output.unwrap_or(output_default) }
        }
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Line::Show(error.to_string())
            }
            ErrorKind::InvalidSubcommand => match error.get(ContextKind::InvalidSubcommand) {
                Some(word) => Line::Invalid(format!("no command '{word}': {hint}")),
                None => Line::Invalid(message(&error)),
            },
            _ => Line::Invalid(message(&error)),
        },
    }
}

fn message(error: &clap::Error) -> String {
    error.to_string().trim_start_matches("error: ").trim_end().to_owned()
}

/// Names of the live cluster that complete arguments.
#[derive(Clone, Debug, Default)]
pub struct CompletionNames {
    /// Numbers and names of jobs, and models that stand for one.
    pub jobs: Vec<String>,
    pub models: Vec<String>,
    pub members: Vec<String>,
    pub files: Vec<String>,
}

/// The completions of the last word of `text`, as whole words, in order.
pub fn complete(text: &str, known: &CompletionNames) -> Vec<String> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let last = if text.ends_with(char::is_whitespace) { "" } else { words.pop().unwrap_or("") };
    let entries = entries();
    let typed = words.join(" ");
    let inner = |entry: &CommandInfo| entry.name.split_once(' ').map(|(outer, _)| outer.to_owned());
    let mut candidates: Vec<String> = match words.as_slice() {
        [] => entries.iter().map(|entry| inner(entry).unwrap_or_else(|| entry.name.clone())).collect(),
        [outer] if entries.iter().any(|entry| inner(entry).as_deref() == Some(outer)) => {
            let nested = entries.iter().filter_map(|entry| entry.name.split_once(' '));
            nested.filter(|(name, _)| name == outer).map(|(_, name)| name.to_owned()).collect()
        }
        _ => arguments(&entries, &typed, known),
    };
    candidates.retain(|candidate| candidate.starts_with(last));
    candidates.dedup();
    candidates
}

/// The names that an argument with this value name may take.
pub fn candidates(value: &str, known: &CompletionNames) -> Vec<String> {
    match value {
        "JOB" => known.jobs.clone(),
        "MODEL" => known.models.clone(),
        "MEMBER" | "NAME" => known.members.clone(),
        "SDFS" | "PREFIX" => known.files.clone(),
        _ => Vec::new(),
    }
}

fn arguments(entries: &[CommandInfo], typed: &str, known: &CompletionNames) -> Vec<String> {
    let belongs = |entry: &&CommandInfo| {
        typed.strip_prefix(entry.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let Some(entry) = entries.iter().find(belongs) else { return Vec::new() };
    let mut candidates = Vec::new();
    for value in &entry.values {
        candidates.extend(self::candidates(value, known));
    }
    if typed.ends_with("--member") {
        return known.members.clone();
    }
    candidates.extend(entry.options.iter().cloned());
    candidates
}
