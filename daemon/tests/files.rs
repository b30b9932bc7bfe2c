//! What is read from files and from the model server, made up, damaged and read again: settings, what a data directory
//! keeps, answers.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use idunno_daemon::config::Settings;
use idunno_daemon::introducer::Introducer;
use idunno_daemon::runtime::data_dir::{DataDir, DataDirError};
use idunno_shared::client::transport::TcpConnector;
use idunno_shared::security::Credentials;
use idunno_tests::damage::damage;
use idunno_tests::seeds::for_each_seed;
use idunno_worker::open_inference::{Signature, decode};
use idunno_worker::protocol::decode_response;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SETTINGS: &str = include_str!("../../scripts/systemd/member.toml");
const IDENTITY: &str = r#"{"id": 1311768467463790320, "generation": 3}"#;
const PEERS: &str = r#"["127.0.0.1:7401", "[::1]:7401", "10.0.0.3:7401"]"#;
const INTRODUCED: &str =
    r#"{"founder": 7, "members": [{"id": 7, "name": "vm1", "address": "10.0.0.1:7401"}]}"#;
const ANSWER: &str = r#"{"model_name":"m","model_version":"v","outputs":[{"name":"output","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":12}},{"name":"error","datatype":"BYTES","shape":[2],"parameters":{"binary_data_size":8}}]}"#;
/// A model of a server that others wrote.
const METADATA: &str = r#"{"inputs":[{"name":"x","datatype":"BYTES","shape":[-1]}],"outputs":[{"name":"output","datatype":"BYTES","shape":[-1]}]}"#;

fn damaged(text: &str, random: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..random.random_range(1..4) {
        damage(&mut bytes, random);
    }
    bytes
}

/// A data directory that holds these bytes as `name`. Read twice it must say the same.
fn kept(dir: &Path, name: &str, bytes: &[u8]) -> DataDir {
    fs::write(dir.join(name), bytes).unwrap();
    DataDir::open(dir).unwrap()
}

fn check_settings(dir: &Path, random: &mut ChaCha8Rng) {
    let path = dir.join("member.toml");
    fs::write(&path, damaged(SETTINGS, random)).unwrap();
    match (Settings { config: Some(path.clone()), ..Settings::default() }).with_file() {
        // What can be read is either used, or one setting is named that cannot be.
        Ok(settings) => drop(settings.member()),
        Err(error) => assert!(error.to_string().contains("member.toml"), "{error}"),
    }
}

fn check_data_dir(dir: &Path, random: &mut ChaCha8Rng) {
    let names_the_file =
        |error: DataDirError, name: &str| assert!(error.to_string().contains(name), "{error}");
    let data_dir = kept(dir, "identity.json", &damaged(IDENTITY, random));
    match data_dir.identity() {
        Ok(first) => {
            let next = data_dir.identity().unwrap();
            assert_eq!((next.id, next.generation), (first.id, first.generation + 1));
        }
        Err(error) => names_the_file(error, "identity.json"),
    }
    drop(data_dir);
    let data_dir = kept(dir, "peers.json", &damaged(PEERS, random));
    match data_dir.read_json::<BTreeSet<SocketAddr>>("peers.json") {
        Ok(peers) => assert!(peers.is_some()),
        Err(error) => names_the_file(error, "peers.json"),
    }
    drop(data_dir);
    let data_dir = kept(dir, "introducer.json", &damaged(INTRODUCED, random));
    if let Err(error) =
        Introducer::open(Arc::new(data_dir), Arc::new(TcpConnector::new(Credentials::insecure())))
    {
        names_the_file(error, "introducer.json");
    }
}

fn check_answer(random: &mut ChaCha8Rng) {
    let tensors = b"\x02\0\0\0ab\x02\0\0\0cd\0\0\0\0\0\0\0\0";
    let whole = [ANSWER.as_bytes(), tensors].concat();
    let signature = Signature::new(METADATA.as_bytes(), None, true).unwrap();
    assert_eq!(decode_response(Some(ANSWER.len()), &whole.clone().into(), 2).unwrap().rows.len(), 2);
    assert_eq!(decode(&signature, Some(ANSWER.len()), &whole.clone().into(), 2).unwrap(), ["ab", "cd"]);
    let mut body = whole;
    for _ in 0..random.random_range(1..4) {
        damage(&mut body, random);
    }
    let header = [None, Some(ANSWER.len()), Some(random.random_range(0..1_000))][random.random_range(0..3)];
    let rows = random.random_range(0..4);
    let body = Bytes::from(body);
    if let Ok(answers) = decode_response(header, &body, rows) {
        assert_eq!(answers.rows.len(), rows, "an answer to another number of queries was taken");
    }
    if let Ok(answers) = decode(&signature, header, &body, rows) {
        assert_eq!(answers.len(), rows, "an answer to another number of queries was taken");
    }
}

#[test]
fn files_and_answers() {
    let dir = tempfile::tempdir().unwrap();
    for_each_seed("files_and_answers", 500, |seed| {
        let random = &mut ChaCha8Rng::seed_from_u64(seed);
        check_settings(dir.path(), random);
        check_data_dir(dir.path(), random);
        check_answer(random);
    });
}
