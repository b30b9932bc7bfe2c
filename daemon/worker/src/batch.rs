//! Runs one batch: sends its inputs to the model server in chunks, and makes result rows of the answers.
//!
//! Decides what becomes of each query: a row, or a fault with its kind. Source: the design, section 8 (failures).
//!
//! Invariants: every query of the batch is answered, in exactly one fault, or given back because the rows are full or the
//! process of the model does not run; while one chunk is inferred only the next is read; a call has no more queries than the
//! model's pace allows; one that the server rejects, or whose answer is too long, is halved until the query at fault is
//! alone.
//! Bounds: those of [`inputs`](super::inputs); a batch's rows have at most [`ROWS_BYTES_MAX`]. Queries whose rows do not
//! fit are neither answered nor at fault: they return to the coordinator with the commit of the others, at once and
//! uncharged, and the next batch is halved.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join;
use idunno_shared::ids::Digest;
use idunno_shared::names::MemberName;
use idunno_shared::wire::control::Reuse;
use idunno_shared::wire::jobs::{BatchOutcome, Fault, FaultKind, Grant, Lease, TokenCount};
use idunno_shared::wire::records::RecordIdentity;
use tracing::debug;

use super::chunk::{Chunk, InputFault};
use super::faults::{FaultCollector, ranges_of};
use super::inputs::{BatchRecords, PreparedBatch, fetch_chunk};
use super::labels::Labels;
use super::latency::InferLatency;
use super::model_server::{Extensions, ModelServerClient, ServerError};
use super::protocol::RowAnswer;
use super::reuse::BatchReuse;
use super::rows::{RowContext, RowError, RowIdentity, RowName, write_row};
use super::tokens::tokens_of;
use super::traits::FileStore;
use crate::json_text::JsonText;

/// Rows of one batch: a segment must fit into a blob.
pub const ROWS_BYTES_MAX: usize = 32 << 20;

/// A batch that ran.
#[derive(Debug)]
pub struct BatchResult {
    pub rows: Vec<u8>,
    /// What the rows answer: no query, if all failed.
    pub outcome: BatchOutcome,
    pub faults: Vec<Fault>,
    /// The model server did not serve, so the next batch must not be sent at once.
    pub worker_fault: bool,
    /// The model server missed the deadline, so it may hang.
    pub hung: bool,
    /// Why the process of the model, and of no other, does not run now.
    pub runner_down: Option<String>,
    /// The latency of the calls that were answered, if the model server was asked.
    pub latency: Option<InferLatency>,
}

impl BatchResult {
    /// The result of a batch of which every query failed.
    pub fn all_failed(lease: Lease, kind: FaultKind, reason: &str) -> Self {
        let mut faults = FaultCollector::default();
        faults.add(lease.range.queries().collect(), kind, reason);
        let outcome = BatchOutcome {
            lease,
            answered: Vec::new(),
            inference_us: 0,
            labelled: 0,
            correct: 0,
            local: 0,
            refused: 0,
            tokens: TokenCount::default(),
        };
        Self {
            rows: Vec::new(),
            outcome,
            faults: faults.into_faults(),
            worker_fault: kind == FaultKind::Worker,
            hung: false,
            runner_down: None,
            latency: None,
        }
    }
}

/// What batches run with.
#[derive(Clone)]
pub struct BatchContext {
    pub store: Arc<dyn FileStore>,
    pub server: ModelServerClient,
    pub extensions: Extensions,
    /// The name in the rows.
    pub worker: MemberName,
    /// The model's recent latency, which sets the size of a call and its deadline.
    pub latency: InferLatency,
}

