//! Support shared by the simulations and the cluster tests.

pub mod seeds;
