//! The audit: a line for each change that somebody asked for, from the member that decided it, under the target `audit`.
//!
//! It has the operation's id, what was asked, by whom, what became of it and how long that took. Other members' lines
//! that follow from it bear the same id, or one that is in it (an upload, a job, a model).

use std::fmt::Display;
use std::time::Instant;

use idunno_shared::ids::OpId;
use idunno_shared::wire::control::{Changed, ControlReply};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tracing::info;

use crate::net::server::Caller;

/// A change that is being decided.
pub(super) struct Entry {
    op: OpId,
    asked: String,
    by: String,
    since: Instant,
}

impl Entry {
    pub(super) fn open(op: OpId, asked: &impl Display, by: &Caller) -> Self {
        Self { op, asked: asked.to_string(), by: by.to_string(), since: Instant::now() }
    }

    /// Tells what became of it, unless that is not decided here, or not yet: then it is asked again, here or elsewhere.
    pub(super) fn close(self, answer: &Result<ControlReply, Refusal>) {
        let outcome = match answer {
            Err(Refusal { code: RefusalCode::NotCoordinator { .. } | RefusalCode::NoQuorum, .. }) => return,
            Err(refusal) => format!("refused: {refusal}"),
            Ok(ControlReply::Changed(changed)) => outcome(changed),
            Ok(_) => String::from("done"),
        };
        let took = self.since.elapsed();
        info!(target: "audit", op = %self.op, by = %self.by, asked = %self.asked, ?took, "{outcome}");
    }
}

fn outcome(changed: &Changed) -> String {
    match changed {
        Changed::Files(files) => {
            let copies = files.iter().map(|(_, copies)| *copies).min().unwrap_or(0);
            format!("done: {} files in {copies} copies or more", files.len())
        }
        Changed::Deleted { versions } => format!("done: {versions} versions deleted"),
        Changed::Training(models) => format!("done: {} models", models.len()),
        Changed::JobAdded(job) => format!("done: {job}"),
        Changed::JobStarted { submitted } => format!("done: {submitted} queries"),
        Changed::StartedBefore { state, .. } => format!("nothing to do: it is {state:?}"),
        Changed::Retried { queries } | Changed::Dropped { queries } => format!("done: {queries} queries"),
        Changed::Done => String::from("done"),
    }
}
