//! The list of commands for help, completion and safety, read from the grammar itself so that it cannot differ.

use clap::{Arg, Command, CommandFactory};

use super::{Arguments, DeadLettersVerb, LocalVerb, Verb};

/// What a command may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Danger {
    /// Looks, or adds.
    None,
    /// Disturbs, and can be undone: the console asks.
    Disruptive,
    /// Cannot be undone: the console has the target's name typed.
    Irreversible,
}

/// A command as help shows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name; `local up` for a command of `local`.
    pub name: String,
    /// Its arguments, as in a synopsis.
    pub arguments: String,
    /// One line.
    pub help: String,
    /// What it may break.
    pub danger: Danger,
    /// Its options, dashes included.
    pub options: Vec<String>,
    /// The value names of its positional arguments.
    pub values: Vec<String>,
    /// All its arguments, for a form.
    pub fields: Vec<Field>,
    /// Whether it changes the cluster, or processes of it.
    pub changes: bool,
}

/// An argument, as a form asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What it stands for: `JOB`, `MODEL`, `MEMBER`, `SDFS`, ...
    pub value: String,
    /// Its option, dashes included; none for a positional argument.
    pub flag: Option<String>,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it takes a value; otherwise it is said or not.
    pub takes_value: bool,
    /// Whether it takes several, separated by blanks.
    pub many: bool,
    /// What it is without being given.
    pub default: String,
    /// One line.
    pub help: String,
}

/// All commands in the grammar's order.
pub fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    for command in Arguments::command().get_subcommands() {
        if command.has_subcommands() {
            let nested = command.get_subcommands();
            entries.extend(
                nested.map(|inner| entry(format!("{} {}", command.get_name(), inner.get_name()), inner)),
            );
        } else {
            entries.push(entry(command.get_name().to_owned(), command));
        }
    }
    entries
}

fn entry(name: String, command: &Command) -> Entry {
    let mut options = Vec::new();
    let mut values = Vec::new();
    let mut arguments = Vec::new();
    for argument in command.get_arguments().filter(|argument| !argument.is_global_set()) {
        let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        if let Some(long) = argument.get_long() {
            options.push(format!("--{long}"));
            let value = value.filter(|_| argument.get_action().takes_values());
            arguments
                .push(value.map_or_else(|| format!("[--{long}]"), |value| format!("[--{long} {value}]")));
        } else if let Some(value) = value {
            let many =
                if argument.get_num_args().is_some_and(|range| range.max_values() > 1) { "..." } else { "" };
            let text = format!("{value}{many}");
            arguments.push(if argument.is_required_set() { text } else { format!("[{text}]") });
            values.push(value);
        }
    }
    // The console asks by itself.
    let asked = |argument: &&Arg| !argument.is_global_set() && argument.get_id() != "yes";
    let fields = command.get_arguments().filter(asked).map(field).collect();
    let help = command.get_about().map(ToString::to_string).unwrap_or_default();
    let danger = danger_of(&name);
    let changes = changes_of(&name);
    Entry { name, arguments: arguments.join(" "), help, danger, options, values, fields, changes }
}

fn field(argument: &Arg) -> Field {
    let value = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let takes_value = argument.is_positional() || argument.get_action().takes_values();
    let default = argument.get_default_values().first().filter(|_| takes_value);
    Field {
        value: value.unwrap_or_else(|| argument.get_id().to_string()),
        flag: argument.get_long().map(|long| format!("--{long}")),
        required: argument.is_required_set(),
        takes_value,
        many: argument.get_num_args().is_some_and(|range| range.max_values() > 1),
        default: default.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default(),
        help: argument.get_help().map(ToString::to_string).unwrap_or_default(),
    }
}

fn changes_of(name: &str) -> bool {
    matches!(
        name,
        "populate-test-data"
            | "train-start"
            | "add-job"
            | "set-batch-size"
            | "start-job"
            | "stop-job"
            | "set-weight"
            | "set-policy"
            | "cancel-job"
            | "delete-job"
            | "train-stop"
            | "dead-letters retry"
            | "dead-letters drop"
            | "join"
            | "leave"
            | "put"
            | "delete"
            | "local up"
            | "local start"
            | "local kill"
            | "local down"
    )
}

fn danger_of(name: &str) -> Danger {
    match name {
        "delete" | "cancel-job" | "delete-job" | "dead-letters drop" => Danger::Irreversible,
        "leave" | "stop-job" | "train-stop" | "local kill" | "local down" => Danger::Disruptive,
        _ => Danger::None,
    }
}

impl Verb {
    /// What this command may break, and the target's name where it has one.
    pub fn danger(&self) -> (Danger, String) {
        match self {
            Self::Delete { name } => (danger_of("delete"), name.to_string()),
            Self::Leave(_) => (danger_of("leave"), String::new()),
            Self::StopJob { .. } => (danger_of("stop-job"), String::new()),
            Self::TrainStop { .. } => (danger_of("train-stop"), String::new()),
            Self::CancelJob { job } => (danger_of("cancel-job"), job.to_string()),
            Self::DeleteJob { job, .. } => (danger_of("delete-job"), job.to_string()),
            Self::DeadLetters(DeadLettersVerb::Drop { job, .. }) => {
                (danger_of("dead-letters drop"), job.to_string())
            }
            Self::Local(LocalVerb::Down { purge: true }) => (Danger::Irreversible, String::from("purge")),
            Self::Local(LocalVerb::Down { .. }) => (danger_of("local down"), String::new()),
            Self::Local(LocalVerb::Kill { .. }) => (danger_of("local kill"), String::new()),
            _ => (Danger::None, String::new()),
        }
    }

    /// Whether this command changes the cluster, or processes of it: what read-only mode refuses.
    pub fn changes(&self) -> bool {
        match self {
            Self::PopulateTestData { .. }
            | Self::TrainStart { .. }
            | Self::AddJob { .. }
            | Self::SetBatchSize { .. }
            | Self::StartJob { .. }
            | Self::StopJob { .. }
            | Self::SetWeight { .. }
            | Self::SetPolicy { .. }
            | Self::CancelJob { .. }
            | Self::DeleteJob { .. }
            | Self::TrainStop { .. }
            | Self::DeadLetters(DeadLettersVerb::Retry { .. } | DeadLettersVerb::Drop { .. })
            | Self::Join(_)
            | Self::Leave(_)
            | Self::Put { .. }
            | Self::Delete { .. } => true,
            Self::Local(local) => !matches!(local, LocalVerb::Status),
            _ => false,
        }
    }
}
