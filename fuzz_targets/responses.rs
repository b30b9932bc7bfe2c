//! What a model server answers: as many rows as were asked for, or a mistake that is named.
#![no_main]

use bytes::Bytes;
use idunno_worker::open_inference::{Signature, decode};
use idunno_worker::protocol::decode_response;
use libfuzzer_sys::fuzz_target;

/// A model of a server that others wrote.
const METADATA: &[u8] = br#"{"inputs":[{"name":"x","datatype":"BYTES","shape":[-1]}]}"#;

fuzz_target!(|input: (Option<u16>, u8, &[u8])| {
    let (header_length, rows, body) = input;
    let (header_length, rows) = (header_length.map(usize::from), usize::from(rows));
    let body = Bytes::copy_from_slice(body);
    match decode_response(header_length, &body, rows) {
        Ok(answers) => assert_eq!(answers.rows.len(), rows),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let Ok(signature) = Signature::new(METADATA, None, true) else { return };
    match decode(&signature, header_length, &body, rows) {
        Ok(answers) => assert_eq!(answers.len(), rows),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
