//! Bodies in `aws-chunked` framing, cut into small chunks before s3s sees them.
//!
//! s3s 0.14 holds each chunk in memory whole, and a chunk's header may claim 4 GiB; some programs send the whole object as one unsigned
//! chunk. So unsigned chunks are cut into pieces of [`PIECE_BYTES_MAX`]: nothing is signed in them. Signed ones, whose signature
//! covers the chunk, are refused beyond [`SIGNED_BYTES_MAX`]. A body that ends before its last chunk is an error: s3s takes it
//! for complete.
//!
//! Pure: bytes in, bytes out. Bound: [`LINE_BYTES_MAX`] of a header line are kept between two inputs.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Longest unsigned piece that s3s gets.
pub const PIECE_BYTES_MAX: u64 = 64 << 10;
/// Longest signed chunk: more than the 1 MiB of any known program.
pub const SIGNED_BYTES_MAX: u64 = 8 << 20;
/// Longest header line of a chunk.
const LINE_BYTES_MAX: usize = 1_024;

/// The body is not framed as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FramingError {
    /// A chunk's header is no header.
    #[error("a chunk of the body has no valid header")]
    Header,
    /// A signed chunk that would have to be held in memory.
    #[error("a signed chunk of the body has {0} bytes; at most {SIGNED_BYTES_MAX} are allowed")]
    TooLarge(u64),
    /// The body ended within a chunk, or before the last one.
    #[error("the body ended before its last chunk")]
    Incomplete,
}

/// Where the body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In a header line.
    Header,
    /// In a chunk's bytes; whether they are cut.
    Data { left: u64, is_cut: bool },
    /// In the line end after a chunk's bytes: how many bytes of it are left.
    LineEnd { left: usize, is_cut: bool },
    /// After the last chunk: trailers pass through.
    Trailers,
}

/// Frames a body anew.
#[derive(Debug)]
pub struct Reframer {
    place: Place,
    line: BytesMut,
}

impl Default for Reframer {
    fn default() -> Self {
        Self { place: Place::Header, line: BytesMut::new() }
    }
}

impl Reframer {
    /// Takes the next bytes, and answers what s3s is to read in their place.
    pub fn take(&mut self, mut input: Bytes) -> Result<Vec<Bytes>, FramingError> {
        let mut output = Vec::new();
        while input.has_remaining() {
            match self.place {
                Place::Header => self.take_header(&mut input, &mut output)?,
                Place::Data { left, is_cut } => {
                    let most = if is_cut { left.min(PIECE_BYTES_MAX) } else { left };
                    let count = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
                    let piece = input.split_to(count);
                    let left = left - piece.len() as u64;
                    if is_cut {
                        output.push(Bytes::from(format!("{:x}\r\n", piece.len())));
                        output.push(piece);
                        output.push(Bytes::from_static(b"\r\n"));
                    } else {
                        output.push(piece);
                    }
                    self.place = if left > 0 {
                        Place::Data { left, is_cut }
                    } else {
                        Place::LineEnd { left: 2, is_cut }
                    };
                }
                Place::LineEnd { left, is_cut } => {
                    let end = input.split_to(left.min(input.len()));
                    if !b"\r\n"[2 - left..].starts_with(&end) {
                        return Err(FramingError::Header);
                    }
                    let left = left - end.len();
                    if !is_cut {
                        output.push(end);
                    }
                    self.place = if left > 0 { Place::LineEnd { left, is_cut } } else { Place::Header };
                }
                Place::Trailers => output.push(input.split_to(input.len())),
            }
        }
        Ok(output)
    }

    /// Whether the body may end here.
    pub fn finish(&self) -> Result<(), FramingError> {
        if self.place == Place::Trailers { Ok(()) } else { Err(FramingError::Incomplete) }
    }

