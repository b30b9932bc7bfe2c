#!/usr/bin/env bash
# Chaos: a cluster of real daemons is broken for --minutes M as --seed S decides, and judged. The last line is
# "chaos: seed S, N faults, M operations, 0 violations"; the exit code is 0 only then. More flags: --help.
# IDUNNO_PROGRAMS=DIR takes the programs from there and builds nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -z "${IDUNNO_TEST_PYTHON:-}" ]]; then
  ./scripts/setup_python.sh
  export IDUNNO_TEST_PYTHON="$PWD/.venv/bin/python"
fi
programs=${IDUNNO_PROGRAMS:-${CARGO_TARGET_DIR:-target}/debug}
if [[ -z "${IDUNNO_PROGRAMS:-}" ]]; then
  cargo build --quiet --workspace --bins
fi
exec "$programs/chaos" "$@"
