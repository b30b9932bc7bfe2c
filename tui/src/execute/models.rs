//! Models.

use idunno_shared::names::ModelName;
use idunno_shared::wire::control::{Change, Changed, ControlReply, ControlRequest, ModelView};
use idunno_shared::wire::jobs::Training;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::members;
use super::wait::{answered, pause};
use crate::answer::table::Table;
use crate::answer::{Answer, Failure, text};
use crate::session::Session;

/// Figures of a training that stand beside its model's state.
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
    let names: Vec<&str> = training.iter().map(ModelName::as_str).collect();
    let text = if wait {
        let trained = await_training(session, &training).await?;
        let lines: Vec<String> =
            trained.iter().map(|view| format!("{}: {}", view.model, model_summary(view))).collect();
        lines.join("\n")
    } else {
        format!("training started: {}", names.join(", "))
    };
    Ok(Answer::new(json!({"models": names, "trained": wait}), text))
}

/// `train-stop`.
pub async fn stop(session: &Session, models: Vec<ModelName>) -> Result<Answer, Failure> {
    let names: Vec<String> = models.iter().map(ToString::to_string).collect();
    session.cluster().change(Change::TrainStop { models }).await?;
    Ok(Answer::new(json!({"stopped": names}), format!("training stopped: {}", names.join(", "))))
}

/// The models, once all of them are trained.
async fn await_training(session: &Session, training: &[ModelName]) -> Result<Vec<ModelView>, Failure> {
    let started = Instant::now();
    let (mut _display, mut told) = (None, String::new());
    loop {
        let late = match answered(model_views(session).await)? {
            Err(unreachable) => unreachable,
            Ok(models) => {
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
                if told != text {
                    // The one before ends when this takes its place.
                    _display = Some(session.reporter.start(&format!("training {text}"), 0, 0));
                    told = text;
                }
                format!("still training: {}", running.join(", "))
            }
        };
        pause(session, started, &late).await?;
    }
}

/// How far a model's training is and where, if that is known.
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

async fn model_views(session: &Session) -> Result<Vec<ModelView>, Failure> {
    match session.cluster().control(ControlRequest::Models).await? {
        ControlReply::Models(models) => Ok(models),
        _ => Err(Failure::unexpected()),
    }
}

/// `get-models`.
pub async fn models(session: &Session) -> Result<Answer, Failure> {
    let models = model_views(session).await?;
    let members = members::any_list(session).await.unwrap_or_default();
    let mut table = Table::new("MODEL VERSION STATE MEMBERS");
    let mut rows = Vec::new();
    for model in &models {
        let mut workers: Vec<_> = model
            .workers
            .iter()
            .map(|(node, state)| (text::member_name(&members, *node), text::model_state(state)))
            .collect();
        workers.sort_by(|(a, _), (b, _)| members::natural(a).cmp(&members::natural(b)));
        let shown: Vec<String> = workers.iter().map(|(name, (state, _))| format!("{name}:{state}")).collect();
        table.row([
            model.model.to_string(),
            model.version.as_ref().map_or_else(|| String::from("-"), text::short),
            model_summary(model),
            shown.join(" "),
        ]);
        let workers: Vec<Value> = workers
            .iter()
            .map(|(name, (state, reason))| json!({"member": name, "state": state, "reason": reason}))
            .collect();
        let metrics: serde_json::Map<String, Value> =
            model.metrics.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        rows.push(json!({"model": model.model, "version": model.version.map(|digest| digest.to_string()),
            "training": model.training, "failure": model.failure, "workers": workers,
            "progress": model.progress.first().map(|(_, progress)| progress), "metrics": metrics}));
    }
    Ok(Answer::new(Value::Array(rows), table.render()))
}

/// A model's state in the cluster.
pub fn model_summary(model: &ModelView) -> String {
    match (&model.failure, model.training, &model.version) {
        (_, true, _) => model
            .progress
            .first()
            .map_or_else(|| String::from("training"), |(_, progress)| text::training(progress)),
        (Some(reason), ..) => format!("failed: {reason}"),
        (None, false, Some(_)) => {
            let metrics = model.metrics.iter().take(METRICS_SHOWN);
            metrics.fold(String::from("trained"), |text, (name, value)| format!("{text}, {name} {value}"))
        }
        (None, false, None) => String::from("untrained"),
    }
}
