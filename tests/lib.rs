//! Support shared by simulations, cluster tests and benchmarks.

pub mod damage;
pub mod decoders;
pub mod network;
pub mod seeds;
