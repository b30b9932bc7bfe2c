//! `model`: models of the user's own, as packages.

use std::path::PathBuf;

use idunno_shared::client::cluster::ClusterError;
use idunno_shared::client::files::{PutError, PutItem};
use idunno_shared::folders;
use idunno_shared::ids::{Digest, NodeId};
use idunno_shared::names::{FileName, ModelName};
use idunno_shared::package::Manifest;
use idunno_shared::wire::blobs::{BlobRef, PlacedBlob};
use idunno_shared::wire::control::{
    Change, Changed, ControlReply, ControlRequest, ModelView, NewFile, NewPackage, PackageSummary,
};
use idunno_shared::wire::refusal::{Refusal, RefusalCode};

use super::environment::{self, Environment};
use super::{local_package, members, models, status, try_package};
use crate::answer::models::{AddedModel, ModelDetails, RemovedModel};
use crate::answer::table::Table;
use crate::answer::{Answer, Exit, Failure, text};
use crate::command::ModelVerb;
use crate::package::{Links, LocalFile, LocalPackage};
use crate::session::Session;

/// How often a package is stored if the coordinator changes before it is added.
const TRIES_MAX: u32 = 3;
/// Files that are shown of a package.
const FILES_SHOWN: usize = 50;

pub async fn run(session: &Session, verb: ModelVerb) -> Result<Answer, Failure> {
    match verb {
        ModelVerb::Add { path, name, no_check, follow_links, python, no_environment } => {
            let python = Some(python).filter(|_| !no_environment);
            let links = if follow_links { Links::All } else { Links::Inside };
            let package = local_package::open(path, name, links).await?;
            add(session, package, python, no_check).await
        }
        ModelVerb::Ls => models::models(session).await,
        ModelVerb::Show { model } => show(session, &model).await,
        ModelVerb::Test { path, inputs, python, no_environment } => {
            try_package::run(path, inputs, python, !no_environment).await
        }
        ModelVerb::Rm { model, force, yes } => remove(session, model, force, yes).await,
    }
}

async fn add(
    session: &Session,
    mut package: LocalPackage,
    python: Option<PathBuf>,
    unchecked: bool,
) -> Result<Answer, Failure> {
    let environment = match python {
        Some(python) => environment::lock(&mut package, python).await?,
        None => None,
    };
    for _ in 0..TRIES_MAX {
        if let Some((version, is_new)) = add_once(session, &package, unchecked).await? {
            return Ok(added(&package, environment.as_ref(), (version, is_new), unchecked));
        }
    }
    Err(Failure::error(format!(
        "the cluster gave the upload up {TRIES_MAX} times before the model was added: try again"
    )))
}

/// Stores the files and the manifest under one upload, and makes them the model's newest version. Answers the version, and
/// whether it is a new one; `None` if the upload was over too early, as when the coordinator changes.
async fn add_once(
    session: &Session,
    package: &LocalPackage,
    unchecked: bool,
) -> Result<Option<(Digest, bool)>, Failure> {
    let files = session.files();
    let item =
        |(name, file): (&FileName, &LocalFile)| PutItem { name: name.clone(), path: file.path.clone() };
    let progress = session.reporter.start(package.name.as_str(), package.files.len() as u64, package.size());
    let stored = files.store_files(package.files.iter().map(item).collect(), progress.as_ref()).await?;
    let upload = stored.upload;
    let manifest = package.manifest(&stored.files).and_then(|manifest| manifest.to_bytes());
    let manifest = manifest.map_err(|error| Failure::new(Exit::Refused, error.to_string()))?;
    let version = Digest::of(&manifest);
    let manifest = match files.store_more(Some(upload), vec![manifest.into()]).await {
        Err(PutError::UploadOver { .. }) => return Ok(None),
        stored => stored?.blobs,
    };
    // What takes longest now is that a member fetches the package.
    drop(progress);
    let model = package.name.clone();
    let package = NewPackage { summary: summary(package), extents: extents(&manifest, stored.files) };
    let changed = session.cluster().change(Change::AddModel { upload, model, package, unchecked }).await;
    if let Err(ClusterError::Refused(Refusal { code: RefusalCode::UploadOver, .. })) = changed {
        return Ok(None);
    }
    files.end_upload(upload).await;
    match changed? {
        Changed::ModelAdded { is_new } => Ok(Some((version, is_new))),
        _ => Err(Failure::unexpected()),
    }
}

fn summary(package: &LocalPackage) -> PackageSummary {
    PackageSummary {
        runtime: package.runtime.name().to_owned(),
        files: u32::try_from(package.files.len()).unwrap_or(u32::MAX),
        bytes: package.size(),
    }
}

/// The manifest's extents, then those of the files.
fn extents(manifest: &[PlacedBlob], files: Vec<NewFile>) -> Vec<(BlobRef, Vec<NodeId>)> {
    let held = |placed: &PlacedBlob| (placed.blob, placed.holders.iter().map(|holder| holder.node).collect());
    let files = files.into_iter().flat_map(|file| file.extents);
    manifest.iter().map(held).chain(files).collect()
}

