//! The history of a whole job in a fixed number of points: when they are used up, two become one.

/// Points that are kept.
const POINTS_MAX: usize = 240;

/// The mean of some steps, if any of them is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    sum: f64,
    known: u32,
}

impl Point {
    fn plus(self, other: Self) -> Self {
        Self { sum: self.sum + other.sum, known: self.known + other.known }
    }

    fn mean(self) -> f64 {
        if self.known == 0 { f64::NAN } else { self.sum / f64::from(self.known) }
    }
}

/// Values by step, with less detail the longer they go back.
#[derive(Clone, Debug, PartialEq)]
pub struct LongHistory {
    /// Steps of a point.
    steps: u64,
    /// The number of the first point: the first of its steps is this times `steps`.
    first: u64,
    points: Vec<Point>,
}

impl Default for LongHistory {
    fn default() -> Self {
        Self { steps: 1, first: 0, points: Vec::new() }
    }
}

impl LongHistory {
    /// Adds the value of a step, which is after those before. An unknown value leaves a gap.
    pub fn push(&mut self, step: u64, value: f64) {
        if self.points.is_empty() {
            self.first = step / self.steps;
        }
        let index = |history: &Self| usize::try_from((step / history.steps).saturating_sub(history.first));
        while index(self).is_ok_and(|index| index >= POINTS_MAX) {
            self.halve();
        }
        let Ok(index) = index(self) else { return };
        if self.points.len() <= index {
            self.points.resize(index + 1, Point::default());
        }
        if value.is_finite() {
            self.points[index] = self.points[index].plus(Point { sum: value, known: 1 });
        }
    }

    /// Makes one point of two.
    fn halve(&mut self) {
        if self.first % 2 == 1 {
            self.points.insert(0, Point::default());
        }
        let merge = |pair: &[Point]| pair.iter().fold(Point::default(), |sum, point| sum.plus(*point));
        self.points = self.points.chunks(2).map(merge).collect();
        self.first /= 2;
        self.steps *= 2;
    }

    /// The mean value in each of `columns` equal parts of these steps; NAN where nothing is known.
    pub fn resampled(&self, from: u64, to: u64, columns: usize) -> Vec<f64> {
        let span = to.saturating_sub(from) as f64;
        let point_at = |share: f64| ((from as f64 + span * share) / self.steps as f64) - self.first as f64;
        let column = |column: usize| {
            let start = point_at(column as f64 / columns as f64);
            let end = point_at((column + 1) as f64 / columns as f64);
            // A column that is narrower than a point shows the point in which it begins.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the casts saturate")]
            let (start, end) = (start.floor().max(-1.0), (end.ceil() as usize).min(self.points.len()));
            if start < 0.0 {
                return f64::NAN;
            }
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is not negative")]
            let start = start as usize;
            let points = self.points.get(start..end.max(start)).unwrap_or_default();
            points.iter().fold(Point::default(), |sum, point| sum.plus(*point)).mean()
        };
        (0..columns).map(column).collect()
    }

    /// The sum of all known values.
    pub fn sum(&self) -> f64 {
        self.points.iter().map(|point| point.sum).sum()
    }

    /// The number of known values.
    pub fn known(&self) -> u64 {
        self.points.iter().map(|point| u64::from(point.known)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(history: &LongHistory, from: u64, to: u64, columns: usize) -> String {
        let values = history.resampled(from, to, columns);
        let shown = |value: &f64| if value.is_nan() { String::from(".") } else { format!("{value:.0}") };
        values.iter().map(shown).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_short_history_is_exact_and_gaps_stay_blank() {
        let mut history = LongHistory::default();
        for (step, value) in [(100, 5.0), (101, f64::NAN), (102, 7.0)] {
            history.push(step, value);
        }
        assert_eq!(shown(&history, 99, 104, 5), ". 5 . 7 .");
        assert_eq!(shown(&history, 100, 103, 6), "5 5 . . 7 7", "more columns than steps");
        assert_eq!((history.sum(), history.known()), (12.0, 2));
    }

    #[test]
    fn two_points_become_one_where_their_step_says() {
        let mut history = LongHistory::default();
        // The first step is odd: it is the second of its pair.
        (1..=300).for_each(|step| history.push(step, if step < 150 { 0.0 } else { 10.0 }));
        assert_eq!((history.steps, shown(&history, 148, 152, 2).as_str()), (2, "0 10"));
    }

    #[test]
    fn a_long_history_keeps_its_shape_and_its_bound() {
        let mut history = LongHistory::default();
        let rate = |step: u64| if step < 5_000 { 10.0 } else { 30.0 };
        for step in 1..=10_000 {
            history.push(step, rate(step));
            assert!(history.points.len() <= POINTS_MAX);
        }
        assert_eq!(shown(&history, 0, 10_000, 4), "10 10 30 30");
        assert_eq!((history.sum(), history.known()), (4_999.0 * 10.0 + 5_001.0 * 30.0, 10_000));
        // Nobody watched for a day.
        history.push(27_280, 50.0);
        assert!(history.points.len() <= POINTS_MAX);
        assert_eq!(shown(&history, 20_000, 27_500, 3), ". . 50");
    }
}
