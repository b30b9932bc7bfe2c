//! Random commands, valid and invalid: the state returns what the naive model returns, keeps its invariants, and is the
//! same after a replay of the log, also through a snapshot.

use std::num::NonZeroU64;

use idunno_core::metadata::{
    Action, Applied, AskedBy, Block, Command, DeadLetterRecord, HolderChange, Inputs, MergedRows, Snapshot,
    State,
};
use idunno_shared::access::{Grant, Issued, Role, SubjectName};
use idunno_shared::ids::{Digest, JobId, NodeId, OpId, Term, UploadId};
use idunno_shared::names::ModelName;
use idunno_shared::wire::blobs::BlobRef;
use idunno_shared::wire::control::{
    Change, Expected, FailedMax, FileCopy, JobOptions, NewFile, Reuse, Selection, StartOptions,
};
use idunno_shared::wire::jobs::{
    BatchOutcome, Lease, Policy, QueryRange, RecordFormat, TokenCount, Training,
};
use idunno_shared::wire::records::RecordIdentity;
use idunno_tests::seeds::{for_each_seed, is_replay};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::model::NaiveMetadata;

const COMMANDS: usize = 300;

struct Generator {
    rng: ChaCha8Rng,
    segments: u64,
}

impl Generator {
    fn below(&mut self, end: u64) -> u64 {
        self.rng.random_range(0..end)
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.rng.random_range(0..items.len())]
    }

    fn holders(&mut self) -> Vec<NodeId> {
        let first = self.below(6);
        (first..first + 1 + self.below(4)).map(|id| NodeId(id % 6)).collect()
    }

    fn extent(&mut self, content: &str) -> (BlobRef, Vec<NodeId>) {
        (BlobRef { digest: Digest::of(content.as_bytes()), size: content.len() as u64 }, self.holders())
    }

    fn file(&mut self) -> NewFile {
        let names = [
            "data/a",
            "data/b",
            "data/c",
            "data/d",
            "data/e",
            "data/labels.csv",
            "data0",
            "lines.jsonl",
            "other/a",
            "other/b",
        ];
        let name = self.pick(&names).parse().unwrap();
        let count = self.pick(&[0, 1, 1, 1, 2, 3]);
        let extents: Vec<_> = (0..count)
            .map(|_| {
                let n = self.below(14);
                self.extent(&format!("content {n}"))
            })
            .collect();
        let size = extents.iter().map(|(blob, _)| blob.size).sum();
        let digest = Digest::of(format!("{extents:?}").as_bytes());
        let mut file = NewFile { name, size, digest, extents };
        if self.one_in(40) {
            file.size += 1;
        } else if self.one_in(40) && !file.extents.is_empty() {
            file.extents[0].1.clear();
        }
        file
    }

    /// Mostly one that is not over.
    fn upload(&mut self, state: &State) -> UploadId {
        let UploadId { term, number } = state.upload_watermark();
        UploadId { term, number: (number + self.below(20)).saturating_sub(1) }
    }

    /// A commit of one file, which often expects the version that is the newest.
    fn commit_file(&mut self, state: &State) -> Change {
        let file = self.file();
        let newest = state.locate(&file.name, None);
        let seen = newest.map(|newest| Expected::Version { number: newest.number, digest: newest.digest() });
        let stale = Some(Expected::Version { number: 1, digest: Digest::of(b"other") });
        let expected = self.pick(&[None, Some(Expected::NoFile), seen, seen, stale]);
        let attributes = (0..self.below(3)).map(|n| (format!("a{n}"), String::from("x"))).collect();
        Change::CommitFile { upload: self.upload(state), file, attributes, expected, borrows: false }
    }

    fn change(&mut self, state: &State) -> Change {
        let job = JobId(1 + self.below(3));
        match self.below(19) {
            0 => self.commit_file(state),
            1..6 => {
                let count = self.pick(&[1, 1, 1, 2, 3]);
                Change::CommitFiles {
                    upload: self.upload(state),
                    files: (0..count).map(|_| self.file()).collect(),
                }
            }
            6 if self.one_in(3) => {
                Change::DeleteFiles { names: (0..self.below(4)).map(|_| self.file().name).collect() }
            }
            6 if self.one_in(3) => {
                let copies =
                    (0..self.below(3)).map(|_| FileCopy { from: self.file().name, to: self.file().name });
                Change::CopyFiles { copies: copies.collect(), moves: self.one_in(2), replace: self.one_in(2) }
            }
            6 => Change::Delete { name: self.file().name },
            7 if self.one_in(4) => Change::TrainStart { models: vec![], training: self.training() },
            7 => {
                let model = self.pick(&["mnist-mlp", "mine"]).parse().unwrap();
                Change::TrainStart { models: vec![model], training: self.training() }
            }
            8 | 9 => Change::AddJob {
                model: self.pick(&["mnist-mlp", "mnist-mlp", "squeezenet1.1", "mine"]).parse().unwrap(),
                dataset: self.pick(&["data", "data", "other", "nothing", "lines.jsonl"]).parse().unwrap(),
                batch_size: self.pick(&[1, 4, 4096, 0, 4097]).into(),
                options: JobOptions {
                    name: self.pick(&[None, None, Some("a"), Some("b")]).map(|name| name.parse().unwrap()),
                    weight: self.pick(&[None, Some(2), Some(0)]),
                    ..JobOptions::default()
                },
            },
            10 => match self.rng.random_range(0..4) {
                3 => {
                    let url = self.pick(&[None, Some("http://a/"), Some("https://b/c")]);
                    Change::SetWebhook { job, url: url.map(|url| url.parse().unwrap()) }
                }
                0 => Change::SetWeight { job, weight: self.pick(&[1, 1000, 0]) },
                1 => Change::SetPolicy(self.pick(&[Policy::Rate, Policy::Time, Policy::Fifo])),
                _ => Change::SetBatchSize { job, batch_size: self.pick(&[1, 4096, 0]).into() },
            },
            11 | 12 => Change::StartJob { job, options: self.start_options() },
            13 => Change::StopJob { job },
            14 | 15 => Change::RetryDeadLetters { job, queries: self.queries() },
            16 => Change::DropDeadLetters { job, queries: self.queries() },
            17 if self.one_in(20) => Change::CancelJob { job },
            17 if self.one_in(5) => Change::TrainStop { models: vec!["mine".parse().unwrap()] },
            _ if self.one_in(20) => Change::DeleteJob { job },
            _ => Change::start(job),
        }
    }

    /// Mostly none, so that jobs run.
    fn start_options(&mut self) -> StartOptions {
        let two = NonZeroU64::new(2).unwrap();
        StartOptions {
            selection: self.pick(&[
                Selection::All,
                Selection::All,
                Selection::First(two),
                Selection::Sample(two),
            ]),
            failed_max: self.pick(&[
                None,
                None,
                Some(FailedMax::Queries(0)),
                Some(FailedMax::Queries(1)),
                Some(FailedMax::Percent(30)),
            ]),
            after: self.one_in(4).then(|| JobId(1 + self.below(3))),
            reuse: self.pick(&[Reuse::Off, Reuse::Off, Reuse::Off, Reuse::On]),
        }
    }

    /// All queries (empty), or one.
    fn queries(&mut self) -> Vec<u64> {
        let query = self.below(5);
        self.pick(&[None, Some(query)]).into_iter().collect()
    }

    /// The queries of the folder that the job has pinned, sometimes with another moment, or those of a file of records or
    /// names, sometimes with the digest of other content.
    fn inputs(&mut self, job: JobId, state: &State) -> Inputs {
        let pinned =
            state.job(job).and_then(|job| Some((job.folder.as_ref()?.moment, state.index_folder(job)?)));
        if let Some((moment, index)) = pinned.filter(|_| !self.one_in(4)) {
            return Inputs::Folder { moment: moment + u64::from(self.one_in(10)), index };
        }
        let file = state.file(&"lines.jsonl".parse().unwrap()).and_then(|file| file.version(None));
        let digest = file
            .filter(|_| !self.one_in(10))
            .map_or_else(Digest::default, idunno_core::metadata::VersionRecord::digest);
        if self.one_in(3) {
            return Inputs::Listed { digest, names: (0..2).map(|_| self.file().name).collect() };
        }
        let at = self.pick(&[2, 5, 100]);
        let blocks = vec![Block { first: 0, at: 0, extra_lines: 0 }, Block { first: 2, at, extra_lines: 0 }];
        Inputs::Records { digest, format: RecordFormat::Jsonl, count: 5, blocks }
    }

    fn batch(&mut self, job: JobId) -> BatchOutcome {
        let range = QueryRange { first: self.below(5), count: self.pick(&[1, 1, 2, 3]) };
        let lease = Lease { job, range, attempt: 1, term: Term(1) };
        let mut answered = vec![range];
        if range.count == 3 && self.one_in(2) {
            answered =
                vec![QueryRange { count: 1, ..range }, QueryRange { first: range.first + 2, count: 1 }];
        } else if self.one_in(20) {
            answered.push(QueryRange { first: range.end(), count: 1 });
        } else if self.one_in(10) {
            answered.clear();
        }
        let labelled = answered.iter().map(|range| range.count).sum();
        let inference_us = self.below(50_000);
        BatchOutcome {
            lease,
            answered,
            inference_us,
            labelled,
            correct: labelled / 2,
            local: labelled,
            refused: 0,
            tokens: TokenCount {
                prompt: u64::from(labelled),
                completion: 1,
                reused: u64::from(labelled / 2),
            },
        }
    }

    fn action(&mut self, state: &State) -> Action {
        let job = JobId(1 + self.below(3));
        match self.below(24) {
            0..10 => Action::Change(self.change(state)),
            10..14 => {
                let count = self.pick(&[1, 1, 2, 0]);
                let batches = (0..count).map(|_| self.batch(job)).collect();
                // Sometimes the same segment again.
                self.segments += self.pick(&[0, 1, 1, 1]);
                let content = format!("segment {}", self.segments);
                Action::CommitSegment { worker: NodeId(1), job, segment: self.extent(&content), batches }
            }
            14 | 15 => {
                let dead_letters = (0..self.below(3)).map(|_| DeadLetterRecord {
                    index: self.below(6),
                    reason: "bad".to_owned(),
                    worker: NodeId(2),
                    attempts: 3,
                    name: None,
                    identity: RecordIdentity::default(),
                });
                Action::DeadLetters { job, dead_letters: dead_letters.collect() }
            }
            16 if self.one_in(4) => {
                let due_ms = state.job(job).and_then(|job| job.webhook_due_ms());
                let failure = self.one_in(2).then(|| String::from("410"));
                Action::EndWebhook { job, due_ms: due_ms.unwrap_or(0) + self.pick(&[0, 0, 0, 1]), failure }
            }
            16 if self.one_in(3) => Action::PauseJob { job, reason: "every batch fails".to_owned() },
            16 => {
                let (model, reason) = (self.pick(&["mnist-mlp", "mine"]).parse().unwrap(), "no".to_owned());
                if self.one_in(3) { Action::ModelFailed { model, reason } } else { self.trained() }
            }
            17 => self.trained(),
            18 => {
                let digest = Digest::of(format!("content {}", self.below(14)).as_bytes());
                let (add, remove) = (self.holders(), self.holders());
                Action::Holders(vec![HolderChange { digest, add, remove }])
            }
            19 if self.one_in(2) => {
                if self.one_in(4) {
                    Action::UnpinFolder { job }
                } else {
                    Action::PinFolder { job }
                }
            }
            19 => Action::StartJob { job, inputs: self.inputs(job, state), options: self.start_options() },
            20 if self.one_in(4) => {
                let (name, unseen) = (self.subject(), self.one_in(4));
                Action::Change(Change::RevokeIdentity { name, unseen })
            }
            20 if self.one_in(3) => {
                let grant = Grant { name: self.subject(), role: Role::Submitter, prefixes: Vec::new() };
                let certificate = Digest::of(format!("certificate {}", self.below(20)).as_bytes());
                Action::NoteIdentity(Issued { certificate, grant, ends_ms: self.below(1_000) })
            }
            20 => Action::EndUploads(self.upload(state)),
            21 | 22 => {
                let content = format!("results {}", self.below(4));
                let extents = vec![self.extent(&content)];
                let finished_ms = state.job(job).and_then(|job| job.finished_ms).unwrap_or(1);
                let (size, digest) = (extents[0].0.size, extents[0].0.digest);
                let merged = MergedRows { worker: NodeId(1), first_queries: vec![0] };
                let rows = self.one_in(2).then_some(merged);
                Action::FileResults { job, finished_ms, size, digest, extents, rows }
            }
            _ => Action::Forget((0..14).map(|n| Digest::of(format!("content {n}").as_bytes())).collect()),
        }
    }

    /// Of many names, so that some are left.
    fn subject(&mut self) -> SubjectName {
        format!("n{}", self.below(12)).parse().unwrap()
    }

    fn training(&mut self) -> Training {
        let dataset = self.one_in(4).then(|| self.pick(&["data", "nothing", "lines.jsonl"]).parse().unwrap());
        Training { seed: self.below(2), dataset, ..Training::default() }
    }

    fn trained(&mut self) -> Action {
        let model = self.pick(&["mnist-mlp", "mnist-mlp", "mine"]).parse().unwrap();
        let content = format!("weights {}", self.below(3));
        let extents = vec![self.extent(&content)];
        let (version, size) = (Digest::of(content.as_bytes()), content.len() as u64);
        let report = self.one_in(2).then(|| self.extent("a report"));
        let training = self.training();
        Action::ModelTrained {
            model,
            version,
            size,
            extents,
            training,
            metrics: Vec::new(),
            report,
            package: None,
        }
    }

    /// The commands that start a job; most runs begin with them.
    fn opening(&mut self) -> Vec<Action> {
        if self.one_in(4) {
            return Vec::new();
        }
        let model: ModelName = "mnist-mlp".parse().unwrap();
        let extents = vec![self.extent("weights 0")];
        let (version, size) = (extents[0].0.digest, extents[0].0.size);
        let files = (0..6).map(|_| self.file()).collect();
        vec![
            Action::Change(Change::TrainStart { models: vec![model.clone()], training: Training::default() }),
            Action::ModelTrained {
                model: model.clone(),
                version,
                size,
                extents,
                training: Training::default(),
                metrics: Vec::new(),
                report: None,
                package: None,
            },
            Action::Change(Change::CommitFiles { upload: UploadId::default(), files }),
            Action::Change(Change::AddJob {
                model,
                dataset: "data".parse().unwrap(),
                batch_size: 2.into(),
                options: JobOptions::default(),
            }),
            Action::Change(Change::start(JobId(1))),
        ]
    }

    fn command(&mut self, step: usize, opening: Option<Action>, state: &State) -> Command {
        let op = if opening.is_some() || self.one_in(2) { None } else { Some(OpId(0, self.below(200))) };
        let at_ms = (step as u64 * 700).saturating_sub(self.below(3000));
        let action = opening.unwrap_or_else(|| self.action(state));
        let upload = self.one_in(2).then(|| self.upload(state));
        let role = self.pick(&[Role::Submitter, Role::Operator]);
        let by = self.one_in(4).then(|| AskedBy { name: self.subject(), role, gone: Vec::new() });
        Command { at_ms, op, action, upload, by }
    }
}

