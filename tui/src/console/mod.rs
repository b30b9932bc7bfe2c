//! The full-screen console, in the Elm architecture: [`update::update`] is pure (state and message in, effects out),
//! [`view`] draws a state and changes nothing, [`runtime`] owns the terminal and the tasks, [`connection`] follows the
//! cluster in a task of its own, so that a dead coordinator neither ends nor freezes the screen.
//!
//! [`registry`] is the one table of actions and commands: the keys ([`keymap`]), the help, the [`palette`], the `:` line
//! ([`command_line`]) and the [`form`]s are derived from it.
//!
//! Bounds: log lines, operations, events, series and every channel are limited; at most 30 frames a second; an idle
//! screen writes nothing. The console changes the cluster by commands alone, and asks before disruptive ones.

pub mod actions;
pub mod command_line;
pub mod completion_names;
pub mod connection;
pub mod detail;
pub mod event_fold;
pub mod event_log;
pub mod event_stream;
pub mod events;
pub mod fetch;
pub mod file_list;
pub mod files_page;
pub mod form;
pub mod indented;
pub mod input;
pub mod keymap;
pub mod layout;
pub mod local_paths;
pub mod log_buffer;
pub mod log_source;
pub mod long_history;
pub mod mode;
pub mod msg;
pub mod old_jobs;
pub mod operation;
pub mod operations;
pub mod page;
pub mod palette;
pub mod query;
pub mod rate_history;
pub mod registry;
pub mod rows;
pub mod runtime;
pub mod selected;
pub mod state;
pub mod table;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod text_field;
pub mod theme;
pub mod update;
pub mod view;
pub mod wrap;

pub use runtime::run;
