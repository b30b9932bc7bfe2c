//! MessagePack of the log: payloads of messages, and rows of the file.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Encodes a payload, or a row of the store, as MessagePack.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, rmp_serde::encode::Error> {
    rmp_serde::to_vec(value)
}

/// The reverse of [`encode`].
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    rmp_serde::from_slice(bytes)
}
