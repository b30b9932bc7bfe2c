//! Jobs over the API that OpenAI has for batches: files, batches, models. An unmodified client of that API works by its base URL and key.
//!
//! A batch is a job: its file's lines are the queries, `custom_id` is their id. What the job does not know of it is a small file of the store, so any gateway
//! shows a batch, whichever created it. The output and error files are views of the job's results.
//!
//! Layers, each on the ones below: `door` (addresses and keys), `batches` and `files`, `admission` (a batch becomes a job), `results` (rows as they are
//! sent). Pure: `ids`, `query`, `lines`, `validation`, `record`, `rows`, `error`.
//!
//! What must stay absent: a job or a file held in memory whole, state that another gateway would need.

pub mod admission;
pub mod batches;
pub mod door;
pub mod error;
pub mod files;
pub mod ids;
pub mod lines;
pub mod models;
pub mod query;
pub mod record;
pub mod results;
pub mod rows;
pub mod validation;

pub use door::{Door, is_of_door};
