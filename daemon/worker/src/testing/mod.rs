//! Fakes of the worker's environment: a model server over HTTP, a coordinator, a store in memory.

pub(super) mod fake_coordinator;
pub(super) mod fake_server;
pub(super) mod memory_store;
