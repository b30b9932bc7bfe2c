//! Blobs from their holders, verified, falling over from one holder to the next.
//!
//! Decides the order of holders: the near member first, the others in an order that differs from blob to blob,
//! so that they share the work. A holder that fails midway is replaced from the byte that was reached; bytes with a
//! wrong digest are all read again from the next holder, and the sender is asked to check its copy.
//!
//! Bounds: every holder is asked at most twice for a blob; [`BLOBS_IN_FLIGHT`] blobs at once.

use std::collections::VecDeque;
use std::io;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{StreamExt, iter};
use thiserror::Error;

use super::Files;
use super::connection::BlobError;
use crate::client::connections::BlobLane;
use crate::client::results::segment;
use crate::ids::Digest;
use crate::wire::blobs::{BlobRef, EXTENT_BYTES_MAX, Holder, PlacedBlob};

/// Blobs that are read at once into memory.
pub const BLOBS_IN_FLIGHT: usize = 32;
/// Extents of a file that are read at once.
pub const EXTENTS_IN_FLIGHT: usize = 4;
/// Largest blob that shares a connection with many others, in bytes.
pub const SMALL_BYTES_MAX: u64 = 1 << 20;

/// No holder returned the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no holder returned {what} (tried {tried})")]
pub struct Unavailable {
    /// The blob, or the extent of a file.
    pub what: String,
    /// The holders tried, and what happened.
    pub tried: String,
}

/// The rows of a segment cannot be read.
#[derive(Debug, Error)]
pub enum SegmentError {
    /// No holder returned it.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// Its bytes are those that were stored, but neither rows nor an LZ4 frame of rows.
    #[error("segment {digest} has no rows that this program can read: {source}")]
    Malformed {
        /// The segment's blob.
        digest: Digest,
        /// What is wrong with its bytes.
        source: io::Error,
    },
}

/// Where a blob's bytes go, in order.
pub(super) trait Sink: Send {
    /// Bytes taken since the start.
    fn taken(&self) -> u64;
    /// Forgets what was taken.
    fn restart(&mut self);
    /// Takes the next bytes.
    fn take(&mut self, chunk: Bytes) -> impl Future<Output = io::Result<()>> + Send;
    /// The digest of what was taken.
    fn digest(&self) -> Digest;
}

/// Why a blob was not fetched.
pub(super) enum FetchError {
    /// No holder returned it: the holders tried, and why each failed.
    Unavailable(String),
    /// It cannot be written where it should go.
    Sink(io::Error),
}

impl Files {
    /// Reads a blob into memory, verified, from one of its holders: the near one first.
    pub async fn fetch_blob(&self, placed: &PlacedBlob) -> Result<Bytes, Unavailable> {
        let size = usize::try_from(placed.blob.size.min(EXTENT_BYTES_MAX)).unwrap_or(0);
        let mut memory = Memory(BytesMut::with_capacity(size));
        match self.fetch(placed, 0, &mut memory).await {
            Ok(()) => Ok(memory.0.freeze()),
            Err(FetchError::Unavailable(tried)) => {
                Err(Unavailable { what: format!("blob {}", placed.blob.digest), tried })
            }
            Err(FetchError::Sink(error)) => {
                Err(Unavailable { what: format!("blob {}", placed.blob.digest), tried: error.to_string() })
            }
        }
    }

    /// Reads blobs into memory, many at once; the answers are in the order asked.
    pub async fn fetch_blobs(&self, placed: &[PlacedBlob]) -> Vec<Result<Bytes, Unavailable>> {
        // Made first, not within the stream: a closure there is not general enough for a boxed future that is Send.
        let fetches: Vec<_> = placed.iter().map(|placed| self.fetch_blob(placed)).collect();
        iter(fetches).buffered(BLOBS_IN_FLIGHT).collect().await
    }

    /// Reads the rows of a segment.
    pub async fn fetch_segment(&self, placed: &PlacedBlob) -> Result<Bytes, SegmentError> {
        let segment = self.fetch_blob(placed).await?;
        segment::unpack(segment)
            .map_err(|source| SegmentError::Malformed { digest: placed.blob.digest, source })
    }

