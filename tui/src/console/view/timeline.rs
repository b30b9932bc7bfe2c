//! Rates over time, with what happened to the cluster below them.

use idunno_shared::wire::control::{ClusterView, JobView};
use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use super::chart::{Chart, Moment};
use crate::answer::text;
use crate::console::rate_history::STEPS_MAX;
use crate::console::state::State;
use crate::console::theme::{Theme, Tone};

pub(super) const RATE_UNIT: &str = "q/s";
/// The coordinator's steps take 5 s.
const STEPS_PER_MINUTE: usize = 12;

/// A job's colour, wherever it is shown.
pub(super) fn job_tone(job: &JobView) -> Tone {
    Tone::Series(usize::try_from(job.id.0).unwrap_or(0))
}

/// The minutes that the charts of recent rates show.
pub(super) const fn recent_minutes() -> usize {
    STEPS_MAX / STEPS_PER_MINUTE
}

/// Deaths, failovers and rebalances.
pub(super) fn moments(state: &State) -> Vec<Moment> {
    let events = state.events.list.iter().filter(|event| match event.kind {
        "election" | "sharing" => true,
        "member" => event.tone == Tone::Bad,
        _ => false,
    });
    events.map(|event| Moment { at_ms: event.at_ms, tone: event.tone }).collect()
}

/// What the marks below a chart mean.
pub(super) fn legend(theme: Theme) -> Vec<Span<'static>> {
    let marks = [(Tone::Bad, "death"), (Tone::Warn, "failover"), (Tone::Plain, "rebalanced")];
    let spans = marks.into_iter().flat_map(|(tone, word)| {
        [
            Span::styled(format!("  {} ", theme.glyph(tone)), theme.style(tone)),
            Span::styled(word, theme.style(Tone::Dim)),
        ]
    });
    spans.collect()
}

/// A title, and as many of the remarks behind it as fit.
pub(super) fn titled(
    title: String,
    remarks: Vec<Vec<Span<'static>>>,
    width: usize,
    theme: Theme,
) -> Line<'static> {
    let mut line = Line::styled(title, theme.style(Tone::Title));
    for remark in remarks {
        let taken: usize = remark.iter().map(|span| span.content.width()).sum();
        if line.width() + taken <= width {
            line.spans.extend(remark);
        }
    }
    line
}

/// One value a column from one a step.
pub(super) fn stretched(values: &[f64], columns: usize) -> Vec<f64> {
    (0..columns)
        .map(|column| values.get(column * values.len() / columns).copied().unwrap_or(f64::NAN))
        .collect()
}

/// A job from its start to its end, or to now, in at most `height` lines.
pub(super) fn whole_job(state: &State, job: &JobView, width: usize, height: usize) -> Vec<Line<'static>> {
    let theme = state.theme;
    let Some(started_ms) = job.details.started_ms.filter(|_| state.rates.end_ms() > 0) else {
        return vec![Line::styled(format!("{} has not run yet", job.id), theme.style(Tone::Dim))];
    };
    let to_ms = job.details.finished_ms.unwrap_or_else(|| state.rates.end_ms()).max(started_ms + 1000);
    let columns = Chart::columns(width, RATE_UNIT);
    let (from, to) = (state.rates.step_at(started_ms), state.rates.step_at(to_ms) + 1);
    let history = state.rates.whole_jobs.get(&job.id);
    let values =
        history.map_or_else(|| vec![f64::NAN; columns], |history| history.resampled(from, to, columns));
    let unseen = unseen_rate(state, job, (to - from) as f64 * state.rates.step_s(), &values);
    let chart = Chart {
        values: &values,
        unseen,
        unit: RATE_UNIT,
        tone: job_tone(job),
        from_ms: started_ms,
        to_ms,
        moments: Some(&moments(state)),
    };
    let span = text::seconds((to_ms.saturating_sub(started_ms) / 1000) as f64);
    let end = if job.details.finished_ms.is_some() { "TO ITS END" } else { "TO NOW" };
    let mut remarks = vec![legend(theme)];
    if unseen.is_some() {
        let remark = format!("  {} mean of what this console did not see", theme.shade());
        remarks.push(vec![Span::styled(remark, theme.style(Tone::Dim))]);
    }
    let title = format!("{} FROM ITS START {end}, {span}", job.id);
    let mut lines = vec![titled(title, remarks, width, theme)];
    lines.extend(chart.lines(theme, height.saturating_sub(1)));
    lines
}

