//! Subcommands of `dead-letters`, `model`, `cluster`, `identity`, `key` and `local`, and arguments that several commands share. The doc comments are
//! the help text.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use idunno_shared::access::{Prefix, SubjectName};
use idunno_shared::names::{MemberName, ModelName};

use super::values::{ConsoleRole, JobRef, MemberRef, RotationStep, Validity};

#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum DeadLettersVerb {
    /// List a job's dead letters and their reasons
    #[command(after_help = "Example:\n  idunno dead-letters list job-1")]
    List {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
    },
    /// Show one dead letter in full
    #[command(after_help = "Example:\n  idunno dead-letters show job-1 17")]
    Show {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// Number of the query
        #[arg(value_name = "QUERY")]
        query: u64,
    },
    /// Run dead letters again
    #[command(after_help = "Example:\n  idunno dead-letters retry job-1")]
    Retry {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// Numbers of the queries [default: all dead letters]
        #[arg(value_name = "QUERY")]
        queries: Vec<u64>,
    },
    /// Give up dead letters: they stay in the results and cannot be retried
    #[command(after_help = "Example:\n  idunno dead-letters drop job-1 17 --yes")]
    Drop {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// Numbers of the queries [default: all dead letters]
        #[arg(value_name = "QUERY")]
        queries: Vec<u64>,
        /// Confirm that they are given up
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum ModelVerb {
    /// Store a model of your own; every member then loads it, and jobs that start from now on use it
    ///
    /// A folder, or one file. Its model.toml says what runs it; otherwise what it holds does: model.py or a single .py file, a
    /// single .onnx or .skops file, a folder of sentence-transformers or transformers, or a program called 'run'. A table
    /// [openai] in model.toml stands for a server of OpenAI's API. A member checks it first: what is no model is refused.
    ///
    /// What a requirements.txt names is locked and fetched here, as wheels; each member makes an environment of them.
    #[command(after_help = "Example:\n  idunno model add ./my-model --name backwards")]
    Add {
        /// The folder or file
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// The model's name [default: that of model.toml, otherwise the folder's or file's]
        #[arg(long, value_name = "NAME")]
        name: Option<ModelName>,
        /// Add it although no member has looked at it
        #[arg(long)]
        no_check: bool,
        /// Store what links out of the folder lead to: everybody in the cluster can then read it
        #[arg(long)]
        follow_links: bool,
        /// A Python that has the model server, of the same version as the members': it locks requirements
        #[arg(long, env = "IDUNNO_MODEL_SERVER_PYTHON", value_name = "PATH", default_value = "python3")]
        python: PathBuf,
        /// Leave requirements.txt to the members, beside whose model servers all of it must be installed
        #[arg(long)]
        no_environment: bool,
    },
    /// List all models and their state on each member, as get-models does
    #[command(after_help = "Example:\n  idunno model ls")]
    Ls,
    /// Show a model: its version, the files of its package, and why members cannot load it
    #[command(after_help = "Example:\n  idunno model show backwards")]
    Show {
        /// The model
        #[arg(value_name = "MODEL")]
        model: ModelName,
    },
    /// Try a model of your own on this machine, without a cluster: load it, and show its answers
    ///
    /// Each input is a file, named after the model without an option: 'model test PATH FILE FILE'. The model's canary comes
    /// first. What a requirements.txt names is installed into an environment
    /// of the package's own, as members do it. If the model fails, its traceback is shown.
    #[command(after_help = "Example:\n  idunno model test ./my-model question.txt --python .venv/bin/python")]
    Test {
        /// The folder or file
        #[arg(value_name = "PATH")]
        path: PathBuf,
        /// Files, each of which is an input; plain arguments, without an option
        #[arg(value_name = "INPUT")]
        inputs: Vec<PathBuf>,
        /// A Python that has the model server
        #[arg(long, env = "IDUNNO_MODEL_SERVER_PYTHON", value_name = "PATH", default_value = "python3")]
        python: PathBuf,
        /// Run it beside the model server, where all that requirements.txt names must be installed
        #[arg(long)]
        no_environment: bool,
    },
    /// Remove a model that was added, from the store and from all members
    #[command(after_help = "Example:\n  idunno model rm backwards --yes")]
    Rm {
        /// The model
        #[arg(value_name = "MODEL")]
        model: ModelName,
        /// Remove it although jobs use it: those that have started keep their version, others cannot start
        #[arg(long)]
        force: bool,
        /// Confirm the removal
        #[arg(long)]
        yes: bool,
    },
}

/// The member that a read-only command asks.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct MemberOf {
    /// Name or address of the member [default: IDUNNO_MEMBER, otherwise the first that answers]
    #[arg(long, value_name = "MEMBER")]
    pub member: Option<MemberRef>,
}

/// The member that a command acts on: never an arbitrary one.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct OneMember {
    /// Name or address of the member [default: IDUNNO_MEMBER, otherwise the one at --cluster's single address]
    #[arg(long, value_name = "MEMBER")]
    pub member: Option<MemberRef>,
}

/// A cluster's secret. These commands work on local files, without a cluster.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum ClusterVerb {
    /// Create a new cluster's secret: copy this file to each of its machines and to nobody else
    #[command(after_help = "Example:\n  idunno cluster init --out secret.pem")]
    Init {
        /// The file to create; it must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Replace the secret's key in three steps; copy the file to all machines after each step
    #[command(after_help = "Example:\n  idunno cluster rotate add --secret secret.pem")]
    Rotate {
        /// 'add' a trusted key, 'sign' with it, then 'drop' the old key
        #[arg(value_name = "STEP")]
        step: RotationStep,
        /// The cluster's secret file
        #[arg(long, env = "IDUNNO_SECRET", value_name = "FILE")]
        secret: PathBuf,
    },
}

