//! The gateway of an IDunno cluster: its store over S3, and its jobs over the API that OpenAI has for batches.
//!
//! A stateless client of the cluster that runs any number of times; nothing is lost when it restarts. What a program asks is answered with an
//! identity of that program's own, so the cluster's rules and its audit apply to it as to anybody.
//!
//! Layers, each on the ones below: `server` (HTTP), then the two doors: `s3` (below s3s, which does signatures and XML) and `openai`; then
//! `ingest`, `deliver`, and `store` (what is asked of the cluster). Pure: `tree`, `hex`.
//!
//! What must stay absent: an object or a job held in memory whole, state that another gateway would need.

pub mod deliver;
pub mod errors;
pub mod hex;
pub mod ingest;
pub mod keys;
pub mod memory;
pub mod openai;
pub mod request_id;
pub mod s3;
pub mod server;
pub mod store;
pub mod tree;
