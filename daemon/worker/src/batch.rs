//! Runs one batch: inputs from the store, answers from the model server, rows for a segment.
//!
//! Decides how a batch is cut into infer calls and what becomes of each query: a row, or a fault with its kind. Source:
//! the design, section 8 (failures).
//!
//! Invariants: every query of the batch is answered or in exactly one fault; while one chunk is inferred only the next
//! is fetched; a call that the server rejects is split down to the query that it rejects.
//! Bounds: a chunk has at most as many bytes as the configuration says, or is one input of at most [`INPUT_BYTES_MAX`]; a batch's
//! rows have at most [`ROWS_BYTES_MAX`].

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::join;
use idunno_shared::names::MemberName;
use idunno_shared::wire::jobs::{BatchOutcome, Fault, FaultKind, Grant, Lease, QueryInput, RecordsGrant};
use tokio::time::timeout;
use tracing::debug;

use super::extents::ExtentCache;
use super::faults::{Faults, ranges_of};
use super::labels::{LabelCache, Labels};
use super::model_server::{Extensions, ModelServer, ServerError};
use super::pace::Pace;
use super::protocol::RowAnswer;
use super::rows::{Named, RowFrame, is_right, write_row};
use super::traits::{Fetched, FileStore};
use crate::records::{self, Record};

/// Inputs of one infer call, in bytes, unless configured.
pub const CHUNK_BYTES_DEFAULT: u64 = 64 << 20;
/// Largest input: what a model server's body takes, with room for the header. In bytes.
pub const INPUT_BYTES_MAX: u64 = 240 << 20;
/// Rows of one batch, in bytes: so that a segment fits a blob.
pub const ROWS_BYTES_MAX: usize = 32 << 20;
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an input is not here.
type Missing = (FaultKind, String);

/// A chunk's inputs: positions in the batch, and the bytes or why there are none.
type Chunk = Vec<(usize, Result<Fetched, Missing>)>;

/// A granted batch with its first chunk of inputs.
#[derive(Debug)]
pub struct Prepared {
    /// The grant.
    pub grant: Grant,
    chunks: Vec<Range<usize>>,
    first: Chunk,
    labels: Option<Arc<Labels>>,
    /// The inputs, where they are records of one file.
    records: Option<Records>,
}

/// Inputs that are records of one file.
#[derive(Debug)]
struct Records {
    /// They, by place.
    all: Vec<Record>,
    /// Whether they came from the member's own disk.
    is_local: bool,
}

/// A batch that ran.
#[derive(Debug)]
pub struct Ran {
    /// Its rows.
    pub rows: Vec<u8>,
    /// What the rows answer; no query, if all failed.
    pub outcome: BatchOutcome,
    /// The queries that failed.
    pub faults: Vec<Fault>,
    /// The model server did not serve: do not send it the next batch at once.
    pub worker_fault: bool,
    /// The model server missed the deadline: it may hang.
    pub hung: bool,
}

impl Ran {
    /// A batch of which nothing was answered.
    pub fn all_failed(lease: Lease, kind: FaultKind, reason: &str) -> Self {
        let mut faults = Faults::default();
        faults.add((lease.range.first..lease.range.end()).collect(), kind, reason);
        Self {
            rows: Vec::new(),
            outcome: nothing_answered(lease),
            faults: faults.into_faults(),
            worker_fault: kind == FaultKind::Worker,
            hung: false,
        }
    }
}

/// What batches of one data set share.
#[derive(Default)]
pub struct InputCaches {
    /// Label tables.
    pub labels: LabelCache,
    /// Files of records.
    pub extents: ExtentCache,
}

fn nothing_answered(lease: Lease) -> BatchOutcome {
    BatchOutcome {
        lease,
        answered: Vec::new(),
        inference_us: 0,
        labelled: 0,
        correct: 0,
        local: 0,
        refused: 0,
    }
}

/// Fetches a batch's first chunk and its labels.
pub async fn prepare(
    store: &dyn FileStore,
    caches: &InputCaches,
    mut grant: Grant,
    chunk_bytes: u64,
) -> Prepared {
    if let Some(records) = grant.records.take() {
        return prepare_records(store, caches, grant, records, chunk_bytes).await;
    }
    let sizes: Vec<u64> = grant.inputs.iter().map(input_bytes).collect();
    let chunks = plan_chunks(&sizes, chunk_bytes);
    let labels = &caches.labels;
    let table = async {
        match &grant.labels {
            Some(extents) => timeout(FETCH_TIMEOUT, labels.get(store, extents)).await.ok().flatten(),
            None => None,
        }
    };
    let first = fetch_chunk(store, &grant.inputs, chunks.first().cloned().unwrap_or(0..0));
    let (first, labels) = join(first, table).await;
    Prepared { grant, chunks, first, labels, records: None }
}