fn bytes(state: &State) -> Vec<u8> {
    rmp_serde::to_vec(state).unwrap()
}

fn replayed(commands: &[Command], snapshot_at: usize) -> State {
    let mut state = State::new();
    for (step, command) in commands.iter().enumerate() {
        if step == snapshot_at {
            let stored = rmp_serde::to_vec(&Snapshot::from(state)).unwrap();
            state = rmp_serde::from_slice::<Snapshot>(&stored).unwrap().into();
        }
        let _outcome = state.apply(command);
    }
    state
}

/// Runs one seed. Returns how many jobs were done and how many queries answered.
fn run(seed: u64) -> (usize, u64) {
    let mut generator = Generator { rng: ChaCha8Rng::seed_from_u64(seed), segments: 0 };
    let mut opening = generator.opening().into_iter();
    let mut model = NaiveMetadata::default();
    let mut state = State::new();
    let mut commands = Vec::new();
    let (mut jobs_done, mut answered) = (0, 0);
    for step in 0..COMMANDS {
        let command = generator.command(step, opening.next(), &state);
        let before = state.clone();
        let outcome = state.apply(&command);
        if let Ok(Applied::Committed { accepted, job_done, .. }) = &outcome {
            answered += accepted;
            jobs_done += usize::from(*job_done && *accepted > 0);
        }
        let expected = model.apply(&command);
        let refused = outcome.is_err();
        assert_eq!(outcome.map_err(|refusal| refusal.code), expected, "step {step}: {command:?}");
        assert!(!refused || state == before, "step {step}: a refusal changed something: {command:?}");
        if let Err(error) = state.check() {
            panic!("step {step}: {error} after {command:?}");
        }
        model.compare(&state);
        commands.push(command);
    }
    let snapshot_at = generator.rng.random_range(0..COMMANDS);
    assert_eq!(bytes(&replayed(&commands, snapshot_at)), bytes(&state), "snapshot before step {snapshot_at}");
    assert_eq!(bytes(&replayed(&commands, COMMANDS)), bytes(&state));
    (jobs_done, answered)
}

#[test]
fn random_commands() {
    let runs = for_each_seed("metadata::commands::random_commands", 200, run);
    if !is_replay() {
        let (jobs, queries) = runs.iter().fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
        assert!(
            jobs > 100 && queries > 500,
            "the runs do too little: {jobs} jobs done, {queries} queries answered"
        );
    }
}
