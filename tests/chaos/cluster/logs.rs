//! What is read from a member's log: the terms in which it coordinated, and panics.

use std::fs;
use std::path::Path;

/// All log files of a directory, one after the other; nothing where there are none.
pub(crate) fn read(dir: &Path) -> String {
    let Ok(entries) = fs::read_dir(dir) else { return String::new() };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let text =
        |path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    paths.into_iter().map(text).collect()
}

/// The terms in which it coordinated.
pub(crate) fn terms(log: &str) -> impl Iterator<Item = u64> {
    log.lines().filter_map(|line| line.split_once("this member coordinates term=")?.1.trim().parse().ok())
}

/// Lines of tasks that panicked.
pub(crate) fn panics(log: &str) -> impl Iterator<Item = &str> {
    log.lines().filter(|line| line.contains("a task panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-01T00:00:00.000001Z  INFO idunnod::coordinator: this member coordinates term=3
2026-01-01T00:00:01.000001Z  INFO idunnod::coordinator: the term is closed term=3
2026-01-01T00:00:02.000001Z ERROR idunnod::telemetry: a task panicked panic=index out of bounds
2026-01-01T00:00:03.000001Z  INFO idunnod::coordinator: this member coordinates term=17
";

    #[test]
    fn terms_and_panics_are_found() {
        assert_eq!(terms(LOG).collect::<Vec<_>>(), [3, 17]);
        assert_eq!(panics(LOG).count(), 1);
    }
}
