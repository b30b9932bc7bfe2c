//! Clients that put, read and delete a few files concurrently and record each operation.
//!
//! The files change every [`EPOCH`], so that no file's history grows too long to be judged; those of earlier epochs are
//! still read now and then.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use idunno_shared::client::cluster::{Cluster, ClusterError};
use idunno_shared::client::files::{Files, GetError, NoProgress, PutItem, PutOptions};
use idunno_shared::ids::Digest;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{Change, Changed, ControlReply, ControlRequest};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::{sleep, timeout};

use super::ClientContext;
use crate::history::{Call, Reply};

/// Clients at the same time.
pub(crate) const CLIENTS: u64 = 6;
/// Clients that only read. A client that puts soon leaves a coordinator that was cut off, because it accepts no changes;
/// a reader stays, and must not be given stale answers.
const READERS: u64 = 2;
/// Time limit of the last client, in milliseconds: so short that many of its changes are made after it gave up.
const HASTE_MS: std::ops::Range<u64> = 5..500;
/// Of 100 choices, the first that changes nothing.
const READS: u32 = 54;
/// How long the same files are worked on.
const EPOCH: Duration = Duration::from_secs(15);
const FILES: u32 = 5;
/// A client gives an operation up after this long, as a person would.
const PATIENCE: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(10);
const PAUSE_MAX_MS: u64 = 400;
/// Unreferenced blobs are looked for twice a second.
const CHURN_MAX_MS: u64 = 1_200;
const VERSIONS: u32 = 5;

/// One client with connections of its own.
pub(crate) struct Client {
    name: String,
    context: ClientContext,
    files: Files,
    rng: ChaCha8Rng,
    only_reads: bool,
    is_hasty: bool,
    puts: u64,
}

impl Client {
    pub(crate) fn new(context: ClientContext, number: u64) -> Self {
        let cluster = context.client().with_deadline(DEADLINE);
        let files = Files::new(cluster).patience(DEADLINE);
        // Each client has choices of its own, all of them from the run's seed.
        let rng = ChaCha8Rng::seed_from_u64(context.seed.wrapping_mul(1_000).wrapping_add(number));
        let (only_reads, is_hasty) = (number < READERS, number + 1 == CLIENTS);
        Self { name: format!("c{number}"), context, files, rng, only_reads, is_hasty, puts: 0 }
    }

