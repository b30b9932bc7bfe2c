#!/usr/bin/env bash
# All tests, Rust and Python, with their set-up.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup_python.sh
export IDUNNO_TEST_PYTHON="$PWD/.venv/bin/python"
# The cluster tests run the programs themselves.
cargo build --quiet --workspace --bins
cargo test --workspace --no-fail-fast
.venv/bin/python -m pytest --quiet python_model_server/tests
