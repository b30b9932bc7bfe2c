//! The inputs of a batch: read from the store in chunks, one chunk for each infer call.
//!
//! Decides how a batch is cut into chunks, and which inputs cannot be read. Records of a file are all read at once; as many
//! bytes as the coordinator allows are then in memory. Other inputs, objects outside the cluster among them, are read a chunk
//! at a time.
//!
//! Bounds: a chunk has at most the configured number of bytes, or is one input of at most [`INPUT_BYTES_MAX`].

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::join;
use idunno_references::ObjectClient;
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::jobs::{FooterGrant, Grant, QueryInput, RecordFormat, RecordsGrant};
use tokio::time::timeout;

use super::chunk::{Chunk, ChunkInput, INPUT_BYTES_MAX, InputFault};
use super::extents::ExtentCache;
use super::labels::{LabelCache, Labels, LabelsError};
use super::objects::BatchObjects;
use super::reuse::{BatchReuse, EarlierJobs};
use super::row_groups::{RowGroupCache, RowsRead};
use super::rows::{QuotedName, RowName};
use super::traits::{FetchedBytes, FileStore, FileStoreError};
use crate::records::{self, Record, Span};

/// Default size of a chunk of inputs.
pub const CHUNK_BYTES_DEFAULT: u64 = 64 << 20;
const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

/// A granted batch with its first chunk of inputs.
#[derive(Debug)]
pub struct PreparedBatch {
    pub grant: Grant,
    /// The number of each query, by position.
    pub(super) queries: Vec<u64>,
    /// The positions of each chunk: all whose inputs are needed.
    pub(super) chunks: Vec<Vec<usize>>,
    pub(super) first: Chunk,
    pub(super) labels: Option<Arc<Labels>>,
    /// The inputs, if they are records of one file.
    pub(super) records: Option<BatchRecords>,
    /// The answers that need no model.
    pub(super) reuse: Option<BatchReuse>,
}

/// Inputs that are records of one file.
#[derive(Debug)]
pub(super) struct BatchRecords {
    pub(super) by_position: Vec<Record>,
    /// The number of each record in the file.
    numbers: Vec<u64>,
    file: QuotedName,
    is_local: bool,
    /// The objects outside the cluster that are the inputs, if the records refer to such.
    objects: Option<BatchObjects>,
}

impl BatchRecords {
    /// The inputs at these positions. They are at hand, unless they are outside the cluster.
    pub(super) async fn chunk(&self, positions: &[usize]) -> Chunk {
        if let Some(objects) = &self.objects {
            return objects.read(positions).await;
        }
        positions.iter().map(|&position| ChunkInput { position, bytes: self.input(position) }).collect()
    }

    fn input(&self, position: usize) -> Result<FetchedBytes, InputFault> {
        match &self.by_position[position].input {
            Ok(input) if input.len() as u64 <= INPUT_BYTES_MAX => {
                Ok(FetchedBytes { bytes: input.clone(), is_local: self.is_local })
            }
            Ok(input) => Err(InputFault::bad_input(format!(
                "the record's input has {} bytes, but a query may have {INPUT_BYTES_MAX}",
                input.len()
            ))),
            Err(error) => Err(InputFault::bad_input(error.to_string())),
        }
    }

    /// How many bytes each input has.
    fn sizes(&self) -> Vec<u64> {
        let size = |record: &Record| record.input.as_ref().map_or(0, |input| input.len() as u64);
        match &self.objects {
            Some(objects) => objects.sizes(),
            None => self.by_position.iter().map(size).collect(),
        }
    }

    pub(super) fn name(&self, position: usize) -> RowName<'_> {
        RowName::Record(&self.file, self.numbers[position])
    }
}

/// Caches that the batches of a dataset share.
pub struct InputCaches {
    pub labels: LabelCache,
    pub extents: ExtentCache,
    pub row_groups: RowGroupCache,
    pub objects: Arc<ObjectClient>,
    pub(super) earlier: Arc<EarlierJobs>,
}

