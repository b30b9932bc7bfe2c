//! What the audit says of a request: one event for each requested change, written by the member that decided it, and one
//! log line under the target `audit`, which `idunno logs` finds from everywhere.
//!
//! Both name the operation id, the request, the requester, the outcome and the duration. Lines of other members that
//! result from it bear the same operation id, or the id of the upload, job or model that it names.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use idunno_shared::ids::OpId;
use idunno_shared::text::visible;
use idunno_shared::wire::control::{Changed, ControlReply};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use tracing::info;

use crate::audit::{Audit, AuditEvent, text};

/// Operations that were done and recorded here lately: a client that missed an answer repeats its request. One that was
/// refused is not among them, because it may be done the next time.
const RECORDED_KEPT: usize = 1_024;

/// Refused changes of one identity that have events of their own within [`REFUSALS_PERIOD`]: whoever asks for what it may not
/// have pushes nothing else out of the audit. The others are counted.
const REFUSALS_RECORDED_MAX: u64 = 60;
const REFUSALS_PERIOD: Duration = Duration::from_secs(60);

/// The audit, and what it holds already.
#[derive(Clone)]
pub(super) struct RequestAudit {
    audit: Audit,
    recorded: Arc<Mutex<VecDeque<OpId>>>,
    refusals: Arc<Mutex<BTreeMap<Arc<str>, Refusals>>>,
}

/// The refused changes of one identity since a moment.
struct Refusals {
    since: Instant,
    count: u64,
}

impl RequestAudit {
    pub(super) fn new(audit: Audit) -> Self {
        Self { audit, recorded: Arc::default(), refusals: Arc::default() }
    }

    /// Begins an event; an empty one if it was recorded before that this operation was done.
    pub(super) fn open(
        &self,
        op: OpId,
        request: &impl Display,
        by: &impl Display,
        identity: &Arc<str>,
    ) -> AuditEntry {
        let is_new = !self.recorded().contains(&op);
        let entry = || Unrecorded {
            op,
            request: text(request),
            by: text(by),
            identity: Arc::clone(identity),
            since: Instant::now(),
        };
        AuditEntry { audit: self.clone(), entry: is_new.then(entry) }
    }

    fn recorded(&self) -> MutexGuard<'_, VecDeque<OpId>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a refusal. Whether it has an event of its own, and the events of those that had none.
    fn refuse(&self, identity: &Arc<str>, now: Instant) -> (bool, Vec<AuditEvent>) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let omitted = take_over(&mut refusals, now);
        let own = refusals.entry(Arc::clone(identity)).or_insert(Refusals { since: now, count: 0 });
        own.count += 1;
        (own.count <= REFUSALS_RECORDED_MAX, omitted)
    }

    fn note(&self, op: OpId) {
        let mut recorded = self.recorded();
        if recorded.len() >= RECORDED_KEPT {
            recorded.pop_front();
        }
        recorded.push_back(op);
    }
}

/// Ends the periods that are over, and tells what was omitted in them.
fn take_over(refusals: &mut BTreeMap<Arc<str>, Refusals>, now: Instant) -> Vec<AuditEvent> {
    let mut omitted = Vec::new();
    refusals.retain(|by, refusals| {
        let is_over = now.duration_since(refusals.since) >= REFUSALS_PERIOD;
        if is_over && refusals.count > REFUSALS_RECORDED_MAX {
            let count = refusals.count - REFUSALS_RECORDED_MAX;
            omitted.push(AuditEvent::RefusalsOmitted { by: text(by), count });
        }
        !is_over
    });
    omitted
}

/// An event whose outcome is not known yet. If it is dropped, because its caller has gone, the audit says so: what was
/// asked for may be done all the same.
pub(super) struct AuditEntry {
    audit: RequestAudit,
    entry: Option<Unrecorded>,
}

struct Unrecorded {
    op: OpId,
    request: String,
    by: String,
    identity: Arc<str>,
    since: Instant,
}

impl Unrecorded {
    fn event(self, outcome: String) -> AuditEvent {
        let Self { op, request, by, since, identity: _ } = self;
        let took = since.elapsed();
        // A line of the log must stay one: a name can contain what a reader would take for another.
        let (by_shown, request_shown) = (visible(&by), visible(&request));
        info!(target: "audit", %op, by = %by_shown, request = %request_shown, ?took, "{}", visible(&outcome));
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        AuditEvent::Request { op: op.to_string(), by, request, outcome, took_ms }
    }
}

impl AuditEntry {
    /// Records the outcome, unless this member did not decide, or not yet: the client then repeats the request, here or
    /// elsewhere. The answer may be given afterwards: it is on disk then.
    pub(super) async fn close(mut self, answer: Result<&ControlReply, &Refusal>) {
        let Some(entry) = self.entry.take() else { return };
        let outcome = match answer {
            Err(Refusal { code: RefusalCode::Unknown, message }) => text(format_args!("unknown: {message}")),
            Err(refusal) if refusal.code.is_repeated() => return,
            Err(refusal) => {
                let (is_recorded, omitted) = self.audit.refuse(&entry.identity, Instant::now());
                for event in omitted {
                    self.audit.audit.record(event).await;
                }
                if !is_recorded {
                    return;
                }
                text(format_args!("refused: {refusal}"))
            }
            Ok(ControlReply::Changed(changed)) => outcome(changed),
            Ok(_) => String::from("done"),
        };
        let op = entry.op;
        self.audit.audit.record(entry.event(outcome)).await;
        if answer.is_ok() {
            self.audit.note(op);
        }
    }
}