/// The mean rate of a job in the time of which the console knows no rates: from what was answered in it.
fn unseen_rate(state: &State, job: &JobView, lifetime_s: f64, values: &[f64]) -> Option<f64> {
    if !values.iter().any(|value| value.is_nan()) {
        return None;
    }
    let history = state.rates.whole_jobs.get(&job.id);
    let step_s = state.rates.step_s();
    let seen = history.map_or(0.0, |history| history.sum() * step_s);
    let seen_s = history.map_or(0.0, |history| history.known() as f64 * step_s);
    let (answered, unseen_s) = (job.done as f64 - seen, lifetime_s - seen_s);
    (answered >= 1.0 && unseen_s > 0.0).then(|| answered / unseen_s)
}

/// The recent rates of all jobs together.
pub(super) fn all_jobs(state: &State, view: &ClusterView, width: usize, height: usize) -> Vec<Line<'static>> {
    let theme = state.theme;
    let mut sums = vec![f64::NAN; STEPS_MAX];
    for series in view.jobs.iter().filter_map(|job| state.rates.jobs.get(&job.id)) {
        for (sum, value) in sums.iter_mut().zip(series.last(STEPS_MAX)) {
            *sum = match (sum.is_nan(), value.is_nan()) {
                (true, _) => value,
                (false, true) => *sum,
                (false, false) => *sum + value,
            };
        }
    }
    let values = stretched(&sums, Chart::columns(width, RATE_UNIT));
    let chart = recent_chart(state, &values, RATE_UNIT, Tone::Key);
    let moments = moments(state);
    let chart = Chart { moments: Some(&moments), ..chart };
    let title = format!("ALL JOBS, QUERIES PER SECOND, {} MIN", recent_minutes());
    let mut lines = vec![titled(title, vec![legend(theme)], width, theme)];
    lines.extend(chart.lines(theme, height.saturating_sub(1)));
    lines
}

/// How far apart the running jobs are, over the time in which the console watched.
pub(super) fn fairness(state: &State, width: usize, height: usize) -> Vec<Line<'static>> {
    let theme = state.theme;
    let values = state.rates.fairness.last(STEPS_MAX);
    let remark = if values.iter().all(|value| value.is_nan()) {
        "  no two jobs have run while this console was open"
    } else {
        "  slowest running job below the fastest"
    };
    let remarks = vec![vec![Span::styled(remark, theme.style(Tone::Dim))]];
    let title = format!("FAIRNESS GAP, {} MIN", recent_minutes());
    let mut lines = vec![titled(title, remarks, width, theme)];
    let values = stretched(&values, Chart::columns(width, "%"));
    lines.extend(recent_chart(state, &values, "%", Tone::Key).lines(theme, height.saturating_sub(1)));
    lines
}

/// A chart of the last [`STEPS_MAX`] steps.
pub(super) fn recent_chart<'a>(state: &State, values: &'a [f64], unit: &'a str, tone: Tone) -> Chart<'a> {
    let (from_ms, to_ms) = (state.rates.begin_ms(STEPS_MAX), state.rates.end_ms());
    Chart { values, unseen: None, unit, tone, from_ms, to_ms, moments: None }
}

/// The recent rates of a member.
pub(super) fn member(
    state: &State,
    name: &str,
    values: &[f64],
    width: usize,
    height: usize,
) -> Vec<Line<'static>> {
    let theme = state.theme;
    let title = format!("{name}, QUERIES PER SECOND, {} MIN", recent_minutes());
    let mut lines = vec![titled(title, vec![legend(theme)], width, theme)];
    let values = stretched(values, Chart::columns(width, RATE_UNIT));
    let moments = moments(state);
    let chart = recent_chart(state, &values, RATE_UNIT, Tone::Key);
    lines.extend(Chart { moments: Some(&moments), ..chart }.lines(theme, height.saturating_sub(1)));
    lines
}
