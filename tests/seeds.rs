//! Runs a simulation over many seeds, and prints how to replay one that fails.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Replays one seed only.
const SEED_VARIABLE: &str = "IDUNNO_SIM_SEED";
/// Runs this many seeds in place of the count that the test asks for.
const COUNT_VARIABLE: &str = "IDUNNO_SIM_SEEDS";

/// Calls `run` with the seeds 0 to `count - 1` and returns what it returned, in seed order.
///
/// `name` is the test's path inside its target, as `cargo test` prints it (`membership::random_faults`).
/// `IDUNNO_SIM_SEED` replays one seed, `IDUNNO_SIM_SEEDS` changes the count. A seed whose run panics is printed with
/// the command that replays it, and the panic goes on. Assertions over the whole set (that a mechanism fired at
/// least once, say) belong behind [`is_replay`].
pub fn for_each_seed<T>(name: &str, count: u64, run: impl Fn(u64) -> T) -> Vec<T> {
    let seeds = match (variable(SEED_VARIABLE), variable(COUNT_VARIABLE)) {
        (Some(seed), _) => seed..seed + 1,
        (None, Some(widened)) => 0..widened,
        (None, None) => 0..count,
    };
    seeds
        .map(|seed| {
            catch_unwind(AssertUnwindSafe(|| run(seed))).unwrap_or_else(|panic| {
                eprintln!(
                    "\nseed {seed} failed; replay it with\n    \
                     {SEED_VARIABLE}={seed} cargo test --test {} {name}\n",
                    target()
                );
                resume_unwind(panic)
            })
        })
        .collect()
}

/// The test target that runs: cargo puts a dash and a hash behind its name.
fn target() -> String {
    let program = env::current_exe().unwrap_or_default();
    let stem = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    stem.rsplit_once('-').map_or_else(|| stem.clone(), |(target, _)| target.to_owned())
}

/// Whether a single seed is being replayed, so that assertions over the whole set do not apply.
pub fn is_replay() -> bool {
    variable(SEED_VARIABLE).is_some()
}

fn variable(name: &str) -> Option<u64> {
    let text = env::var(name).ok()?;
    match text.parse() {
        Ok(number) => Some(number),
        Err(error) => panic!("{name}='{text}' is not a whole number: {error}"),
    }
}
