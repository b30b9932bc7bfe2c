//! A search of a log by whoever may look: it ends within its time, and finds only whole lines.
#![no_main]

use std::fs;
use std::time::{Duration, Instant};

use idunno_daemon::control::log_search::search;
use idunno_shared::wire::logs::{LogLevel, LogSearch};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

const TIME_MAX: Duration = Duration::from_millis(100);
/// The last line may take its own time.
const BESIDES: Duration = Duration::from_secs(2);

thread_local! {
    static DIR: TempDir = TempDir::new().expect("a directory");
}

fuzz_target!(|input: (&str, &str, &[u8])| {
    let (pattern, since, log) = input;
    DIR.with(|dir| {
        fs::write(dir.path().join("idunnod.log.2026-11-26"), log).expect("written");
        let asked = LogSearch {
            pattern: Some(pattern.to_owned()),
            level: LogLevel::default(),
            since: Some(since.to_owned()),
            after: None,
        };
        let begun = Instant::now();
        if let Ok(found) = search(dir.path(), &asked, TIME_MAX) {
            assert!(found.lines.is_empty() || found.lines.ends_with(b"\n"));
        }
        assert!(begun.elapsed() < TIME_MAX + BESIDES, "{pattern:?} takes too long");
    });
});