impl InputCaches {
    /// Empty caches. Objects outside the cluster are read through this client, whose connections are kept.
    pub fn new(objects: ObjectClient) -> Self {
        Self {
            labels: LabelCache::default(),
            extents: ExtentCache::default(),
            row_groups: RowGroupCache::default(),
            objects: Arc::new(objects),
            earlier: Arc::default(),
        }
    }

    /// Frees all that is cached.
    pub async fn clear(&self) {
        self.labels.clear();
        self.extents.clear().await;
        self.row_groups.clear().await;
        self.earlier.clear().await;
    }
}

/// Reads a batch's first chunk and its labels.
pub async fn prepare(
    store: &dyn FileStore,
    caches: &InputCaches,
    mut grant: Grant,
    chunk_bytes: u64,
) -> PreparedBatch {
    let mut reuse =
        BatchReuse::new(store, &caches.earlier, grant.reuse, grant.lease.range.count as usize).await;
    if let Some(records) = grant.records.take() {
        return prepare_records(store, caches, grant, records, chunk_bytes, reuse).await;
    }
    if let Some(reuse) = &mut reuse {
        look_up_files(store, reuse, &grant.inputs).await;
    }
    let queries: Vec<u64> = grant.inputs.iter().map(|input| input.index).collect();
    let has_answer = |position| reuse.as_ref().is_some_and(|reuse| reuse.has(position));
    let needed = grant.inputs.iter().enumerate().filter(|(position, _)| !has_answer(*position));
    let needed: Vec<usize> = needed.map(|(position, _)| position).collect();
    let sizes: Vec<u64> = needed.iter().map(|&position| input_bytes(&grant.inputs[position])).collect();
    let chunks = plan_chunks(&sizes, chunk_bytes);
    let chunks: Vec<Vec<usize>> = chunks.into_iter().map(|chunk| needed[chunk].to_vec()).collect();
    let labels = read_labels(store, &caches.labels, grant.labels.as_deref());
    let first = fetch_chunk(store, &grant.inputs, chunks.first().map_or(&[], Vec::as_slice));
    let (first, labels) = join(first, labels).await;
    match labels {
        Ok(labels) => PreparedBatch { grant, queries, chunks, first, labels, records: None, reuse },
        Err(error) => unreadable(grant, queries, &InputFault::fetch(error.to_string())),
    }
}

/// Looks for answers to files that need not be read for it: the digest of a file of one extent is the extent's.
async fn look_up_files(store: &dyn FileStore, reuse: &mut BatchReuse, inputs: &[QueryInput]) {
    for (position, input) in inputs.iter().enumerate() {
        if let [extent] = &*input.extents {
            reuse.look_up(store, position, extent.blob.digest).await;
        }
    }
}

async fn read_labels(
    store: &dyn FileStore,
    cache: &LabelCache,
    table: Option<&[PlacedBlob]>,
) -> Result<Option<Arc<Labels>>, LabelsError> {
    let Some(table) = table else { return Ok(None) };
    cache.get(store, table, FETCH_TIMEOUT).await.map(Some)
}

/// A batch of which every query has this fault.
fn unreadable(grant: Grant, queries: Vec<u64>, fault: &InputFault) -> PreparedBatch {
    let count = queries.len();
    let first = (0..count).map(|position| ChunkInput { position, bytes: Err(fault.clone()) }).collect();
    let chunks = vec![(0..count).collect()];
    PreparedBatch { grant, queries, chunks, first, labels: None, records: None, reuse: None }
}

