//! What receives the keys: the page, a line being typed, or an overlay.

use super::text_field::TextField;
use crate::command::registry::CommandInfo;
use crate::command::{Output, Verb};

/// The scroll position of an operation's result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResultPane {
    pub operation: u64,
    /// The first visible line.
    pub line: usize,
    /// The first visible column.
    pub column: u16,
}

/// What a confirmed dialog carries out.
#[derive(Clone, Debug)]
pub enum ConfirmAction {
    /// The verb is bound when the dialog opens, so that nothing that changes on screen changes its target.
    Command { title: String, verb: Box<Verb>, output: Output, form: Option<Box<Form>> },
    /// Quit while commands are running.
    Quit,
}

/// Asks before something disruptive or irreversible is done.
#[derive(Clone, Debug)]
pub struct ConfirmDialog {
    pub action: ConfirmAction,
    /// The member that is affected, by name and address, if it is a single one.
    pub member: Option<String>,
    /// The word to type, for what cannot be undone.
    pub word: Option<String>,
    pub typed: TextField,
    /// Whether "yes" is selected; "cancel" is the default.
    pub yes: bool,
    /// Keys pressed right after this moment were typed before the dialog could be seen.
    pub opened_ms: u64,
}

/// A form for a command's arguments.
#[derive(Clone, Debug)]
pub struct Form {
    pub entry: Box<CommandInfo>,
    /// One per field. Any text in a field without a value sets the flag.
    pub inputs: Vec<TextField>,
    /// The field that has the focus.
    pub focus: usize,
    /// Why the command failed when it was run from this form.
    pub error: Option<String>,
}

/// The `:` line.
#[derive(Clone, Debug, Default)]
pub struct CommandLine {
    pub input: TextField,
    /// The entry of the command history that is shown.
    pub recalled: Option<usize>,
    /// Completions listed by Tab.
    pub completions: Vec<String>,
}

impl CommandLine {
    pub fn new(text: &str) -> Self {
        Self { input: TextField::new(text), ..Self::default() }
    }
}

#[derive(Clone, Debug, Default)]
pub enum Mode {
    #[default]
    Page,
    Line(CommandLine),
    Filter {
        input: TextField,
        /// The filter that Esc restores.
        before: String,
    },
    Help {
        input: TextField,
        /// The first visible line.
        line: usize,
    },
    /// For somebody who has never seen the console.
    Tour {
        screen: usize,
    },
    Palette {
        input: TextField,
        /// The selected match.
        selected: usize,
    },
    Form(Box<Form>),
    Result(ResultPane),
    Confirm(Box<ConfirmDialog>),
}

impl Mode {
    /// The `:` line with this text.
    pub fn line(text: &str) -> Self {
        Self::Line(CommandLine::new(text))
    }
}