    /// Reads the rows of many segments at once; the answers are in the order asked.
    pub async fn fetch_segments(&self, placed: &[PlacedBlob]) -> Vec<Result<Bytes, SegmentError>> {
        let fetches: Vec<_> = placed.iter().map(|placed| self.fetch_segment(placed)).collect();
        iter(fetches).buffered(BLOBS_IN_FLIGHT).collect().await
    }

    /// Reads a blob into `sink`. `turn` differs between blobs that are read side by side.
    pub(super) async fn fetch(
        &self,
        placed: &PlacedBlob,
        turn: usize,
        sink: &mut impl Sink,
    ) -> Result<(), FetchError> {
        let blob = placed.blob;
        if blob.size > EXTENT_BYTES_MAX {
            return Err(FetchError::Unavailable(format!(
                "no holder: {} bytes are more than a blob may have",
                blob.size
            )));
        }
        let lane =
            if blob.size <= SMALL_BYTES_MAX { BlobLane::Gets } else { BlobLane::Large(lane_number(turn)) };
        let mut left: VecDeque<Holder> = self.order(placed, turn).into();
        let mut tried = Vec::new();
        // A holder is asked a second time only if its bytes followed another holder's and the whole did not match.
        let mut again = left.len();
        while let Some(holder) = left.pop_front() {
            let begun_by_another = sink.taken() > 0;
            match self.fetch_from(holder, blob, lane, sink).await? {
                Ok(()) if sink.digest() == blob.digest => return Ok(()),
                Ok(()) => {
                    sink.restart();
                    if begun_by_another && again > 0 {
                        again -= 1;
                        left.push_front(holder);
                    } else {
                        if let Ok(connection) = self.cluster.connections().blobs(holder, lane).await {
                            connection.doubt(blob.digest);
                        }
                        tried.push(format!("{}: its bytes have another digest", holder.address));
                    }
                }
                Err(error) => tried.push(format!("{}: {error}", holder.address)),
            }
        }
        let tried = if tried.is_empty() { String::from("no holder: none is live") } else { tried.join("; ") };
        Err(FetchError::Unavailable(tried))
    }

    /// Continues a blob at one holder. The inner error is the holder's, the outer one the sink's.
    async fn fetch_from(
        &self,
        holder: Holder,
        blob: BlobRef,
        lane: BlobLane,
        sink: &mut impl Sink,
    ) -> Result<Result<(), String>, FetchError> {
        let connection = match self.cluster.connections().blobs(holder, lane).await {
            Ok(connection) => connection,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let mut stream = match connection.get(blob, sink.taken()).await {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(error.to_string())),
        };
        loop {
            match stream.next().await {
                Ok(Some(chunk)) => sink.take(chunk).await.map_err(FetchError::Sink)?,
                Ok(None) => return Ok(Ok(())),
                Err(error) => {
                    if let BlobError::Corrupt(_) = error {
                        sink.restart();
                    }
                    return Ok(Err(error.to_string()));
                }
            }
        }
    }

    /// Holders to ask, best first.
    fn order(&self, placed: &PlacedBlob, turn: usize) -> Vec<Holder> {
        let mut holders = placed.holders.clone();
        if holders.is_empty() {
            return holders;
        }
        let start = usize::from(placed.blob.digest.0[0]).wrapping_add(turn) % holders.len();
        holders.rotate_left(start);
        if let Some(near) = self.near.and_then(|near| holders.iter().position(|holder| holder.node == near)) {
            holders[..=near].rotate_right(1);
        }
        holders
    }
}

fn lane_number(turn: usize) -> u8 {
    u8::try_from(turn % EXTENTS_IN_FLIGHT).unwrap_or(0)
}

/// Bytes kept in memory.
struct Memory(BytesMut);

impl Sink for Memory {
    fn taken(&self) -> u64 {
        self.0.len() as u64
    }

    fn restart(&mut self) {
        self.0.clear();
    }

    async fn take(&mut self, chunk: Bytes) -> io::Result<()> {
        self.0.extend_from_slice(&chunk);
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}
