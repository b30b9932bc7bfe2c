//! Support shared by the simulations, the cluster tests and the figures.

pub mod network;
pub mod seeds;
