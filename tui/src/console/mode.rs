//! What the keys go to: the page, a line being typed, or something that lies over the page.

use super::input::Input;
use crate::command::registry::CommandInfo;
use crate::command::{Output, Verb};

/// A result pane's place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pane {
    /// The operation.
    pub operation: u64,
    /// Lines above.
    pub line: usize,
    /// Columns to the left.
    pub column: u16,
}

/// What a dialog asks about.
#[derive(Clone, Debug, PartialEq)]
pub enum Asked {
    /// A command.
    Command {
        /// As typed.
        title: String,
        /// The command: bound here, so that nothing that moves on screen changes its target.
        verb: Box<Verb>,
        /// How to show its answer.
        output: Output,
    },
    /// To quit while commands run.
    Quit,
}

/// A question before something is destroyed.
#[derive(Clone, Debug, PartialEq)]
pub struct Confirm {
    /// What about.
    pub asked: Asked,
    /// Whom it hits, by name and address, where that is one member.
    pub target: Option<String>,
    /// What must be typed; nothing if a key is enough.
    pub word: Option<String>,
    /// What has been typed.
    pub typed: Input,
    /// Whether "yes" is selected; "cancel" is at first.
    pub yes: bool,
    /// When it was opened: keys that were pressed before one could see it do not count.
    pub opened_ms: u64,
}

/// A form for a command's arguments.
#[derive(Clone, Debug)]
pub struct Form {
    /// The command.
    pub entry: Box<CommandInfo>,
    /// What is typed, one a field; of a field without a value, anything means that it is said.
    pub inputs: Vec<Input>,
    /// The field that the keys go to.
    pub at: usize,
}

/// What the keys go to.
#[derive(Clone, Debug, Default)]
pub enum Mode {
    /// The page.
    #[default]
    Page,
    /// The `:` line.
    Line {
        /// What is typed.
        input: Input,
        /// Which entry of the history is shown.
        recalled: Option<usize>,
        /// What Tab offers.
        offers: Vec<String>,
    },
    /// The `/` line; what the filter was before.
    Filter {
        /// What is typed.
        input: Input,
        /// The filter that Esc brings back.
        before: String,
    },
    /// Help.
    Help {
        /// What is searched for.
        input: Input,
        /// Lines above.
        line: usize,
    },
    /// The palette.
    Palette {
        /// What is searched for.
        input: Input,
        /// Which of those found is chosen.
        chosen: usize,
    },
    /// A form.
    Form(Box<Form>),
    /// A result.
    Pane(Pane),
    /// A question.
    Confirm(Box<Confirm>),
}

impl Mode {
    /// A `:` line with this text.
    pub fn line(text: &str) -> Self {
        Self::Line { input: Input::new(text), recalled: None, offers: Vec::new() }
    }
}
