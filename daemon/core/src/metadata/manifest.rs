//! A job's frozen list of queries.

use std::sync::Arc;

use idunno_shared::names::FileName;
use idunno_shared::wire::blobs::BlobRef;
use serde::{Deserialize, Serialize};

/// One query: a file as it was when the job started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// The file's name.
    pub name: Arc<FileName>,
    /// The extents of the version that was the newest then, in order.
    pub extents: Arc<[BlobRef]>,
}

/// A job's queries in name order; a query's number is its place. Names and extents are shared with the file table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Manifest {
    /// The queries.
    pub queries: Vec<Query>,
}

impl Manifest {
    /// The queries `first..end`, with their numbers; those beyond the manifest are left out.
    pub fn slice(&self, first: u64, end: u64) -> impl Iterator<Item = (u64, &Query)> {
        let place = |number: u64| usize::try_from(number).unwrap_or(usize::MAX).min(self.queries.len());
        let queries = self.queries.get(place(first)..place(end)).unwrap_or_default();
        queries.iter().zip(first..).map(|(query, number)| (number, query))
    }
}