/// Identities of people and programs.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum IdentityVerb {
    /// Make an identity from the cluster's secret, as a local file; no member is asked
    #[command(
        after_help = "Example:\n  idunno identity create anna --role submitter --prefix photos --secret secret.pem --out anna.pem"
    )]
    Create {
        /// The name of the person or program: letters a-z, digits and hyphens. Its jobs belong to this name, and the logs show it
        #[arg(value_name = "NAME")]
        name: SubjectName,
        /// What it permits
        #[arg(long, value_name = "ROLE")]
        role: ConsoleRole,
        /// A folder below which a submitter may change files; may be repeated [default: users/NAME]
        #[arg(long = "prefix", value_name = "FOLDER")]
        prefixes: Vec<Prefix>,
        /// The cluster's secret file
        #[arg(long, env = "IDUNNO_SECRET", value_name = "FILE")]
        secret: PathBuf,
        /// The file to create; it must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// For how long it is valid, such as 90d or 12h: from a minute to 3650d
        #[arg(long, value_name = "TIME", default_value_t)]
        expires: Validity,
    },
    /// List identities that have been used, and names that are revoked
    #[command(after_help = "Example:\n  idunno identity ls")]
    Ls,
    /// End all identities of a name, at once and for good
    #[command(after_help = "Example:\n  idunno identity revoke anna --yes")]
    Revoke {
        /// The name
        #[arg(value_name = "NAME")]
        name: SubjectName,
        /// Also if no identity of this name has been used yet
        #[arg(long)]
        unseen: bool,
        /// Confirm the revocation
        #[arg(long)]
        yes: bool,
    },
}

/// Keys of programs that speak S3 or OpenAI's API to a gateway, and of receivers of webhooks.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum KeyVerb {
    /// Make an access key from the cluster's secret and print it; no member is asked
    ///
    /// 'idunno identity revoke NAME --unseen' ends all keys and identities of a name, at once and for good.
    #[command(
        after_help = "Example:\n  idunno key create --name etl --role submitter --prefix exports --secret secret.pem"
    )]
    Create(NewKey),
    /// Print the key that webhooks are signed with, for whoever receives them; no member is asked
    ///
    /// It verifies the signatures of 'start-job --on-end URL', by the Standard Webhooks specification.
    #[command(after_help = "Example:\n  idunno key webhook --secret secret.pem")]
    Webhook {
        /// The cluster's secret file
        #[arg(long, env = "IDUNNO_SECRET", value_name = "FILE")]
        secret: PathBuf,
    },
}

/// An access key to make.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct NewKey {
    /// The name of the person or program: letters a-z, digits and hyphens. The logs show it
    #[arg(long, value_name = "NAME")]
    pub name: SubjectName,
    /// What it permits
    #[arg(long, value_name = "ROLE")]
    pub role: ConsoleRole,
    /// The folder below which a submitter may change files: a bucket, or a folder of one [default: users/NAME]
    #[arg(long, value_name = "FOLDER")]
    pub prefix: Option<Prefix>,
    /// The cluster's secret file
    #[arg(long, env = "IDUNNO_SECRET", value_name = "FILE")]
    pub secret: PathBuf,
    /// For how long it is valid, such as 90d or 12h: from a minute to 3650d
    #[arg(long, value_name = "TIME", default_value_t)]
    pub expires: Validity,
}

#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum LocalVerb {
    /// Start an introducer and members, each with a model server, and wait until all are ready
    #[command(after_help = "Example:\n  idunno local up --members 7 --model-server-python .venv/bin/python")]
    Up {
        /// Number of members [default: as before, otherwise 7]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
        members: Option<u32>,
        /// The daemon program [default: idunnod beside this program, otherwise on the PATH]
        #[arg(long, value_name = "PATH")]
        idunnod: Option<PathBuf>,
        /// Python interpreter with the model server installed; without it the members have no model servers
        #[arg(long, visible_alias = "python", env = "IDUNNO_MODEL_SERVER_PYTHON", value_name = "PATH")]
        model_server_python: Option<PathBuf>,
        /// Threads of each model server [default: cores / members, at least 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
        threads: Option<u32>,
        /// Run without a secret and encryption: anyone on this machine may do everything
        #[arg(long)]
        insecure: bool,
        /// Also start a gateway, which serves the store over S3 and jobs over OpenAI's batch API [default: as before]
        #[arg(long, conflicts_with = "insecure")]
        gateway: bool,
    },
    /// Restart killed processes with their data and addresses
    #[command(after_help = "Example:\n  idunno local start m2 m5")]
    Start {
        /// Names as 'local status' prints them [default: all that are not running]
        #[arg(value_name = "MEMBER")]
        names: Vec<MemberName>,
    },
    /// Kill processes at the same moment with SIGKILL
    #[command(after_help = "Example:\n  idunno local kill --coordinator --random 2")]
    Kill {
        /// Names as 'local status' prints them
        #[arg(value_name = "MEMBER", required_unless_present_any = ["coordinator", "random"])]
        names: Vec<MemberName>,
        /// Also the current coordinator
        #[arg(long)]
        coordinator: bool,
        /// Also this many other members, chosen at random
        #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=64))]
        random: Option<u32>,
    },
    /// List the processes with their state and role
    #[command(after_help = "Example:\n  idunno local status")]
    Status,
    /// Stop all processes with SIGTERM, and with SIGKILL after 10 seconds
    #[command(after_help = "Example:\n  idunno local down --purge --yes")]
    Down {
        /// Also delete the data
        #[arg(long)]
        purge: bool,
        /// Confirm the deletion of the data
        #[arg(long, requires = "purge")]
        yes: bool,
    },
}
