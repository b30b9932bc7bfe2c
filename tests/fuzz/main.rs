//! Every decoder of what comes from outside, against made-up, damaged and hostile bytes.
//!
//! Each type of message is drawn at random ([`generate`]), must come back from its encoding as it was, and its encoding
//! is then damaged in every way that [`idunno_tests::damage`] knows: what still decodes must encode and decode again, nothing may
//! panic, and no decoder may take more memory than a small multiple of the bytes it was given, also where a list is repeated
//! ([`inflate`]) until the message is large. `IDUNNO_SIM_SEED` replays
//! a seed, `IDUNNO_SIM_SEEDS` widens.
//!
//! [`corpus`] holds what other releases send, and what they left on disks.

#[cfg(test)]
mod corpus;
#[cfg(test)]
mod generate;
#[cfg(test)]
mod inflate;
#[cfg(test)]
mod messages;
