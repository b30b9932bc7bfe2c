//! Simulations in virtual time: seeded, single-threaded, replayable.
//!
//! Each module drives machines of `idunno-core` over a virtual network; `idunno_tests::seeds` runs the seeds.

#[cfg(test)]
mod election;
#[cfg(test)]
mod membership;
#[cfg(test)]
mod metadata;
#[cfg(test)]
mod network;
#[cfg(test)]
mod scheduler;