/// Runs a batch to its end.
pub async fn run(context: BatchContext, prepared: PreparedBatch) -> BatchResult {
    let PreparedBatch { grant, queries, chunks, first, labels, records, reuse } = prepared;
    let mut run = BatchRun {
        context: &context,
        grant: &grant,
        row_context: RowContext::new(&grant.model, &grant.version, &context.worker, grant.lease.attempt),
        labels: labels.as_deref(),
        queries: &queries,
        records: records.as_ref(),
        reuse,
        taken_over: 0,
        rows: Vec::new(),
        answered: Vec::new(),
        faults: FaultCollector::default(),
        inference: Duration::ZERO,
        labelled: 0,
        correct: 0,
        is_local: vec![false; queries.len()],
        local: 0,
        refused: 0,
        tokens: TokenCount::default(),
        is_full: false,
        stopped_by: None,
        hung: false,
        runner_down: None,
        latency: context.latency.clone(),
    };
    let mut chunk = first;
    for later in (1..=chunks.len()).map(|next| &chunks[next..]) {
        let next = later.first().map_or(&[][..], Vec::as_slice);
        let read_next = async {
            match &records {
                Some(records) => records.chunk(next).await,
                None => fetch_chunk(&*context.store, &grant.inputs, next).await,
            }
        };
        let ((), next_chunk) = join(run.infer_chunk(chunk), read_next).await;
        if run.is_full || run.runner_down.is_some() {
            break;
        }
        if let Some(InputFault { kind, reason }) = run.stopped_by.clone() {
            let untried = run.queries_at(&later.concat());
            run.faults.add(untried, kind, &reason);
            break;
        }
        chunk = next_chunk;
    }
    run.finish()
}

struct BatchRun<'a> {
    context: &'a BatchContext,
    grant: &'a Grant,
    row_context: RowContext,
    labels: Option<&'a Labels>,
    /// The numbers of the queries, by position.
    queries: &'a [u64],
    records: Option<&'a BatchRecords>,
    reuse: Option<BatchReuse>,
    /// The position up to which earlier answers have rows. Rows are in the order of the queries.
    taken_over: usize,
    rows: Vec<u8>,
    answered: Vec<u64>,
    faults: FaultCollector,
    inference: Duration,
    labelled: u32,
    correct: u32,
    /// Whether the input at a position came from the member's own disk.
    is_local: Vec<bool>,
    /// How many of those inputs are answered.
    local: u32,
    /// The largest number of queries in a call that was refused as too large, or whose rows did not fit.
    refused: usize,
    tokens: TokenCount,
    /// Whether a row did not fit any more: what follows is given back.
    is_full: bool,
    /// The fault that applies to everything not yet inferred.
    stopped_by: Option<InputFault>,
    hung: bool,
    /// Why the process of the model does not run now: what was not tried is given back.
    runner_down: Option<String>,
    latency: InferLatency,
}

impl<'a> BatchRun<'a> {
    async fn infer_chunk(&mut self, chunk: Chunk) {
        let mut positions = Vec::with_capacity(chunk.len());
        let mut inputs = Vec::with_capacity(chunk.len());
        for input in chunk {
            match input.bytes {
                Ok(fetched) => {
                    if self.is_answered(input.position, &fetched.bytes).await {
                        continue;
                    }
                    positions.push(input.position);
                    inputs.push(fetched.bytes);
                    self.is_local[input.position] = fetched.is_local;
                }
                Err(InputFault { kind, reason }) => {
                    self.faults.add(vec![self.queries[input.position]], kind, &reason);
                }
            }
        }
        let mut calls = Vec::new();
        if !inputs.is_empty() {
            calls.push(0..inputs.len());
        }
        while let Some(mut call) = calls.pop() {
            if self.is_full || self.runner_down.is_some() {
                return;
            }
            if let Some(InputFault { kind, reason }) = &self.stopped_by {
                self.faults.add(self.queries_at(&positions[call]), *kind, reason);
                continue;
            }
            let queries_max = self.latency.queries_max();
            if call.len() > queries_max {
                calls.push(call.start + queries_max..call.end);
                call.end = call.start + queries_max;
            }
            if let Err(error) = self.infer(&positions[call.clone()], &inputs[call.clone()]).await {
                if error.splits() && call.len() > 1 {
                    if error.is_too_large() {
                        self.refused = self.refused.max(call.len());
                    }
                    let middle = call.start + call.len() / 2;
                    calls.push(middle..call.end);
                    calls.push(call.start..middle);
                    continue;
                }
                self.record_failure(&error, &positions[call]);
            }
        }
    }

