use std::fs::{self, OpenOptions};
use std::io::{Seek, Write};
use std::path::Path;

use super::{FIRST_BYTES, Follower, LINE_BYTES_MAX, newest_log, printable};

fn append(dir: &Path, name: &str, bytes: &[u8]) {
    let mut file = OpenOptions::new().create(true).append(true).open(dir.join(name)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn lines_come_once_and_unfinished_ones_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut follower = Follower::new(dir.path().to_owned());
    assert!(follower.poll().is_empty());
    append(dir.path(), "idunnod.2026-11-22", b"one\ntwo\nthr");
    assert_eq!(follower.poll(), ["one", "two"]);
    assert!(follower.poll().is_empty());
    append(dir.path(), "idunnod.2026-11-22", b"ee\n");
    append(dir.path(), "other.2026-11-23", b"not a log\n");
    assert_eq!(follower.poll(), ["three"]);
}

#[test]
fn the_old_day_is_read_to_its_end_first() {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), "idunnod.2026-11-21", b"long ago\n");
    append(dir.path(), "idunnod.2026-11-22", b"one\n");
    let mut follower = Follower::new(dir.path().to_owned());
    assert_eq!(follower.poll(), ["one"]);
    append(dir.path(), "idunnod.2026-11-22", b"two\nlast words");
    append(dir.path(), "idunnod.2026-11-22.000001", b"two and a half\n");
    append(dir.path(), "idunnod.2026-11-23", b"three\n");
    assert_eq!(follower.poll(), ["two", "last words", "two and a half", "three"]);
    append(dir.path(), "idunnod.2026-11-23", b"four\n");
    assert_eq!(follower.poll(), ["four"]);
    assert_eq!(newest_log(dir.path()).unwrap(), dir.path().join("idunnod.2026-11-23"));
}

#[test]
fn a_deleted_day_does_not_stop_the_next() {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), "idunnod.2026-11-22", b"one\n");
    let mut follower = Follower::new(dir.path().to_owned());
    assert_eq!(follower.poll(), ["one"]);
    fs::remove_file(dir.path().join("idunnod.2026-11-22")).unwrap();
    append(dir.path(), "idunnod.2026-11-23", b"two\n");
    assert_eq!(follower.poll(), ["two"]);
}

#[test]
fn a_truncated_file_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), "idunnod.2026-11-22", b"a long first line\nunfinis");
    let mut follower = Follower::new(dir.path().to_owned());
    assert_eq!(follower.poll(), ["a long first line"]);
    fs::write(dir.path().join("idunnod.2026-11-22"), b"new\n").unwrap();
    assert_eq!(follower.poll(), ["new"]);
}

#[test]
fn a_large_file_is_read_from_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let line = [b"x".repeat(99).as_slice(), b"\n"].concat();
    append(dir.path(), "idunnod.2026-11-22", &line.repeat(10_000));
    let shown = Follower::new(dir.path().to_owned()).poll();
    assert!(shown.len() as u64 <= FIRST_BYTES / 100 + 1, "{}", shown.len());
    assert!(shown.iter().all(|line| line.len() == 99), "no half lines");
}

#[test]
fn strange_bytes_do_not_reach_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    append(dir.path(), "idunnod.2026-11-22", b"bad \xff\xfe utf-8\n\x1b[31mred\x1b[0m\ttab\x07\n");
    append(
        dir.path(),
        "idunnod.2026-11-22",
        &[b"y".repeat(LINE_BYTES_MAX * 2).as_slice(), b"\nend\n"].concat(),
    );
    let lines = Follower::new(dir.path().to_owned()).poll();
    assert_eq!(lines[0], "bad \u{fffd}\u{fffd} utf-8");
    assert_eq!(lines[1], "\\u{1b}[31mred\\u{1b}[0m    tab\\u{7}");
    assert_eq!(lines[2].len(), LINE_BYTES_MAX);
    assert_eq!(lines[3], "end");
    assert_eq!(printable("a\u{202e}b"), "a\\u{202e}b");
}

#[test]
fn a_log_of_a_gigabyte_is_begun_near_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = fs::File::create(dir.path().join("idunnod.2026-01-01")).unwrap();
    file.set_len(1 << 30).unwrap();
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"\nthe last line\n").unwrap();
    let started = std::time::Instant::now();
    let mut follower = Follower::new(dir.path().to_owned());
    assert_eq!(follower.poll(), ["the last line"]);
    assert!(started.elapsed() < std::time::Duration::from_secs(1), "{:?}", started.elapsed());
}
