//! What two `IDunno` processes must agree on: ids, checked names, wire messages and their codec.
//!
//! No policy lives here. The asynchronous client and what it proves itself with sit behind the feature `client`, which
//! the core does not take.

#[cfg(feature = "client")]
pub mod backup;
#[cfg(feature = "client")]
pub mod client;
#[cfg(all(feature = "client", unix))]
pub mod crash_points;
pub mod ids;
pub mod names;
#[cfg(feature = "client")]
pub mod security;
pub mod wire;
