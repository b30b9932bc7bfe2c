//! Local files, read once, cut into extents and hashed ahead of what is being sent.
//!
//! Runs on a thread of its own. Bounds: it holds no bytes beyond the room it was given, and waits for more.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::PutError;
use crate::ids::Digest;
use crate::wire::blobs::{BlobRef, EXTENT_BYTES_MAX};
use crate::wire::control::EXTENTS_PER_FILE_MAX;

/// A file to be read.
pub(super) struct Wanted {
    /// Its position in the caller's list.
    pub(super) item: usize,
    pub(super) path: PathBuf,
    /// Size and digest of what the store has: nothing is read out if they are the same.
    pub(super) known: Option<(u64, Digest)>,
}

/// What was read.
pub(super) enum Piece {
    Extent {
        item: usize,
        index: usize,
        blob: BlobRef,
        bytes: Bytes,
        room: OwnedSemaphorePermit,
    },
    /// All extents of the file came before.
    End {
        item: usize,
        size: u64,
        digest: Digest,
        extents: usize,
    },
    Unchanged {
        item: usize,
        size: u64,
    },
    Failed(PutError),
}

/// Reads files one after another, until the receiver goes away.
pub(super) fn read(
    wanted: Vec<Wanted>,
    room: &Arc<Semaphore>,
    runtime: &Handle,
    pieces: &mpsc::Sender<Piece>,
) {
    let reader = Reader { room, runtime, pieces };
    for file in wanted {
        match reader.read_file(&file) {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // The receiver may be gone already.
                let _ = pieces.blocking_send(Piece::Failed(error));
                return;
            }
        }
    }
}

struct Reader<'a> {
    room: &'a Arc<Semaphore>,
    runtime: &'a Handle,
    pieces: &'a mpsc::Sender<Piece>,
}

impl Reader<'_> {
    /// Whether to go on.
    fn read_file(&self, wanted: &Wanted) -> Result<bool, PutError> {
        let path = &wanted.path;
        let (mut file, before) = open(path)?;
        let size = before.len();
        let limit = EXTENTS_PER_FILE_MAX as u64 * EXTENT_BYTES_MAX;
        if size > limit {
            return Err(PutError::TooLarge { what: path.display().to_string(), bytes: size, limit });
        }
        if let Some((_, digest)) = wanted.known.filter(|&(known, _)| known == size)
            && hash(path)? == digest
        {
            return Ok(self.send(Piece::Unchanged { item: wanted.item, size }));
        }
        let mut whole = blake3::Hasher::new();
        let (mut read, mut extents) = (0, 0);
        let mut digest = Digest::of(&[]);
        while read < size {
            let length = (size - read).min(EXTENT_BYTES_MAX);
            let Some(room) = self.make_room(length) else { return Ok(false) };
            let bytes = read_extent(&mut file, length, path)?;
            digest = Digest::of(&bytes);
            if size > EXTENT_BYTES_MAX {
                whole.update(&bytes);
            }
            read += length;
            let blob = BlobRef { digest, size: length };
            if !self.send(Piece::Extent { item: wanted.item, index: extents, blob, bytes, room }) {
                return Ok(false);
            }
            extents += 1;
        }
        if size > EXTENT_BYTES_MAX {
            digest = Digest(*whole.finalize().as_bytes());
        }
        let after = file.metadata().map_err(|source| local(path, source))?;
        if after.len() != size || after.modified().ok() != before.modified().ok() {
            return Err(PutError::Changed { path: path.clone() });
        }
        Ok(self.send(Piece::End { item: wanted.item, size, digest, extents }))
    }

    fn make_room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes).ok()?;
        self.runtime.block_on(Arc::clone(self.room).acquire_many_owned(permits)).ok()
    }

    fn send(&self, piece: Piece) -> bool {
        self.pieces.blocking_send(piece).is_ok()
    }
}

fn open(path: &Path) -> Result<(File, Metadata), PutError> {
    // Looked at before it is opened: opening a pipe would wait for its writer.
    let metadata = std::fs::metadata(path).map_err(|source| local(path, source))?;
    if metadata.is_dir() {
        let text = "it is a directory: name a file, or use populate-test-data for a directory";
        return Err(local(path, io::Error::new(io::ErrorKind::IsADirectory, text)));
    }
    if !metadata.is_file() {
        return Err(local(path, io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let file = File::open(path).map_err(|source| local(path, source))?;
    let metadata = file.metadata().map_err(|source| local(path, source))?;
    Ok((file, metadata))
}

fn read_extent(file: &mut File, length: u64, path: &Path) -> Result<Bytes, PutError> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut bytes).map_err(|source| local(path, source))?;
    if bytes.len() as u64 != length {
        return Err(PutError::Changed { path: path.to_owned() });
    }
    Ok(bytes.into())
}

fn hash(path: &Path) -> Result<Digest, PutError> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    read.map_err(|source| local(path, source))?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

fn local(path: &Path, source: io::Error) -> PutError {
    PutError::Local { path: path.to_owned(), source }
}
