//! Where in its list a table is: which of how many rows it shows.

use ratatui::layout::Rect;

use super::table_area;
use crate::answer::text::thousands;
use crate::console::detail::Detail;
use crate::console::query::DetailData;
use crate::console::state::{Page, State};

/// The position of the table on screen, such as `1-200 of 1,005`; none where all rows are visible. A `+` says that there are
/// more rows than the console has: those that it has are sorted and filtered.
pub(super) fn of(state: &State, body: Rect) -> Option<String> {
    let table = state.table().filter(|table| !table.rows.is_empty())?;
    if state.page == Page::Files && state.details.is_empty() {
        let (first, last, total) = state.files.position();
        return Some(range(first, last, total));
    }
    let height = usize::from(table_area(state, body)?.height).saturating_sub(1);
    let (first, rows) = (table.first_visible(height), table.rows.len());
    let last = (first + height).min(rows);
    let more = state.details.last().is_some_and(has_more);
    let left_out = state.view.as_ref().map_or(0, |view| {
        let all = view.jobs.len() as u64 + view.jobs_left_out;
        all.saturating_sub(table.total as u64)
    });
    let left_out = if state.page == Page::Jobs && state.details.is_empty() { left_out } else { 0 };
    if last - first == rows && !more && left_out == 0 {
        return None;
    }
    let range = range(first as u64 + 1, last as u64, rows as u64);
    Some(match (more, left_out) {
        (true, _) => format!("{range}+"),
        (false, 0) => range,
        (false, left_out) => format!("{range}, {} older ones: get-job-stats", thousands(left_out)),
    })
}

fn has_more(detail: &Detail) -> bool {
    detail.data.as_ref().is_some_and(DetailData::more)
}

fn range(first: u64, last: u64, total: u64) -> String {
    format!("{}-{} of {}", thousands(first), thousands(last), thousands(total))
}
