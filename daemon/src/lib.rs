//! The thin shell around [`idunno_core`]: it feeds the pure state machines with messages and time, and carries out their
//! effects.

#![allow(missing_docs, reason = "documented where a name does not say enough; complete in shared and core")]

pub mod audit;
pub mod config;
pub mod control;
pub mod coordinator;
pub mod discovery;
pub mod election;
pub mod greetings;
pub mod introducer;
pub mod local_store;
pub mod member;
pub mod membership;
pub mod metrics;
pub mod net;
pub mod recovery;
pub mod runtime;
