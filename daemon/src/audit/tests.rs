use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::chain::Head;
use super::files::{AuditFiles, FILES_MAX, list};
use super::verify::{VerifyError, verify};
use super::{Audit, AuditEvent, DIRECTORY, TEXT_BYTES_MAX, WAITING_MAX, queue, text, write_all};

fn request(text: &str) -> AuditEvent {
    AuditEvent::Request {
        op: String::from("1"),
        by: String::from("operator anna"),
        request: text.to_owned(),
        outcome: String::from("done"),
        took_ms: 1,
    }
}

fn open(data_dir: &Path) -> AuditFiles {
    AuditFiles::open(&data_dir.join(DIRECTORY)).unwrap()
}

fn written(data_dir: &Path, count: u64) -> AuditFiles {
    let mut files = open(data_dir);
    (0..count).for_each(|number| files.write(&[&request(&format!("delete {number}"))]).unwrap());
    files
}

fn paths(data_dir: &Path) -> Vec<PathBuf> {
    list(&data_dir.join(DIRECTORY)).unwrap().into_iter().map(|(_, path)| path).collect()
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap().lines().map(String::from).collect()
}

#[test]
fn an_event_is_one_line_whatever_its_texts_contain() {
    let dir = tempfile::tempdir().unwrap();
    let forged = "delete a\n{\"seq\":2,\"event\":\"request\"}\r\u{1b}[2K\u{202e}\u{9b}";
    open(dir.path()).write(&[&request(forged)]).unwrap();
    let lines = lines(&paths(dir.path())[0]);
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(!lines[0].contains(idunno_shared::text::is_hidden), "{lines:?}");
    let event: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&event["seq"], &event["request"]), (&Value::from(1), &Value::from(forged)));
    assert_eq!(text("ä".repeat(TEXT_BYTES_MAX)).len(), TEXT_BYTES_MAX + 3);
}

#[test]
fn every_line_that_is_changed_removed_inserted_or_moved_shows() {
    let dir = tempfile::tempdir().unwrap();
    drop(written(dir.path(), 5));
    assert_eq!(verify(dir.path(), &[]).unwrap().head.seq, 5);
    let path = &paths(dir.path())[0];
    let whole = lines(path);
    let mut forgeries: Vec<Vec<String>> = Vec::new();
    for at in 0..4 {
        let mut removed = whole.clone();
        removed.remove(at);
        let mut changed = whole.clone();
        changed[at] = changed[at].replace("anna", "otto");
        let mut inserted = whole.clone();
        inserted.insert(at, whole[at].clone());
        let mut moved = whole.clone();
        moved.swap(at, at + 1);
        forgeries.extend([removed, changed, inserted, moved]);
    }
    for forged in forgeries {
        fs::write(path, forged.join("\n") + "\n").unwrap();
        let error = verify(dir.path(), &[]).unwrap_err();
        assert!(matches!(error, VerifyError::Broken { .. }), "{error}: {forged:#?}");
    }
}

#[test]
fn an_end_that_is_cut_off_shows_against_what_was_noted() {
    let dir = tempfile::tempdir().unwrap();
    drop(written(dir.path(), 5));
    let noted = verify(dir.path(), &[]).unwrap().head;
    assert_eq!(noted.to_string().parse(), Ok(noted));
    drop(written(dir.path(), 2));
    assert_eq!(verify(dir.path(), &[noted]).unwrap().head.seq, 7);
    let path = &paths(dir.path())[0];
    fs::write(path, lines(path)[..4].join("\n") + "\n").unwrap();
    assert_eq!(verify(dir.path(), &[]).unwrap().head.seq, 4);
    assert!(matches!(verify(dir.path(), &[noted]), Err(VerifyError::Unknown(head)) if head == noted));
    // Written on, it is as long as before.
    drop(written(dir.path(), 9));
    assert!(verify(dir.path(), &[noted]).is_err());
    assert!("5".parse::<Head>().is_err());
}

