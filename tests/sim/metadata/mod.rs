//! The metadata and the upkeep of blobs, against models that are too simple to be wrong.

mod commands;
mod model;
mod upkeep;
