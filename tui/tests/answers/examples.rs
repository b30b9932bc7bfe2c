//! What the examples of all commands share.

use idunno_console::answer::document::{Document, to_json};

use super::{cluster, files, jobs, models, program};

pub(super) const CREATED_MS: u64 = 1_795_398_600_000;
pub(super) const DIGEST: &str = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";

/// The documents of a command as JSON.
#[derive(Default)]
pub(super) struct Examples(pub(super) Vec<String>);

impl Examples {
    pub(super) fn of<T: Document>(document: &T) -> Self {
        Self(vec![to_json(document)])
    }

    pub(super) fn and<T: Document>(mut self, document: &T) -> Self {
        self.0.push(to_json(document));
        self
    }
}

pub(super) fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// The examples of a command.
pub(super) fn of_command(command: &str) -> Examples {
    jobs::jobs(command)
        .or_else(|| jobs::results(command))
        .or_else(|| files::files(command))
        .or_else(|| models::models_of(command))
        .or_else(|| cluster::cluster(command))
        .or_else(|| program::program(command))
        .or_else(|| program::local(command))
        .unwrap_or_default()
}
