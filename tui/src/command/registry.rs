//! The list of commands for help, completion and confirmations, generated from the grammar so that it cannot drift.

use clap::{Arg, Command, CommandFactory};

use super::{Arguments, DeadLettersVerb, IdentityVerb, LocalVerb, ModelVerb, Verb};

/// The damage that a command can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Danger {
    /// Reads or adds.
    None,
    /// Disrupts work but can be undone: the console asks for confirmation.
    Disruptive,
    /// Cannot be undone: the console asks the user to type the target's name.
    Irreversible,
}

/// What a command writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writes {
    /// It prints its answer.
    Nothing,
    /// Local files.
    Files,
    /// The state of the cluster, or its processes.
    Cluster,
}

/// A command of the grammar.
#[derive(Clone, Debug)]
pub struct CommandInfo {
    /// The full name, such as `local up`.
    pub name: String,
    /// The arguments as in a synopsis.
    pub arguments: String,
    /// One line of help.
    pub help: String,
    pub danger: Danger,
    /// The options, dashes included.
    pub options: Vec<String>,
    /// The value names of the positional arguments.
    pub values: Vec<String>,
    /// All arguments, for a form.
    pub fields: Vec<Field>,
    /// Whether the command changes the cluster or its processes.
    pub changes: bool,
}

/// A field of a command's form: one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// The value name: `JOB`, `MODEL`, `MEMBER`, `SDFS`, ...
    pub value: String,
    /// The option, dashes included; none for a positional argument.
    pub flag: Option<String>,
    pub required: bool,
    /// Whether the argument takes a value; otherwise it is a switch.
    pub takes_value: bool,
    /// Whether the argument takes several values, separated by spaces.
    pub many: bool,
    /// What it is without being given.
    pub default: String,
    /// One line.
    pub help: String,
    /// The values that are possible, if there are few.
    pub choices: Vec<String>,
}

impl Field {
    /// Whether its value is a path on this machine.
    pub fn is_local_path(&self) -> bool {
        matches!(self.value.as_str(), "LOCAL" | "PATH" | "DIR" | "DATAPATH" | "FILE" | "INPUT")
    }
}

/// All commands in the grammar's order.
pub fn entries() -> Vec<CommandInfo> {
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

fn entry(name: String, command: &Command) -> CommandInfo {
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
    // The console asks for confirmation itself.
    let in_form = |argument: &&Arg| !argument.is_global_set() && argument.get_id() != "yes";
    let fields = command.get_arguments().filter(in_form).map(field).collect();
    let help = command.get_about().map(ToString::to_string).unwrap_or_default();
    let danger = danger_of(&name);
    let changes = changes_of(&name);
    CommandInfo { name, arguments: arguments.join(" "), help, danger, options, values, fields, changes }
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
        choices: if takes_value { choices(argument) } else { Vec::new() },
    }
}

fn choices(argument: &Arg) -> Vec<String> {
    let possible = argument.get_possible_values().into_iter().filter(|value| !value.is_hide_set());
    possible.map(|value| value.get_name().to_owned()).collect()
}

fn changes_of(name: &str) -> bool {
    matches!(
        name,
        "populate-test-data"
            | "reference-data"
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
            | "model add"
            | "model rm"
            | "join"
            | "leave"
            | "put"
            | "delete"
            | "rm"
            | "cp"
            | "mv"
            | "identity revoke"
            | "local up"
            | "local start"
            | "local kill"
            | "local down"
            | "deploy"
    )
}

fn danger_of(name: &str) -> Danger {
    match name {
        "delete" | "rm" | "cancel-job" | "delete-job" | "dead-letters drop" | "model rm"
        | "identity revoke" => Danger::Irreversible,
        "leave" | "stop-job" | "train-stop" | "local kill" | "local down" => Danger::Disruptive,
        _ => Danger::None,
    }
}

impl Verb {
    /// The damage that this command can do, and the name of its target if it has one.
    pub fn danger(&self) -> (Danger, String) {
        match self {
            Self::Delete { name } => (danger_of("delete"), name.to_string()),
            Self::Rm { files, .. } => {
                let names: Vec<String> = files.iter().map(ToString::to_string).collect();
                (danger_of("rm"), names.join(" "))
            }
            Self::Leave(_) => (danger_of("leave"), String::new()),
            Self::StopJob { .. } => (danger_of("stop-job"), String::new()),
            Self::TrainStop { .. } => (danger_of("train-stop"), String::new()),
            Self::CancelJob { job, .. } => (danger_of("cancel-job"), job.to_string()),
            Self::DeleteJob { job, .. } => (danger_of("delete-job"), job.to_string()),
            Self::DeadLetters(DeadLettersVerb::Drop { job, .. }) => {
                (danger_of("dead-letters drop"), job.to_string())
            }
            Self::Model(ModelVerb::Rm { model, .. }) => (danger_of("model rm"), model.to_string()),
            Self::Identity(IdentityVerb::Revoke { name, .. }) => {
                (danger_of("identity revoke"), name.to_string())
            }
            Self::Local(LocalVerb::Down { purge: true, .. }) => (Danger::Irreversible, String::from("purge")),
            Self::Local(LocalVerb::Down { .. }) => (danger_of("local down"), String::new()),
            Self::Local(LocalVerb::Kill { .. }) => (danger_of("local kill"), String::new()),
            _ => (Danger::None, String::new()),
        }
    }