    /// Whether an earlier job answered this input.
    async fn is_answered(&mut self, position: usize, input: &Bytes) -> bool {
        let Some(reuse) = &mut self.reuse else { return false };
        if reuse.digest(position).is_some() {
            return reuse.has(position);
        }
        reuse.look_up(&*self.context.store, position, Digest::of(input)).await
    }

    /// Makes rows of earlier answers to the queries before a position.
    fn take_over_before(&mut self, end: usize) {
        for position in self.taken_over..end {
            let answer = self.reuse.as_ref().and_then(|reuse| reuse.answer(position)).cloned();
            if let Some(answer) = answer.filter(|_| !self.is_full) {
                self.record_output(position, &answer, true);
            }
        }
        self.taken_over = end;
    }

    /// Has the process of a model that did not answer in time ended, so that the server and other models go on.
    async fn end_hanging(&self, timed_out: ServerError) -> ServerError {
        let BatchContext { server, extensions, .. } = self.context;
        let Grant { model, version, .. } = self.grant;
        let reason = timed_out.to_string();
        if extensions.idunno && matches!(server.restart_version(model, version, &reason).await, Ok(true)) {
            return ServerError::RunnerEnded { message: format!("{reason}, and its process was ended") };
        }
        timed_out
    }

    async fn infer(&mut self, positions: &[usize], inputs: &[Bytes]) -> Result<(), ServerError> {
        let BatchContext { server, extensions, .. } = self.context;
        let started = Instant::now();
        let deadline = self.latency.deadline(inputs.len());
        let answers = match server.infer(self.grant, inputs, *extensions, deadline).await {
            Err(error @ ServerError::TimedOut { .. }) => return Err(self.end_hanging(error).await),
            answers => answers?,
        };
        let elapsed = started.elapsed();
        self.inference += elapsed;
        self.latency.record(elapsed, inputs.len());
        let expected = self.grant.version.to_string();
        if extensions.idunno && answers.version.as_deref() != Some(&expected) {
            let served = answers.version.unwrap_or_else(|| String::from("none"));
            return Err(ServerError::WrongVersion { served, expected });
        }
        let row_bytes = |answer: &RowAnswer| answer.bytes() + self.row_context.bytes();
        let bytes = answers.rows.iter().map(row_bytes).sum::<usize>();
        self.rows.reserve(bytes.min(ROWS_BYTES_MAX));
        for (&position, answer) in positions.iter().zip(&answers.rows) {
            self.take_over_before(position);
            if !self.is_full {
                self.record_answer(position, answer);
            }
            if self.is_full {
                self.refused = self.refused.max(self.queries.len());
                break;
            }
        }
        Ok(())
    }

    /// Makes a row or a fault of an answer.
    fn record_answer(&mut self, position: usize, answer: &RowAnswer) {
        match answer {
            RowAnswer::Output(output) => self.record_output(position, output, false),
            RowAnswer::Failed(reason) => {
                self.faults.add(vec![self.queries[position]], FaultKind::BadInput, reason);
            }
        }
    }

