//! The `:` line of the console and the lines of `idunno shell`: parsing and completion.

use std::sync::LazyLock;

use clap::Parser;
use clap::error::{ContextKind, ErrorKind};

pub use shell_words::split;

use super::nouns::{self, ByNoun};
use super::registry::{CommandInfo, Field, entries};
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
    #[arg(short, long, global = true)]
    output: Option<Output>,
}

/// Parses a line typed into the console.
pub fn parse(text: &str) -> Line {
    read(text, Output::Table, "ctrl-p searches all commands")
}

/// Parses a line. `output_default` is the output format unless the line sets one; `hint` says how to find commands.
pub fn read(text: &str, output_default: Output, hint: &str) -> Line {
    let Ok(words) = split(text) else { return Line::Invalid(String::from(UNCLOSED_QUOTE)) };
    let words = match nouns::expanded(&words, 0, String::from) {
        Some(ByNoun::Help(text)) => return Line::Show(text),
        Some(ByNoun::Command(words)) => words,
        None => words,
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

/// Names of the live cluster and of this machine that complete arguments.
#[derive(Clone, Debug, Default)]
pub struct CompletionNames {
    /// Numbers and names of jobs, and models that stand for one.
    pub jobs: Vec<String>,
    pub models: Vec<String>,
    pub members: Vec<String>,
    pub files: Vec<String>,
    pub datasets: Vec<String>,
    /// Paths on this machine.
    pub local_paths: Vec<String>,
}

/// The completions of the last word of `text`, as whole words, in order.
pub fn complete(text: &str, known: &CompletionNames) -> Vec<String> {
    let entries = commands();
    let Typed { words, last } = Typed::of(text);
    let words = by_command(words);
    let inner = |entry: &CommandInfo| entry.name.split_once(' ').map(|(outer, _)| outer.to_owned());
    let mut candidates: Vec<String> = match words.as_slice() {
        [] => {
            let commands = entries.iter().map(|entry| inner(entry).unwrap_or_else(|| entry.name.clone()));
            commands.chain(nouns::names().map(str::to_owned)).collect()
        }
        [noun] if nouns::words(noun).next().is_some() => nouns::words(noun).map(str::to_owned).collect(),
        [outer] if entries.iter().any(|entry| inner(entry).as_deref() == Some(outer)) => {
            let nested = entries.iter().filter_map(|entry| entry.name.split_once(' '));
            nested.filter(|(name, _)| name == outer).map(|(_, name)| name.to_owned()).collect()
        }
        words => match place(entries, words) {
            None => Vec::new(),
            Some(Place { entry, field, is_option_value }) => {
                let values = field.map(|field| candidates_of(field, known)).unwrap_or_default();
                let options = entry.options.iter().filter(|_| !is_option_value).cloned();
                values.into_iter().chain(options).collect()
            }
        },
    };
    candidates.retain(|candidate| candidate.starts_with(last));
    candidates.dedup();
    candidates
}

/// All commands: they are asked for at each key.
fn commands() -> &'static [CommandInfo] {
    static COMMANDS: LazyLock<Vec<CommandInfo>> = LazyLock::new(entries);
    &COMMANDS
}

/// The argument that the last word of `text` gives a value to.
pub fn argument(text: &str) -> Option<Field> {
    place(commands(), &by_command(Typed::of(text).words))?.field.cloned()
}

/// The words with the command that a noun and its word stand for.
fn by_command(words: Vec<&str>) -> Vec<&str> {
    match nouns::expanded(&words, 0, |command| command) {
        Some(ByNoun::Command(words)) => words,
        Some(ByNoun::Help(_)) | None => words,
    }
}

/// The names that an argument may take.
pub fn candidates_of(field: &Field, known: &CompletionNames) -> Vec<String> {
    if field.is_local_path() {
        return known.local_paths.clone();
    }
    if !field.choices.is_empty() {
        return field.choices.clone();
    }
    candidates(&field.value, known)
}

/// The names of the cluster that an argument with this value name may take.
pub fn candidates(value: &str, known: &CompletionNames) -> Vec<String> {
    match value {
        "JOB" => known.jobs.clone(),
        "MODEL" => known.models.clone(),
        "MEMBER" => known.members.clone(),
        "DATASET" => known.datasets.clone(),
        "SDFS" | "PREFIX" | "FILES" | "TARGET" => known.files.clone(),
        _ => Vec::new(),
    }
}

/// A line up to the cursor.
struct Typed<'a> {
    /// The whole words.
    words: Vec<&'a str>,
    /// The word that is being typed.
    last: &'a str,
}

impl<'a> Typed<'a> {
    fn of(text: &'a str) -> Self {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        let last = if text.ends_with(char::is_whitespace) { "" } else { words.pop().unwrap_or("") };
        Self { words, last }
    }
}

/// Where in a command the next word stands.
struct Place<'a> {
    entry: &'a CommandInfo,
    /// The argument that it gives a value to; none after the last one.
    field: Option<&'a Field>,
    /// Whether it follows an option that takes a value.
    is_option_value: bool,
}

fn place<'a>(entries: &'a [CommandInfo], words: &[&str]) -> Option<Place<'a>> {
    let (entry, given) = entries.iter().find_map(|entry| {
        let name: Vec<&str> = entry.name.split(' ').collect();
        Some((entry, words.strip_prefix(&name[..])?))
    })?;
    let (mut position, mut option) = (0, None);
    for word in given {
        if option.take().is_some() {
            continue;
        }
        if word.starts_with('-') {
            let named = |field: &&Field| field.takes_value && field.flag.as_deref() == Some(*word);
            option = entry.fields.iter().find(named);
        } else {
            position += 1;
        }
    }
    let positional: Vec<&Field> = entry.fields.iter().filter(|field| field.flag.is_none()).collect();
    let last = positional.last().filter(|field| field.many).copied();
    let field = option.or_else(|| positional.get(position).copied().or(last));
    Some(Place { entry, field, is_option_value: option.is_some() })
}
