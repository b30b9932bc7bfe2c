//! The full-screen console, in the Elm shape: [`update::update`] is pure (state and message in, effects out), [`view`]
//! draws a state and changes nothing, [`runtime`] owns the terminal and the tasks, [`connection`] keeps the cluster in
//! sight in a task of its own, so that a dead coordinator neither ends nor freezes the screen.
//!
//! [`registry`] is the one table of actions and commands: keys ([`keymap`]), help, [`palette`], the `:` [`line`] and
//! [`form`]s are made from it.
//!
//! Bounds: log lines, operations, events, history and every channel are limited; at most 30 frames a second; an idle
//! screen writes nothing. It changes the cluster by commands alone, and asks before those that destroy.

pub mod actions;
pub mod command_request;
pub mod completion_names;
pub mod connection;
pub mod counters;
pub mod detail;
pub mod dialog;
pub mod events;
pub mod export;
pub mod feed;
pub mod filelist;
pub mod form;
pub mod history;
pub mod input;
pub mod keymap;
pub mod keys;
pub mod layout;
pub mod line;
pub mod log;
pub mod mode;
pub mod mouse;
pub mod msg;
pub mod operations;
pub mod page;
pub mod palette;
pub mod queries;
pub mod registry;
pub mod rows;
pub mod runtime;
pub mod state;
pub mod table;
mod target;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod theme;
pub mod update;
pub mod view;

pub use runtime::run;
