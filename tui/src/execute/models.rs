//! `train-start`, `train-stop`, `get-models`.

use idunno_shared::ids::NodeId;
use idunno_shared::names::ModelName;
use idunno_shared::wire::control::{
    Change, Changed, ClusterView, ControlReply, ControlRequest, MemberView, ModelView,
};
use idunno_shared::wire::jobs::{ModelState, Training};
use idunno_shared::wire::resources;
use tokio::time::Instant;

use super::members;
use super::wait::{Look, look, pause};
use crate::answer::models::{Model, ModelAtMember, Runner, StoppedTraining, TrainedModels};
use crate::answer::table::Table;
use crate::answer::{Answer, Failure, text};
use crate::session::Session;

/// Metrics of a training that are shown beside its model's state.
const METRICS_SHOWN: usize = 2;

/// `train-start`.
pub async fn train(
    session: &Session,
    models: Vec<ModelName>,
    from: Training,
    wait: bool,
) -> Result<Answer, Failure> {
    let change = Change::TrainStart { models, training: from };
    let Changed::Training(training) = session.cluster().change(change).await? else {
        return Err(Failure::unexpected());
    };
    let names: Vec<String> = training.iter().map(ToString::to_string).collect();
    let text = if wait {
        let trained = await_training(session, &training).await?;
        let lines: Vec<String> =
            trained.iter().map(|view| format!("{}: {}", view.model, model_summary(view))).collect();
        lines.join("\n")
    } else {
        format!("training started: {}", names.join(", "))
    };
    Ok(Answer::new(&TrainedModels { models: names, trained: wait }, text))
}

/// `train-stop`.
pub async fn stop(session: &Session, models: Vec<ModelName>) -> Result<Answer, Failure> {
    let names: Vec<String> = models.iter().map(ToString::to_string).collect();
    session.cluster().change(Change::TrainStop { models }).await?;
    let text = format!("training stopped: {}", names.join(", "));
    Ok(Answer::new(&StoppedTraining { models: names }, text))
}

/// The models, once all of them are trained.
async fn await_training(session: &Session, training: &[ModelName]) -> Result<Vec<ModelView>, Failure> {
    let started = Instant::now();
    let mut _display = None;
    let mut shown = String::new();
    loop {
        let late = match look(model_views(session).await)? {
            Look::Unreachable(reason) => reason,
            Look::Found(models) => {
                let asked: Vec<&ModelView> =
                    models.iter().filter(|view| training.contains(&view.model)).collect();
                let running: Vec<&str> =
                    asked.iter().filter(|view| view.training).map(|view| view.model.as_str()).collect();
                if running.is_empty() {
                    trained(&asked)?;
                    return Ok(asked.into_iter().cloned().collect());
                }
                let steps: Vec<String> = asked.iter().copied().filter_map(training_steps).collect();
                let text = if steps.is_empty() { running.join(", ") } else { steps.join("; ") };
                if shown != text {
                    // Dropping the display before ends it.
                    _display = Some(session.reporter.start(&format!("training {text}"), 0, 0));
                    shown = text;
                }
                format!("still training: {}", running.join(", "))
            }
        };
        pause(session, started, &late).await?;
    }
}

/// How far a model's training is, if that is known.
fn training_steps(model: &ModelView) -> Option<String> {
    let (_, progress) = model.progress.first()?;
    Some(format!("{}: {}", model.model, text::training(progress).trim_start_matches("training ")))
}

fn trained(models: &[&ModelView]) -> Result<(), Failure> {
    let failed = models.iter().filter_map(|view| {
        view.failure.as_ref().map(|reason| format!("the training of {} failed: {reason}", view.model))
    });
    let failed: Vec<String> = failed.collect();
    if failed.is_empty() { Ok(()) } else { Err(Failure::error(failed.join("\n"))) }
}

pub(super) async fn model_views(session: &Session) -> Result<Vec<ModelView>, Failure> {
    match session.cluster().control(ControlRequest::Models).await? {
        ControlReply::Models(models) => Ok(models),
        _ => Err(Failure::unexpected()),
    }
}

/// `get-models`.
pub async fn models(session: &Session) -> Result<Answer, Failure> {
    let models = model_views(session).await?;
    let members = members::any_list(session).await.unwrap_or_default();
    let mut table = Table::new("MODEL +VERSION +RUNTIME +SIZE STATE +MEMBERS");
    let mut rows = Vec::new();
    for model in &models {
        let named = by_name(model, &members).into_iter();
        let shown: Vec<String> =
            named.map(|(member, _, state)| format!("{member}:{}", text::model_state(state).0)).collect();
        let package = model.package.as_ref();
        table.row([
            model.model.to_string(),
            model.version.as_ref().map_or_else(|| String::from("-"), text::short),
            package.map_or_else(|| String::from("-"), |package| package.runtime.clone()),
            package.map_or_else(|| String::from("-"), |package| text::bytes(package.bytes)),
            model_summary(model),
            shown.join(" "),
        ]);
        rows.push(Model::new(model, at_members(model, &members, None)));
    }
    Ok(Answer::list(rows, table))
}

/// A model's states at members, as JSON has them, with its runners if there is a view that has them.
pub(super) fn at_members(
    model: &ModelView,
    members: &[MemberView],
    view: Option<&ClusterView>,
) -> Vec<ModelAtMember> {
    let at = |(member, node, state): (String, NodeId, &ModelState)| ModelAtMember {
        member,
        state: state.into(),
        reason: text::model_state(state).1.map(str::to_owned),
        runners: view.map(|view| runners(view, node, &model.model).map(Runner::from).collect()),
    };
    by_name(model, members).into_iter().map(at).collect()
}

/// The processes that run a model at one member.
pub(super) fn runners<'a>(
    view: &'a ClusterView,
    node: NodeId,
    model: &'a ModelName,
) -> impl Iterator<Item = &'a resources::Runner> {
    let worker = view.workers.iter().find(move |worker| worker.node == node);
    let runners = worker.into_iter().flat_map(|worker| &worker.resources.runners);
    runners.filter(move |runner| runner.model == *model)
}

/// A model's states with the names and ids of the members that reported them, in natural order.
pub(super) fn by_name<'a>(
    model: &'a ModelView,
    members: &[MemberView],
) -> Vec<(String, NodeId, &'a ModelState)> {
    let named = model.workers.iter().map(|(node, state)| (text::member_name(members, *node), *node, state));
    let mut named: Vec<_> = named.collect();
    named.sort_by(|(a, ..), (b, ..)| members::natural(a).cmp(&members::natural(b)));
    named
}

/// A model's state in the cluster.
pub fn model_summary(model: &ModelView) -> String {
    match (&model.failure, model.training, &model.version) {
        (_, true, _) => model
            .progress
            .first()
            .map_or_else(|| String::from("training"), |(_, progress)| text::training(progress)),
        (Some(reason), ..) => format!("failed: {reason}"),
        (None, false, Some(_)) if model.package.is_some() => String::from("added"),
        (None, false, Some(_)) => {
            let metrics = model.metrics.iter().take(METRICS_SHOWN);
            metrics.fold(String::from("trained"), |text, (name, value)| format!("{text}, {name} {value}"))
        }
        (None, false, None) => String::from("untrained"),
    }
}
