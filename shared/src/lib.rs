//! What two `IDunno` processes must agree on: ids, checked names, wire messages and their codec.
//!
//! No policy lives here. The asynchronous client sits behind the feature `client`, which the core does not take.

#[cfg(feature = "client")]
pub mod client;
pub mod ids;
pub mod names;
pub mod wire;
