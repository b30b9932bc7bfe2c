//! Runs commands. The command line and the console both call [`run`]; neither decides anything itself.
//!
//! Every command gives an [`Answer`] (the same facts as JSON and as text) or a [`Failure`] with its exit code.

pub mod access_key;
pub mod backup;
pub mod clock;
pub mod cluster;
pub mod dead_letters;
pub mod deploy;
pub mod dry_run;
pub mod environment;
pub mod explain;
pub mod files;
pub mod identity;
pub mod job_lookup;
pub mod job_ref;
pub mod job_stats;
pub mod jobs;
pub mod leases;
pub mod local_package;
pub mod logs;
pub mod members;
pub mod models;
pub mod packages;
pub mod pages;
pub mod results;
pub mod self_info;
pub mod status;
pub mod template;
pub mod try_package;
pub mod wait;
pub mod webhook_key;

use idunno_shared::security::Role;
use idunno_shared::wire::jobs::Training;
use tempfile::TempDir;

use crate::answer::{Answer, Exit, Failure};
use crate::command::registry::Writes;
use crate::command::values::OnEnd;
use crate::command::{KeyVerb, Verb};
use crate::local;
use crate::session::Session;
use files::many::Transfer;

const COMMAND_NEEDS_WAIT: &str = "a command runs on this machine when the jobs have ended, so it needs --wait, on the command line; a URL is \
     told by the cluster";

