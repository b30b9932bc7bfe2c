//! Bytes on their way past the page cache.
//!
//! Decides how a stream of bytes is cut for direct reads and writes, which need aligned memory, offsets and lengths.
//! Source: the handbook, storage, section 9: pages that are new to the cache cost more than the disk does.
//!
//! Invariants: whatever [`Aligner`] passes on starts in aligned memory and, but for the last piece, is a multiple of
//! [`ALIGNMENT`] long; the pieces together are the bytes taken.
//! Bounds: a buffer of [`PIECE_BYTES`] each; nothing is allocated for bytes that come aligned.
//! It does not open what a file system cannot do: [`open`] falls back to the page cache.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};

/// What direct reads and writes must start at and be a multiple of, in bytes; enough for every disk.
pub const ALIGNMENT: usize = 4096;
/// How much is written at once, in bytes.
pub const PIECE_BYTES: usize = 1 << 20;

/// Opens a file for direct reads or writes, or through the page cache where the file system has none.
///
/// # Errors
/// Those of opening a file.
pub fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).unwrap_or(0);
    match options.clone().custom_flags(direct).open(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => options.open(path),
        opened => opened,
    }
}

/// Whether a position in a file may be the start of a direct read or write.
pub fn is_aligned(position: u64) -> bool {
    position.is_multiple_of(ALIGNMENT as u64)
}

/// Takes room for a file's bytes at once, so that a full disk is known early and its extents are large. A file system
/// that cannot is no fault.
///
/// # Errors
/// [`io::ErrorKind::StorageFull`].
pub fn reserve(file: &File, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Reads a file of so many bytes into memory. Of a longer one, at least one byte more.
///
/// # Errors
/// Those of reading.
pub fn read_whole(file: &File, size: u64) -> io::Result<Bytes> {
    let room = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).next_multiple_of(ALIGNMENT);
    let mut buffer = AlignedBuffer::new(room);
    let mut filled = 0;
    while filled < room {
        match file.read_at(&mut buffer.bytes_mut()[filled..], filled as u64) {
            // A direct read must start aligned, so a short one is the last.
            Ok(count) if !count.is_multiple_of(ALIGNMENT) => {
                filled += count;
                break;
            }
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Bytes::from_owner(buffer).slice(..filled))
}

/// An empty buffer for `length` bytes whose memory is aligned.
pub fn chunk(length: usize) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(length + ALIGNMENT);
    let skipped = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    bytes.resize(skipped, 0);
    bytes.advance(skipped);
    bytes
}

/// A fixed piece of aligned memory.
pub struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// Zeros.
    pub fn new(length: usize) -> Self {
        let bytes = vec![0; length + ALIGNMENT];
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { bytes, start, length }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }

    /// The bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

/// Cuts a stream of bytes into aligned pieces. Those that come aligned are passed on where they are.
#[derive(Default)]
pub struct Aligner {
    buffer: Option<AlignedBuffer>,
    filled: usize,
}

impl Aligner {
    /// Passes on all that can be written now.
    ///
    /// # Errors
    /// Those of `write`; the bytes are lost then.
    pub fn take<E>(
        &mut self,
        mut bytes: &[u8],
        mut write: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.filled == 0 && bytes.as_ptr().align_offset(ALIGNMENT) == 0 {
            let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % ALIGNMENT);
            if !whole.is_empty() {
                write(whole)?;
            }
            bytes = rest;
        }
        while !bytes.is_empty() {
            let buffer = self.buffer.get_or_insert_with(|| AlignedBuffer::new(PIECE_BYTES));
            let taken = bytes.len().min(PIECE_BYTES - self.filled);
            buffer.bytes_mut()[self.filled..self.filled + taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled == PIECE_BYTES {
                self.filled = 0;
                write(buffer.bytes())?;
            }
        }
        Ok(())
    }

