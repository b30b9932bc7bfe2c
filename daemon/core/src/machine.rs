//! The shape that all machines share, so that one driver runs them in the daemon and the simulator runs the same code.
//!
//! A machine is made by a `new` of its own, from a configuration, where it needs them a seed, and the time. After that it
//! changes only in [`Machine::handle`], and asks for things only through its effects.

use crate::invariant::InvariantViolation;
use crate::time::Instant;

/// A pure state machine.
///
/// Time never goes back between calls. After each [`Machine::handle`] the caller takes all effects by
/// [`Machine::poll_effect`] and carries them out in order: an effect that must be durable comes before the send that
/// depends on it.
pub trait Machine {
    /// What can happen to it.
    type Event;
    /// What it asks of its driver.
    type Effect;

    /// Takes an event in, and does what is due by `now`.
    fn handle(&mut self, event: Self::Event, now: Instant);

    /// When the machine needs its next event, at the latest. A machine that returns a deadline documents which event
    /// it expects then, usually a `Tick`.
    fn next_deadline(&self) -> Option<Instant>;

    /// The next effect to carry out.
    fn poll_effect(&mut self) -> Option<Self::Effect>;

    /// Checks the invariants and bounds that the machine documents. Holds after each event, before the effects are taken.
    fn check(&self) -> Result<(), InvariantViolation>;
}
