//! What stands in for Parquet in programs that are built without it: nothing is read or written.

use std::convert::Infallible;
use std::ops::Range;

use idunno_shared::wire::records::{ParquetLayout, ReadOptions};

use crate::error::ReadError;
use crate::parts::FileParts;
use crate::records::{Row, RowGroup};

/// A file's footer. There is none.
#[derive(Clone, Debug)]
pub struct Footer(Infallible);

impl Footer {
    /// Fails.
    pub fn read(_: &[u8]) -> Result<Self, ReadError> {
        Err(ReadError::NotBuilt)
    }

    /// Never called.
    pub fn layout(&self, _: &ReadOptions) -> Result<ParquetLayout, ReadError> {
        match self.0 {}
    }

    /// Never called.
    pub fn groups(&self, _: &ParquetLayout, _: u64) -> Result<Vec<RowGroup>, ReadError> {
        match self.0 {}
    }

    /// Never called.
    pub fn row_count(&self) -> u64 {
        match self.0 {}
    }

    /// Never called.
    pub fn chunks(&self, _: &ParquetLayout, _: &[u64]) -> Vec<Range<u64>> {
        match self.0 {}
    }

    /// Never called.
    pub fn rows(&self, _: &ParquetLayout, _: &[u64], _: &FileParts) -> Vec<Row> {
        match self.0 {}
    }
}

/// Results as Parquet.
pub mod results {
    use std::convert::Infallible;
    use std::io::Write;
    use std::marker::PhantomData;

    use crate::error::WriteError;

    /// The types of no columns.
    #[derive(Clone, Debug, Default)]
    pub struct RowTypes;

    impl RowTypes {
        /// Of no rows.
        pub fn new(_: Option<Vec<String>>) -> Self {
            Self
        }

        /// Fails.
        pub fn observe(&mut self, _: &str) -> Result<(), WriteError> {
            Err(WriteError::NotBuilt)
        }
    }

    /// A writer. There is none.
    #[derive(Debug)]
    pub struct ResultsWriter<W>(Infallible, PhantomData<W>);

    impl<W: Write + Send> ResultsWriter<W> {
        /// Fails.
        pub fn new(_: W, _: &RowTypes) -> Result<Self, WriteError> {
            Err(WriteError::NotBuilt)
        }

        /// Never called.
        pub fn write(&mut self, _: &str) -> Result<(), WriteError> {
            match self.0 {}
        }

        /// Never called.
        pub fn finish(self) -> Result<W, WriteError> {
            match self.0 {}
        }
    }
}