    /// Passes on what is left as a whole piece, padded with zeros: the file is to be truncated after its last byte.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn finish_padded<E>(&mut self, write: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let Some(buffer) = self.buffer.as_mut().filter(|_| self.filled > 0) else { return Ok(()) };
        let padded = self.filled.next_multiple_of(ALIGNMENT);
        buffer.bytes_mut()[self.filled..padded].fill(0);
        self.filled = 0;
        write(&buffer.bytes()[..padded])
    }

    /// What is left: a multiple of [`ALIGNMENT`], and the rest, which cannot be written directly.
    pub fn finish(&mut self) -> (&[u8], &[u8]) {
        let filled = std::mem::take(&mut self.filled);
        let left = self.buffer.as_ref().map_or(&[][..], |buffer| &buffer.bytes()[..filled]);
        left.split_at(filled - filled % ALIGNMENT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|place| u8::try_from(place * 31 % 251).unwrap()).collect()
    }

    /// Feeds `bytes` in the given steps, checks every piece, and gives back what came out.
    fn through(aligner: &mut Aligner, bytes: &[u8], step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for part in bytes.chunks(step) {
            aligner
                .take(part, |piece| {
                    assert_eq!(piece.as_ptr().align_offset(ALIGNMENT), 0);
                    assert_eq!(piece.len() % ALIGNMENT, 0);
                    out.extend_from_slice(piece);
                    Ok::<(), ()>(())
                })
                .unwrap();
        }
        out
    }

    #[test]
    fn any_steps_come_out_as_the_same_bytes_in_aligned_pieces() {
        for length in [0, 1, ALIGNMENT - 1, ALIGNMENT, PIECE_BYTES, 2 * PIECE_BYTES + 12_345] {
            let bytes = pattern(length);
            for step in [1000, ALIGNMENT, 70_001, PIECE_BYTES] {
                let mut aligner = Aligner::default();
                let mut out = through(&mut aligner, &bytes, step);
                let (whole, rest) = aligner.finish();
                assert_eq!(whole.len() % ALIGNMENT, 0);
                assert!(rest.len() < ALIGNMENT);
                out.extend_from_slice(whole);
                out.extend_from_slice(rest);
                assert_eq!(out, bytes, "{length} in steps of {step}");

                let mut padded = through(&mut aligner, &bytes, step);
                aligner
                    .finish_padded(|piece| {
                        padded.extend_from_slice(piece);
                        Ok::<(), ()>(())
                    })
                    .unwrap();
                assert_eq!(padded.len(), length.next_multiple_of(ALIGNMENT));
                assert_eq!(padded[..length], bytes);
            }
        }
    }

    #[test]
    fn a_file_is_read_whole_and_a_longer_one_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        for length in [0, 1, ALIGNMENT - 1, ALIGNMENT, 3 * ALIGNMENT + 7] {
            let bytes = pattern(length);
            std::fs::write(&path, &bytes).unwrap();
            for file in [File::open(&path).unwrap(), open(File::options().read(true), &path).unwrap()] {
                assert_eq!(read_whole(&file, length as u64).unwrap(), bytes);
                assert_eq!(read_whole(&file, length as u64 + 5000).unwrap(), bytes, "it is shorter");
                let short = length.saturating_sub(1) as u64;
                assert!(read_whole(&file, short).unwrap().len() as u64 > short || length == 0);
            }
        }
    }

    #[test]
    fn aligned_chunks_are_passed_on_without_a_copy() {
        let mut bytes = chunk(PIECE_BYTES);
        assert_eq!((bytes.len(), bytes.as_ptr().align_offset(ALIGNMENT)), (0, 0));
        assert!(bytes.capacity() >= PIECE_BYTES);
        bytes.extend_from_slice(&pattern(PIECE_BYTES));
        let bytes = bytes.freeze();
        let mut seen = None;
        let mut aligner = Aligner::default();
        aligner
            .take(&bytes, |piece| {
                seen = Some(piece.as_ptr());
                Ok::<(), ()>(())
            })
            .unwrap();
        assert_eq!(seen, Some(bytes.as_ptr()));
        assert!(aligner.buffer.is_none());
    }
}
