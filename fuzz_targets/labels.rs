//! A table of labels: each line is a label, the header, or counted as malformed.
#![no_main]

use idunno_worker::labels::Labels;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|table: &str| {
    let labels = Labels::parse(table);
    assert!(labels.malformed <= table.len());
    assert_eq!(Labels::parse(table), labels);
});
