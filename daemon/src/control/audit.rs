//! What the audit says of a request: one event for each requested change, written by the member that decided it, and one
//! log line under the target `audit`, which `idunno logs` finds from everywhere.
//!
//! Both name the operation id, the request, the requester, the outcome and the duration. Lines of other members that
//! result from it bear the same operation id, or the id of the upload, job or model that it names.

use std::fmt::Display;
use std::time::Instant;

use idunno_shared::ids::OpId;
use idunno_shared::text::visible;
use idunno_shared::wire::control::{Changed, ControlReply};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tracing::info;

use crate::audit::{Audit, AuditEvent, text};
use crate::net::server::Caller;

/// An event whose outcome is not known yet.
pub(super) struct AuditEntry {
    op: OpId,
    request: String,
    by: String,
    since: Instant,
}

impl AuditEntry {
    pub(super) fn open(op: OpId, request: &impl Display, by: &Caller) -> Self {
        Self { op, request: text(request), by: text(by), since: Instant::now() }
    }

    /// Records the outcome, unless this member did not decide: the client then repeats the request, here or elsewhere.
    /// The answer may be given afterwards: it is on disk then.
    pub(super) async fn close(self, audit: &Audit, answer: Result<&ControlReply, &Refusal>) {
        let outcome = match answer {
            Err(Refusal { code: RefusalCode::NotCoordinator { .. } | RefusalCode::NoQuorum, .. }) => return,
            Err(refusal) => text(format_args!("refused: {refusal}")),
            Ok(ControlReply::Changed(changed)) => outcome(changed),
            Ok(_) => String::from("done"),
        };
        let Self { op, request, by, since } = self;
        let took = since.elapsed();
        // A line of the log must stay one: a name can contain what a reader would take for another.
        let (by_shown, request_shown) = (visible(&by), visible(&request));
        info!(target: "audit", %op, by = %by_shown, request = %request_shown, ?took, "{}", visible(&outcome));
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        audit.record(AuditEvent::Request { op: op.to_string(), by, request, outcome, took_ms }).await;
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
