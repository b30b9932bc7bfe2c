//! What is behind a command that has commands of its own, and arguments that commands share. The doc comments are the help
//! that people read.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use idunno_shared::names::MemberName;
use idunno_shared::security::VALID_DAYS_MAX;
use idunno_shared::security::subject::SubjectName;

use super::values::{ConsoleRole, JobRef, MemberRef, RotationStep};

/// What is done about queries that failed for good.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum DeadLettersVerb {
    /// A job's queries that failed for good, and why
    #[command(after_help = "Example:\n  idunno dead-letters list job-1")]
    List {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
    },
    /// All that is known of one
    #[command(after_help = "Example:\n  idunno dead-letters show job-1 17")]
    Show {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// The query's number
        #[arg(value_name = "QUERY")]
        query: u64,
    },
    /// Run them again
    #[command(after_help = "Example:\n  idunno dead-letters retry job-1")]
    Retry {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// The queries' numbers; all without any
        #[arg(value_name = "QUERY")]
        queries: Vec<u64>,
    },
    /// Give them up: they stay in the results, and cannot be run again
    #[command(after_help = "Example:\n  idunno dead-letters drop job-1 17")]
    Drop {
        /// The job
        #[arg(value_name = "JOB")]
        job: JobRef,
        /// The queries' numbers; all without any
        #[arg(value_name = "QUERY")]
        queries: Vec<u64>,
    },
}

/// Which member a question goes to.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct MemberOf {
    /// The member's address or name; the first that answers without one
    #[arg(long, env = "IDUNNO_MEMBER", value_name = "MEMBER")]
    pub member: Option<MemberRef>,
}

/// Which member an order goes to: never to just any.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct OneMember {
    /// The member's address or name [default: the one at --cluster's single address]
    #[arg(long, env = "IDUNNO_MEMBER", value_name = "MEMBER")]
    pub member: Option<MemberRef>,
}

/// A cluster's secret, and identities made from it. All of it is done on the command line, in files on this machine.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum ClusterVerb {
    /// Make a new cluster's secret: the same file goes to each of its machines, and to nobody else
    #[command(after_help = "Example:\n  idunno cluster init --out secret.pem")]
    Init {
        /// The file; it must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Make an identity for a person, from the cluster's secret
    #[command(
        after_help = "Example:\n  idunno cluster issue --role viewer --name anna --secret secret.pem --out anna.pem"
    )]
    Issue {
        /// What it lets its holder do: an operator everything, a viewer nothing but look
        #[arg(long, value_name = "ROLE")]
        role: ConsoleRole,
        /// Whose it is, as the members' logs are to tell: letters a-z, digits and hyphens
        #[arg(long, value_name = "NAME")]
        name: Option<SubjectName>,
        /// The file of the cluster's secret
        #[arg(long, env = "IDUNNO_SECRET", value_name = "FILE")]
        secret: PathBuf,
        /// The file; it must not exist
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
        /// For how many days it is valid
        #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(VALID_DAYS_MAX)))]
        valid_days: u32,
    },
    /// Replace the key in the secret, in three steps; each goes to all machines before the next
    #[command(after_help = "Example:\n  idunno cluster rotate add --secret secret.pem")]
    Rotate {
        /// 'add' a key that is trusted, 'sign' with it, 'drop' the old one
        #[arg(value_name = "STEP")]
        step: RotationStep,
        /// The file of the cluster's secret
        #[arg(long, env = "IDUNNO_SECRET", value_name = "FILE")]
        secret: PathBuf,
    },
}

/// A cluster on this machine.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum LocalVerb {
    /// Start an introducer and members, each with a model server, and wait until all are ready
    #[command(after_help = "Example:\n  idunno local up --members 7 --model-server-python .venv/bin/python")]
    Up {
        /// How many members [default: as many as there were, else 7]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
        members: Option<u32>,
        /// The daemon's program [default: idunnod beside this program]
        #[arg(long, value_name = "PATH")]
        idunnod: Option<PathBuf>,
        /// Python with the model server installed; without it there are no model servers
        #[arg(long, visible_alias = "python", env = "IDUNNO_MODEL_SERVER_PYTHON", value_name = "PATH")]
        model_server_python: Option<PathBuf>,
        /// Threads of each model server [default: cores / members, at least 1]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
        threads: Option<u32>,
        /// Do without a secret and encryption: anybody on this machine may do everything
        #[arg(long)]
        insecure: bool,
    },
    /// Start processes again that were killed, with their data and addresses
    #[command(after_help = "Example:\n  idunno local start m2 m5")]
    Start {
        /// Their names, as 'local status' prints them [default: all that do not run]
        #[arg(value_name = "NAME")]
        names: Vec<MemberName>,
    },
    /// Kill processes in the same moment, with SIGKILL
    #[command(after_help = "Example:\n  idunno local kill --coordinator --random 2")]
    Kill {
        /// Their names, as 'local status' prints them
        #[arg(value_name = "NAME", required_unless_present_any = ["coordinator", "random"])]
        names: Vec<MemberName>,
        /// The member that coordinates now
        #[arg(long)]
        coordinator: bool,
        /// This many other members, chosen at random
        #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=64))]
        random: Option<u32>,
    },
    /// The processes, whether they live, and their part
    #[command(after_help = "Example:\n  idunno local status")]
    Status,
    /// Stop all processes: SIGTERM, after 10 seconds SIGKILL
    #[command(after_help = "Example:\n  idunno local down --purge")]
    Down {
        /// Delete the data too
        #[arg(long)]
        purge: bool,
    },
}
