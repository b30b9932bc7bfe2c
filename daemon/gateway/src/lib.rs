//! The gateway of an IDunno cluster: its store over S3.
//!
//! A stateless client of the cluster that runs any number of times; nothing is lost when it restarts. What a program asks is answered with an
//! identity of that program's own, so the cluster's rules and its audit apply to it as to anybody.
//!
//! Layers, each on the ones below: `server` (HTTP), s3s (signatures, XML), `s3` (its operations), `buckets`, `objects`,
//! `multipart`, then `ingest`, `deliver`, `listing`, and `store` (what is asked of the cluster). Pure: `chunked`, `tree`,
//! `conditions`, `attributes`, `names`.
//!
//! What must stay absent: an object held in memory whole, state that another gateway would need.

pub mod attributes;
pub mod buckets;
pub mod chunked;
pub mod conditions;
pub mod deliver;
pub mod errors;
pub mod gateway;
pub mod ingest;
pub mod keys;
pub mod listing;
pub mod memory;
pub mod multipart;
pub mod names;
pub mod objects;
pub mod s3;
pub mod server;
pub mod store;
pub mod tree;
