//! The bytes of a snapshot as rows of the file, written and read one by one: nothing holds the whole.

use std::io::{Cursor, Read, Write as IoWrite};
use std::sync::Arc;

use idunno_core::metadata::{self, State};
use redb::{Database, ReadableDatabase};
use tokio::sync::mpsc;

use super::tables::{SNAPSHOT_CHUNKS, StoreFault, blocking};
use super::writer::{Write, Writer};
use crate::config::SNAPSHOT_ROW_BYTES;

type Rows = redb::Range<'static, (u64, u32), &'static [u8]>;

/// The bytes of one snapshot in the file. Clones read the same rows, which are deleted after the last clone is dropped,
/// unless they are the durable snapshot.
#[derive(Clone)]
pub(crate) struct SnapshotData {
    generation: Arc<Generation>,
    rows: u32,
    bytes: u64,
}

/// The rows of one number in the file.
struct Generation {
    number: u64,
    // Field order matters: the database must be dropped before the writer's queue, as in `LogStoreInner`.
    database: Arc<Database>,
    writer: Writer,
}

impl Drop for Generation {
    fn drop(&mut self) {
        // The writer keeps the rows that the file's header names.
        self.writer.drop_snapshot(self.number);
    }
}

impl SnapshotData {
    /// A snapshot without rows, to be filled.
    pub(crate) fn new(number: u64, database: &Arc<Database>, writer: &Writer) -> Self {
        let (database, writer) = (Arc::clone(database), writer.clone());
        Self { generation: Arc::new(Generation { number, database, writer }), rows: 0, bytes: 0 }
    }

    /// The rows of a generation that were read from the file.
    pub(crate) fn of_rows(self, RowReader { count, bytes, .. }: &RowReader) -> Self {
        Self { rows: *count, bytes: *bytes, ..self }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.number
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends a row. Durable on return.
    pub(crate) async fn push(&mut self, row: Vec<u8>) -> Result<(), StoreFault> {
        let (number, bytes) = (self.rows, row.len() as u64);
        let write = Write::SnapshotChunk { generation: self.generation.number, number, bytes: row };
        self.generation.writer.write(write).await?;
        self.rows += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// Encodes the metadata and appends them, a row at a time.
    pub(crate) async fn push_state(&mut self, state: State) -> Result<(), StoreFault> {
        let (sender, mut rows) = mpsc::channel(1);
        let encoding = tokio::task::spawn_blocking(move || {
            let closed = |_| StoreFault::new("write the metadata snapshot", &"its writer has ended");
            encode_state_rows(state, |row| sender.blocking_send(row).map_err(closed))
        });
        while let Some(row) = rows.recv().await {
            self.push(row).await?;
        }
        encoding.await.unwrap_or_else(|error| Err(StoreFault::new("encode the metadata snapshot", &error)))
    }

    /// The row of this number.
    pub(crate) async fn row(&self, number: u32) -> Result<Vec<u8>, StoreFault> {
        let generation = Arc::clone(&self.generation);
        blocking(move || {
            let read = || -> Result<_, redb::Error> {
                let rows = generation.database.begin_read()?.open_table(SNAPSHOT_CHUNKS)?;
                Ok(rows.get((generation.number, number))?.map(|row| row.value().to_vec()))
            };
            let row = read().map_err(|error| read_fault(&error))?;
            row.ok_or_else(|| read_fault(&"a row is missing"))
        })
        .await
    }

    /// Decodes the metadata.
    pub(crate) async fn state(&self) -> Result<State, StoreFault> {
        let generation = Arc::clone(&self.generation);
        blocking(move || decode_state(&mut RowReader::open(&generation.database, generation.number)?)).await
    }

    #[cfg(test)]
    pub(crate) fn set_bytes(&mut self, bytes: u64) {
        self.bytes = bytes;
    }

    #[cfg(test)]
    pub(crate) fn is_in(&self, database: &Arc<Database>) -> bool {
        Arc::ptr_eq(&self.generation.database, database)
    }

    #[cfg(test)]
    pub(crate) fn rows(&self) -> u32 {
        self.rows
    }
}

fn read_fault(reason: &dyn std::fmt::Display) -> StoreFault {
    StoreFault::new("read the metadata snapshot", reason)
}

/// Decodes the metadata that a snapshot's rows hold. Blocks.
pub(crate) fn decode_state(rows: &mut RowReader) -> Result<State, StoreFault> {
    let snapshot: metadata::Snapshot = rmp_serde::from_read(rows).map_err(|error| read_fault(&error))?;
    Ok(State::from(snapshot))
}

/// Encodes the metadata, and passes them on in rows. Blocks.
pub(crate) fn encode_state_rows(
    state: State,
    put: impl FnMut(Vec<u8>) -> Result<(), StoreFault>,
) -> Result<(), StoreFault> {
    let fault = |reason: &dyn std::fmt::Display| StoreFault::new("encode the metadata snapshot", reason);
    let mut rows = RowWriter { row: Vec::new(), put };
    rmp_serde::encode::write(&mut rows, &metadata::Snapshot::from(state)).map_err(|error| fault(&error))?;
    rows.end_row().map_err(|error| fault(&error))
}

/// Reads rows as one stream.
pub(crate) struct RowReader {
    rows: Rows,
    row: Cursor<Vec<u8>>,
    count: u32,
    bytes: u64,
}

impl RowReader {
    pub(crate) fn open(database: &Database, generation: u64) -> Result<Self, StoreFault> {
        let rows = || -> Result<_, redb::Error> {
            let chunks = database.begin_read()?.open_table(SNAPSHOT_CHUNKS)?;
            Ok(chunks.range((generation, 0)..=(generation, u32::MAX))?)
        };
        let rows = rows().map_err(|error| read_fault(&error))?;
        Ok(Self { rows, row: Cursor::default(), count: 0, bytes: 0 })
    }
}

impl Read for RowReader {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = self.row.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(next) = self.rows.next() else { return Ok(0) };
            let (_, next) = next.map_err(std::io::Error::other)?;
            self.row = Cursor::new(next.value().to_vec());
            self.count += 1;
            self.bytes += self.row.get_ref().len() as u64;
        }
    }
}

/// Cuts a stream into rows.
struct RowWriter<F> {
    row: Vec<u8>,
    put: F,
}

impl<F: FnMut(Vec<u8>) -> Result<(), StoreFault>> RowWriter<F> {
    fn end_row(&mut self) -> std::io::Result<()> {
        let row = std::mem::take(&mut self.row);
        if row.is_empty() { Ok(()) } else { (self.put)(row).map_err(std::io::Error::other) }
    }
}

impl<F: FnMut(Vec<u8>) -> Result<(), StoreFault>> IoWrite for RowWriter<F> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = SNAPSHOT_ROW_BYTES - self.row.len();
        let taken = bytes.len().min(room);
        self.row.extend_from_slice(&bytes[..taken]);
        if self.row.len() == SNAPSHOT_ROW_BYTES {
            self.end_row()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
