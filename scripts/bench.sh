#!/usr/bin/env bash
# Measures IDunno: sets everything up, then runs scripts/bench.py or, with `ray` as the first argument,
# scripts/bench_ray.py. The other arguments are theirs: see --help.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
program=bench.py
if [[ "${1:-}" == ray ]]; then
    program=bench_ray.py
    shift
fi
"$root/scripts/setup_python.sh"
cargo build --locked --release --manifest-path "$root/Cargo.toml" --package idunno-daemon --package idunno-console
cargo build --locked --release --manifest-path "$root/Cargo.toml" --package idunno-tests --bin no-op --bin machine
target=${CARGO_TARGET_DIR:-$root/target}
python="$root/.venv/bin/python"
exec "$python" "$root/scripts/$program" --programs "$target/release" --python "$python" "$@"
