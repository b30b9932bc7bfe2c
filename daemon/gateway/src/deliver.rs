//! Sends the bytes of an object: its extents one after another, each verified before its first byte is sent, the next one fetched meanwhile.
//!
//! An extent without a reachable holder is looked up again, because it may have been copied elsewhere. If it does not come, or the
//! version is gone, the connection breaks: its length was announced, so that nobody takes the bytes so far for all.

use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{StreamExt, iter};
use idunno_shared::wire::blobs::PlacedBlob;
use idunno_shared::wire::control::FileVersion;
use s3s::StdError;
use s3s::dto::StreamingBlob;
use s3s::stream::{ByteStream, RemainingLength};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, timeout};

use crate::memory::{Extents, Memory};
use crate::store::Store;

/// Extents that are fetched at once.
const EXTENTS_AHEAD: usize = 2;
/// How long an extent is looked for: longer than any failover.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);
/// How long a program may take nothing.
const SILENCE_MAX: Duration = Duration::from_secs(50);

/// What sends bytes needs.
#[derive(Clone)]
pub struct Delivery {
    /// Room for extents.
    pub memory: Memory,
    /// Extents of which parts were read last.
    pub extents: Arc<Extents>,
}

/// An extent, and which bytes of it are wanted.
struct Piece {
    extent: PlacedBlob,
    index: usize,
    wanted: Range<usize>,
}

fn pieces(version: &FileVersion, range: &Range<u64>) -> Vec<Piece> {
    let (mut pieces, mut at) = (Vec::new(), 0);
    for (index, extent) in version.extents.iter().enumerate() {
        let end = at + extent.blob.size;
        let (from, to) = (range.start.max(at), range.end.min(end));
        if from < to {
            let within = |place: u64| usize::try_from(place - at).unwrap_or(usize::MAX);
            pieces.push(Piece { extent: extent.clone(), index, wanted: within(from)..within(to) });
        }
        at = end;
    }
    pieces
}

impl Delivery {
    /// A range of a version's bytes.
    pub fn stream(&self, store: Store, version: FileVersion, range: Range<u64>) -> StreamingBlob {
        let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        let (sender, receiver) = mpsc::channel(1);
        let delivery = self.clone();
        tokio::spawn(async move {
            let pieces = pieces(&version, &range);
            // Made first, not within the stream: a closure there is not general enough for a future that is Send.
            let fetches: Vec<_> =
                pieces.into_iter().map(|piece| delivery.fetch(&store, &version, piece)).collect();
            let mut fetched = iter(fetches).buffered(EXTENTS_AHEAD);
            while let Some(next) = fetched.next().await {
                let is_last = next.is_err();
                let sent = timeout(SILENCE_MAX, sender.send(next)).await;
                if is_last || !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        });
        StreamingBlob::new(Body { receiver, left, room: None })
    }

    /// Fetches an extent. Its room is taken until its bytes are sent.
    async fn fetch(&self, store: &Store, version: &FileVersion, piece: Piece) -> io::Result<Fetched> {
        let Piece { mut extent, index, wanted } = piece;
        let is_part = wanted.len() as u64 != extent.blob.size;
        if let Some(bytes) = self.extents.get(&extent.blob.digest).filter(|_| is_part) {
            return Ok(Fetched { bytes: bytes.slice(wanted), _room: None });
        }
        let room = self.memory.take(extent.blob.size).await;
        let started = Instant::now();
        loop {
            match store.files.fetch_blob(&extent).await {
                Ok(bytes) => {
                    if is_part {
                        self.extents.put(extent.blob.digest, bytes.clone());
                    }
                    return Ok(Fetched { bytes: bytes.slice(wanted), _room: room });
                }
                Err(lost) if started.elapsed() > PATIENCE => return Err(io::Error::other(lost)),
                Err(lost) => tracing::debug!(error = %lost, "looks an extent up again"),
            }
            sleep(PAUSE).await;
            let found = store.locate(&version.name, Some(version.version)).await;
            let found = found.ok().flatten().filter(|found| found.digest == version.digest);
            if let Some(again) = found.and_then(|found| found.extents.get(index).cloned()) {
                extent = again;
            }
        }
    }
}

struct Fetched {
    bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// The bytes as they come.
struct Body {
    receiver: mpsc::Receiver<io::Result<Fetched>>,
    left: usize,
    /// The room of what was sent last: it is being written to the network.
    room: Option<OwnedSemaphorePermit>,
}

impl Stream for Body {
    type Item = Result<Bytes, StdError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.receiver.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(Fetched { bytes, _room: room }))) => {
                self.left = self.left.saturating_sub(bytes.len());
                self.room = room;
                Poll::Ready(Some(Ok(bytes)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(Box::new(error)))),
            Poll::Ready(None) if self.left > 0 => {
                self.left = 0;
                Poll::Ready(Some(Err(Box::new(io::Error::other("the object was not read to its end")))))
            }
            Poll::Ready(None) => Poll::Ready(None),
        }
    }
}

impl ByteStream for Body {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use idunno_shared::ids::Digest;
    use idunno_shared::wire::blobs::BlobRef;
    use idunno_shared::wire::control::Attributes;

    use super::*;

    #[test]
    fn a_range_is_cut_out_of_the_extents_that_it_touches() {
        let extent = |size| PlacedBlob { blob: BlobRef { digest: Digest::default(), size }, holders: vec![] };
        let version = FileVersion {
            name: "b/k".parse().unwrap(),
            version: 1,
            size: 30,
            digest: Digest::default(),
            created_ms: 0,
            extents: vec![extent(10), extent(10), extent(10)],
            attributes: Attributes::new(),
        };
        let cut = |range: Range<u64>| -> Vec<_> {
            pieces(&version, &range).into_iter().map(|piece| (piece.index, piece.wanted)).collect()
        };
        assert_eq!(cut(0..30), [(0, 0..10), (1, 0..10), (2, 0..10)]);
        assert_eq!(cut(5..15), [(0, 5..10), (1, 0..5)]);
        assert_eq!(cut(10..20), [(1, 0..10)]);
        assert_eq!(cut(29..30), [(2, 9..10)]);
        assert!(cut(7..7).is_empty());
    }
}
