//! The two forms of these tests: a short one for every run, and a long one on request, whose figures the documentation
//! shows.

use std::fmt::Display;
use std::time::Duration;

/// The size of a test in its short form, or with `IDUNNO_SCALE=long` in its long one.
pub(crate) fn sized<T>(short: T, long: T) -> T {
    match std::env::var("IDUNNO_SCALE").as_deref() {
        Ok("long") => long,
        Ok(other) => panic!("IDUNNO_SCALE={other}: long is the only form besides the short one"),
        Err(_) => short,
    }
}

/// Prints a row of the table of figures.
pub(crate) fn figure(what: impl Display, figure: impl Display) {
    println!("| {what} | {figure} |");
}

/// The median, the 99th percentile and the longest of these times.
pub(crate) fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
    format!("{:.1?} / {:.1?} / {:.1?}, {} of them", at(50), at(99), at(100), times.len())
}