/// Reads a batch's records; all of them are in memory then, as many bytes as the coordinator allows.
async fn prepare_records(
    store: &dyn FileStore,
    caches: &InputCaches,
    mut grant: Grant,
    granted: RecordsGrant,
    chunk_bytes: u64,
) -> Prepared {
    let range = grant.lease.range;
    let name = |index: u64| format!("{}:{}", granted.file, index + 1).parse().ok();
    let input = |index| Some(QueryInput { index, name: name(index)?, extents: Vec::new() });
    grant.inputs = (range.first..range.end()).filter_map(input).collect();
    let failed = |why: String| (FaultKind::Fetch, format!("cannot read the records: {why}"));
    let late = || format!("not read within {} s", FETCH_TIMEOUT.as_secs());
    let fetched = match timeout(FETCH_TIMEOUT, caches.extents.read(store, &granted)).await {
        Ok(fetched) => fetched.map_err(failed),
        Err(_) => Err(failed(late())),
    };
    let records = fetched.map(|Fetched { bytes, is_local }| {
        let skip = usize::try_from(granted.skip).unwrap_or(usize::MAX);
        Records { all: records::read(granted.format, &bytes, skip, grant.inputs.len()), is_local }
    });
    let count = grant.inputs.len();
    match records {
        Ok(records) if records.all.len() == count => {
            let size = |record: &Record| record.input.as_ref().map_or(0, |input| input.len() as u64);
            let sizes: Vec<u64> = records.all.iter().map(size).collect();
            let chunks = plan_chunks(&sizes, chunk_bytes);
            let first = record_chunk(&records, chunks.first().cloned().unwrap_or(0..0));
            Prepared { grant, chunks, first, labels: None, records: Some(records) }
        }
        other => {
            let why = other.map_or_else(
                |why| why,
                |records| failed(format!("there are {} where {count} were counted", records.all.len())),
            );
            let first = (0..count).map(|place| (place, Err(why.clone()))).collect();
            Prepared {
                grant,
                chunks: vec![Range { start: 0, end: count }],
                first,
                labels: None,
                records: None,
            }
        }
    }
}

fn record_chunk(records: &Records, places: Range<usize>) -> Chunk {
    let input = |place: usize| match &records.all[place].input {
        Ok(input) if input.len() as u64 <= INPUT_BYTES_MAX => {
            Ok(Fetched { bytes: input.clone(), is_local: records.is_local })
        }
        Ok(input) => Err((FaultKind::BadInput, format!("the record's input has {} bytes", input.len()))),
        Err(why) => Err((FaultKind::BadInput, why.clone())),
    };
    places.map(|place| (place, input(place))).collect()
}

fn input_bytes(input: &QueryInput) -> u64 {
    input.extents.iter().map(|extent| extent.blob.size).fold(0, u64::saturating_add)
}

/// Consecutive inputs that go in one infer call.
fn plan_chunks(sizes: &[u64], chunk_bytes: u64) -> Vec<Range<usize>> {
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0_u64;
    for (place, &size) in sizes.iter().enumerate() {
        // An input that is too large is never read.
        let size = if size > INPUT_BYTES_MAX { 0 } else { size };
        match chunks.last_mut() {
            Some(chunk) if bytes + size <= chunk_bytes => {
                chunk.end = place + 1;
                bytes += size;
            }
            _ => {
                chunks.push(place..place + 1);
                bytes = size;
            }
        }
    }
    chunks
}