#[test]
fn rotation_bounds_the_files_and_keeps_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = open(dir.path());
    files.file_bytes_max = 2_000;
    let mut noted = None;
    for number in 0..400 {
        files.write(&[&request(&format!("delete {number}"))]).unwrap();
        if number == 395 {
            noted = Some(verify(dir.path(), &[]).unwrap().head);
        }
    }
    let kept = paths(dir.path());
    assert_eq!(kept.len(), FILES_MAX);
    let verified = verify(dir.path(), noted.as_slice()).unwrap();
    assert!(verified.first.0 > 1 && verified.head.seq > 400, "{verified:?}");
    // An older file that rotation has not removed, and one in the middle.
    for at in [0, 5] {
        let bytes = fs::read(&kept[at]).unwrap();
        fs::remove_file(&kept[at]).unwrap();
        let error = verify(dir.path(), &[]).unwrap_err();
        assert!(matches!(error, VerifyError::Broken { line: 1, .. }), "{error}");
        fs::write(&kept[at], bytes).unwrap();
    }
    verify(dir.path(), &[]).unwrap();
}

#[test]
fn a_restart_continues_the_chain_and_says_what_a_power_cut_tore() {
    let dir = tempfile::tempdir().unwrap();
    drop(written(dir.path(), 2));
    let path = &paths(dir.path())[0];
    let torn = fs::read_to_string(path).unwrap() + "{\"seq\":3,\"pre";
    fs::write(path, torn).unwrap();
    assert_eq!(verify(dir.path(), &[]).unwrap().head.seq, 2, "the member may be writing the line");
    drop(written(dir.path(), 1));
    assert_eq!(verify(dir.path(), &[]).unwrap().head.seq, 4);
    assert!(lines(path)[2].contains("\"event\":\"repaired\",\"bytes\":13"), "{}", lines(path)[2]);
    // A file that a crash left empty as it began.
    fs::write(dir.path().join(DIRECTORY).join("audit.000002.jsonl"), "").unwrap();
    drop(written(dir.path(), 1));
    assert_eq!(verify(dir.path(), &[]).unwrap().head.seq, 5);
}

#[test]
fn a_full_disk_loses_events_and_the_audit_says_how_many() {
    let dir = tempfile::tempdir().unwrap();
    let mut files = written(dir.path(), 1);
    let good = files.fail();
    for _ in 0..3 {
        assert!(files.write(&[&request("lost")]).is_err());
    }
    files.restore(good);
    files.write(&[&request("kept")]).unwrap();
    let verified = verify(dir.path(), &[]).unwrap();
    assert_eq!((verified.head.seq, verified.lost), (3, 3));
}

#[tokio::test]
async fn an_event_is_on_disk_before_its_answer() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(dir.path()).unwrap();
    for number in 1..=20 {
        audit.record(request("delete a")).await;
        assert_eq!(lines(&paths(dir.path())[0]).len(), number);
    }
    let at_once = (0..500).map(|_| audit.record(request("delete b")));
    futures_util::future::join_all(at_once).await;
    assert_eq!(verify(dir.path(), &[]).unwrap().head.seq, 520);
}

#[test]
fn a_directory_without_an_audit_is_no_audit() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(verify(dir.path(), &[]), Err(VerifyError::Missing { .. })));
    open(dir.path());
    assert!(matches!(verify(dir.path(), &[]), Err(VerifyError::Missing { .. })));
}

#[tokio::test]
async fn events_that_find_no_place_in_the_queue_are_counted_in_the_audit() {
    let dir = tempfile::tempdir().unwrap();
    let files = open(dir.path());
    let (audit, waiting, lost) = queue();
    for number in 0..WAITING_MAX + 3 {
        audit.record_later(request(&format!("delete {number}")));
    }
    // Its caller leaves while it waits for a place.
    let waited = tokio::time::timeout(Duration::from_millis(1), audit.record(request("delete"))).await;
    assert!(waited.is_err());
    drop(audit);
    tokio::task::spawn_blocking(move || write_all(files, waiting, &lost)).await.unwrap();
    let lines = lines(&paths(dir.path())[0]);
    let first: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((&first["event"], &first["events"]), (&Value::from("lost"), &Value::from(4)));
    assert_eq!(lines.len(), WAITING_MAX + 1);
}
