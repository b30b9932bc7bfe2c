//! The full-screen console, in the Elm shape: [`update::update`] is pure (state and message in, effects out), [`view`]
//! draws a state and changes nothing, [`runtime`] owns the terminal and the tasks, [`connection`] keeps the cluster in
//! sight in a task of its own, so that a dead coordinator neither ends nor freezes the screen.
//!
//! Bounds: log lines, operations, history and every channel are limited; at most 30 frames a second; an idle screen
//! writes nothing. It changes the cluster by commands alone, and asks before those that destroy.

pub mod connection;
pub mod input;
pub mod keys;
pub mod log;
pub mod rows;
pub mod runtime;
pub mod state;
mod target;
pub mod terminal;
#[cfg(test)]
mod tests;
pub mod theme;
pub mod update;
pub mod view;

pub use runtime::run;
