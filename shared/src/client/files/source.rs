//! Local files, read once, cut into extents and hashed ahead of what is being sent.
//!
//! Runs on a thread of its own. The memory of whole extents is used again: pages that are new to the process cost more than
//! what is done with them.
//!
//! Bounds: it holds no bytes beyond the room it was given, and waits for more.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::PutError;
use super::direct_io::PIECE_BYTES;
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
    let reader = Reader { room, runtime, pieces, spare: SpareExtents::default() };
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
    spare: SpareExtents,
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
        let mut whole = (size > EXTENT_BYTES_MAX).then(blake3::Hasher::new);
        let (mut read, mut extents) = (0, 0);
        let mut digest = Digest::of(&[]);
        while read < size {
            let length = (size - read).min(EXTENT_BYTES_MAX);
            let Some(room) = self.make_room(length) else { return Ok(false) };
            let bytes;
            (bytes, digest) = self.read_extent(&mut file, length, path, whole.as_mut())?;
            read += length;
            let blob = BlobRef { digest, size: length };
            if !self.send(Piece::Extent { item: wanted.item, index: extents, blob, bytes, room }) {
                return Ok(false);
            }
            extents += 1;
        }
        if let Some(whole) = whole {
            digest = Digest(*whole.finalize().as_bytes());
        }
        let after = file.metadata().map_err(|source| local(path, source))?;
        if after.len() != size || after.modified().ok() != before.modified().ok() {
            return Err(PutError::Changed { path: path.clone() });
        }
        Ok(self.send(Piece::End { item: wanted.item, size, digest, extents }))
    }

    /// Reads the next extent, and hashes it: for itself, and as a part of the whole file.
    fn read_extent(
        &self,
        file: &mut File,
        length: u64,
        path: &Path,
        mut whole: Option<&mut blake3::Hasher>,
    ) -> Result<(Bytes, Digest), PutError> {
        let mut bytes = self.spare.take(length);
        let mut hasher = blake3::Hasher::new();
        // Each piece is hashed while it is in the processor's cache.
        for piece in bytes.chunks_mut(PIECE_BYTES) {
            file.read_exact(piece).map_err(|source| match source.kind() {
                io::ErrorKind::UnexpectedEof => PutError::Changed { path: path.to_owned() },
                _ => local(path, source),
            })?;
            hasher.update(piece);
            if let Some(whole) = &mut whole {
                whole.update(piece);
            }
        }
        Ok((self.spare.lend(bytes), Digest(*hasher.finalize().as_bytes())))
    }

    fn make_room(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes).ok()?;
        self.runtime.block_on(Arc::clone(self.room).acquire_many_owned(permits)).ok()
    }

    fn send(&self, piece: Piece) -> bool {
        self.pieces.blocking_send(piece).is_ok()
    }
}

/// The memory of extents that were sent, for the next ones.
#[derive(Clone, Default)]
struct SpareExtents(Arc<Mutex<Vec<Vec<u8>>>>);

impl SpareExtents {
    /// So many bytes to be written over. Only whole extents come back.
    fn take(&self, length: u64) -> Vec<u8> {
        let spare = if length == EXTENT_BYTES_MAX { self.lock().pop() } else { None };
        spare.unwrap_or_else(|| vec![0; usize::try_from(length).unwrap_or(usize::MAX)])
    }

    /// Bytes whose memory comes back once nobody uses them.
    fn lend(&self, bytes: Vec<u8>) -> Bytes {
        if bytes.len() as u64 == EXTENT_BYTES_MAX {
            Bytes::from_owner(LentExtent { bytes, to: self.clone() })
        } else {
            bytes.into()
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct LentExtent {
    bytes: Vec<u8>,
    to: SpareExtents,
}

impl AsRef<[u8]> for LentExtent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for LentExtent {
    fn drop(&mut self) {
        self.to.lock().push(std::mem::take(&mut self.bytes));
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

fn hash(path: &Path) -> Result<Digest, PutError> {
    let mut hasher = blake3::Hasher::new();
    let read = File::open(path).and_then(|file| hasher.update_reader(file).map(drop));
    read.map_err(|source| local(path, source))?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

fn local(path: &Path, source: io::Error) -> PutError {
    PutError::Local { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// The extents of a file and its digest, each extent given up before the next one is read.
    fn read_all(path: &Path) -> (Vec<BlobRef>, Digest) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let room = Arc::new(Semaphore::new(usize::try_from(EXTENT_BYTES_MAX).unwrap()));
        let (sender, mut pieces) = mpsc::channel(1);
        let wanted = vec![Wanted { item: 0, path: path.to_owned(), known: None }];
        let handle = runtime.handle().clone();
        let reader = std::thread::spawn(move || read(wanted, &room, &handle, &sender));
        let (mut blobs, mut whole) = (Vec::new(), None);
        while let Some(piece) = pieces.blocking_recv() {
            match piece {
                Piece::Extent { blob, bytes, .. } => {
                    assert_eq!((Digest::of(&bytes), bytes.len() as u64), (blob.digest, blob.size));
                    blobs.push(blob);
                }
                Piece::End { digest, extents, .. } => whole = Some((digest, extents)),
                Piece::Unchanged { .. } => panic!("nothing was known"),
                Piece::Failed(error) => panic!("{error}"),
            }
        }
        reader.join().unwrap();
        let (digest, extents) = whole.unwrap();
        assert_eq!(extents, blobs.len());
        (blobs, digest)
    }

    #[test]
    fn extents_are_read_one_after_the_other_and_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let file = File::create(&path).unwrap();
        let rest = 12_345;
        file.set_len(3 * EXTENT_BYTES_MAX).unwrap();
        for extent in 0..3 {
            let start = u64::from(extent) * EXTENT_BYTES_MAX;
            file.write_all_at(&[extent + 1; 99], start).unwrap();
        }
        file.write_all_at(&vec![7; rest], 3 * EXTENT_BYTES_MAX).unwrap();
        let (blobs, digest) = read_all(&path);
        let sizes: Vec<u64> = blobs.iter().map(|blob| blob.size).collect();
        assert_eq!(sizes, [EXTENT_BYTES_MAX, EXTENT_BYTES_MAX, EXTENT_BYTES_MAX, rest as u64]);
        assert_eq!(digest, hash(&path).unwrap());
    }

    #[test]
    fn the_memory_of_a_whole_extent_comes_back_once_nobody_uses_it() {
        let spare = SpareExtents::default();
        let mut bytes = spare.take(EXTENT_BYTES_MAX);
        bytes[0] = 1;
        let sent = spare.lend(bytes);
        let kept = sent.clone();
        drop(sent);
        assert_eq!(spare.take(EXTENT_BYTES_MAX)[0], 0, "this memory is new");
        drop(kept);
        assert_eq!(spare.take(EXTENT_BYTES_MAX)[0], 1, "this memory was used before");
        drop(spare.lend(vec![2; 10]));
        assert!(spare.lock().is_empty(), "short extents do not come back");
    }

    #[test]
    fn a_file_of_one_extent_has_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for content in [&b""[..], b"short"] {
            std::fs::write(&path, content).unwrap();
            let (blobs, digest) = read_all(&path);
            assert_eq!((blobs.len(), digest), (content.len().min(1), Digest::of(content)));
        }
    }
}