    /// Runs one operation after another until stopped.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        while self.context.is_running() {
            let epoch = self.context.history.now() / u64::try_from(EPOCH.as_micros())?;
            let name = format!("r{epoch}/{}", self.rng.random_range(0..FILES));
            let first = if self.only_reads { READS } else { 0 };
            match self.rng.random_range(first..100) {
                0..36 => self.put(&name).await?,
                36..40 => self.churn(&name).await?,
                40..READS => self.delete(&name).await?,
                READS..82 => self.read(&name, Call::Get).await?,
                82..90 => self.read(&name, Call::Versions).await?,
                90..96 => self.list(epoch).await?,
                _ => {
                    let (earlier, file) = (self.rng.random_range(0..=epoch), self.rng.random_range(0..FILES));
                    self.read(&format!("r{earlier}/{file}"), Call::Get).await?;
                }
            }
            sleep(Duration::from_millis(self.rng.random_range(0..PAUSE_MAX_MS))).await;
        }
        Ok(())
    }

    async fn put(&mut self, name: &str) -> anyhow::Result<()> {
        let bytes = self.new_bytes();
        self.put_bytes(name, &bytes).await
    }

    /// Puts bytes, deletes them, and puts the same ones again while their blobs are being collected.
    async fn churn(&mut self, name: &str) -> anyhow::Result<()> {
        let bytes = self.new_bytes();
        self.put_bytes(name, &bytes).await?;
        self.delete(name).await?;
        sleep(Duration::from_millis(self.rng.random_range(0..CHURN_MAX_MS))).await;
        self.put_bytes(name, &bytes).await
    }

    fn new_bytes(&mut self) -> Vec<u8> {
        self.puts += 1;
        let length = match self.rng.random_range(0..20) {
            0..15 => self.rng.random_range(1..20_000),
            15..19 => self.rng.random_range(20_000..300_000),
            // Beyond what goes in one piece.
            _ => self.rng.random_range(1_100_000..2_500_000),
        };
        let mut bytes = vec![0; length];
        self.rng.fill(&mut bytes[..]);
        // Makes even the shortest content unique.
        bytes.extend_from_slice(format!("{} {}", self.name, self.puts).as_bytes());
        bytes
    }

    async fn put_bytes(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let (path, patience) = (self.local("put"), self.patience());
        fs::write(&path, bytes)?;
        let items = vec![PutItem { name: name.parse()?, path }];
        let number = self.context.history.begin(&self.name, name, Call::Put(Digest::of(bytes)));
        let put = self.files.put_files(items, PutOptions::default(), &NoProgress);
        let outcome = match timeout(patience, put).await {
            Ok(Ok(report)) => match report.versions[..] {
                [Some(version)] => {
                    Ok(Reply::Committed { version, copies: report.copies_min, wanted: report.copies_wanted })
                }
                _ => Err(format!("{report:?}")),
            },
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(given_up()),
        };
        self.context.history.end(number, outcome);
        Ok(())
    }

    async fn read(&mut self, name: &str, call: Call) -> anyhow::Result<()> {
        let (file, target, patience) = (name.parse()?, self.local("got"), self.patience());
        let number = self.context.history.begin(&self.name, name, call);
        let read = async {
            match call {
                Call::Versions => kept(self.files.cluster(), file).await,
                _ => get(&self.files, &file, None, target).await,
            }
        };
        let outcome = timeout(patience, read).await.unwrap_or_else(|_| Err(given_up()));
        self.context.history.end(number, outcome);
        Ok(())
    }

    async fn delete(&mut self, name: &str) -> anyhow::Result<()> {
        let (change, patience) = (Change::Delete { name: name.parse()? }, self.patience());
        let number = self.context.history.begin(&self.name, name, Call::Delete);
        let outcome = match timeout(patience, self.files.cluster().change(change)).await {
            Ok(Ok(Changed::Deleted { versions })) => Ok(Reply::Deleted { versions }),
            Ok(Err(error)) => absent_or_unknown(error),
            Ok(other) => Err(format!("{other:?}")),
            Err(_) => Err(given_up()),
        };
        self.context.history.end(number, outcome);
        Ok(())
    }

    /// One answer about all files of an epoch, which therefore is a read of each of them.
    async fn list(&mut self, epoch: u64) -> anyhow::Result<()> {
        let patience = self.patience();
        let names: Vec<String> = (0..FILES).map(|file| format!("r{epoch}/{file}")).collect();
        let begin = |name: &String| self.context.history.begin(&self.name, name, Call::Get);
        let numbers: Vec<usize> = names.iter().map(begin).collect();
        let request = ControlRequest::List { prefix: format!("r{epoch}/"), after: None, limit: 2 * FILES };
        let answer = match timeout(patience, self.files.cluster().control(request)).await {
            Ok(Ok(ControlReply::Files { files, more: false })) => {
                let found = |version, bytes| Reply::Found { version, bytes };
                let rows =
                    files.into_iter().map(|row| (String::from(row.name), found(row.version, row.digest)));
                Ok(rows.collect::<BTreeMap<String, Reply>>())
            }
            other => Err(format!("{other:?}")),
        };
        for (name, number) in names.iter().zip(numbers) {
            let outcome = answer.clone().map(|mut rows| rows.remove(name).unwrap_or(Reply::Absent));
            self.context.history.end(number, outcome);
        }
        Ok(())
    }

    fn patience(&mut self) -> Duration {
        if self.is_hasty { Duration::from_millis(self.rng.random_range(HASTE_MS)) } else { PATIENCE }
    }

    fn local(&self, what: &str) -> PathBuf {
        self.context.scratch.join(format!("{}-{what}", self.name))
    }
}

/// Reads a version's bytes, the newest without a number.
pub(crate) async fn get(
    files: &Files,
    name: &FileName,
    version: Option<u64>,
    target: PathBuf,
) -> Result<Reply, String> {
    match files.get_file(name, version, &target, &NoProgress).await {
        Ok(got) => {
            let bytes = fs::read(&target).map_err(|error| error.to_string())?;
            Ok(Reply::Found { version: got.version, bytes: Digest::of(&bytes) })
        }
        Err(GetError::NotFound { .. }) => Ok(Reply::Absent),
        Err(error) => Err(error.to_string()),
    }
}

/// Which versions are kept, as the coordinator says.
pub(crate) async fn kept(cluster: &Cluster, name: FileName) -> Result<Reply, String> {
    match cluster.control(ControlRequest::Versions { name, limit: VERSIONS }).await {
        Ok(ControlReply::Versions(versions)) => {
            Ok(Reply::Kept(versions.into_iter().map(|version| (version.version, version.digest)).collect()))
        }
        Ok(other) => Err(format!("{other:?}")),
        Err(error) => absent_or_unknown(error),
    }
}

fn absent_or_unknown(error: ClusterError) -> Result<Reply, String> {
    match error {
        ClusterError::Refused(Refusal { code: RefusalCode::NotFound, .. }) => Ok(Reply::Absent),
        other => Err(other.to_string()),
    }
}

fn given_up() -> String {
    String::from("the client gave up")
}
