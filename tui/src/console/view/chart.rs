//! A chart with axes: values over time as columns, a scale with its unit, the time below, and marks of what happened.

use ratatui::text::{Line, Span};
use unicode_width::UnicodeWidthStr;

use crate::answer::text;
use crate::console::theme::{Theme, Tone};

/// The lines below the values: the axis and the times.
pub(super) const BELOW: usize = 2;
/// Columns of a label of the scale.
const LABEL_WIDTH: usize = 5;
/// Columns of a time.
const TIME_WIDTH: usize = 8;
/// Columns between two times, at least.
const TIME_GAP: usize = 12;
/// From this many lines of values on, the middle of the scale has a label.
const MIDDLE_MIN: usize = 5;

/// Something that happened at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Moment {
    pub(super) at_ms: u64,
    pub(super) tone: Tone,
}

/// A series over time.
pub(super) struct Chart<'a> {
    /// One value a column, oldest first; NAN where it is unknown.
    pub(super) values: &'a [f64],
    /// What stands where nothing is known, as a shade.
    pub(super) unseen: Option<f64>,
    pub(super) unit: &'a str,
    pub(super) tone: Tone,
    pub(super) from_ms: u64,
    pub(super) to_ms: u64,
    /// None for a chart without a line of marks.
    pub(super) moments: Option<&'a [Moment]>,
}

impl Chart<'_> {
    /// Columns beside the values: a label, the unit and the axis, as wide for every chart of the unit.
    fn gutter(unit: &str) -> usize {
        LABEL_WIDTH + unit.width() + 3
    }

    /// The columns that are left to values in a chart of `width` columns.
    pub(super) fn columns(width: usize, unit: &str) -> usize {
        width.saturating_sub(Self::gutter(unit)).max(1)
    }

    /// The chart in `height` lines, axes and marks included; nothing if that is too small.
    pub(super) fn lines(&self, theme: Theme, height: usize) -> Vec<Line<'static>> {
        let below = BELOW + usize::from(self.moments.is_some());
        let rows = height.saturating_sub(below);
        let most = self.values.iter().copied().chain(self.unseen).filter(|it| it.is_finite());
        let top = scale_end(most.fold(0.0, f64::max));
        let (gutter, columns) = (Self::gutter(self.unit), self.values.len());
        if rows == 0 || columns < TIME_WIDTH {
            return Vec::new();
        }
        let mut lines = self.rows(top, rows, theme);
        let [_, _, corner, along, _] = theme.axes();
        let dim = theme.style(Tone::Dim);
        lines.push(Line::styled(format!("{:>gutter$}{}", corner, along.repeat(columns)), dim));
        lines.push(Line::styled(format!("{}{}", " ".repeat(gutter), self.times(columns)), dim));
        if let Some(moments) = self.moments {
            let mut spans = vec![Span::raw(" ".repeat(gutter))];
            spans.extend(self.marks(moments, columns, theme));
            lines.push(Line::from(spans));
        }
        lines
    }

    fn rows(&self, top: f64, rows: usize, theme: Theme) -> Vec<Line<'static>> {
        let [beside, at_label, ..] = theme.axes();
        let columns = self.values.len();
        let bars = theme.chart(self.values, columns, rows, top);
        let shades = self.unseen.map(|value| theme.chart(&vec![value; columns], columns, rows, top));
        let row = |(row, bar): (usize, String)| {
            let share = 1.0 - row as f64 / rows as f64;
            let shown = match row {
                0 => format!("{} {}", label(top), self.unit),
                _ if rows >= MIDDLE_MIN && row == rows / 2 => label(top * share),
                _ => String::new(),
            };
            let axis = if shown.is_empty() { beside } else { at_label };
            let mut spans = vec![Span::styled(
                format!("{:>width$} {axis}", shown.trim_end(), width = Self::gutter(self.unit) - 2),
                theme.style(Tone::Dim),
            )];
            let shade = shades.as_ref().map(|lines| lines[row].as_str());
            spans.extend(self.columns_of_row(&bar, shade, theme));
            Line::from(spans)
        };
        bars.into_iter().enumerate().map(row).collect()
    }

    /// The columns of one line: those that are known in the series' colour, the others as a shade.
    fn columns_of_row(&self, bar: &str, shade: Option<&str>, theme: Theme) -> Vec<Span<'static>> {
        let Some(shade) = shade else {
            return vec![Span::styled(bar.to_owned(), theme.style(self.tone))];
        };
        let mut spans: Vec<Span<'static>> = Vec::new();
        for ((known, unseen), value) in bar.chars().zip(shade.chars()).zip(self.values) {
            let (text, tone) = match (value.is_nan(), unseen) {
                (false, _) => (known.to_string(), self.tone),
                (true, ' ') => (String::from(" "), Tone::Dim),
                (true, _) => (theme.shade().to_owned(), Tone::Dim),
            };
            match spans.last_mut().filter(|last| last.style == theme.style(tone)) {
                Some(last) => last.content.to_mut().push_str(&text),
                None => spans.push(Span::styled(text, theme.style(tone))),
            }
        }
        spans
    }

    /// The times below the axis: at both ends, and between them as many as fit.
    fn times(&self, columns: usize) -> String {
        let gaps = (columns.saturating_sub(TIME_WIDTH) / (TIME_WIDTH + TIME_GAP)).max(1);
        if columns < 2 * TIME_WIDTH + 2 {
            return format!("{:>columns$}", text::clock(self.to_ms));
        }
        let span = self.to_ms.saturating_sub(self.from_ms);
        let mut line = String::new();
        for number in 0..=gaps {
            let at_ms = self.from_ms + span * number as u64 / gaps as u64;
            // A time stands around its place, but for the first and the last.
            let place = number * (columns - TIME_WIDTH) / gaps;
            line.push_str(&" ".repeat(place.saturating_sub(line.width())));
            line.push_str(&text::clock(at_ms));
        }
        line
    }

    /// What happened, below the time at which it did; of several things at one place the worst.
    fn marks(&self, moments: &[Moment], columns: usize, theme: Theme) -> Vec<Span<'static>> {
        let mut places: Vec<Option<Tone>> = vec![None; columns];
        let span = self.to_ms.saturating_sub(self.from_ms).max(1);
        for moment in moments {
            let Some(since) = moment.at_ms.checked_sub(self.from_ms).filter(|since| *since <= span) else {
                continue;
            };
            let place = usize::try_from(since * columns as u64 / span).unwrap_or(usize::MAX);
            let place = &mut places[place.min(columns - 1)];
            if place.is_none_or(|there| weight(there) < weight(moment.tone)) {
                *place = Some(moment.tone);
            }
        }
        let span = |place: Option<Tone>| match place {
            Some(tone) => Span::styled(theme.glyph(tone), theme.style(tone)),
            None => Span::raw(" "),
        };
        places.into_iter().map(span).collect()
    }
}

