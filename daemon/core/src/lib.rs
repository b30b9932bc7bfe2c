//! Every decision of an `IDunno` member, as pure state machines.
//!
//! No machine in this crate reads a clock, touches a file or a socket, or draws operating system randomness:
//! time comes in as [`time::Instant`], randomness from a seed, and everything that must happen goes out as
//! an ordered queue of effects. The same inputs give the same outputs, so one seed replays a failure.

pub mod election;
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