async fn fetch_chunk(store: &dyn FileStore, inputs: &[QueryInput], places: Range<usize>) -> Chunk {
    let too_large = |input: &QueryInput| input_bytes(input) > INPUT_BYTES_MAX;
    let wanted = inputs[places.clone()].iter().filter(|input| !too_large(input));
    let blobs: Vec<_> = wanted.flat_map(|input| input.extents.iter().cloned()).collect();
    let mut fetched = match timeout(FETCH_TIMEOUT, store.fetch(&blobs)).await {
        Ok(fetched) => Some(fetched.into_iter()),
        Err(_) => None,
    };
    let mut read = |input: &QueryInput| {
        if too_large(input) {
            let reason =
                format!("the file has {} bytes, a query may have {INPUT_BYTES_MAX}", input_bytes(input));
            return Err((FaultKind::BadInput, reason));
        }
        let late = || (FaultKind::Fetch, format!("not read within {} s", FETCH_TIMEOUT.as_secs()));
        let fetched = fetched.as_mut().ok_or_else(late)?;
        let blobs: Vec<_> = fetched.take(input.extents.len()).collect();
        let failed = |reason: String| (FaultKind::Fetch, format!("cannot read the input: {reason}"));
        if blobs.len() < input.extents.len() {
            return Err(failed("the store gave too few blobs".to_owned()));
        }
        let blobs: Result<Vec<Fetched>, _> = blobs.into_iter().collect();
        let mut blobs = blobs.map_err(|error| failed(error.to_string()))?;
        if blobs.len() == 1 {
            return Ok(blobs.swap_remove(0));
        }
        let mut whole = BytesMut::with_capacity(blobs.iter().map(|blob| blob.bytes.len()).sum());
        for blob in &blobs {
            whole.extend_from_slice(&blob.bytes);
        }
        let is_local = blobs.iter().all(|blob| blob.is_local);
        Ok(Fetched { bytes: whole.freeze(), is_local })
    };
    places.map(|place| (place, read(&inputs[place]))).collect()
}

/// What running a batch needs besides the batch.
#[derive(Clone)]
pub struct Bench {
    /// The store.
    pub store: Arc<dyn FileStore>,
    /// The model server.
    pub server: ModelServer,
    /// What it can do.
    pub extensions: Extensions,
    /// The worker's name, for the rows.
    pub worker: MemberName,
    /// How fast the model was so far.
    pub pace: Pace,
}

/// Runs a batch to its end.
pub async fn run(bench: Bench, prepared: Prepared) -> Ran {
    let Prepared { grant, chunks, first, labels, records } = prepared;
    let mut run = Run {
        bench: &bench,
        grant: &grant,
        labels: labels.as_deref(),
        records: records.as_ref().map(|records| &records.all[..]),
        rows: Vec::new(),
        answered: Vec::new(),
        faults: Faults::default(),
        inference: Duration::ZERO,
        labelled: 0,
        correct: 0,
        near: BTreeSet::new(),
        local: 0,
        refused: 0,
        stopped: None,
        hung: false,
    };
    let mut chunk = first;
    for number in 0..chunks.len() {
        let next = chunks.get(number + 1).cloned().filter(|_| run.stopped.is_none());
        let next = next.unwrap_or(0..0);
        let fetching = async {
            match &records {
                Some(records) => record_chunk(records, next),
                None => fetch_chunk(&*bench.store, &grant.inputs, next).await,
            }
        };
        let ((), fetched) = join(run.infer_chunk(chunk), fetching).await;
        if let Some((kind, reason)) = run.stopped.take() {
            let behind = chunks[number].end..grant.inputs.len();
            run.faults.add(behind.map(|place| grant.inputs[place].index).collect(), kind, &reason);
            run.stopped = Some((kind, reason));
            break;
        }
        chunk = fetched;
    }
    run.finish()
}

struct Run<'a> {
    bench: &'a Bench,
    grant: &'a Grant,
    labels: Option<&'a Labels>,
    records: Option<&'a [Record]>,
    rows: Vec<u8>,
    answered: Vec<u64>,
    faults: Faults,
    inference: Duration,
    labelled: u32,
    correct: u32,
    /// The places whose inputs came from the own disk, and how many of those are answered.
    near: BTreeSet<usize>,
    local: u32,
    /// The most queries of a call that was refused as too much at once.
    refused: usize,
    /// Why nothing more is tried.
    stopped: Option<Missing>,
    hung: bool,
}

