//! What a model server answers: as many rows as were asked for, or a mistake that is named.
#![no_main]

use bytes::Bytes;
use idunno_worker::protocol::decode_response;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (Option<u16>, u8, &[u8])| {
    let (header_length, rows, body) = input;
    let (header_length, rows) = (header_length.map(usize::from), usize::from(rows));
    match decode_response(header_length, &Bytes::copy_from_slice(body), rows) {
        Ok(answers) => assert_eq!(answers.rows.len(), rows),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
