//! The virtual network, which the figures use too.

pub(crate) use idunno_tests::network::{Network, Quality, Trace};
