//! The `:` line: words, parsing and completion.

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};

use super::registry::{Entry, entries};
use super::{Output, Verb};

/// What the console typed in place of a command, or why it is none.
#[derive(Debug)]
pub enum Line {
    /// A command.
    Verb {
        /// The command.
        verb: Box<Verb>,
        /// How to show its answer.
        output: Output,
    },
    /// Text to show: help.
    Show(String),
    /// Not understood: why.
    Wrong(String),
}

#[derive(Debug, Parser)]
#[command(name = "idunno", no_binary_name = true, disable_version_flag = true)]
struct TypedLine {
    #[command(subcommand)]
    verb: Verb,
    #[arg(long, global = true)]
    output: Option<Output>,
}

/// Reads a line typed into the console.
pub fn parse(text: &str) -> Line {
    read(text, Output::Table, "ctrl-p finds one by any part")
}

/// Reads a typed line; `output_default` holds where it says nothing else, `find` says where commands are found.
pub fn read(text: &str, output_default: Output, find: &str) -> Line {
    let words = match split(text) {
        Ok(words) => words,
        Err(reason) => return Line::Wrong(reason),
    };
    match TypedLine::try_parse_from(words) {
        Ok(TypedLine { verb, output }) => {
            Line::Verb { verb: Box::new(verb), output: output.unwrap_or(output_default) }
        }
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                Line::Show(error.to_string())
            }
            ErrorKind::InvalidSubcommand => match error.get(ContextKind::InvalidSubcommand) {
                Some(word) => Line::Wrong(format!("there is no command '{word}': {find}")),
                None => Line::Wrong(wrong(&error)),
            },
            _ => Line::Wrong(wrong(&error)),
        },
    }
}

fn wrong(error: &clap::Error) -> String {
    error.to_string().trim_start_matches("error: ").trim_end().to_owned()
}

/// Splits a line into words as a shell does: blanks separate, quotes and backslashes hold together.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (_, '\\') => {
                let next = chars.next().ok_or("the line ends in a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(String::from("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

/// Names that complete arguments, as the console knows them.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Job numbers.
    pub jobs: Vec<String>,
    /// Models.
    pub models: Vec<String>,
    /// Members.
    pub members: Vec<String>,
    /// Files.
    pub files: Vec<String>,
}

/// What the last word of `text` may become, in order; whole words.
pub fn complete(text: &str, known: &Known) -> Vec<String> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    let last = if text.ends_with(char::is_whitespace) { "" } else { words.pop().unwrap_or("") };
    let entries = entries();
    let typed = words.join(" ");
    let inner = |entry: &Entry| entry.name.split_once(' ').map(|(outer, _)| outer.to_owned());
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

/// Names that a value of this kind may have.
pub fn candidates(value: &str, known: &Known) -> Vec<String> {
    match value {
        "JOB" => known.jobs.clone(),
        "MODEL" => known.models.clone(),
        "MEMBER" | "NAME" => known.members.clone(),
        "SDFS" | "PREFIX" => known.files.clone(),
        _ => Vec::new(),
    }
}

fn arguments(entries: &[Entry], typed: &str, known: &Known) -> Vec<String> {
    let belongs = |entry: &&Entry| {
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
