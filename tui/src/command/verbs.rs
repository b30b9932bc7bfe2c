//! The grammar's commands and their arguments. The doc comments are the help text.

use std::path::PathBuf;

use clap::Subcommand;
use idunno_shared::names::{DatasetName, FileName, MemberName, ModelName};
use idunno_shared::wire::control::{BATCH_SIZE_DEFAULT, DATASET_DEFAULT, VERSIONS_KEPT};
use idunno_shared::wire::jobs::BatchSize;

use super::adding::{Adding, weight};
use super::deploying::Deploying;
use super::file_pattern::FilePattern;
use super::reaching::Reaching;
use super::reading::Reading;
use super::selection::FileSelection;
use super::starting::Starting;
use super::subverbs::{
    ClusterVerb, DeadLettersVerb, IdentityVerb, KeyVerb, LocalVerb, MemberOf, ModelVerb, OneMember,
};
use super::values::{JobRef, MemberRef, MinLevel, PolicyName, Shell, Since};
use super::wanted_rows::WantedRows;

#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Verb {
    /// Store a directory's files, or a bucket's objects, as a dataset; files that are already stored are not sent again
    #[command(
        after_help = "Example:\n  idunno populate-test-data ./images --dataset test-data\n  idunno populate-test-data ./images --include '*.jpg' --exclude 'tmp/**'\n  idunno populate-test-data s3://my-bucket/photos/ --dataset photos"
    )]
    PopulateTestData {
        /// The directory, with its subdirectories; or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX
        #[arg(value_name = "DATAPATH")]
        directory: PathBuf,
        /// Name of the dataset
        #[arg(long, value_name = "DATASET", default_value = DATASET_DEFAULT)]
        dataset: DatasetName,
        #[command(flatten)]
        reaching: Reaching,
        #[command(flatten)]
        files: FileSelection,
    },
    /// Make a dataset of objects that stay where they are: in a bucket, behind a URL, in a folder that all members mount
    #[command(
        after_help = "Example:\n  idunno reference-data s3://my-bucket/photos/ photos.refs --include '*.jpg'\n  idunno reference-data s3://open-data/x/ x.refs --anonymous --region eu-west-1"
    )]
    ReferenceData {
        /// What is listed now: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, az://CONTAINER/PREFIX, https://HOST/FILE or file:///FOLDER
        #[arg(value_name = "URL")]
        url: String,
        /// Name of the dataset, which ends in .refs
        #[arg(value_name = "DATASET")]
        dataset: DatasetName,
        #[command(flatten)]
        reaching: Reaching,
        #[command(flatten)]
        files: FileSelection,
    },
    /// Fetch and verify all files of a dataset into a directory
    #[command(after_help = "Example:\n  idunno get-dataset test-data ./images")]
    GetDataset {
        /// Name of the dataset
        #[arg(value_name = "DATASET")]
        dataset: DatasetName,
        /// The directory, created if it does not exist
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// Replace local files of the same names
        #[arg(long)]
        force: bool,
    },
    /// Train models and load them on every worker
    #[command(after_help = "Example:\n  idunno train-start squeezenet1.1 --wait")]
    TrainStart {
        /// The models [default: all predefined models]
        #[arg(value_name = "MODEL")]
        models: Vec<ModelName>,
        /// Seed of the training
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// Labelled examples to train on, for models that do not bring their own
        #[arg(long, value_name = "DATASET", requires = "models")]
        dataset: Option<DatasetName>,
        #[command(flatten)]
        reading: Reading,
        /// Return when all models are trained
        #[arg(long)]
        wait: bool,
    },
    /// Stop trainings; models trained before are kept
    #[command(after_help = "Example:\n  idunno train-stop mnist-mlp")]
    TrainStop {
        /// The models
        #[arg(value_name = "MODEL", required = true)]
        models: Vec<ModelName>,
    },
    /// Add a job, which runs one model over one dataset
    #[command(
        after_help = "Example:\n  idunno add-job squeezenet1.1 --batch-size 32\n  idunno add-job mine --dataset reviews.csv --input-column text --keep all"
    )]
    AddJob {
        /// The model
        #[arg(value_name = "MODEL")]
        model: ModelName,
        /// The dataset: all files below this name, or one file in .jsonl, .ndjson, .csv, .tsv, .parquet, .list or .refs
        #[arg(long, value_name = "DATASET", default_value = DATASET_DEFAULT)]
        dataset: DatasetName,
        /// Queries per batch
        ///
        /// A number, or 'auto' to find the best size for each member
        #[arg(long, value_name = "N", default_value_t = BATCH_SIZE_DEFAULT.into())]
        batch_size: BatchSize,
        #[command(flatten)]
        adding: Adding,
    },
    /// Set a job's batch size, from its next batch on
    #[command(after_help = "Example:\n  idunno set-batch-size squeezenet1.1 64")]
    SetBatchSize {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// Queries per batch: a number, or 'auto' to find the best size for each member
        #[arg(value_name = "SIZE")]
        batch_size: BatchSize,
    },
    /// Set a job's weight when workers are shared between jobs, from its next batch on
    #[command(after_help = "Example:\n  idunno set-weight job-1 3")]
    SetWeight {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// The weight; the default is 1
        #[arg(value_name = "W", value_parser = weight())]
        weight: u32,
    },
    /// Set how workers are shared between running jobs, from the next batch on
    #[command(after_help = "Example:\n  idunno set-policy rate")]
    SetPolicy {
        /// Share by equal query rates, by equal worker time, or not at all: first in, first out
        #[arg(value_name = "POLICY")]
        policy: PolicyName,
    },
    /// Start or resume jobs; running jobs are left alone
    #[command(
        after_help = "Example:\n  idunno start-job job-1 job-2 --wait\n  idunno start-job job-3 --limit 100 --max-failed 5%"
    )]
    StartJob {
        /// The jobs
        #[arg(value_name = "JOB", required = true)]
        jobs: Vec<JobRef>,
        #[command(flatten)]
        starting: Starting,
        /// Return when all jobs are done
        #[arg(long)]
        wait: bool,
    },
    /// Pause jobs; start-job resumes them
    #[command(after_help = "Example:\n  idunno stop-job job-1")]
    StopJob {
        /// The jobs
        #[arg(value_name = "JOB", required = true)]
        jobs: Vec<JobRef>,
    },
    /// Return when jobs are done, with their statistics
    #[command(after_help = "Example:\n  idunno wait-job job-1 job-2 --any")]
    WaitJob {
        /// The jobs
        #[arg(value_name = "JOB", required = true)]
        jobs: Vec<JobRef>,
        /// Return when one of them has ended, and show that one
        #[arg(long)]
        any: bool,
    },
    /// Cancel a job for good; its results so far are kept
    #[command(after_help = "Example:\n  idunno cancel-job job-1 --yes")]
    CancelJob {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// Confirm the end of the job
        #[arg(long)]
        yes: bool,
    },
    /// Permanently delete a job that is not running, and its results
    #[command(after_help = "Example:\n  idunno delete-job job-1 --yes")]
    DeleteJob {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// Confirm the deletion
        #[arg(long)]
        yes: bool,
    },
    /// Show statistics of one job or of all
    #[command(after_help = "Example:\n  idunno get-job-stats job-1")]
    GetJobStats {
        /// The job
        #[arg(value_name = "JOB")]
        job: Option<JobRef>,
    },
    /// Say in one sentence why a job runs as it does, or does not run, and what to do next
    #[command(after_help = "Example:\n  idunno explain job-1")]
    Explain {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
    },
    /// Show which VMs are assigned to which jobs, and their shares
    #[command(name = "get-job-assigned-VMs", after_help = "Example:\n  idunno get-job-assigned-VMs job-1")]
    GetJobAssignedVms {
        /// The job
        #[arg(value_name = "JOB")]
        job: Option<JobRef>,
    },
    /// List the leased batches of one job or of all
    #[command(after_help = "Example:\n  idunno get-job-leases job-1")]
    GetJobLeases {
        /// The job
        #[arg(value_name = "JOB")]
        job: Option<JobRef>,
    },
    /// List finished jobs with their statistics, newest first
    #[command(after_help = "Example:\n  idunno get-job-history")]
    GetJobHistory,
    /// Fetch a job's results, one row per query: in query order, or as they arrive
    #[command(
        after_help = "Example:\n  idunno get-job-results job-1 results.csv --format csv\n  idunno get-job-results job-1 s3://my-bucket/results/job-1/"
    )]
    GetJobResults {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// The file to write; '-' or nothing means stdout; s3://BUCKET/PREFIX/ writes objects there, and gs:// and az:// too
        #[arg(value_name = "LOCAL")]
        local: Option<PathBuf>,
        #[command(flatten)]
        rows: WantedRows,
        /// Print rows as they arrive, until the job is over
        #[arg(long, conflicts_with_all = ["raw", "local"])]
        follow: bool,
        /// Replace an existing file
        #[arg(long, requires = "local")]
        force: bool,
        #[command(flatten)]
        reaching: Reaching,
    },
    /// Show the confusion matrix of a job whose dataset has labels
    #[command(after_help = "Example:\n  idunno get-job-confusion job-1")]
    GetJobConfusion {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
    },
    /// List, retry or drop dead letters: queries that failed for good
    #[command(after_help = "Example:\n  idunno dead-letters list job-1")]
    #[command(subcommand)]
    DeadLetters(DeadLettersVerb),
    /// List models and their state on each member
    #[command(after_help = "Example:\n  idunno get-models")]
    GetModels,
    /// Add, list, show and remove models of your own
    #[command(after_help = "Example:\n  idunno model add ./my-model")]
    #[command(subcommand)]
    Model(ModelVerb),
    /// Make a member that left join the cluster again
    #[command(name = "join", after_help = "Example:\n  idunno join --member m3")]
    Join(OneMember),
    /// Make a member leave the cluster; its process keeps running
    #[command(name = "leave", after_help = "Example:\n  idunno leave --member m3")]
    Leave(OneMember),
    /// Show a member's membership list
    #[command(name = "list_mem", after_help = "Example:\n  idunno list_mem --member 127.0.0.1:7401")]
    ListMem(MemberOf),
    /// Show a member's id, name and address
    #[command(name = "list_self", after_help = "Example:\n  idunno list_self --member m3")]
    ListSelf(MemberOf),
    /// Store a local file, or one behind a URL, as a new version
    #[command(
        after_help = "Example:\n  idunno put report.pdf docs/report.pdf\n  pg_dump shop | idunno put - backups/shop.sql\n  idunno put s3://my-bucket/reviews.parquet reviews.parquet"
    )]
    Put {
        /// The local file, or the URL of one (s3, gs, az, https); '-' means standard input. What is not local is kept in a temporary file
        #[arg(value_name = "LOCAL")]
        local: PathBuf,
        /// Name of the file in the store
        #[arg(value_name = "SDFS")]
        name: FileName,
        #[command(flatten)]
        reaching: Reaching,
    },
    /// Fetch and verify a file
    #[command(
        after_help = "Example:\n  idunno get docs/report.pdf report.pdf --version 2\n  idunno get backups/shop.sql - | psql shop"
    )]
    Get {
        /// Name of the file in the store
        #[arg(value_name = "SDFS")]
        name: FileName,
        /// The local file to write; '-' means standard output
        #[arg(value_name = "LOCAL")]
        local: PathBuf,
        /// The version [default: the newest]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        version: Option<u64>,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
    },
    /// Write files to standard output, one after the other
    #[command(
        after_help = "Example:\n  idunno cat logs/2026-12-01.jsonl\n  idunno cat 'logs/*.jsonl' | jq .label"
    )]
    Cat {
        /// Names, folders that end in a slash, or patterns such as 'docs/*.pdf'
        #[arg(value_name = "FILES", required = true)]
        files: Vec<FilePattern>,
    },
    /// Delete a file and all its versions
    #[command(after_help = "Example:\n  idunno delete docs/report.pdf")]
    Delete {
        /// Name of the file in the store
        #[arg(value_name = "SDFS")]
        name: FileName,
    },
    /// Delete files and all their versions
    #[command(
        after_help = "Example:\n  idunno rm old/ 'logs/2025-*.jsonl' --yes\n  idunno rm '**/*.tmp' --dry-run"
    )]
    Rm {
        /// Names, folders that end in a slash, or patterns such as 'docs/*.pdf' and '**/*.tmp'
        #[arg(value_name = "FILES", required = true)]
        files: Vec<FilePattern>,
        /// Confirm the deletion
        #[arg(long)]
        yes: bool,
    },
    /// Copy files inside the store, without moving their bytes
    #[command(
        after_help = "Example:\n  idunno cp docs/report.pdf docs/report-2025.pdf\n  idunno cp 'photos/*.jpg' archive/"
    )]
    Cp {
        /// Names, folders that end in a slash, or patterns such as 'docs/*.pdf'
        #[arg(value_name = "FILES", required = true)]
        files: Vec<FilePattern>,
        /// The new name, or a folder that ends in a slash, below which the files keep their names
        #[arg(value_name = "TARGET")]
        target: String,
        /// Add a version to a file that exists
        #[arg(long)]
        force: bool,
    },
    /// Rename files inside the store; they keep their versions
    #[command(
        after_help = "Example:\n  idunno mv draft.pdf docs/report.pdf\n  idunno mv photos/ archive/photos/"
    )]
    Mv {
        /// Names, folders that end in a slash, or patterns such as 'docs/*.pdf'
        #[arg(value_name = "FILES", required = true)]
        files: Vec<FilePattern>,
        /// The new name, or a folder that ends in a slash, below which the files keep their names
        #[arg(value_name = "TARGET")]
        target: String,
        /// Add the versions to those of a file that exists
        #[arg(long)]
        force: bool,
    },
    /// List files and the members that hold them: one file, all with a prefix, or all that match a pattern
    #[command(after_help = "Example:\n  idunno ls docs/report.pdf\n  idunno ls 'docs/*.pdf'")]
    Ls {
        /// A file name, a prefix of file names, or a pattern such as 'docs/*.pdf'
        #[arg(value_name = "PREFIX")]
        prefix: Option<String>,
        /// List all files, not only the first 1,024
        #[arg(long)]
        all: bool,
    },
    /// List the files that a member holds
    #[command(after_help = "Example:\n  idunno store m3")]
    Store {
        /// Name or address of the member [default: IDUNNO_MEMBER, otherwise the first that answers]
        #[arg(value_name = "MEMBER")]
        member: Option<MemberRef>,
        /// List all files, not only the first 1,024
        #[arg(long)]
        all: bool,
    },
    /// Write the newest versions of a file into one local file
    #[command(after_help = "Example:\n  idunno get-versions docs/report.pdf 3 history.txt")]
    GetVersions {
        /// Name of the file in the store
        #[arg(value_name = "SDFS")]
        name: FileName,
        /// Number of versions
        #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=VERSIONS_KEPT as i64))]
        versions: u32,
        /// The local file to write; '-' means standard output
        #[arg(value_name = "LOCAL")]
        local: PathBuf,
        /// Replace an existing file
        #[arg(long)]
        force: bool,
    },
    /// Show the whole cluster on one page
    #[command(after_help = "Example:\n  idunno status")]
    Status,
    /// Back up all metadata to a local file: names and holders of files, jobs, results; not the files' bytes
    #[command(after_help = "Example:\n  idunno backup idunno-2026-11-22.backup")]
    Backup {
        /// The local file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Replace an existing file
        #[arg(long, conflicts_with = "show")]
        force: bool,
        /// Verify and describe an existing backup, without a cluster
        #[arg(long)]
        show: bool,
    },
    /// Print events as they happen, until Ctrl-C: elections, joins, deaths, jobs, copies
    #[command(after_help = "Example:\n  idunno events --output jsonl")]
    Events,
    /// Print members' logs merged by time: the newest lines, or all lines that match a search
    #[command(after_help = "Example:\n  idunno logs m3 --level warn --since 2h --grep 'job-7|disk'")]
    Logs {
        /// Names of members [default: all that are up]
        #[arg(value_name = "MEMBER")]
        members: Vec<MemberName>,
        /// Number of newest lines
        #[arg(long, value_name = "N", default_value_t = 100)]
        lines: usize,
        /// Only lines that match a regular expression
        #[arg(long, value_name = "RE")]
        grep: Option<String>,
        /// Minimum log level
        #[arg(long, value_name = "LEVEL", value_enum, default_value_t)]
        level: MinLevel,
        /// Only lines since a time: 90s, 10m, 2h or 1d ago, or a UTC time such as 2026-11-25T20:06
        #[arg(long, value_name = "TIME")]
        since: Option<Since>,
        /// Keep printing new lines, until Ctrl-C
        #[arg(long)]
        follow: bool,
    },
    /// Install or upgrade IDunno on VMs over ssh, one after another; the next one only when the last one works
    #[command(
        after_help = "Example:\n  idunno deploy root@10.0.0.1 root@10.0.0.2 --package idunno_0.1.0_amd64.deb --introducer 10.0.0.1 --secret secret.pem"
    )]
    Deploy(Deploying),
    /// Read commands from standard input, one per line, and run each; 'quit' ends the shell
    #[command(after_help = "Example:\n  idunno shell --member m3")]
    Shell {
        /// The member for commands without --member [default: IDUNNO_MEMBER, otherwise the one at --cluster's single
        /// address]
        #[arg(long, value_name = "MEMBER")]
        member: Option<MemberRef>,
    },
    /// Show the settings in effect and where they come from
    #[command(after_help = "Example:\n  idunno info")]
    Info,
    /// Show the console's key bindings, and conflicts in the keymap file
    #[command(after_help = "Example:\n  idunno keys")]
    Keys,
    /// Print a commented config.toml or keymap.toml with the defaults
    #[command(after_help = "Example:\n  idunno gen-config --keymap --write")]
    GenConfig {
        /// Print the keymap in place of the settings
        #[arg(long)]
        keymap: bool,
        /// Write the file to its standard location; an existing file is left alone
        #[arg(long)]
        write: bool,
    },
    /// Print a shell completion script, which also completes names from the live cluster
    #[command(after_help = "Example:\n  idunno completions bash")]
    Completions {
        #[arg(value_name = "SHELL")]
        shell: Shell,
    },
    /// Write the manual pages into a directory
    #[command(after_help = "Example:\n  idunno man ./man")]
    Man {
        /// The directory, created if it does not exist
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Create and rotate a cluster's secret
    #[command(after_help = "Example:\n  idunno cluster init --out secret.pem")]
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// Make, list and revoke identities of people and programs
    #[command(after_help = "Example:\n  idunno identity ls")]
    #[command(subcommand)]
    Identity(IdentityVerb),
    /// Make keys for programs that speak S3 or OpenAI's API, and for receivers of webhooks
    #[command(after_help = "Example:\n  idunno key create --name etl --role viewer --secret secret.pem")]
    #[command(subcommand)]
    Key(KeyVerb),
    /// Run a cluster on this machine
    #[command(after_help = "Example:\n  idunno local up --members 7")]
    #[command(subcommand)]
    Local(LocalVerb),
}
