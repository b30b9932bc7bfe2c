//! Every command with its arguments. The doc comments are the help that people read.

use std::path::PathBuf;

use clap::Subcommand;
use idunno_shared::names::{DatasetName, FileName, JobName, MemberName, ModelName};
use idunno_shared::wire::control::{BATCH_SIZE_DEFAULT, DATASET_DEFAULT, VERSIONS_KEPT};
use idunno_shared::wire::jobs::{BatchSize, WEIGHT_MAX};

use super::subverbs::{ClusterVerb, DeadLettersVerb, LocalVerb, MemberOf, OneMember};
use super::values::{JobRef, LeastLevel, MemberRef, Parameter, PolicyName, RowFormat, Shell, Since};

/// A command.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Verb {
    /// Put a directory's files into a data set; what is there already is not sent again
    #[command(after_help = "Example:\n  idunno populate-test-data ./images --dataset test-data")]
    PopulateTestData {
        /// The directory; its subdirectories too
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// The data set
        #[arg(long, value_name = "NAME", default_value = DATASET_DEFAULT)]
        dataset: DatasetName,
    },
    /// Fetch all files of a data set into a directory, verified; local files of the same names are replaced
    #[command(after_help = "Example:\n  idunno get-dataset test-data ./images")]
    GetDataset {
        /// The data set
        #[arg(value_name = "NAME")]
        dataset: DatasetName,
        /// The directory; it is made if need be
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Train models, or all predefined ones
    #[command(after_help = "Example:\n  idunno train-start squeezenet1.1 --wait")]
    TrainStart {
        /// The models; all predefined ones without any
        #[arg(value_name = "MODEL")]
        models: Vec<ModelName>,
        /// Seed of the training
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// Labelled examples to train on, for models that do not bring their own
        #[arg(long, value_name = "NAME", requires = "models")]
        dataset: Option<DatasetName>,
        /// Return when all are trained
        #[arg(long)]
        wait: bool,
    },
    /// End trainings; what was trained before stays
    #[command(after_help = "Example:\n  idunno train-stop mnist-mlp")]
    TrainStop {
        /// The models
        #[arg(value_name = "MODEL", required = true)]
        models: Vec<ModelName>,
    },
    /// Add a job: one model over one data set
    #[command(after_help = "Example:\n  idunno add-job squeezenet1.1 --batch-size 32")]
    AddJob {
        /// The model
        #[arg(value_name = "MODEL")]
        model: ModelName,
        /// The data set: all files below this name, or one file of it that ends in .jsonl, .csv or .list
        #[arg(long, value_name = "NAME", default_value = DATASET_DEFAULT)]
        dataset: DatasetName,
        /// Queries per batch
        ///
        /// A number, or auto, which finds the best for each VM
        #[arg(long, value_name = "N", default_value_t = BATCH_SIZE_DEFAULT.into())]
        batch_size: BatchSize,
        /// A name that stands for the job's number from now on
        #[arg(long, value_name = "TEXT")]
        name: Option<JobName>,
        /// Its share against other jobs [default: 1]
        #[arg(long, value_name = "W", value_parser = weight())]
        weight: Option<u32>,
        /// A parameter for the model; may be given several times
        #[arg(long = "param", value_name = "K=V")]
        parameters: Vec<Parameter>,
    },
    /// Change a job's batch size, from its next batch on
    #[command(after_help = "Example:\n  idunno set-batch-size job-1 64")]
    SetBatchSize {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// Queries per batch: a number, or auto, which finds the best for each VM
        #[arg(value_name = "N")]
        batch_size: BatchSize,
    },
    /// Change a job's share against other jobs, from its next batch on
    #[command(after_help = "Example:\n  idunno set-weight job-1 3")]
    SetWeight {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// Its weight; ordinary jobs have 1
        #[arg(value_name = "W", value_parser = weight())]
        weight: u32,
    },
    /// In what jobs are equal that run at once, from the next batch on
    #[command(after_help = "Example:\n  idunno set-policy rate")]
    SetPolicy {
        /// Queries per second, the workers' time, or nothing: first in, first out
        #[arg(value_name = "POLICY")]
        policy: PolicyName,
    },
    /// Start jobs, or go on with stopped ones; one that runs already is left alone
    #[command(after_help = "Example:\n  idunno start-job job-1 job-2 --wait")]
    StartJob {
        /// The jobs
        #[arg(value_name = "JOB", required = true)]
        jobs: Vec<JobRef>,
        /// Return when all are done
        #[arg(long)]
        wait: bool,
    },
    /// Stop jobs for a while; what they have is kept, and start-job goes on with them
    #[command(after_help = "Example:\n  idunno stop-job job-1")]
    StopJob {
        /// The jobs
        #[arg(value_name = "JOB", required = true)]
        jobs: Vec<JobRef>,
    },
    /// End a job before its time, for good; what it has is kept
    #[command(after_help = "Example:\n  idunno cancel-job job-1")]
    CancelJob {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
    },
    /// Delete a job that does not run, with its results
    #[command(after_help = "Example:\n  idunno delete-job job-1 --yes")]
    DeleteJob {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// Do it without another question
        #[arg(long)]
        yes: bool,
    },
    /// Figures of one job, or of all
    #[command(after_help = "Example:\n  idunno get-job-stats job-1")]
    GetJobStats {
        /// The job
        #[arg(value_name = "JOB")]
        job: Option<JobRef>,
    },
    /// Which VMs work for which job, and their shares
    #[command(name = "get-job-assigned-VMs", after_help = "Example:\n  idunno get-job-assigned-VMs job-1")]
    GetJobAssignedVms {
        /// The job
        #[arg(value_name = "JOB")]
        job: Option<JobRef>,
    },
    /// The batches in workers' hands, of one job or of all
    #[command(after_help = "Example:\n  idunno get-job-leases job-1")]
    GetJobLeases {
        /// The job
        #[arg(value_name = "JOB")]
        job: Option<JobRef>,
    },
    /// Jobs that are over, the last one first, with their figures
    #[command(after_help = "Example:\n  idunno get-job-history")]
    GetJobHistory,
    /// A job's results, a row a query: in order, or as they come
    #[command(after_help = "Example:\n  idunno get-job-results job-1 results.csv --format csv")]
    GetJobResults {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// Where to write them; '-' or nothing is stdout
        #[arg(value_name = "LOCAL")]
        local: Option<PathBuf>,
        /// Every row as it was committed, unchecked: two for a query that was answered twice
        #[arg(long)]
        raw: bool,
        /// Print rows as they come, until the job is over
        #[arg(long, conflicts_with_all = ["raw", "local"])]
        follow: bool,
        /// Only queries that failed for good
        #[arg(long)]
        failed: bool,
        /// JSON lines, or CSV with a headline
        #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
        format: RowFormat,
    },
    /// How often each label was answered with which, where the data set has labels
    #[command(after_help = "Example:\n  idunno get-job-confusion job-1")]
    GetJobConfusion {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
    },
    /// A job's queries that failed for good
    #[command(after_help = "Example:\n  idunno dead-letters list job-1")]
    #[command(subcommand)]
    DeadLetters(DeadLettersVerb),
    /// Models, and their state at each member
    #[command(after_help = "Example:\n  idunno get-models")]
    GetModels,
    /// Have a member that left join again
    #[command(name = "join", after_help = "Example:\n  idunno join --member m3")]
    Join(OneMember),
    /// Have a member leave the cluster; its process stays
    #[command(name = "leave", after_help = "Example:\n  idunno leave --member m3")]
    Leave(OneMember),
    /// The membership list of a member
    #[command(name = "list_mem", after_help = "Example:\n  idunno list_mem --member 127.0.0.1:7401")]
    ListMem(MemberOf),
    /// A member's own id, name and address
    #[command(name = "list_self", after_help = "Example:\n  idunno list_self --member m3")]
    ListSelf(MemberOf),
    /// Store a local file as a new version
    #[command(after_help = "Example:\n  idunno put report.pdf docs/report.pdf")]
    Put {
        /// The local file
        #[arg(value_name = "LOCAL")]
        local: PathBuf,
        /// Its name in the store
        #[arg(value_name = "SDFS")]
        name: FileName,
    },
    /// Fetch a file, verified
    #[command(after_help = "Example:\n  idunno get docs/report.pdf report.pdf --version 2")]
    Get {
        /// Its name in the store
        #[arg(value_name = "SDFS")]
        name: FileName,
        /// Where to write it
        #[arg(value_name = "LOCAL")]
        local: PathBuf,
        /// Which version; the newest without one
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        version: Option<u64>,
    },
    /// Delete a file with all its versions
    #[command(after_help = "Example:\n  idunno delete docs/report.pdf")]
    Delete {
        /// Its name in the store
        #[arg(value_name = "SDFS")]
        name: FileName,
    },
    /// List files and the members that hold them: one file, or all that start with a text
    #[command(after_help = "Example:\n  idunno ls docs/report.pdf")]
    Ls {
        /// A file's name, or the start of names
        #[arg(value_name = "PREFIX")]
        prefix: Option<String>,
        /// All pages, not only the first 1,024 files
        #[arg(long)]
        all: bool,
    },
    /// List the files that a member holds
    #[command(after_help = "Example:\n  idunno store m3")]
    Store {
        /// The member's name or address; the first that answers without one
        #[arg(env = "IDUNNO_MEMBER", value_name = "MEMBER")]
        member: Option<MemberRef>,
        /// All pages, not only the first 1,024 files
        #[arg(long)]
        all: bool,
    },
    /// Write the newest versions of a file into one local file
    #[command(after_help = "Example:\n  idunno get-versions docs/report.pdf 3 history.txt")]
    GetVersions {
        /// Its name in the store
        #[arg(value_name = "SDFS")]
        name: FileName,
        /// How many versions
        #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=VERSIONS_KEPT as i64))]
        versions: u32,
        /// Where to write them
        #[arg(value_name = "LOCAL")]
        local: PathBuf,
    },
    /// The whole cluster on one page
    #[command(after_help = "Example:\n  idunno status")]
    Status,
    /// Write all metadata (files' names and places, jobs, results' places; no bytes of files) into a file on this machine
    #[command(after_help = "Example:\n  idunno backup idunno-2026-11-22.backup")]
    Backup {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace a file that is there
        #[arg(long, conflicts_with = "show")]
        force: bool,
        /// Verify a backup and tell what it holds; no cluster is asked
        #[arg(long)]
        show: bool,
    },
    /// What happens in the cluster, from now on, until Ctrl-C: elections, joins, deaths, jobs, copies
    #[command(after_help = "Example:\n  idunno events --output jsonl")]
    Events,
    /// The logs of members, merged by time: their newest lines, or what is found in all that is kept
    #[command(after_help = "Example:\n  idunno logs m3 --level warn --since 2h --grep 'job-7|disk'")]
    Logs {
        /// The members' names; all that are up without any
        #[arg(value_name = "MEMBER")]
        members: Vec<MemberName>,
        /// How many lines: the newest
        #[arg(long, value_name = "N", default_value_t = 100)]
        lines: usize,
        /// Only lines that match a regular expression
        #[arg(long, value_name = "RE")]
        grep: Option<String>,
        /// Only lines that matter so much
        #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
        level: LeastLevel,
        /// Only lines from this moment on: 90s, 10m, 2h, 1d ago, or 2026-11-25T20:06 in UTC
        #[arg(long, value_name = "T")]
        since: Option<Since>,
        /// Go on with lines as they are logged, until Ctrl-C
        #[arg(long)]
        follow: bool,
    },
    /// Read commands from standard input, one a line, and carry each out; 'quit' ends it
    #[command(after_help = "Example:\n  idunno shell --member m3")]
    Shell {
        /// The member that commands without --member mean [default: the one at --cluster's single address]
        #[arg(long, env = "IDUNNO_MEMBER", value_name = "MEMBER")]
        member: Option<MemberRef>,
    },
    /// Where settings come from: files, environment, and what holds now
    #[command(after_help = "Example:\n  idunno info")]
    Info,
    /// The console's keys as they hold now, and conflicts in the keymap file
    #[command(after_help = "Example:\n  idunno keys")]
    Keys,
    /// Print a commented config.toml, or keymap.toml, that says what holds without one
    #[command(after_help = "Example:\n  idunno gen-config --keymap --write")]
    GenConfig {
        /// The keys, in place of the settings
        #[arg(long)]
        keymap: bool,
        /// Write it to where it is read from; a file that is there is left alone
        #[arg(long)]
        write: bool,
    },
    /// Print a script that completes commands and live names in a shell
    #[command(after_help = "Example:\n  idunno completions bash")]
    Completions {
        /// The shell
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual pages into a directory
    #[command(after_help = "Example:\n  idunno man ./man")]
    Man {
        /// The directory; it is made if need be
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Make and replace what a cluster's processes and people prove themselves with
    #[command(after_help = "Example:\n  idunno cluster init --out secret.pem")]
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Run a cluster on this machine
    #[command(after_help = "Example:\n  idunno local up --members 7")]
    #[command(subcommand)]
    Local(LocalVerb),
}

fn weight() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(WEIGHT_MAX))
}