    fn take_header(&mut self, input: &mut Bytes, output: &mut Vec<Bytes>) -> Result<(), FramingError> {
        let end = input.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
        let line = input.split_to(end.unwrap_or(input.len()));
        if self.line.len() + line.len() > LINE_BYTES_MAX {
            return Err(FramingError::Header);
        }
        self.line.extend_from_slice(&line);
        if end.is_none() {
            return Ok(());
        }
        let line = self.line.split().freeze();
        let text = line.strip_suffix(b"\r\n").ok_or(FramingError::Header)?;
        let (size, is_signed) = match text.iter().position(|&byte| byte == b';') {
            Some(at) => (&text[..at], true),
            None => (text, false),
        };
        let size =
            std::str::from_utf8(size).ok().filter(|size| size.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let size = size.and_then(|size| u64::from_str_radix(size, 16).ok()).ok_or(FramingError::Header)?;
        if size == 0 {
            self.place = Place::Trailers;
            output.push(line);
        } else if is_signed {
            if size > SIGNED_BYTES_MAX {
                return Err(FramingError::TooLarge(size));
            }
            self.place = Place::Data { left: size, is_cut: false };
            output.push(line);
        } else {
            self.place = Place::Data { left: size, is_cut: true };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a body in steps, and answers what comes out.
    fn reframed(body: &[u8], step: usize) -> Result<Vec<u8>, FramingError> {
        let mut reframer = Reframer::default();
        let mut out = Vec::new();
        for part in body.chunks(step) {
            out.extend(reframer.take(Bytes::copy_from_slice(part))?.concat());
        }
        reframer.finish().map(|()| out)
    }

    /// The data of an unsigned body, and its longest chunk.
    fn data(mut framed: &[u8]) -> (Vec<u8>, usize) {
        let (mut data, mut longest) = (Vec::new(), 0);
        loop {
            let at = framed.iter().position(|&byte| byte == b'\r').unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&framed[..at]).unwrap(), 16).unwrap();
            if size == 0 {
                return (data, longest);
            }
            longest = longest.max(size);
            data.extend_from_slice(&framed[at + 2..at + 2 + size]);
            framed = &framed[at + 4 + size..];
        }
    }

    #[test]
    fn an_object_in_one_unsigned_chunk_is_cut() {
        let object: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let mut body = format!("{:X}\r\n", object.len()).into_bytes();
        body.extend(&object);
        body.extend(b"\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n");
        for step in [1, 7, 4_096, 1 << 20] {
            let framed = reframed(&body, step).unwrap();
            let (again, longest) = data(&framed);
            assert!(again == object && longest as u64 <= PIECE_BYTES_MAX, "{step}: {longest}");
            assert!(framed.ends_with(b"0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n"));
        }
    }

    #[test]
    fn signed_chunks_stay_as_they_are_and_are_not_large() {
        let signature = "a".repeat(64);
        let body = format!("5;chunk-signature={signature}\r\nhello\r\n0;chunk-signature={signature}\r\n\r\n");
        for step in [1, 3, 1_000] {
            assert_eq!(reframed(body.as_bytes(), step).unwrap(), body.as_bytes());
        }
        let large = format!("{:x};chunk-signature={signature}\r\n", SIGNED_BYTES_MAX + 1);
        assert_eq!(reframed(large.as_bytes(), 100), Err(FramingError::TooLarge(SIGNED_BYTES_MAX + 1)));
    }

    #[test]
    fn a_body_without_its_end_or_frame_is_refused() {
        for (body, error) in [
            ("5\r\nhel", FramingError::Incomplete),
            ("5\r\nhello\r\n", FramingError::Incomplete),
            ("", FramingError::Incomplete),
            ("5\r\nhelloXX0\r\n\r\n", FramingError::Header),
            ("-5\r\nhello\r\n", FramingError::Header),
            ("+5\r\nhello\r\n", FramingError::Header),
            ("5\nhello\r\n", FramingError::Header),
            (&"1".repeat(2_000), FramingError::Header),
        ] {
            assert_eq!(reframed(body.as_bytes(), 2), Err(error), "{body}");
        }
    }
}
