//! `--dry-run`: what a command would change. What it names is looked up, so that a wrong name fails as it would without.

use std::path::Path;

use idunno_shared::client::results::dead_letters;
use idunno_shared::names::FileName;
use idunno_shared::wire::control::{ControlReply, ControlRequest, FileVersion, VERSIONS_KEPT};

use super::files::many::{self, Transfer};
use super::job_ref::Scope;
use super::{deploy, files, job_lookup, local_package, members};
use crate::answer::program::DryRun;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::file_pattern::FilePattern;
use crate::command::{DeadLettersVerb, IdentityVerb, JobRef, LocalVerb, ModelVerb, OneMember, Verb};
use crate::local::record::Record;
use crate::package::Links;
use crate::session::Session;

/// What a command would do, one line per change.
pub async fn run(session: &Session, verb: &Verb) -> Result<Answer, Failure> {
    let would = match verb {
        Verb::PopulateTestData { directory, dataset, reaching, files } => {
            let selection = files.selection()?;
            let (count, size, found) = if let Some(url) = files::remote::url_of(directory) {
                let source = reaching.clone().source();
                let (objects, found) = files::remote::named(url, &source, dataset, &selection).await?;
                (objects.len(), objects.iter().map(|(_, object)| object.size).sum(), found)
            } else {
                let found = files::walk::walk(directory, dataset, &selection)?;
                (found.items.len(), found.size_bytes, found)
            };
            let (count, size) = (text::count(count as u64, "file"), text::bytes(size));
            let put = format!("put {count} ({size}) into {dataset}, except those that are already there");
            [vec![put], found.left_out_text()].concat()
        }
        Verb::ReferenceData { url, dataset, reaching, files } => {
            files::references::check_name(dataset)?;
            let source = reaching.clone().source();
            let (objects, found) =
                files::references::find(&source, url, dataset, &files.selection()?).await?;
            let count = text::count(objects.len() as u64, "object");
            let size = text::bytes(objects.iter().map(|object| object.size).sum());
            [vec![format!("refer to {count} ({size}) by {dataset}")], found.left_out_text()].concat()
        }
        Verb::Put { local, name, reaching } => {
            let size = match files::remote::url_of(local) {
                Some(url) => files::remote::one_object(url, &reaching.clone().source()).await?.size,
                None => files::upload::local_size(local)?,
            };
            let newest = versions(session, name).await?.first().map_or(0, |version| version.version);
            vec![format!("put {} ({}) as {name} version {}", local.display(), text::bytes(size), newest + 1)]
        }
        Verb::Deploy(deploying) => deploy::plan(deploying).await?,
        Verb::Delete { name } => {
            let versions = versions(session, name).await?;
            let Some(newest) = versions.first() else {
                return Err(Failure::new(
                    Exit::NotFound,
                    format!("there is no file '{name}': ls lists the files"),
                ));
            };
            let (count, size) = (text::count(versions.len() as u64, "version"), text::bytes(newest.size));
            vec![format!("permanently delete {name}: {count}, the newest of {size}")]
        }
        Verb::Rm { files, .. } => {
            let found = many::find_all(session, files).await?;
            let deleted = |name: &FileName| format!("permanently delete {name}");
            found.names.iter().map(deleted).collect()
        }
        Verb::Cp { files, target, force } => transfers(session, files, target, *force, false).await?,
        Verb::Mv { files, target, force } => transfers(session, files, target, *force, true).await?,
        Verb::AddJob { model, dataset, batch_size, .. } => {
            vec![format!("add a job: {model} over {dataset}, batch size {batch_size}")]
        }
        Verb::TrainStart { models, .. } if models.is_empty() => vec![String::from("train all models")],
        Verb::TrainStart { models, .. } => models.iter().map(|model| format!("train {model}")).collect(),
        Verb::TrainStop { models } => {
            models.iter().map(|model| format!("end the training of {model}")).collect()
        }
        Verb::SetPolicy { policy } => {
            let (word, means) = text::policy((*policy).into());
            vec![format!("set the policy to {word}: {means}")]
        }
        Verb::SetBatchSize { job, batch_size } => {
            vec![
                of_job(session, &format!("set the batch size to {batch_size} of"), job, Scope::Unfinished)
                    .await?,
            ]
        }
        Verb::SetWeight { job, weight } => {
            vec![of_job(session, &format!("set the weight to {weight} of"), job, Scope::Unfinished).await?]
        }
        Verb::StartJob { jobs, .. } => of_jobs(session, "start", jobs).await?,
        Verb::StopJob { jobs } => of_jobs(session, "stop", jobs).await?,
        Verb::CancelJob { job, .. } => vec![of_job(session, "cancel", job, Scope::Unfinished).await?],
        Verb::DeleteJob { job, .. } => {
            vec![of_job(session, "permanently delete, with its results,", job, Scope::Only).await?]
        }
        Verb::DeadLetters(DeadLettersVerb::Retry { job, queries }) => {
            vec![of_dead_letters(session, "run again", job, queries).await?]
        }
        Verb::DeadLetters(DeadLettersVerb::Drop { job, queries, .. }) => {
            vec![of_dead_letters(session, "permanently drop", job, queries).await?]
        }
        Verb::Model(ModelVerb::Add { path, name, follow_links, .. }) => {
            let links = if *follow_links { Links::All } else { Links::Inside };
            let package = local_package::open(path.clone(), name.clone(), links).await?;
            let (files, size) =
                (text::count(package.files.len() as u64, "file"), text::bytes(package.size()));
            vec![format!("add model {}: {files} ({size}), runtime {}", package.name, package.runtime.name())]
        }
        Verb::Model(ModelVerb::Rm { model, .. }) => vec![format!("remove model {model}")],
        Verb::Join(to) => vec![of_member(session, to, "joins the cluster again").await?],
        Verb::Leave(to) => vec![of_member(session, to, "leaves the cluster").await?],
        Verb::Identity(IdentityVerb::Revoke { name, .. }) => {
            vec![format!("permanently revoke every identity of {name}")]
        }
        Verb::Local(verb) => local(&session.dir, verb)?,
        // Commands that change nothing do not come here.
        _ => Vec::new(),
    };
    let lines: Vec<String> = would.iter().map(|line| format!("would: {line}")).collect();
    Ok(Answer::new(&DryRun { would }, lines.join("\n")))
}