/// Reads all records of a batch.
async fn prepare_records(
    store: &dyn FileStore,
    caches: &InputCaches,
    grant: Grant,
    mut granted: RecordsGrant,
    chunk_bytes: u64,
    reuse: Option<BatchReuse>,
) -> PreparedBatch {
    let queries: Vec<u64> = grant.lease.range.queries().collect();
    let mut numbers = std::mem::take(&mut granted.numbers);
    if numbers.is_empty() {
        numbers.clone_from(&queries);
    }
    match read_records(store, caches, &granted, grant.footer.as_ref(), numbers).await {
        Ok(records) => {
            let chunks = plan_chunks(&records.sizes(), chunk_bytes);
            let chunks: Vec<Vec<usize>> = chunks.into_iter().map(Range::collect).collect();
            let first = records.chunk(chunks.first().map_or(&[], Vec::as_slice)).await;
            PreparedBatch { grant, queries, chunks, first, labels: None, records: Some(records), reuse }
        }
        Err(fault) => unreadable(grant, queries, &fault),
    }
}

async fn read_records(
    store: &dyn FileStore,
    caches: &InputCaches,
    granted: &RecordsGrant,
    footer: Option<&FooterGrant>,
    numbers: Vec<u64>,
) -> Result<BatchRecords, InputFault> {
    if let (RecordFormat::Parquet(layout), Some(end)) = (&granted.format, footer) {
        let read =
            timeout(FETCH_TIMEOUT, caches.row_groups.read(store, granted, layout, end, &numbers)).await;
        let RowsRead { records, is_local } = read
            .map_err(|_| InputFault::timed_out(FETCH_TIMEOUT))?
            .map_err(|error| InputFault::fetch(format!("cannot read the rows: {error}")))?;
        let file = QuotedName::from(&granted.file);
        return Ok(BatchRecords { by_position: records, numbers, file, is_local, objects: None });
    }
    let fetched = timeout(FETCH_TIMEOUT, caches.extents.read(store, granted)).await;
    let FetchedBytes { bytes, is_local } = fetched
        .map_err(|_| InputFault::timed_out(FETCH_TIMEOUT))?
        .map_err(|error| InputFault::fetch(format!("cannot read the records: {error}")))?;
    let skip = usize::try_from(granted.skip).unwrap_or(usize::MAX);
    let (first, end) = numbers.first().zip(numbers.last()).map_or((0, 0), |(first, last)| (*first, last + 1));
    let count = usize::try_from(end - first).unwrap_or(usize::MAX);
    let mut by_position = records::read(&granted.format, &bytes, Span { line: granted.line, skip, count });
    if by_position.len() == count && count > numbers.len() {
        let mut wanted = numbers.iter().peekable();
        let mut number = first;
        by_position.retain(|_| {
            number += 1;
            wanted.next_if(|wanted| **wanted + 1 == number).is_some()
        });
    }
    if by_position.len() != numbers.len() {
        let found = by_position.len();
        let reason = format!("cannot read the records: found {found} where the index has {count}");
        return Err(InputFault::fetch(reason));
    }
    let objects = match &granted.format {
        RecordFormat::References(source) => {
            Some(BatchObjects::of(Arc::clone(&caches.objects), source.clone(), &mut by_position))
        }
        _ => None,
    };
    Ok(BatchRecords { by_position, numbers, file: QuotedName::from(&granted.file), is_local, objects })
}

fn input_bytes(input: &QueryInput) -> u64 {
    input.extents.iter().map(|extent| extent.blob.size).fold(0, u64::saturating_add)
}

/// Cuts consecutive inputs into chunks.
fn plan_chunks(sizes: &[u64], chunk_bytes: u64) -> Vec<Range<usize>> {
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0_u64;
    for (position, &size) in sizes.iter().enumerate() {
        // An input that is too large is never read.
        let size = if size > INPUT_BYTES_MAX { 0 } else { size };
        match chunks.last_mut() {
            Some(chunk) if bytes + size <= chunk_bytes => {
                chunk.end = position + 1;
                bytes += size;
            }
            _ => {
                chunks.push(position..position + 1);
                bytes = size;
            }
        }
    }
    chunks
}

