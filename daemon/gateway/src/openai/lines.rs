//! Splits bytes that come in pieces into lines. Bound: a line of [`LINE_BYTES_MAX`], as the cluster's records have.

use std::mem;

use bytes::Bytes;

/// The longest line, without its end.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// A line that is too long, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong(pub u64);

/// A line with its number, from 1. White space around it is left out, and so are lines of nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub number: u64,
    /// Its bytes.
    pub bytes: Bytes,
}

/// The lines so far.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
    number: u64,
}

impl Lines {
    /// Takes the next piece: its lines are passed on until one is refused.
    pub fn take<E: From<TooLong>>(
        &mut self,
        mut piece: Bytes,
        mut each: impl FnMut(Line) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            let rest = piece.split_to(end);
            let _ = piece.split_to(1);
            let bytes = if self.begun.is_empty() { rest } else { self.ended(&rest)? };
            self.number += 1;
            self.pass(&bytes, &mut each)?;
        }
        self.check_length(piece.len())?;
        self.begun.extend_from_slice(&piece);
        Ok(())
    }

    /// The end of all bytes: the last line may have none.
    pub fn finish<E: From<TooLong>>(mut self, mut each: impl FnMut(Line) -> Result<(), E>) -> Result<(), E> {
        let last = mem::take(&mut self.begun);
        self.number += 1;
        self.pass(&last.into(), &mut each)
    }

    fn ended(&mut self, rest: &[u8]) -> Result<Bytes, TooLong> {
        self.check_length(rest.len())?;
        self.begun.extend_from_slice(rest);
        Ok(mem::take(&mut self.begun).into())
    }

    fn check_length(&self, more: usize) -> Result<(), TooLong> {
        if self.begun.len() + more > LINE_BYTES_MAX { Err(TooLong(self.number + 1)) } else { Ok(()) }
    }

    fn pass<E: From<TooLong>>(
        &self,
        bytes: &Bytes,
        each: &mut impl FnMut(Line) -> Result<(), E>,
    ) -> Result<(), E> {
        if bytes.len() > LINE_BYTES_MAX {
            return Err(TooLong(self.number).into());
        }
        let text = bytes.trim_ascii();
        if text.is_empty() {
            return Ok(());
        }
        each(Line { number: self.number, bytes: bytes.slice_ref(text) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, size: usize) -> Result<Vec<(u64, String)>, TooLong> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        let mut each = |line: Line| {
            found.push((line.number, String::from_utf8(line.bytes.to_vec()).unwrap()));
            Ok(())
        };
        for piece in text.as_bytes().chunks(size) {
            lines.take(Bytes::copy_from_slice(piece), &mut each)?;
        }
        lines.finish(&mut each)?;
        Ok(found)
    }

    #[test]
    fn lines_are_the_same_in_pieces_of_any_size() {
        let wanted = vec![(1, "a".to_owned()), (3, "b c".to_owned()), (4, "d".to_owned())];
        for size in 1..12 {
            assert_eq!(split("a\n \r\n b c\r\nd", size), Ok(wanted.clone()), "{size}");
        }
        assert_eq!(split("", 1), Ok(vec![]));
        assert_eq!(split("\n\n", 1), Ok(vec![]));
    }

    #[test]
    fn a_line_without_an_end_is_not_held_without_a_bound() {
        let long = "x".repeat(LINE_BYTES_MAX + 1);
        assert_eq!(split(&format!("a\n{long}"), 1 << 20), Err(TooLong(2)));
        assert_eq!(split(&format!("a\n{long}\n"), usize::MAX), Err(TooLong(2)));
        assert_eq!(split(&long[1..], 1 << 20).unwrap().len(), 1);
    }
}
