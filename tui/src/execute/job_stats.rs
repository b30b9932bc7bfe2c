//! `get-job-stats`, `get-job-history`: jobs in figures.

use std::cmp::Reverse;

use idunno_shared::wire::control::{Distribution, JobView};

use super::job_lookup::{job_views, resolve_any};
use crate::answer::jobs::{JobStats, Tokens, accuracy, pending, reused_from};
use crate::answer::shown::Shown;
use crate::answer::table::Table;
use crate::answer::{Answer, Failure, records, text};
use crate::command::JobRef;
use crate::session::Session;

const STATS_COLUMNS: &str = "JOB +NAME MODEL STATE +>WEIGHT >DONE >DEAD >PENDING >TOTAL >QPS_10S +>QPS +>MEAN_MS \
    +>STD +>P50 +>P90 +>P95 +>P99 +ETA +>TOP-1 +>BATCH +>LOCAL";
const HISTORY_COLUMNS: &str =
    "JOB +NAME MODEL DATASET STATE ENDED +>RAN >DONE >DEAD +>TOTAL +>QPS +>P50 +>P99 +>TOP-1 +RESULTS";

/// `get-job-stats`.
pub async fn stats(session: &Session, job: Option<&JobRef>) -> Result<Answer, Failure> {
    let job = resolve_any(session, job).await?;
    let views = job_views(session, job).await?;
    if views.is_empty() {
        return Ok(Answer::list::<JobStats>(Vec::new(), "no jobs: add-job adds one"));
    }
    Ok(match (job, &views[..]) {
        (Some(_), [view]) => {
            let (table, more) = figures(&views);
            let text = Shown::card([vec![card(view)], more].concat().join("\n"), table);
            Answer::list(vec![JobStats::from(view)], text)
        }
        _ => answer(&views),
    })
}

/// Figures of jobs, and why those that the cluster paused are paused.
pub fn answer(views: &[JobView]) -> Answer {
    let (table, more) = figures(views);
    let text = match &more[..] {
        [] => Shown::from(table),
        more => Shown::from(table).then(more.join("\n")),
    };
    Answer::list(views.iter().map(JobStats::from).collect(), text)
}

/// The figures of one job, a subject a line.
fn card(view: &JobView) -> String {
    let (state, _) = text::job_state(&view.state);
    let JobView { done, dead, submitted, .. } = *view;
    let name = view.details.name.as_ref().map(|name| format!("  {name}")).unwrap_or_default();
    let percent =
        ((done + dead) * 100).checked_div(submitted).map_or_else(String::new, |it| format!(" ({it} %)"));
    let eta = view.eta_s.map(|eta| format!(", {} left", text::seconds(eta))).unwrap_or_default();
    let Distribution { mean, std_dev, median, p90, p95, p99 } = view.processing_ms;
    let mut lines = vec![
        format!("{}  {}{name}  {state}  {} of {submitted}{percent}", view.id, view.model, done + dead),
        format!("dataset  {}", view.dataset),
        format!(
            "queries   {done} done, {dead} dead, {} pending, of which {} leased",
            pending(view),
            view.leased
        ),
        format!(
            "rate      {:.1} per second over 10 s, {:.1} since the start{eta}",
            view.rate_10s_qps, view.rate_qps
        ),
    ];
    if done > 0 {
        lines.push(format!(
            "ms/query  mean {mean:.2}, sd {std_dev:.2}, median {median:.2}, p90 {p90:.2}, p95 {p95:.2}, p99 {p99:.2}"
        ));
    }
    let (batch, weight, local) = (text::batch_size(view), view.details.weight, view.local_share * 100.0);
    lines.push(format!(
        "workers   batch size {batch}, weight {weight}, {local:.0} % of the inputs read locally"
    ));
    if let Some(job) = reused_from(view) {
        lines.push(format!("reused    {} answers of {job}", text::thousands(view.tokens.reused)));
    }
    if accuracy(view).is_some() {
        lines.push(format!("top-1     {} of {} labelled", top1(view), view.labelled));
    }
    lines.join("\n")
}

