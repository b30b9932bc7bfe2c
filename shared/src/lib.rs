//! What two `IDunno` processes must agree on: ids, checked names, wire messages and their codec.
//!
//! This crate makes no decisions. The asynchronous client and its credentials are behind the feature `client`, which
//! `idunno-core` does not enable.

pub mod access;
#[cfg(feature = "client")]
pub mod backup;
#[cfg(feature = "client")]
pub mod client;
#[cfg(all(feature = "client", unix))]
pub mod crash_points;
pub mod folders;
pub mod ids;
#[cfg(feature = "client")]
pub mod injected_faults;
pub mod names;
#[cfg(feature = "client")]
pub mod package;
pub mod public_addresses;
#[cfg(feature = "client")]
pub mod security;
pub mod similar;
pub mod text;
pub mod wire;
