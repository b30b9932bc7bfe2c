use std::fs;

use super::*;
use crate::data_dir::Identity;

fn arguments(data_dir: &Path, forget_log: bool, yes: bool) -> Arguments {
    Arguments { data_dir: data_dir.to_path_buf(), forget_log, backup: None, yes }
}

/// A directory as a member leaves it, but for its log.
fn member(path: &Path) -> Identity {
    let data_dir = DataDir::open(path).unwrap();
    data_dir.write_json(CLUSTER_FILE, &NodeId(1)).unwrap();
    data_dir.write_json(PEERS_FILE, &["127.0.0.1:1"]).unwrap();
    fs::create_dir_all(path.join("blobs/ab")).unwrap();
    fs::write(path.join("blobs/ab/cd"), b"bytes").unwrap();
    fs::write(path.join(STORE_FILE), b"log").unwrap();
    data_dir.identity().unwrap()
}

fn said(arguments: &Arguments) -> String {
    let mut out = Vec::new();
    run(arguments, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_log_is_forgotten_with_all_that_was_promised_under_its_id() {
    let dir = tempfile::tempdir().unwrap();
    let before = member(dir.path());
    let text = said(&arguments(dir.path(), true, false));
    assert!(text.contains("with --yes") && dir.path().join(STORE_FILE).exists(), "{text}");

    said(&arguments(dir.path(), true, true));
    let after = DataDir::open(dir.path()).unwrap().identity().unwrap();
    assert_ne!(before.id, after.id, "it might vote twice");
    for file in [STORE_FILE, CLUSTER_FILE, PEERS_FILE] {
        assert!(!dir.path().join(file).exists(), "{file} is still there");
    }
    assert_eq!(fs::read(dir.path().join("blobs/ab/cd")).unwrap(), b"bytes");
}

#[test]
fn what_cannot_be_recovered_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = dir.path().join("nobody");
    let error = run(&arguments(&nobody, true, true), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("not the data directory of a member"), "{error}");
    assert!(!nobody.exists());

    let before = member(dir.path());
    let error = run(&arguments(dir.path(), false, true), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("cannot read the metadata log"), "{error}");
    let running = DataDir::open(dir.path()).unwrap();
    assert_eq!(running.identity().unwrap().id, before.id);
    let error = run(&arguments(dir.path(), true, true), &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("in use by another daemon"), "{error}");
}
