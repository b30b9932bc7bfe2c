//! The audit trail: one log line for each requested change, written by the member that decided it, under the log target
//! `audit`.
//!
//! A line names the operation id, the request, the requester, the outcome and the duration. Lines of other members that
//! result from it bear the same operation id, or the id of the upload, job or model that it names.

use std::fmt::Display;
use std::time::Instant;

use idunno_shared::ids::OpId;
use idunno_shared::wire::control::{Changed, ControlReply};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tracing::info;

use crate::net::server::Caller;

/// An audit line whose outcome is not known yet.
pub(super) struct AuditEntry {
    op: OpId,
    request: String,
    by: String,
    since: Instant,
}

impl AuditEntry {
    pub(super) fn open(op: OpId, request: &impl Display, by: &Caller) -> Self {
        Self { op, request: request.to_string(), by: by.to_string(), since: Instant::now() }
    }

    /// Logs the outcome, unless this member did not decide: the client then repeats the request, here or elsewhere.
    pub(super) fn close(self, answer: &Result<ControlReply, Refusal>) {
        let outcome = match answer {
            Err(Refusal { code: RefusalCode::NotCoordinator { .. } | RefusalCode::NoQuorum, .. }) => return,
            Err(refusal) => format!("refused: {refusal}"),
            Ok(ControlReply::Changed(changed)) => outcome(changed),
            Ok(_) => String::from("done"),
        };
        let took = self.since.elapsed();
        info!(target: "audit", op = %self.op, by = %self.by, request = %self.request, ?took, "{outcome}");
    }
}

fn outcome(changed: &Changed) -> String {
    match changed {
        Changed::Files(files) => {
            let copies = files.iter().map(|(_, copies)| *copies).min().unwrap_or(0);
            format!("done: {} files with at least {copies} copies", files.len())
        }
        Changed::Deleted { versions } => format!("done: {versions} versions deleted"),
        Changed::Training(models) => format!("done: {} models", models.len()),
        Changed::JobAdded(job) => format!("done: {job}"),
        Changed::JobStarted { submitted } => format!("done: {submitted} queries"),
        Changed::StartedBefore { state, .. } => format!("no change: the job is {state:?}"),
        Changed::Retried { queries } | Changed::Dropped { queries } => format!("done: {queries} queries"),
        Changed::Done => String::from("done"),
    }
}
