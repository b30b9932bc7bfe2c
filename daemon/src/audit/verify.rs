//! `idunnod verify-audit`: whether the audit's lines are all there, and as they were written.
//!
//! The chain shows that a line within it was changed, removed or inserted. Whoever can write the files can also cut off the
//! end, or write the whole chain anew: that shows against a number and a digest that were noted elsewhere (`--known`).

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::DIRECTORY;
use super::chain::{Head, Link};
use super::files::list;

/// The arguments of `verify-audit`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The member's data directory; the member may run
    #[arg(long, env = "IDUNNO_DATA_DIR", value_name = "DIR", default_value = "/var/lib/idunno")]
    data_dir: PathBuf,
    /// An event that an earlier run has printed, which must still be there
    #[arg(long, value_name = "NUMBER:DIGEST")]
    known: Vec<Head>,
}

/// The audit is not whole.
#[derive(Debug, Error)]
pub enum VerifyError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("there is no audit in {path}: give the --data-dir of a member")]
    Missing { path: PathBuf },
    #[error("{path}, line {line}: {why}")]
    Broken { path: PathBuf, line: usize, why: String },
    #[error("event {} is not the one that was noted: the audit was cut off or written anew", .0.seq)]
    Unknown(Head),
}

/// What an audit has that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The number of the first event that is kept, and its time.
    pub first: (u64, String),
    /// The last event, and its time.
    pub head: Head,
    pub last_at: String,
    /// Events that could not be written, as later ones say.
    pub lost: u64,
}

/// Verifies the audit, and says what it has.
pub fn run(arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    let verified = verify(&arguments.data_dir, &arguments.known)?;
    let Verified { first: (first, first_at), head, last_at, lost } = &verified;
    writeln!(out, "the audit is whole: events {first} to {}, {first_at} to {last_at}", head.seq)?;
    if *lost > 0 {
        writeln!(out, "{lost} events could not be written when they happened")?;
    }
    writeln!(out, "last event: {head}")?;
    writeln!(out, "Note it elsewhere: --known {head} shows later that nothing before it has changed.")?;
    Ok(())
}

/// Verifies the audit of a data directory: each line follows the one before, every event in `known` is there, and no
/// file is missing but those that rotation has removed.
pub fn verify(data_dir: &Path, known: &[Head]) -> Result<Verified, VerifyError> {
    let dir = data_dir.join(DIRECTORY);
    let files = match list(&dir) {
        Ok(files) if !files.is_empty() => files,
        Ok(_) => return Err(VerifyError::Missing { path: dir }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(VerifyError::Missing { path: dir });
        }
        Err(source) => return Err(VerifyError::Read { path: dir, source }),
    };
    let mut chain = Chain { known: known.to_vec(), ..Chain::default() };
    for (index, (_, path)) in files.iter().enumerate() {
        chain.read(path, index + 1 == files.len())?;
    }
    let (first, first_at) = chain.first.ok_or(VerifyError::Missing { path: dir })?;
    // An event that rotation has removed, or that is not there yet, proves nothing.
    if let Some(head) = chain.known.iter().find(|head| head.seq >= first) {
        return Err(VerifyError::Unknown(*head));
    }
    if chain.kept_from.unwrap_or(1) < first {
        let (line, path) = (1, files[0].1.clone());
        let why = format!("it begins with event {first}, and older ones were not removed by rotation");
        return Err(VerifyError::Broken { path, line, why });
    }
    Ok(Verified { first: (first, first_at), head: chain.head, last_at: chain.last_at, lost: chain.lost })
}

#[derive(Default)]
struct Chain {
    first: Option<(u64, String)>,
    head: Head,
    last_at: String,
    lost: u64,
    /// What the newest rotation says that it kept.
    kept_from: Option<u64>,
    /// Heads not yet found.
    known: Vec<Head>,
}

impl Chain {
    fn read(&mut self, path: &Path, is_newest: bool) -> Result<(), VerifyError> {
        let unreadable = |source| VerifyError::Read { path: path.to_owned(), source };
        let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
        let (mut line, mut number) = (Vec::new(), 0);
        while reader.read_until(b'\n', &mut line).map_err(unreadable)? > 0 {
            number += 1;
            let broken = |why: String| VerifyError::Broken { path: path.to_owned(), line: number, why };
            if line.pop_if(|last| *last == b'\n').is_none() {
                // The member may be writing it.
                return if is_newest { Ok(()) } else { Err(broken(String::from("the line has no end"))) };
            }
            let link = Link::read(&line).map_err(|error| broken(format!("it is no event: {error}")))?;
            if self.first.is_some() || link.seq == 1 {
                let expected = self.head.seq + 1;
                if !link.follows(self.head) {
                    let why =
                        format!("event {} does not follow: event {expected} is missing or changed", link.seq);
                    return Err(broken(why));
                }
            }
            self.take(&link, &line);
            line.clear();
        }
        Ok(())
    }

    fn take(&mut self, link: &Link, line: &[u8]) {
        self.head = Head::after(link, line);
        self.first.get_or_insert_with(|| (link.seq, link.at.clone()));
        self.last_at.clone_from(&link.at);
        self.lost += link.lost();
        self.kept_from = link.kept_from.or(self.kept_from);
        self.known.retain(|head| *head != self.head);
    }
}
