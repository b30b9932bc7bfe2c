//! The bytes of a segment of result rows.
//!
//! Rows of one job repeat each other, so a segment is an LZ4 frame of them: less to hash, to encrypt, to send and to keep.
//! A frame that is not smaller is left out; then the segment is the rows themselves, which never begin as a frame does.
//!
//! Bounds: a segment's rows have at most [`EXTENT_BYTES_MAX`] bytes, however few the frame has.

use std::io::{self, Read, Write};

use bytes::Bytes;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::wire::blobs::EXTENT_BYTES_MAX;

/// What an LZ4 frame begins with.
const MAGIC: [u8; 4] = 0x184D_2204_u32.to_le_bytes();

/// The bytes to store for these rows, which come in parts.
pub fn pack(parts: &[Vec<u8>]) -> Bytes {
    let bytes = parts.iter().map(Vec::len).sum();
    match frame(parts, bytes) {
        Ok(frame) if frame.len() < bytes => frame.into(),
        // Memory takes all that is written to it, so this is about the size.
        _ => parts.concat().into(),
    }
}

fn frame(parts: &[Vec<u8>], bytes: usize) -> io::Result<Vec<u8>> {
    // Larger blocks need buffers that are mapped anew for each frame, and are not smaller.
    let info = FrameInfo::new()
        .block_size(BlockSize::Max256KB)
        .block_mode(BlockMode::Linked)
        .content_size(Some(bytes as u64));
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(bytes / 2));
    parts.iter().try_for_each(|rows| encoder.write_all(rows))?;
    Ok(encoder.finish()?)
}

/// The rows of a stored segment.
pub fn unpack(segment: Bytes) -> io::Result<Bytes> {
    if !segment.starts_with(&MAGIC) {
        return Ok(segment);
    }
    let mut rows = Vec::new();
    FrameDecoder::new(&segment[..]).take(EXTENT_BYTES_MAX + 1).read_to_end(&mut rows)?;
    if rows.len() as u64 > EXTENT_BYTES_MAX {
        return Err(io::Error::other(format!("its rows have more than {EXTENT_BYTES_MAX} bytes")));
    }
    Ok(rows.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(count: usize) -> Vec<u8> {
        let row = |query| {
            format!(
                "{{\"query\":{query},\"model\":\"m\",\"output\":{{\"label\":\"cat\"}},\"worker\":\"m1\"}}\n"
            )
        };
        (0..count).map(row).collect::<String>().into()
    }

    #[test]
    fn rows_come_back_from_a_smaller_segment() {
        for count in [100, 1_000, 100_000] {
            let rows = rows(count);
            let (first, second) = rows.split_at(rows.len() / 4);
            let segment = pack(&[first.to_vec(), Vec::new(), second.to_vec()]);
            assert!(segment.len() < rows.len() / 3, "{} of {}", segment.len(), rows.len());
            assert_eq!(unpack(segment).unwrap(), rows);
        }
    }

    #[test]
    fn rows_that_do_not_shrink_are_stored_as_they_are() {
        for rows in [Vec::new(), rows(1)] {
            assert_eq!(pack(std::slice::from_ref(&rows)), rows);
            assert_eq!(unpack(rows.clone().into()).unwrap(), rows);
        }
    }

    #[test]
    fn a_damaged_or_cut_frame_is_refused() {
        let segment = pack(&[rows(1_000)]);
        unpack(segment.slice(..segment.len() / 2)).unwrap_err();
        let mut damaged = segment.to_vec();
        damaged[4] ^= 0xff;
        unpack(damaged.into()).unwrap_err();
    }

    #[test]
    fn a_small_frame_of_too_many_rows_is_refused() {
        let bomb = frame(&[vec![b' '; 65 << 20]], 65 << 20).unwrap();
        assert!(bomb.len() < 1 << 20);
        let error = unpack(bomb.into()).unwrap_err();
        assert!(error.to_string().contains("more than"), "{error}");
    }
}