/// Runs a command.
pub async fn run(session: &Session, verb: Verb) -> Result<Answer, Failure> {
    if session.dry_run {
        match verb.writes() {
            Writes::Cluster => return dry_run::run(session, &verb).await,
            Writes::Files => return Err(Failure::no_dry_run()),
            Writes::Nothing => {}
        }
    }
    if session.read_only && verb.changes() {
        let why = match session.role {
            Role::Viewer => {
                "refused: this identity is a viewer's and may not change anything: that needs a submitter's or an operator's"
            }
            Role::Submitter | Role::Operator | Role::Member => {
                "refused: read-only is set, by --read-only or in the settings"
            }
        };
        return Err(Failure::new(Exit::Refused, why));
    }
    match verb {
        Verb::PopulateTestData { directory, dataset, reaching, files: selected } => {
            let (selection, source) = (selected.selection()?, reaching.source());
            match files::remote::url_of(&directory) {
                Some(url) => files::remote::populate(session, url, &source, &dataset, &selection).await,
                None => files::upload::populate(session, &directory, &dataset, selection).await,
            }
        }
        Verb::ReferenceData { url, dataset, reaching, files: selected } => {
            files::references::reference(session, &url, &dataset, reaching.source(), &selected.selection()?)
                .await
        }
        Verb::GetDataset { dataset, directory, force } => {
            files::download::get_dataset(session, &dataset, &directory, force).await
        }
        Verb::TrainStart { models, seed, dataset, reading, wait } => {
            let training = Training { seed, dataset, reading: reading.options(None) };
            models::train(session, models, training, wait).await
        }
        Verb::TrainStop { models } => models::stop(session, models).await,
        Verb::AddJob { model, dataset, batch_size, adding } => {
            jobs::add(session, model, dataset, batch_size, adding.options()?).await
        }
        Verb::SetBatchSize { job, batch_size } => jobs::set_batch_size(session, &job, batch_size).await,
        Verb::SetWeight { job, weight } => jobs::set_weight(session, &job, weight).await,
        Verb::SetPolicy { policy } => jobs::set_policy(session, policy.into()).await,
        Verb::StartJob { jobs, starting, wait } => {
            let after = job_lookup::resolve_any(session, starting.after.as_ref()).await?;
            let options = starting.options(after);
            let webhook = match starting.on_end {
                None => None,
                Some(OnEnd::Url(url)) => Some(url),
                Some(OnEnd::Command(_)) => return Err(Failure::new(Exit::Usage, COMMAND_NEEDS_WAIT)),
            };
            jobs::start(session, &jobs, options, webhook, wait).await
        }
        Verb::StopJob { jobs } => jobs::stop(session, &jobs).await,
        Verb::WaitJob { jobs, any } => jobs::wait(session, &jobs, any).await,
        Verb::CancelJob { job, yes } => jobs::cancel(session, &job, yes).await,
        Verb::DeleteJob { job, yes } => jobs::delete(session, &job, yes).await,
        Verb::GetJobStats { job } => job_stats::stats(session, job.as_ref()).await,
        Verb::GetJobHistory => job_stats::history(session).await,
        Verb::Explain { job } => explain::run(session, &job).await,
        Verb::GetJobAssignedVms { job } => leases::assignments(session, job.as_ref()).await,
        Verb::GetJobLeases { job } => leases::leases(session, job.as_ref()).await,
        Verb::GetJobResults { follow: true, .. } => Err(only_on_command_line("rows are followed")),
        Verb::GetJobResults { job, local, rows, force, follow: false, reaching } => {
            results::fetch::get(session, &job, local, force, rows, &reaching.source()).await
        }
        Verb::GetJobConfusion { job } => results::confusion::confusion(session, &job).await,
        Verb::DeadLetters(verb) => dead_letters::run(session, verb).await,
        Verb::GetModels => models::models(session).await,
        Verb::Model(verb) => packages::run(session, verb).await,
        Verb::Join(to) => members::join(session, to).await,
        Verb::Leave(to) => members::leave(session, to).await,
        Verb::ListMem(of) => members::list(session, of).await,
        Verb::ListSelf(of) => members::identity(session, of).await,
        Verb::Put { local, name, reaching } => match files::remote::url_of(&local) {
            Some(url) => files::remote::put(session, url, &reaching.source(), name).await,
            None => files::upload::put(session, local, name).await,
        },
        Verb::Get { name, local, version, force } => {
            files::download::get(session, &name, &local, version, force).await
        }
        Verb::Cat { .. } => Err(only_on_command_line("files are printed")),
        Verb::Delete { name } => files::delete(session, name).await,
        Verb::Rm { files, yes } => files::many::remove(session, &files, yes).await,
        Verb::Cp { files: sources, target, force } => {
            files::many::transfer(session, Transfer { sources, target, force, moves: false }).await
        }
        Verb::Mv { files: sources, target, force } => {
            files::many::transfer(session, Transfer { sources, target, force, moves: true }).await
        }
        Verb::Ls { prefix, all } => files::list(session, prefix.unwrap_or_default(), all).await,
        Verb::Store { member, all } => files::stored(session, member, all).await,
        Verb::GetVersions { name, versions, local, force } => {
            files::download::versions(session, &name, versions, &local, force).await
        }
        Verb::Status => status::run(session).await,
        Verb::Backup { file, show: true, .. } => backup::show(file).await,
        Verb::Backup { file, force, show: false } => backup::make(session, file, force).await,
        Verb::Events => Err(only_on_command_line("events are printed")),
        Verb::Logs { follow: true, .. } => Err(only_on_command_line("logs are followed")),
        Verb::Logs { members, lines, grep, level, since, follow: false } => {
            logs::run(session, &members, &logs::search(grep, level, since), lines).await
        }
        Verb::Shell { .. } => {
            Err(Failure::new(Exit::Usage, "this already is a shell: type the command itself"))
        }
        Verb::Info => self_info::info(session),
        Verb::Keys => self_info::keys(),
        Verb::GenConfig { keymap, write } => template::run(keymap, write),
        Verb::Completions { shell } => self_info::completions(shell),
        Verb::Man { directory } => self_info::man(&directory),
        Verb::Deploy(deploying) => deploy::run(session, &deploying).await,
        Verb::Cluster(_) => Err(only_on_command_line("secrets are created")),
        Verb::Identity(verb) => identity::run(session, verb).await,
        Verb::Key(verb) => key(verb),
        Verb::Local(verb) => local::run(session, verb).await,
    }
}

/// The command line itself prints answers without an end.
/// Runs a `key` command, which asks no member.
pub fn key(verb: KeyVerb) -> Result<Answer, Failure> {
    match verb {
        KeyVerb::Create(new) => access_key::run(new),
        KeyVerb::Webhook { secret } => webhook_key::run(&secret),
    }
}

/// A folder that is deleted with the value. Its name begins so.
pub(crate) fn temporary_folder(prefix: &str) -> Result<TempDir, Failure> {
    let folder = tempfile::Builder::new().prefix(prefix).tempdir();
    folder.map_err(|error| Failure::error(format!("cannot make a temporary folder: {error}")))
}

pub(crate) fn only_on_command_line(what: &str) -> Failure {
    Failure::new(Exit::Usage, format!("{what} on the command line only; the console has a page for it"))
}
