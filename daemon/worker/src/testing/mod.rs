//! Stand-ins for the worker's surroundings: a model server over real HTTP, a coordinator, a store in memory.

pub(super) mod fake_coordinator;
pub(super) mod fake_server;
pub(super) mod memory_store;
