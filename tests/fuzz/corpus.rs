//! A corpus for each version of the protocol: a value of every shape of every message, and of all data on disks.
//!
//! Each version that is still spoken has a file in `corpus/`, written while it was the newest. Every value must decode, keep
//! its meaning, and encode to the same bytes: this release reads what older ones wrote, and writes what they can read. The
//! rules are in `idunno_shared::wire::version`.
//!
//! `IDUNNO_CORPUS=write` rewrites the file of a version that is not released yet.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use idunno_core::metadata::{Action, Command, Snapshot, State};
use idunno_shared::ids::{Digest, Term, UploadId};
use idunno_shared::wire::blobs::{BlobReply, BlobRequest};
use idunno_shared::wire::control::Change;
use idunno_shared::wire::frame::{Answer, Call, Hello, HelloReply, decode_body};
use idunno_shared::wire::membership::Datagram;
use idunno_shared::wire::version::SPOKEN;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::generate::{self, Shapes};

/// Set to `write` to rewrite the newest version's file.
const WRITE_VARIABLE: &str = "IDUNNO_CORPUS";
const DRAWS: usize = 800_000;
/// Longer values are skipped: they add no shapes.
const BYTES_MAX: usize = 4_096;

/// The outcome of decoding a value: its bytes when encoded again and a digest that includes field names, or the error.
type Again = Result<(Vec<u8>, String), String>;

/// Values of one type.
struct Kind {
    name: &'static str,
    /// One line a value.
    draw: fn() -> Vec<String>,
    again: fn(&[u8]) -> Again,
}

const KINDS: [Kind; 9] = [
    Kind::of::<Hello>("Hello"),
    Kind::of::<HelloReply>("HelloReply"),
    Kind::of::<Call>("Call"),
    Kind::of::<Answer>("Answer"),
    Kind::of::<BlobRequest>("BlobRequest"),
    Kind::of::<BlobReply>("BlobReply"),
    Kind::of::<Datagram>("Datagram"),
    Kind::of::<Command>("Command"),
    Kind { name: "Snapshot", draw: draw_snapshot, again: again::<Snapshot> },
];

impl Kind {
    const fn of<T: Serialize + DeserializeOwned>(name: &'static str) -> Self {
        Self { name, draw: draw::<T>, again: again::<T> }
    }
}

/// Draws values until they cover every shape of `T`, and keeps each that adds one.
fn draw<T: Serialize + DeserializeOwned>() -> Vec<String> {
    let random = &mut ChaCha8Rng::seed_from_u64(1);
    let (mut lines, mut seen) = (Vec::new(), Shapes::default());
    for draw in 0..DRAWS {
        let (value, shapes): (T, _) = generate::shaped(random).unwrap();
        let is_news = draw == 0 || !shapes.drawn.is_subset(&seen.drawn);
        if is_news && encode(&value).len() <= BYTES_MAX {
            lines.push(line(&value));
            seen.drawn.extend(shapes.drawn);
        }
        seen.offered.extend(shapes.offered);
    }
    let missing: Vec<_> = seen.offered.difference(&seen.drawn).collect();
    assert!(missing.is_empty(), "never drawn: {missing:?}");
    lines
}

fn draw_snapshot() -> Vec<String> {
    let random = &mut ChaCha8Rng::seed_from_u64(1);
    let mut state = State::new();
    for _ in 0..400 {
        let command: Command = generate::value(random).unwrap();
        // A refused command is as useful as an applied one, but the end of all uploads, or of a name, would refuse most.
        let ends =
            matches!(command.action, Action::EndUploads(_) | Action::Change(Change::RevokeIdentity { .. }));
        if !ends {
            let _ = state.apply(&command);
        }
    }
    let revoke = Change::RevokeIdentity { name: "a".parse().unwrap(), unseen: true };
    for action in [Action::EndUploads(UploadId { term: Term(1), number: 1 }), Action::Change(revoke)] {
        state.apply(&Command { at_ms: 0, op: None, action, upload: None, by: None }).unwrap();
    }
    vec![line(&Snapshot::from(state))]
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec(value).unwrap()
}

/// A digest that includes field names, which prove that each position kept its meaning.
fn digest_named<T: Serialize>(value: &T) -> String {
    Digest::of(&rmp_serde::to_vec_named(value).unwrap()).to_string().split_off(48)
}

fn line<T: Serialize>(value: &T) -> String {
    let mut line = String::new();
    encode(value).iter().for_each(|byte| write!(line, "{byte:02x}").unwrap());
    line + " " + &digest_named(value)
}

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Again {
    let value: T = decode_body(bytes).map_err(|error| error.to_string())?;
    Ok((encode(&value), digest_named(&value)))
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn path(version: u16) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/corpus/{version}.txt"))
}

fn read(version: u16) -> String {
    let path = path(version);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn messages_of_every_spoken_version_round_trip_unchanged() {
    let kinds: BTreeMap<_, _> = KINDS.iter().map(|kind| (kind.name, kind)).collect();
    for version in SPOKEN.oldest..=SPOKEN.newest {
        for (number, line) in read(version).lines().enumerate() {
            let place = format!("version {version}, line {}", number + 1);
            let [name, hex, named] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{place}: {line}")
            };
            let bytes = unhex(hex);
            let (again, means) =
                (kinds[name].again)(&bytes).unwrap_or_else(|error| panic!("{place}: a {name}: {error}"));
            assert_eq!(again, bytes, "{place}: a {name} encodes to other bytes");
            assert_eq!(means, named, "{place}: a {name} changed its meaning");
        }
    }
}

#[test]
fn the_newest_corpus_matches_the_messages() {
    let mut text = String::new();
    for kind in &KINDS {
        (kind.draw)().iter().for_each(|line| writeln!(text, "{} {line}", kind.name).unwrap());
    }
    let version = SPOKEN.newest;
    if env::var(WRITE_VARIABLE).is_ok_and(|asked| asked == "write") {
        fs::write(path(version), &text).unwrap();
    }
    assert!(
        read(version) == text,
        "messages changed. If version {version} was released, raise SPOKEN.newest by the rules of wire::version; then \
         write its corpus: {WRITE_VARIABLE}=write cargo test --workspace --test fuzz corpus"
    );
}
