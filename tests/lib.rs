//! Support shared by the simulations, the cluster tests and the figures.

pub mod damage;
pub mod network;
pub mod seeds;
