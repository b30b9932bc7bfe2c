//! The decisions of an `IDunno` member, as pure state machines.
//!
//! No machine in this crate reads a clock, touches a file or a socket, or draws randomness from the operating system:
//! time comes in as [`time::Instant`], randomness from a seed, and what has to happen goes out as an ordered queue of
//! effects. Equal inputs give equal outputs, so a seed replays a failure.

pub mod access;
pub mod clocks;
pub mod election;
pub mod invariant;
pub mod machine;
pub mod membership;
pub mod metadata;
pub mod placement;
pub mod ranges;
pub mod rates;
pub mod result_merge;
pub mod scheduler;
pub mod time;
pub mod uploads;
pub mod voters;
