//! Where things are on screen: drawing and the mouse agree by it.

use ratatui::layout::{Constraint, Layout, Rect};

/// The smallest screen that anything is drawn on.
pub const WIDTH_MIN: u16 = 30;
/// The same, in lines.
pub const HEIGHT_MIN: u16 = 8;
/// From this width on pages stand side by side with more.
pub const WIDE: u16 = 110;
/// Lines around the rows of a page: two of header, one of tabs, one of titles, one of status.
const CHROME: u16 = 5;

/// Rows of a page on a screen of this height.
pub fn page_height(height: u16) -> usize {
    usize::from(height.saturating_sub(CHROME)).max(1)
}

/// The parts of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Two lines of figures.
    pub header: Rect,
    /// The pages' names.
    pub tabs: Rect,
    /// The page.
    pub body: Rect,
    /// The bottom line.
    pub status: Rect,
}

/// The parts of a screen.
pub fn parts(area: Rect) -> Parts {
    let [header, tabs, body, status] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ])
    .areas(area);
    Parts { header, tabs, body, status }
}

/// A rectangle in the middle of `area`, never beyond it.
pub fn middle(area: Rect, width: u16, height: u16) -> Rect {
    let (width, height) = (width.min(area.width), height.min(area.height));
    Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height }
}