async fn transfers(
    session: &Session,
    sources: &[FilePattern],
    target: &str,
    force: bool,
    moves: bool,
) -> Result<Vec<String>, Failure> {
    let transfer = Transfer { sources: sources.to_vec(), target: target.to_owned(), force, moves };
    let word = if moves { "move" } else { "copy" };
    let copies = transfer.plan(session).await?;
    Ok(copies.iter().map(|copy| format!("{word} {} to {}", copy.from, copy.to)).collect())
}

async fn versions(session: &Session, name: &FileName) -> Result<Vec<FileVersion>, Failure> {
    let limit = u32::try_from(VERSIONS_KEPT).unwrap_or(u32::MAX);
    match session.cluster().control(ControlRequest::Versions { name: name.clone(), limit }).await {
        Ok(ControlReply::Versions(versions)) => Ok(versions),
        Ok(_) => Err(Failure::unexpected()),
        Err(error) => match Failure::from(error) {
            failure if failure.exit == Exit::NotFound => Ok(Vec::new()),
            failure => Err(failure),
        },
    }
}

async fn of_jobs(session: &Session, what: &str, given: &[JobRef]) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for id in job_lookup::resolve_existing(session, given).await? {
        lines.push(of_job(session, what, &JobRef::Id(id), Scope::Unfinished).await?);
    }
    Ok(lines)
}