const fn weight(tone: Tone) -> u8 {
    match tone {
        Tone::Bad => 2,
        Tone::Warn => 1,
        _ => 0,
    }
}

/// A round number at or above `most`, where a scale ends.
fn scale_end(most: f64) -> f64 {
    if most <= 0.0 || !most.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(most.log10().floor());
    let round = [1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
    let end = round.into_iter().find(|step| step * power >= most * (1.0 - 1e-9));
    end.unwrap_or(10.0) * power
}

/// A number of the scale in at most five characters.
fn label(value: f64) -> String {
    match value {
        0.0 => String::from("0"),
        ..10.0 => format!("{value:.1}"),
        ..100_000.0 => format!("{value:.0}"),
        ..10_000_000.0 => format!("{:.0}k", value / 1e3),
        _ => format!("{:.0}M", value / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Palette;

    const THEME: Theme = Theme { palette: Palette::Mono, unicode: true };
    /// 2026-11-23 01:50:00 UTC.
    const START_MS: u64 = 1_795_398_600_000;

    fn text(lines: &[Line<'_>]) -> Vec<String> {
        lines.iter().map(|line| line.to_string().trim_end().to_owned()).collect()
    }

    #[test]
    fn a_chart_has_a_scale_with_its_unit_times_and_marks() {
        let mut values = vec![0.0; 10];
        values.extend(vec![75.0; 9]);
        values.push(f64::NAN);
        let moments = [
            Moment { at_ms: START_MS + 30_000, tone: Tone::Plain },
            Moment { at_ms: START_MS + 31_000, tone: Tone::Bad },
            Moment { at_ms: START_MS - 1, tone: Tone::Bad },
            Moment { at_ms: START_MS + 60_000, tone: Tone::Warn },
        ];
        let chart = Chart {
            values: &values,
            unseen: None,
            unit: "q/s",
            tone: Tone::Series(0),
            from_ms: START_MS,
            to_ms: START_MS + 60_000,
            moments: Some(&moments),
        };
        assert_eq!(
            text(&chart.lines(THEME, 8)),
            [
                "   80 q/s ┤          ▆▆▆▆▆▆▆▆▆",
                "          │          █████████",
                "       48 ┤          █████████",
                "          │          █████████",
                "          │          █████████",
                "          └────────────────────",
                "           01:50:00    01:51:00",
                "                     ✖        ◐",
            ]
        );
        assert_eq!(Chart::columns(31, "q/s"), values.len());
        assert!(chart.lines(THEME, 3).is_empty(), "too low");
        assert!(Chart { values: &values[..5], ..chart }.lines(THEME, 8).is_empty(), "too narrow");
    }

    #[test]
    fn what_was_not_seen_is_a_shade() {
        let values = [[f64::NAN; 8], [4.0; 8]].concat();
        let chart = Chart {
            values: &values,
            unseen: Some(2.0),
            unit: "%",
            tone: Tone::Plain,
            from_ms: START_MS,
            to_ms: START_MS,
            moments: None,
        };
        let drawn = text(&chart.lines(THEME, 4));
        assert_eq!(drawn[0].trim_start(), "4.0 % ┤        ████████");
        assert_eq!(drawn[1].trim_start(), "│░░░░░░░░████████");
    }

    #[test]
    fn scales_end_at_round_numbers() {
        for (most, end) in [(0.0, "1.0"), (0.7, "0.8"), (127.8, "150"), (100.0, "100"), (30_001.0, "40000")] {
            assert_eq!(label(scale_end(most)), end, "{most}");
        }
        assert_eq!(label(2_500_000.0), "2500k");
    }
}
