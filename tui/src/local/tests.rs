use std::path::Path;

use super::launch::{arguments, gateway_arguments, log_tail};
use super::record::{Process, Record};
use crate::answer::Exit;

fn record() -> Record {
    let mut record = Record::new("/bin/idunnod".into(), Some("/venv/bin/python".into()), 2);
    for name in ["introducer", "m1"] {
        let address = Some(([127, 0, 0, 1], 4000).into());
        record.processes.push(Process { name: name.into(), data_dir: name.into(), address, running: None });
    }
    record
}

#[test]
fn a_record_survives_the_disk_and_strange_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Record::load(dir.path()).unwrap(), None);
    assert_eq!(Record::require(dir.path()).unwrap_err().exit, Exit::NotFound);
    record().save(dir.path()).unwrap();
    assert_eq!(Record::load(dir.path()).unwrap(), Some(record()));
    let newer = Record { version: 2, ..record() };
    newer.save(dir.path()).unwrap();
    assert!(Record::load(dir.path()).unwrap_err().message.contains("format is 2"));
    std::fs::write(dir.path().join("cluster.json"), "{").unwrap();
    assert!(Record::load(dir.path()).is_err());
}

#[test]
fn a_process_gets_its_address_again() {
    let record = record();
    let introducer = record.processes[0].address;
    let member = arguments(Path::new("/local"), &record, &record.processes[1], introducer).join(" ");
    assert_eq!(
        member,
        "member --listen 127.0.0.1:4000 --data-dir m1 --secret /local/secret.pem \
         --reference-urls s3://,gs://,az://,https://,http://,file:/// --name m1 --introducer 127.0.0.1:4000 \
         --model-server-python /venv/bin/python --threads 2"
    );
    let fresh = Process { address: None, ..record.processes[0].clone() };
    let introducer = arguments(Path::new("/local"), &record, &fresh, None).join(" ");
    assert_eq!(
        introducer,
        "introducer --listen 127.0.0.1:0 --data-dir introducer --secret /local/secret.pem"
    );
    let gateway = Process { name: "gateway".into(), ..record.processes[1].clone() };
    assert_eq!(
        gateway_arguments(Path::new("/local"), &record, &gateway).join(" "),
        "--cluster 127.0.0.1:4000 --secret /local/secret.pem --listen 127.0.0.1:4000"
    );
    let insecure = Record { insecure: true, ..record };
    let member = arguments(Path::new("/local"), &insecure, &insecure.processes[1], None).join(" ");
    assert!(member.contains("--insecure") && !member.contains("--reference-urls"), "{member}");
    let introducer = arguments(Path::new("/local"), &insecure, &fresh, None).join(" ");
    assert_eq!(introducer, "introducer --listen 127.0.0.1:0 --data-dir introducer --insecure");
}

#[test]
fn a_member_without_python_is_told_that_it_has_no_model_server() {
    let record = Record { python: None, ..record() };
    let member = arguments(Path::new("/local"), &record, &record.processes[1], None).join(" ");
    assert!(member.ends_with("--model-server-url none"), "{member}");
    let introducer = arguments(Path::new("/local"), &record, &record.processes[0], None).join(" ");
    assert!(!introducer.contains("model-server"), "{introducer}");
}

#[test]
fn the_end_of_a_long_log_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("stdout.log"), "x".repeat(5000) + " the end").unwrap();
    let tail = log_tail(dir.path());
    assert!(tail.ends_with("x the end") && tail.len() < 2200, "{} bytes", tail.len());
    assert_eq!(log_tail(&dir.path().join("missing")), "");
}

#[test]
fn one_command_at_a_time_changes_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let held = super::lock(dir.path()).unwrap();
    assert_eq!(super::lock(dir.path()).unwrap_err().exit, Exit::Refused);
    drop(held);
    assert!(super::lock(dir.path()).is_ok());
}