async fn of_job(session: &Session, what: &str, job: &JobRef, scope: Scope) -> Result<String, Failure> {
    let id = job_lookup::resolve_in(session, job, scope).await?.id;
    let views = job_lookup::job_views(session, Some(id)).await?;
    let view = views.first().ok_or_else(|| job_lookup::missing(id))?;
    let (word, over) = (text::job_state(&view.state).0, view.done + view.dead);
    Ok(format!(
        "{what} {id}: {} over {}, {word}, {over} of {} queries finished",
        view.model, view.dataset, view.submitted
    ))
}

async fn of_dead_letters(
    session: &Session,
    what: &str,
    job: &JobRef,
    queries: &[u64],
) -> Result<String, Failure> {
    let id = job_lookup::resolve_in(session, job, Scope::Only).await?.id;
    let mut found = dead_letters(&session.cluster(), id).await?;
    found.retain(|dead_letter| {
        !dead_letter.dropped && (queries.is_empty() || queries.contains(&dead_letter.index))
    });
    Ok(format!("{what} {} of {id}", text::queries(found.len() as u64)))
}

async fn of_member(session: &Session, to: &OneMember, what: &str) -> Result<String, Failure> {
    let view = members::find(session, &members::one(session, to.clone())?).await?;
    Ok(format!("{} at {} {what}; it is now {}", view.name, view.address, text::liveness(view.liveness)))
}

/// The same for processes on this machine.
fn local(dir: &Path, verb: &LocalVerb) -> Result<Vec<String>, Failure> {
    let named =
        |what: &str, names: Vec<String>| names.into_iter().map(|name| format!("{what} {name}")).collect();
    let living = |record: &Record| -> Vec<String> {
        record.processes.iter().filter(|it| it.is_alive()).map(|it| it.name.clone()).collect()
    };
    Ok(match verb {
        LocalVerb::Up { members, .. } => {
            let known = Record::load(dir)?.map(|record| record.members().count());
            let count = members.map(|count| count as usize).or(known);
            let count = count.map_or_else(|| String::from("7"), |count| count.to_string());
            vec![format!(
                "start an introducer and {count} members in {}, except those that are running",
                dir.display()
            )]
        }
        LocalVerb::Start { names } => {
            let record = Record::require(dir)?;
            names.iter().try_for_each(|name| record.position(name.as_str()).map(|_| ()))?;
            let stopped = record.stopped().into_iter().map(|at| record.processes[at].name.clone());
            let given = names.iter().map(ToString::to_string);
            let names: Vec<String> = if names.is_empty() { stopped.collect() } else { given.collect() };
            if names.is_empty() {
                vec![String::from("start nothing: all are running")]
            } else {
                named("start", names)
            }
        }
        LocalVerb::Kill { names, coordinator, random } => {
            let record = Record::require(dir)?;
            names.iter().try_for_each(|name| record.position(name.as_str()).map(|_| ()))?;
            let mut what: Vec<String> = names.iter().map(ToString::to_string).collect();
            what.extend(coordinator.then(|| String::from("the coordinator")));
            what.extend(
                random.map(|it| format!("{}, chosen at random", text::count(it.into(), "other member"))),
            );
            named("kill", what)
        }
        LocalVerb::Down { purge, .. } => {
            let record = Record::require(dir)?;
            let mut lines: Vec<String> = named("stop", living(&record));
            if *purge {
                let dirs = record.processes.iter().map(|it| it.data_dir.display().to_string());
                lines.extend(dirs.map(|dir| format!("permanently delete {dir}")));
            }
            if lines.is_empty() {
                lines.push(String::from("stop nothing: no process is running"));
            }
            lines
        }
        LocalVerb::Status => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_does_not_exist_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let failure = local(dir.path(), &LocalVerb::Down { purge: true, yes: false }).unwrap_err();
        assert!(failure.message.contains(&dir.path().display().to_string()), "{failure}");
        let up = LocalVerb::Up {
            members: Some(3),
            idunnod: None,
            model_server_python: None,
            threads: None,
            insecure: false,
            gateway: false,
        };
        assert!(local(dir.path(), &up).unwrap()[0].starts_with("start an introducer and 3 members"));
    }
}