/// The jobs' table, and the lines below it.
fn figures(views: &[JobView]) -> (Table, Vec<String>) {
    let mut table = Table::new(STATS_COLUMNS);
    let (mut reasons, mut tokens) = (Vec::new(), Vec::new());
    for view in views {
        let (state, reason) = text::job_state(&view.state);
        reasons.extend(reason.map(|reason| format!("{} is paused: {reason}", view.id)));
        tokens.extend(Tokens::of(view).map(|tokens| tokens_line(view, tokens)));
        let times = &view.processing_ms;
        let ms = |value: f64| if view.done == 0 { String::from("-") } else { format!("{value:.2}") };
        table.row([
            view.id.to_string(),
            text::job_name(view),
            view.model.to_string(),
            state.to_owned(),
            view.details.weight.to_string(),
            view.done.to_string(),
            view.dead.to_string(),
            pending(view).to_string(),
            view.submitted.to_string(),
            format!("{:.1}", view.rate_10s_qps),
            format!("{:.1}", view.rate_qps),
            ms(times.mean),
            ms(times.std_dev),
            ms(times.median),
            ms(times.p90),
            ms(times.p95),
            ms(times.p99),
            view.eta_s.map_or_else(|| String::from("-"), text::seconds),
            top1(view),
            text::batch_size(view),
            format!("{:.0} %", view.local_share * 100.0),
        ]);
    }
    let mut lines = [reasons, tokens].concat();
    let reused = |view: &JobView| {
        let answers = text::thousands(view.tokens.reused);
        reused_from(view).map(|job| format!("{} took {answers} answers over from {job}", view.id))
    };
    lines.extend(views.iter().filter_map(reused));
    if let [view] = views {
        let found = view.details.records.as_deref().and_then(records::sentence);
        lines.extend(found.map(|found| format!("{} {found}", view.id)));
    }
    (table, lines)
}

fn tokens_line(view: &JobView, tokens: Tokens) -> String {
    let Tokens { prompt, completion, total, rate_per_s } = tokens;
    let [prompt, completion, total] = [prompt, completion, total].map(text::thousands);
    format!(
        "{} took {total} tokens: {prompt} read, {completion} written; {rate_per_s:.1} per second",
        view.id
    )
}

/// `get-job-history`.
pub async fn history(session: &Session) -> Result<Answer, Failure> {
    let mut views: Vec<JobView> = job_views(session, None).await?;
    views.retain(|view| view.state.is_over());
    views.sort_by_key(|view| Reverse((view.details.finished_ms, view.id)));
    if views.is_empty() {
        return Ok(Answer::list::<JobStats>(Vec::new(), "no job has ended yet"));
    }
    let mut table = Table::new(HISTORY_COLUMNS);
    for view in &views {
        let about = &view.details;
        table.row([
            view.id.to_string(),
            text::job_name(view),
            view.model.to_string(),
            view.dataset.to_string(),
            text::job_state(&view.state).0.to_owned(),
            about.finished_ms.map_or_else(|| String::from("-"), text::moment),
            text::seconds(view.running_s),
            view.done.to_string(),
            view.dead.to_string(),
            view.submitted.to_string(),
            format!("{:.1}", view.rate_qps),
            format!("{:.2}", view.processing_ms.median),
            format!("{:.2}", view.processing_ms.p99),
            top1(view),
            about.results.as_ref().map_or_else(|| String::from("-"), ToString::to_string),
        ]);
    }
    Ok(Answer::list(views.iter().map(JobStats::from).collect(), table))
}

/// The share of labelled answers that equal the label, or a dash.
fn top1(view: &JobView) -> String {
    accuracy(view).map_or_else(|| String::from("-"), |share| format!("{:.1} %", share * 100.0))
}
