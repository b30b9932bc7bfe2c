//! Inputs outside the cluster, to which the records of a batch refer.
//!
//! Decides what a failure to read one means for its query. Bounds: [`READS_MAX`] objects are read at once; a chunk of them has
//! as many bytes as one of other inputs, and [`CHUNK_TIMEOUT`] to be read.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use idunno_references::{ObjectClient, ReadError};
use idunno_shared::wire::jobs::FaultKind;
use idunno_shared::wire::references::{ObjectReference, ReferenceSource};
use tokio::time::{Instant, timeout_at};

use super::inputs::{Chunk, ChunkInput, INPUT_BYTES_MAX, InputFault};
use super::json_text::JsonText;
use super::traits::FetchedBytes;
use crate::records::{Line, Record, references};

const READS_MAX: usize = 16;
/// An object that goes on coming may take long: a service that sends nothing is given up much earlier.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(300);

/// The objects that are the inputs of a batch.
#[derive(Debug)]
pub(super) struct BatchObjects {
    client: Arc<ObjectClient>,
    source: ReferenceSource,
    by_position: Vec<Result<ObjectReference, InputFault>>,
}

impl BatchObjects {
    /// What the records refer to. A record without an id has its object's URL as one.
    pub(super) fn of(client: Arc<ObjectClient>, source: ReferenceSource, records: &mut [Record]) -> Self {
        let by_position = records.iter_mut().map(|record| {
            let input = record.input.as_ref().map_err(Clone::clone);
            // The line stands in the error of what is no JSON; here the reference is a whole one or none.
            let object = input.and_then(|input| references::parse(input, Line(0)));
            let object = object.map_err(|error| InputFault::bad_input(error.to_string()))?;
            record.id.get_or_insert_with(|| JsonText::of_text(without_query(&object.url)));
            Ok(object)
        });
        let by_position = by_position.collect();
        Self { client, source, by_position }
    }

    /// How many bytes each has, or had when it was listed.
    pub(super) fn sizes(&self) -> Vec<u64> {
        self.by_position.iter().map(|object| object.as_ref().map_or(0, |object| object.size)).collect()
    }

    /// Reads those at these positions.
    pub(super) async fn read(&self, positions: Range<usize>) -> Chunk {
        let deadline = Instant::now() + CHUNK_TIMEOUT;
        let reads = positions.map(|position| async move {
            let read = timeout_at(deadline, self.object(position)).await;
            let bytes = read.unwrap_or_else(|_| Err(self.too_slow(position)));
            ChunkInput { position, bytes }
        });
        stream::iter(reads).buffered(READS_MAX).collect().await
    }

    async fn object(&self, position: usize) -> Result<FetchedBytes, InputFault> {
        let object = self.by_position[position].as_ref().map_err(Clone::clone)?;
        if object.size > INPUT_BYTES_MAX {
            return Err(InputFault::bad_input(format!(
                "{} has {} bytes, but a query may have {INPUT_BYTES_MAX}",
                object.url, object.size
            )));
        }
        let read = self.client.read(&self.source, object).await;
        let bytes = read.map_err(|error| InputFault { kind: kind_of(&error), reason: error.to_string() })?;
        Ok(FetchedBytes { bytes, is_local: false })
    }

    fn too_slow(&self, position: usize) -> InputFault {
        let url = self.by_position[position].as_ref().map_or("it", |object| &object.url);
        InputFault::fetch(format!("{url} was not read within {} s", CHUNK_TIMEOUT.as_secs()))
    }
}

/// What a failure means for the query.
fn kind_of(error: &ReadError) -> FaultKind {
    match error {
        // No worker will find the object that was listed.
        ReadError::Url { .. } | ReadError::Changed { .. } | ReadError::Gone { .. } => FaultKind::BadInput,
        // Members may have different credentials and settings. If none has the right ones, the job is paused and says so.
        ReadError::Refused { .. } | ReadError::Denied { .. } => FaultKind::Inference,
        ReadError::Failed { .. } | ReadError::NotBuilt => FaultKind::Fetch,
    }
}

/// A URL without its query, which in a signed one is what lets its holder in.
fn without_query(url: &str) -> &str {
    let is_web = url.starts_with("http://") || url.starts_with("https://");
    if is_web { url.split_once('?').map_or(url, |(path, _)| path) } else { url }
}
