#!/usr/bin/env bash
# The figures that people compare by: sets everything up, then runs scripts/bench.py. Flags are bench.py's: see --help.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup_python.sh
cargo build --release --quiet --package idunno-daemon --package idunno-console
target=${CARGO_TARGET_DIR:-target}
exec .venv/bin/python scripts/bench.py --programs "$target/release" --python .venv/bin/python "$@"
