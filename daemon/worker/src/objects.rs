//! Inputs outside the cluster, to which the records of a batch refer.
//!
//! Decides what a failure to read one means for its query. Bounds: [`READS_MAX`] objects are read at once; a chunk of them has
//! as many bytes as one of other inputs, and [`CHUNK_TIMEOUT`] to be read.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use idunno_references::{ObjectClient, ReadError};
use idunno_shared::wire::jobs::FaultKind;
use idunno_shared::wire::references::{ObjectReference, ReferenceSource};
use tokio::time::{Instant, timeout_at};

use super::chunk::{Chunk, ChunkInput, INPUT_BYTES_MAX, InputFault};
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
    pub(super) async fn read(&self, positions: &[usize]) -> Chunk {
        let deadline = Instant::now() + CHUNK_TIMEOUT;
        let reads = positions.iter().copied().map(|position| async move {
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
        let bytes = read.map_err(|error| InputFault {
            kind: kind_of(&error),
            reason: error.to_string().replace(&object.url, without_query(&object.url)),
        })?;
        Ok(FetchedBytes { bytes, is_local: false })
    }

    fn too_slow(&self, position: usize) -> InputFault {
        let url = self.by_position[position].as_ref().map_or("it", |object| without_query(&object.url));
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

#[cfg(test)]
mod tests {
    use idunno_references::Trust;

    use super::*;

    fn record(input: &str, id: Option<&str>) -> Record {
        Record {
            input: Ok(input.to_owned().into()),
            label: None,
            id: id.map(JsonText::of_text),
            fields: None,
        }
    }

    #[tokio::test]
    async fn a_record_that_refers_to_nothing_fails_alone_and_ids_are_urls_without_secrets() {
        let reference =
            |url: &str, size: u64| format!("{{\"url\":\"{url}\",\"size\":{size},\"etag\":\"e\"}}");
        let mut records = [
            record(&reference("https://h.example/a?sig=s3cret", 7), None),
            record("\"s3://b/k\"", None),
            record(&reference("s3://b/k?x", INPUT_BYTES_MAX + 1), Some("mine")),
        ];
        let client = Arc::new(ObjectClient::new(&Trust::Listed(Vec::new())));
        let objects = BatchObjects::of(client, ReferenceSource::default(), &mut records);
        assert_eq!(objects.sizes(), [7, 0, INPUT_BYTES_MAX + 1]);
        let ids: Vec<Option<&str>> =
            records.iter().map(|record| record.id.as_ref().map(JsonText::as_str)).collect();
        assert_eq!(ids, [Some("\"https://h.example/a\""), None, Some("\"mine\"")]);
        let faults: Vec<InputFault> =
            objects.read(&[1, 2]).await.into_iter().map(|input| input.bytes.unwrap_err()).collect();
        assert!(faults.iter().all(|fault| fault.kind == FaultKind::BadInput), "{faults:?}");
        assert!(faults[0].reason.contains("is no reference to an object"), "{faults:?}");
        assert!(faults[1].reason.starts_with("s3://b/k?x has"), "{faults:?}");
    }

    #[test]
    fn only_an_object_that_is_not_the_listed_one_is_a_bad_input() {
        let url = || String::from("s3://b/k");
        let why = || String::from("so");
        for (error, expected) in [
            (ReadError::Changed { url: url(), what: why() }, FaultKind::BadInput),
            (ReadError::Gone { url: url() }, FaultKind::BadInput),
            (ReadError::Url { url: url(), why: why() }, FaultKind::BadInput),
            (ReadError::Denied { url: url(), why: why() }, FaultKind::Inference),
            (ReadError::Refused { url: url(), why: why() }, FaultKind::Inference),
            (ReadError::Failed { url: url(), why: why() }, FaultKind::Fetch),
        ] {
            assert_eq!(kind_of(&error), expected, "{error}");
        }
    }
}