fn added(
    package: &LocalPackage,
    environment: Option<&Environment>,
    (version, is_new): (Digest, bool),
    unchecked: bool,
) -> Answer {
    let LocalPackage { name, runtime, files, left_out, .. } = package;
    let runtime = runtime.name();
    let (count, size) = (text::count(files.len() as u64, "file"), text::bytes(package.size()));
    let short = text::short(&version);
    let first = if is_new {
        format!("{name} version {short} added: {count} ({size}), runtime {runtime}")
    } else {
        format!("{name} has version {short} already: nothing changed")
    };
    let mut lines = vec![first];
    if let Some(Environment { packages, bytes, .. }) = environment {
        let (packages, bytes) = (text::count(*packages, "package"), text::bytes(*bytes));
        lines.push(format!("requirements: {packages} ({bytes}), in an environment of its own"));
    }
    if !left_out.is_empty() {
        lines.push(format!("left out: {}", left_out.join(", ")));
    }
    if unchecked {
        lines.push(format!(
            "no member has checked it: 'idunno model show {name}' shows whether it can be loaded"
        ));
    }
    let answer = AddedModel {
        model: name.to_string(),
        version: version.to_string(),
        runtime: runtime.to_owned(),
        files: files.len() as u64,
        size_bytes: package.size(),
        is_new,
    };
    Answer::new(&answer, lines.join("\n"))
}

async fn find(session: &Session, name: &ModelName) -> Result<ModelView, Failure> {
    let views = models::model_views(session).await?;
    views.into_iter().find(|view| view.model == *name).ok_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!("there is no model '{name}': 'idunno model ls' lists the models"),
        )
    })
}

async fn show(session: &Session, name: &ModelName) -> Result<Answer, Failure> {
    let view = find(session, name).await?;
    let manifest = match &view.package {
        Some(_) => manifest(session, &view).await?,
        None => None,
    };
    let members = members::any_list(session).await.unwrap_or_default();
    let mut lines = vec![format!("model    {name}")];
    let version = view.version.as_ref().map_or_else(|| String::from("none"), ToString::to_string);
    lines.push(format!("version  {version}"));
    lines.push(format!("state    {}", models::model_summary(&view)));
    if let Some(PackageSummary { runtime, files, bytes }) = &view.package {
        let (files, size) = (text::count((*files).into(), "file"), text::bytes(*bytes));
        lines.push(format!("package  {files} ({size}), runtime {runtime}"));
    }
    if let Some(manifest) = &manifest {
        lines.push(format!("entry    {}", manifest.entry));
        for (key, value) in &manifest.settings {
            lines.push(format!("{key:<8} {value}"));
        }
        let mut table = Table::new("FILE SIZE DIGEST");
        for file in manifest.files.iter().take(FILES_SHOWN) {
            table.row([file.path.to_string(), text::bytes(file.size), text::short(&file.digest)]);
        }
        lines.push(table.render());
        if manifest.files.len() > FILES_SHOWN {
            lines.push(format!("and {} more files", manifest.files.len() - FILES_SHOWN));
        }
    }
    let cluster = status::first_view(session).await?;
    let mut table = Table::new("MEMBER STATE MEMORY REASON");
    for (member, node, state) in models::by_name(&view, &members) {
        let (word, reason) = text::model_state(state);
        let memory = text::runners(models::runners(&cluster, node, name));
        let memory = if memory.is_empty() { String::from("-") } else { memory };
        table.row([member, word.to_owned(), memory, reason.unwrap_or_default().to_owned()]);
    }
    if !view.workers.is_empty() {
        lines.push(table.render());
    }
    let at_members = models::at_members(&view, &members, Some(&cluster));
    Ok(Answer::new(&ModelDetails::new(&view, at_members, manifest.as_ref()), lines.join("\n")))
}

/// The manifest of a model's newest version; `None` if its file was replaced or deleted by hand.
async fn manifest(session: &Session, view: &ModelView) -> Result<Option<Manifest>, Failure> {
    let Ok(name) = format!("{}/{}", folders::MODELS, view.model).parse() else { return Ok(None) };
    let request = ControlRequest::Locate { names: vec![name], version: None };
    let ControlReply::Located(mut located) = session.cluster().control(request).await? else {
        return Err(Failure::unexpected());
    };
    let Some(located) = located.pop().flatten() else { return Ok(None) };
    if Some(located.digest) != view.version {
        return Ok(None);
    }
    let [extent] = &located.extents[..] else { return Ok(None) };
    let bytes = session.files().fetch_blob(extent).await?;
    let manifest = Manifest::from_bytes(&bytes);
    manifest.map(Some).map_err(|error| Failure::error(error.to_string()))
}

async fn remove(session: &Session, model: ModelName, force: bool, yes: bool) -> Result<Answer, Failure> {
    if !yes {
        find(session, &model).await?;
        let what = format!("this permanently removes model {model} from the store and from all members");
        return Err(Failure::unconfirmed(what, "--yes"));
    }
    let text = format!("model {model} removed");
    let removed = RemovedModel { model: model.to_string() };
    match session.cluster().change(Change::RemoveModel { model, force }).await? {
        Changed::Done => Ok(Answer::new(&removed, text)),
        _ => Err(Failure::unexpected()),
    }
}