impl Run<'_> {
    async fn infer_chunk(&mut self, chunk: Chunk) {
        let (mut places, mut inputs) = (Vec::with_capacity(chunk.len()), Vec::with_capacity(chunk.len()));
        for (place, input) in chunk {
            match input {
                Ok(input) => {
                    places.push(place);
                    inputs.push(input.bytes);
                    if input.is_local {
                        self.near.insert(place);
                    }
                }
                Err((kind, reason)) => self.faults.add(vec![self.grant.inputs[place].index], kind, &reason),
            }
        }
        let mut calls = Vec::new();
        if !inputs.is_empty() {
            calls.push(0..inputs.len());
        }
        while let Some(call) = calls.pop() {
            if let Some((kind, reason)) = &self.stopped {
                self.faults.add(indices(self.grant, &places[call]), *kind, reason);
                continue;
            }
            if let Err(error) = self.infer(&places[call.clone()], &inputs[call.clone()]).await {
                if error.splits() && call.len() > 1 {
                    if error.is_too_much() {
                        self.refused = self.refused.max(call.len());
                    }
                    let middle = call.start + call.len() / 2;
                    calls.push(middle..call.end);
                    calls.push(call.start..middle);
                    continue;
                }
                self.failed(&error, &places[call]);
            }
        }
    }

    async fn infer(&mut self, places: &[usize], inputs: &[Bytes]) -> Result<(), ServerError> {
        let Bench { server, extensions, pace, .. } = self.bench;
        let started = Instant::now();
        let Grant { model, parameters, .. } = self.grant;
        let deadline = pace.deadline(inputs.len());
        let answers = server.infer(model, parameters, inputs, *extensions, deadline).await?;
        self.inference += started.elapsed();
        let expected = self.grant.version.to_string();
        if extensions.idunno && answers.version.as_deref() != Some(&expected) {
            let message = format!("it serves version {:?}, {expected} was asked for", answers.version);
            return Err(ServerError::Status { status: 503, message });
        }
        for (&place, answer) in places.iter().zip(&answers.rows) {
            self.take(place, answer);
        }
        Ok(())
    }

    /// Makes a row of an answer, or a fault.
    fn take(&mut self, place: usize, answer: &RowAnswer) {
        let input = &self.grant.inputs[place];
        let output = match answer {
            RowAnswer::Output(output) => output,
            RowAnswer::Failed(reason) => {
                return self.faults.add(vec![input.index], FaultKind::BadInput, reason);
            }
        };
        if self.rows.len() + output.len() > ROWS_BYTES_MAX {
            let reason = "the batch's answers are too large: make it smaller with set-batch-size";
            return self.faults.add(vec![input.index], FaultKind::Inference, reason);
        }
        let frame = RowFrame {
            model: &self.grant.model,
            version: &self.grant.version,
            worker: &self.bench.worker,
            attempt: self.grant.lease.attempt,
        };
        let record = self.records.map(|records| &records[place]);
        let label = match record {
            Some(record) => record.label.as_deref(),
            None => self.labels.and_then(|labels| labels.of(&input.name)),
        };
        let id = record.and_then(|record| record.id.as_deref());
        let named = Named { query: input.index, name: &input.name, id, label };
        if !write_row(&mut self.rows, &frame, &named, output) {
            let reason = "the model server's answer is neither JSON nor text";
            return self.faults.add(vec![input.index], FaultKind::Inference, reason);
        }
        self.answered.push(input.index);
        self.local += u32::from(self.near.contains(&place));
        if let Some(label) = label {
            self.labelled += 1;
            self.correct += u32::from(is_right(output, label));
        }
    }

    fn failed(&mut self, error: &ServerError, places: &[usize]) {
        let (kind, reason) = (error.fault(), error.to_string());
        debug!(lease = %self.grant.lease, queries = places.len(), %reason, "an infer call failed");
        self.faults.add(indices(self.grant, places), kind, &reason);
        self.hung |= matches!(error, ServerError::TimedOut { .. });
        if kind == FaultKind::Worker || error.interrupted() {
            self.stopped = Some((kind, reason));
        }
    }

    fn finish(self) -> Ran {
        let outcome = BatchOutcome {
            lease: self.grant.lease,
            answered: ranges_of(self.answered),
            inference_us: u64::try_from(self.inference.as_micros()).unwrap_or(u64::MAX),
            labelled: self.labelled,
            correct: self.correct,
            local: self.local,
            refused: u32::try_from(self.refused).unwrap_or(u32::MAX),
        };
        let worker_fault = self.stopped.is_some();
        Ran { rows: self.rows, outcome, faults: self.faults.into_faults(), worker_fault, hung: self.hung }
    }
}

fn indices(grant: &Grant, places: &[usize]) -> Vec<u64> {
    places.iter().map(|&place| grant.inputs[place].index).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_cut_by_bytes_and_lose_no_input() {
        let mib = 1 << 20;
        let plan_chunks = |sizes: &[u64]| plan_chunks(sizes, 64 * mib);
        assert!(plan_chunks(&[]).is_empty());
        assert_eq!(plan_chunks(&[20_000; 32]), vec![Range { start: 0, end: 32 }]);
        assert_eq!(plan_chunks(&[40 * mib, 24 * mib, 1]), [0..2, 2..3]);
        assert_eq!(plan_chunks(&[mib, 200 * mib, mib]), [0..1, 1..2, 2..3]);
        assert_eq!(
            plan_chunks(&[mib, 999 * mib, mib]),
            vec![Range { start: 0, end: 3 }],
            "what is too large is not read"
        );
    }
}
