//! The schema of each command's JSON.

use schemars::Schema;

use super::cluster::{Backup, ClusterStatus, Event, LogLine, MemberIdentity, MemberList, MembershipChange};
use super::document::{Document, List, schema};
use super::files::{
    CopiedFiles, DeletedFile, DeletedFiles, DownloadedDataset, DownloadedFile, FileList, FileVersions,
    ReferencedDataset, UploadedDataset, UploadedFile,
};
use super::identities::{CreatedIdentity, CreatedKey, Identity, RevokedIdentity, WebhookKeys};
use super::jobs::{
    AddedJob, CancelledJob, DeletedJob, JobAssignment, JobBatchSize, JobExplanation, JobStats, JobWeight,
    Lease, SharingPolicy, StartedJob, StoppedJobs,
};
use super::local::{
    DeployedHost, KilledMembers, LocalCluster, LocalProcess, StartedProcesses, StoppedCluster,
};
use super::models::{
    AddedModel, Model, ModelDetails, RemovedModel, StoppedTraining, TestedModel, TrainedModels,
};
use super::program::{
    ClusterSecret, CompletionScript, DryRun, Error, Info, KeyBinding, ManualPages, SettingsFile,
};
use super::results::{DeadLetter, DroppedDeadLetters, JobConfusion, ResultsFile, RetriedDeadLetters};

/// A command and what it answers.
#[derive(Clone, Debug)]
pub struct CommandSchema {
    /// The command, with the option that changes the kind of its answer; `error` for what is written to stderr.
    pub command: &'static str,
    /// The kind of its answer.
    pub kind: &'static str,
    /// The schema of its answer.
    pub schema: Schema,
}

impl CommandSchema {
    fn of<T: Document>(command: &'static str) -> Self {
        Self { command, kind: T::KIND, schema: schema::<T>() }
    }

    /// The name of the files of its schema and of its example.
    pub fn file_name(&self) -> String {
        let words: Vec<&str> = self.command.split(' ').map(|word| word.trim_start_matches('-')).collect();
        format!("{}.json", words.join("-"))
    }
}

/// All commands that answer in JSON, in the order of `idunno --help`.
pub fn commands() -> Vec<CommandSchema> {
    use CommandSchema as Command;
    vec![
        Command::of::<UploadedDataset>("populate-test-data"),
        Command::of::<ReferencedDataset>("reference-data"),
        Command::of::<DownloadedDataset>("get-dataset"),
        Command::of::<TrainedModels>("train-start"),
        Command::of::<StoppedTraining>("train-stop"),
        Command::of::<AddedJob>("add-job"),
        Command::of::<JobBatchSize>("set-batch-size"),
        Command::of::<JobWeight>("set-weight"),
        Command::of::<SharingPolicy>("set-policy"),
        Command::of::<List<StartedJob>>("start-job"),
        Command::of::<List<JobStats>>("start-job --wait"),
        Command::of::<StoppedJobs>("stop-job"),
        Command::of::<List<JobStats>>("wait-job"),
        Command::of::<CancelledJob>("cancel-job"),
        Command::of::<DeletedJob>("delete-job"),
        Command::of::<List<JobStats>>("get-job-stats"),
        Command::of::<JobExplanation>("explain"),
        Command::of::<List<JobAssignment>>("get-job-assigned-VMs"),
        Command::of::<List<Lease>>("get-job-leases"),
        Command::of::<List<JobStats>>("get-job-history"),
        Command::of::<ResultsFile>("get-job-results"),
        Command::of::<JobConfusion>("get-job-confusion"),
        Command::of::<List<DeadLetter>>("dead-letters list"),
        Command::of::<DeadLetter>("dead-letters show"),
        Command::of::<RetriedDeadLetters>("dead-letters retry"),
        Command::of::<DroppedDeadLetters>("dead-letters drop"),
        Command::of::<List<Model>>("get-models"),
        Command::of::<AddedModel>("model add"),
        Command::of::<List<Model>>("model ls"),
        Command::of::<ModelDetails>("model show"),
        Command::of::<TestedModel>("model test"),
        Command::of::<RemovedModel>("model rm"),
        Command::of::<MembershipChange>("join"),
        Command::of::<MembershipChange>("leave"),
        Command::of::<MemberList>("list_mem"),
        Command::of::<MemberIdentity>("list_self"),
        Command::of::<UploadedFile>("put"),
        Command::of::<DownloadedFile>("get"),
        Command::of::<DeletedFile>("delete"),
        Command::of::<DeletedFiles>("rm"),
        Command::of::<CopiedFiles>("cp"),
        Command::of::<CopiedFiles>("mv"),
        Command::of::<FileList>("ls"),
        Command::of::<FileList>("store"),
        Command::of::<FileVersions>("get-versions"),
        Command::of::<ClusterStatus>("status"),
        Command::of::<Backup>("backup"),
        Command::of::<Event>("events"),
        Command::of::<List<LogLine>>("logs"),
        Command::of::<LogLine>("logs --follow"),
        Command::of::<Info>("info"),
        Command::of::<List<KeyBinding>>("keys"),
        Command::of::<SettingsFile>("gen-config"),
        Command::of::<CompletionScript>("completions"),
        Command::of::<ManualPages>("man"),
        Command::of::<List<DeployedHost>>("deploy"),
        Command::of::<ClusterSecret>("cluster init"),
        Command::of::<ClusterSecret>("cluster rotate"),
        Command::of::<CreatedIdentity>("identity create"),
        Command::of::<List<Identity>>("identity ls"),
        Command::of::<RevokedIdentity>("identity revoke"),
        Command::of::<CreatedKey>("key create"),
        Command::of::<WebhookKeys>("key webhook"),
        Command::of::<LocalCluster>("local up"),
        Command::of::<StartedProcesses>("local start"),
        Command::of::<KilledMembers>("local kill"),
        Command::of::<StoppedCluster>("local down"),
        Command::of::<List<LocalProcess>>("local status"),
        Command::of::<DryRun>("--dry-run"),
        Command::of::<Error>("error"),
    ]
}
