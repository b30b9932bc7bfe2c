#!/usr/bin/env bash
# The figures that people compare by: sets everything up, then runs scripts/bench.py. Flags are bench.py's: see --help.
# Paths among the flags are the caller's.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
"$root/scripts/setup_python.sh"
cargo build --release --quiet --manifest-path "$root/Cargo.toml" --package idunno-daemon --package idunno-console
target=${CARGO_TARGET_DIR:-$root/target}
python="$root/.venv/bin/python"
exec "$python" "$root/scripts/bench.py" --programs "$target/release" --python "$python" "$@"
