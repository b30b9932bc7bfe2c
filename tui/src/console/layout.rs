//! The areas of the screen, shared by drawing and the mouse.

use ratatui::layout::{Constraint, Layout, Rect};

/// The smallest screen that is drawn on.
pub const WIDTH_MIN: u16 = 30;
pub const HEIGHT_MIN: u16 = 8;
/// From this width on the overview stands in two columns.
pub const WIDE: u16 = 110;
/// Lines around the rows of a page: two of header, one each of tabs, column titles and status.
const CHROME: u16 = 5;

/// The number of rows of a page on a screen of this height.
pub fn page_height(height: u16) -> usize {
    usize::from(height.saturating_sub(CHROME)).max(1)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScreenLayout {
    pub header: Rect,
    pub tabs: Rect,
    pub body: Rect,
    pub status: Rect,
}

pub fn screen_layout(area: Rect) -> ScreenLayout {
    let [header, tabs, body, status] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    ScreenLayout { header, tabs, body, status }
}

/// A rectangle in the middle of `area`, clipped to it.
pub fn centred(area: Rect, width: u16, height: u16) -> Rect {
    area.centered(Constraint::Length(width.min(area.width)), Constraint::Length(height.min(area.height)))
}

/// The bottom lines of `area`, as many as there are.
pub fn bottom(area: Rect, lines: usize) -> Rect {
    let height = u16::try_from(lines).unwrap_or(u16::MAX).min(area.height);
    Rect { y: area.y + area.height - height, height, ..area }
}
