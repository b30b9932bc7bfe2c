#!/usr/bin/env bash
# Chaos: a cluster of real daemons is broken for --minutes M as --seed S decides, and judged. The last line is
# "chaos: seed S, N faults, M operations, 0 violations"; the exit code is 0 only then. More flags: --help.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -z "${IDUNNO_TEST_PYTHON:-}" ]]; then
  ./scripts/setup_python.sh
  export IDUNNO_TEST_PYTHON="$PWD/.venv/bin/python"
fi
cargo build --quiet --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/debug/chaos" "$@"