pub(super) async fn fetch_chunk(store: &dyn FileStore, inputs: &[QueryInput], positions: &[usize]) -> Chunk {
    let wanted = positions.iter().map(|&position| &inputs[position]);
    let readable = wanted.filter(|input| input_bytes(input) <= INPUT_BYTES_MAX);
    let blobs: Vec<_> = readable.flat_map(|input| input.extents.iter().cloned()).collect();
    let mut fetched = timeout(FETCH_TIMEOUT, store.fetch(&blobs)).await.ok().map(Vec::into_iter);
    let mut chunk = Chunk::with_capacity(positions.len());
    for &position in positions {
        let input = &inputs[position];
        let size = input_bytes(input);
        let bytes = match &mut fetched {
            _ if size > INPUT_BYTES_MAX => Err(InputFault::bad_input(format!(
                "the file has {size} bytes, but a query may have {INPUT_BYTES_MAX}"
            ))),
            Some(fetched) => join_extents(fetched.take(input.extents.len()).collect(), input.extents.len()),
            None => Err(InputFault::timed_out(FETCH_TIMEOUT)),
        };
        chunk.push(ChunkInput { position, bytes });
    }
    chunk
}

fn join_extents(
    extents: Vec<Result<FetchedBytes, FileStoreError>>,
    expected: usize,
) -> Result<FetchedBytes, InputFault> {
    if extents.len() < expected {
        return Err(InputFault::fetch("cannot read the input: the store returned too few blobs".to_owned()));
    }
    let extents: Result<Vec<FetchedBytes>, _> = extents.into_iter().collect();
    let mut extents =
        extents.map_err(|error| InputFault::fetch(format!("cannot read the input: {error}")))?;
    if extents.len() == 1 {
        return Ok(extents.swap_remove(0));
    }
    let mut whole = BytesMut::with_capacity(extents.iter().map(|extent| extent.bytes.len()).sum());
    for extent in &extents {
        whole.extend_from_slice(&extent.bytes);
    }
    let is_local = extents.iter().all(|extent| extent.is_local);
    Ok(FetchedBytes { bytes: whole.freeze(), is_local })
}

#[cfg(test)]
mod tests {
    use idunno_references::Trust;
    use idunno_shared::ids::{Digest, JobId, Term};
    use idunno_shared::wire::control::Reuse;
    use idunno_shared::wire::jobs::{FaultKind, Lease, Parameters, QueryRange};

    use super::super::testing::memory_store::MemoryStore;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_label_table_that_is_slow_to_read_fails_its_batches_and_not_their_labels() {
        let store = MemoryStore::default();
        let labels = store.add(b"file,label\nx.jpg,1\n");
        store.silence(labels.blob.digest);
        let range = QueryRange { first: 0, count: 1 };
        let grant = Grant {
            lease: Lease { job: JobId(1), range, attempt: 1, term: Term(1) },
            model: "m".parse().unwrap(),
            version: Digest::default(),
            inputs: vec![QueryInput {
                index: 0,
                name: "set/x.jpg".parse().unwrap(),
                extents: vec![store.add(b"x")],
            }],
            labels: Some(vec![labels]),
            records: None,
            parameters: Parameters::default(),
            footer: None,
            reuse: Reuse::Off,
        };
        let caches = InputCaches::new(ObjectClient::new(&Trust::Everything));
        // The second waits for the first one's read, and then reads for itself.
        let both = join(
            prepare(&store, &caches, grant.clone(), CHUNK_BYTES_DEFAULT),
            prepare(&store, &caches, grant, CHUNK_BYTES_DEFAULT),
        );
        let (first, second) = both.await;
        for prepared in [first, second] {
            let fault = prepared.first[0].bytes.as_ref().unwrap_err();
            assert_eq!(fault.kind, FaultKind::Fetch);
            assert!(fault.reason.contains("label table"), "{}", fault.reason);
        }
    }

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
            "an input that is too large is not read"
        );
    }
}