    /// Says that what a [`Failure`](crate::answer::Failure) called unconfirmed is meant.
    pub fn confirm(&mut self) {
        match self {
            Self::CancelJob { yes: confirmed, .. }
            | Self::DeleteJob { yes: confirmed, .. }
            | Self::DeadLetters(DeadLettersVerb::Drop { yes: confirmed, .. })
            | Self::Model(ModelVerb::Rm { yes: confirmed, .. })
            | Self::Identity(IdentityVerb::Revoke { yes: confirmed, .. })
            | Self::Local(LocalVerb::Down { purge: true, yes: confirmed })
            | Self::Rm { yes: confirmed, .. }
            | Self::Cp { force: confirmed, .. }
            | Self::Mv { force: confirmed, .. }
            | Self::Get { force: confirmed, .. }
            | Self::GetDataset { force: confirmed, .. }
            | Self::GetVersions { force: confirmed, .. }
            | Self::GetJobResults { force: confirmed, .. } => *confirmed = true,
            _ => {}
        }
    }

    /// Whether this command changes the cluster or its processes: read-only mode refuses it.
    pub fn changes(&self) -> bool {
        self.writes() == Writes::Cluster
    }

    /// Whether this command is about the program itself. It asks no cluster, so that no setting can lead it astray.
    pub const fn is_about_this_program(&self) -> bool {
        matches!(
            self,
            Self::Info | Self::Keys | Self::GenConfig { .. } | Self::Completions { .. } | Self::Man { .. }
        )
    }

    /// What this command writes.
    pub fn writes(&self) -> Writes {
        match self {
            Self::PopulateTestData { .. }
            | Self::ReferenceData { .. }
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
            | Self::Model(ModelVerb::Add { .. } | ModelVerb::Rm { .. })
            | Self::Join(_)
            | Self::Leave(_)
            | Self::Put { .. }
            | Self::Delete { .. }
            | Self::Rm { .. }
            | Self::Cp { .. }
            | Self::Mv { .. }
            | Self::Identity(IdentityVerb::Revoke { .. })
            | Self::Deploy(_)
            | Self::Local(
                LocalVerb::Up { .. }
                | LocalVerb::Start { .. }
                | LocalVerb::Kill { .. }
                | LocalVerb::Down { .. },
            ) => Writes::Cluster,
            Self::GetDataset { .. }
            | Self::GetJobResults { local: Some(_), .. }
            | Self::Get { .. }
            | Self::GetVersions { .. }
            | Self::Backup { show: false, .. }
            | Self::GenConfig { write: true, .. }
            | Self::Man { .. }
            | Self::Cluster(_)
            | Self::Identity(IdentityVerb::Create { .. }) => Writes::Files,
            Self::GetJobStats { .. }
            | Self::GetJobAssignedVms { .. }
            | Self::GetJobLeases { .. }
            | Self::Explain { .. }
            | Self::GetJobHistory
            | Self::WaitJob { .. }
            | Self::GetJobResults { local: None, .. }
            | Self::GetJobConfusion { .. }
            | Self::DeadLetters(DeadLettersVerb::List { .. } | DeadLettersVerb::Show { .. })
            | Self::GetModels
            | Self::Model(ModelVerb::Ls | ModelVerb::Show { .. } | ModelVerb::Test { .. })
            | Self::ListMem(_)
            | Self::ListSelf(_)
            | Self::Cat { .. }
            | Self::Ls { .. }
            | Self::Store { .. }
            | Self::Status
            | Self::Backup { show: true, .. }
            | Self::Events
            | Self::Logs { .. }
            | Self::Shell { .. }
            | Self::Info
            | Self::Keys
            | Self::GenConfig { write: false, .. }
            | Self::Completions { .. }
            | Self::Identity(IdentityVerb::Ls)
            | Self::Key(_)
            | Self::Local(LocalVerb::Status) => Writes::Nothing,
        }
    }
}