    /// Makes a row of an output, which the model gave now or, if it is reused, for an earlier job.
    fn record_output(&mut self, position: usize, output: &[u8], is_reused: bool) {
        let query = self.queries[position];
        let record = self.records.map(|records| &records.by_position[position]);
        let label = self.label(position);
        let identity = RowIdentity {
            query,
            name: match self.records {
                Some(records) => records.name(position),
                None => RowName::File(&self.grant.inputs[position].name),
            },
            id: record.and_then(|record| record.id.as_ref()),
            label: label.as_deref(),
            fields: record.and_then(|record| record.fields.as_ref()),
            digest: self.reuse.as_ref().and_then(|reuse| reuse.digest(position)),
            reused_from: match self.grant.reuse {
                Reuse::From(job) if is_reused => Some(job),
                _ => None,
            },
        };
        let row_start = self.rows.len();
        let is_correct = match write_row(&mut self.rows, &self.row_context, &identity, output) {
            Ok(is_correct) => is_correct,
            Err(error) => {
                let kind = match error {
                    RowError::Binary => FaultKind::Inference,
                    RowError::Broken(_) => FaultKind::BadInput,
                };
                return self.faults.add(vec![query], kind, &error.to_string());
            }
        };
        if self.rows.len() > ROWS_BYTES_MAX {
            self.rows.truncate(row_start);
            if row_start > 0 {
                self.is_full = true;
                return;
            }
            let reason = format!("the answer's row has more than {ROWS_BYTES_MAX} bytes");
            return self.faults.add(vec![query], FaultKind::BadInput, &reason);
        }
        self.answered.push(query);
        self.local += u32::from(self.is_local[position]);
        if is_reused {
            self.tokens.reused += 1;
        } else {
            self.tokens = self.tokens.plus(tokens_of(output));
        }
        if let Some(is_correct) = is_correct {
            self.labelled += 1;
            self.correct += u32::from(is_correct);
        }
    }

    fn queries_at(&self, positions: &[usize]) -> Vec<u64> {
        positions.iter().map(|&position| self.queries[position]).collect()
    }

    fn label(&self, position: usize) -> Option<Cow<'a, JsonText>> {
        if let Some(records) = self.records {
            return records.by_position[position].label.as_ref().map(Cow::Borrowed);
        }
        let name = &self.grant.inputs[position].name;
        self.labels.and_then(|labels| labels.of(name)).map(JsonText::of_text).map(Cow::Owned)
    }

    /// What the records at fault say of themselves. A range of several queries is dead only if its inputs are bad.
    fn identities(&self, fault: &Fault) -> Vec<(u64, RecordIdentity)> {
        let ranges =
            fault.ranges.iter().filter(|range| fault.kind == FaultKind::BadInput || range.count == 1);
        let queries = ranges.flat_map(|range| range.queries());
        let identities = queries.map(|query| (query, self.identity(query).bounded()));
        identities.filter(|(_, identity)| !identity.is_empty()).collect()
    }

    fn identity(&self, query: u64) -> RecordIdentity {
        let Ok(position) = self.queries.binary_search(&query) else { return RecordIdentity::default() };
        if let Some(records) = self.records {
            return records.by_position[position].identity();
        }
        RecordIdentity { id: None, label: self.label(position).map(|label| label.as_str().to_owned()) }
    }

    fn record_failure(&mut self, error: &ServerError, positions: &[usize]) {
        let kind = error.fault();
        let reason = error.to_string();
        debug!(lease = %self.grant.lease, queries = positions.len(), %reason, "an infer call failed");
        if error.is_runner_down() {
            if matches!(error, ServerError::RunnerEnded { .. }) {
                self.faults.add(self.queries_at(positions), kind, &reason);
            }
            self.runner_down = Some(reason);
            return;
        }
        self.faults.add(self.queries_at(positions), kind, &reason);
        self.hung |= matches!(error, ServerError::TimedOut { .. });
        if kind == FaultKind::Worker || error.is_server_failure() {
            self.stopped_by = Some(InputFault { kind, reason });
        }
    }

    fn finish(mut self) -> BatchResult {
        self.take_over_before(self.queries.len());
        let mut faults = std::mem::take(&mut self.faults).into_faults();
        for fault in &mut faults {
            fault.identities = self.identities(fault);
        }
        let outcome = BatchOutcome {
            lease: self.grant.lease,
            answered: ranges_of(self.answered),
            inference_us: u64::try_from(self.inference.as_micros()).unwrap_or(u64::MAX),
            labelled: self.labelled,
            correct: self.correct,
            local: self.local,
            refused: u32::try_from(self.refused).unwrap_or(u32::MAX),
            tokens: self.tokens,
        };
        BatchResult {
            rows: self.rows,
            outcome,
            faults,
            worker_fault: self.stopped_by.is_some(),
            hung: self.hung,
            runner_down: self.runner_down,
            latency: Some(self.latency),
        }
    }
}
