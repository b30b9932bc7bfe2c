#!/usr/bin/env bash
# The main job on a local cluster: sets everything up, then runs scripts/demo.py. Flags are demo.py's: see --help.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup_python.sh
cargo build --release --quiet --package idunno-daemon --package idunno-console
target=${CARGO_TARGET_DIR:-target}
exec .venv/bin/python scripts/demo.py --programs "$target/release" --python .venv/bin/python "$@"
