#!/usr/bin/env bash
# The main job on a local cluster: sets everything up, then runs scripts/demo.py. Flags are demo.py's: see --help.
# Paths among the flags are the caller's.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
"$root/scripts/setup_python.sh"
cargo build --release --quiet --manifest-path "$root/Cargo.toml" --package idunno-daemon --package idunno-console
target=${CARGO_TARGET_DIR:-$root/target}
python="$root/.venv/bin/python"
exec "$python" "$root/scripts/demo.py" --programs "$target/release" --python "$python" "$@"