impl Drop for AuditEntry {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.audit.audit.record_later(entry.event(String::from("unknown: the caller has gone")));
        }
    }
}

fn outcome(changed: &Changed) -> String {
    match changed {
        Changed::Files(files) => {
            let copies = files.iter().map(|(_, copies)| *copies).min().unwrap_or(0);
            format!("done: {} files with at least {copies} copies", files.len())
        }
        Changed::Deleted { versions } => format!("done: {versions} versions deleted"),
        Changed::Copied(files) => format!("done: {} files", files.len()),
        Changed::Training(models) => format!("done: {} models", models.len()),
        Changed::JobAdded(job) => format!("done: {job}"),
        Changed::JobStarted { submitted } => format!("done: {submitted} queries"),
        Changed::StartedBefore { state, .. } => format!("no change: the job is {state:?}"),
        Changed::Retried { queries } | Changed::Dropped { queries } => format!("done: {queries} queries"),
        Changed::ModelAdded { is_new: false } => String::from("no change: the model has this version"),
        Changed::ModelAdded { is_new: true } | Changed::Done => String::from("done"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use idunno_shared::ids::OpId;
    use serde_json::Value;

    use super::*;
    use crate::audit::DIRECTORY;

    const OP: OpId = OpId(1, 1);

    fn audit(data_dir: &Path) -> RequestAudit {
        RequestAudit::new(Audit::open(data_dir).unwrap())
    }

    fn open(audit: &RequestAudit) -> AuditEntry {
        audit.open(OP, &"start-job 1", &"operator anna", &Arc::from("anna"))
    }

    async fn close(audit: &RequestAudit, answer: Result<&ControlReply, &Refusal>) {
        open(audit).close(answer).await;
    }

    /// The outcomes in the audit, after all that was sent to be written before.
    async fn outcomes(audit: &RequestAudit, data_dir: &Path) -> Vec<String> {
        audit.audit.record(AuditEvent::Stopped).await;
        let lines = fs::read_to_string(data_dir.join(DIRECTORY).join("audit.000001.jsonl")).unwrap();
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter_map(|event| event["outcome"].as_str().map(String::from)).collect()
    }

    #[tokio::test]
    async fn a_request_whose_caller_has_gone_is_recorded_as_unknown_and_then_by_its_outcome() {
        let dir = tempfile::tempdir().unwrap();
        let audit = audit(dir.path());
        drop(open(&audit));
        close(&audit, Ok(&ControlReply::Changed(Changed::Done))).await;
        assert_eq!(outcomes(&audit, dir.path()).await, ["unknown: the caller has gone", "done"]);
    }

    #[tokio::test]
    async fn a_flood_of_refusals_is_counted_and_pushes_nothing_out() {
        let dir = tempfile::tempdir().unwrap();
        let audit = audit(dir.path());
        let refusal = Refusal::new(RefusalCode::Forbidden, "it is another's");
        for _ in 0..REFUSALS_RECORDED_MAX + 40 {
            close(&audit, Err(&refusal)).await;
        }
        let other = audit.open(OpId(2, 2), &"stop-job 1", &"ben", &Arc::from("ben"));
        other.close(Err(&refusal)).await;
        let all = outcomes(&audit, dir.path()).await;
        assert_eq!(all.len() as u64, REFUSALS_RECORDED_MAX + 1, "another identity has its own");
        let now = Instant::now();
        assert_eq!(audit.refuse(&Arc::from("anna"), now), (false, vec![]));
        let omitted = AuditEvent::RefusalsOmitted { by: "anna".into(), count: 41 };
        assert_eq!(audit.refuse(&Arc::from("anna"), now + REFUSALS_PERIOD), (true, vec![omitted]));
    }

    #[tokio::test]
    async fn a_long_request_and_its_repeats_are_one_event() {
        let dir = tempfile::tempdir().unwrap();
        let audit = audit(dir.path());
        let under_way = RefusalCode::InProgress { done_bytes: 1, total_bytes: 2 };
        for _ in 0..3 {
            close(&audit, Err(&Refusal::new(under_way.clone(), "the input is read"))).await;
        }
        close(&audit, Ok(&ControlReply::Changed(Changed::JobStarted { submitted: 7 }))).await;
        close(&audit, Ok(&ControlReply::Changed(Changed::JobStarted { submitted: 7 }))).await;
        assert_eq!(outcomes(&audit, dir.path()).await, ["done: 7 queries"]);
    }

    #[tokio::test]
    async fn a_refusal_hides_no_later_change_of_the_same_operation() {
        let dir = tempfile::tempdir().unwrap();
        let audit = audit(dir.path());
        close(&audit, Err(&Refusal::new(RefusalCode::Busy, "16 jobs are being started"))).await;
        close(&audit, Err(&Refusal::new(RefusalCode::Conflict, "the job runs"))).await;
        close(&audit, Ok(&ControlReply::Changed(Changed::Done))).await;
        assert_eq!(outcomes(&audit, dir.path()).await, ["refused: the job runs", "done"]);
    }

    #[tokio::test]
    async fn what_another_member_decides_is_not_recorded_here() {
        let dir = tempfile::tempdir().unwrap();
        let audit = audit(dir.path());
        close(&audit, Err(&Refusal::new(RefusalCode::NoQuorum, "no majority of voters is reachable"))).await;
        close(&audit, Err(&Refusal::new(RefusalCode::Unknown, "the term ended"))).await;
        close(&audit, Err(&Refusal::new(RefusalCode::Conflict, "the job has ended"))).await;
        assert_eq!(
            outcomes(&audit, dir.path()).await,
            ["unknown: the term ended", "refused: the job has ended"]
        );
    }
}
