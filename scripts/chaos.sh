#!/usr/bin/env bash
# Breaks a cluster of real daemons for --minutes M as --seed S decides, and judges what its clients saw. The last line is
# "chaos: seed S, N faults, M operations, 0 violations", and only then is the exit code 0. See --help for more flags.
# IDUNNO_PROGRAMS=DIR uses the programs in DIR and builds nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
if [[ -z "${IDUNNO_TEST_PYTHON:-}" ]]; then
  ./scripts/setup_python.sh
  export IDUNNO_TEST_PYTHON="$PWD/.venv/bin/python"
fi
programs=${IDUNNO_PROGRAMS:-${CARGO_TARGET_DIR:-target}/debug}
if [[ -z "${IDUNNO_PROGRAMS:-}" ]]; then
  cargo build --locked --quiet --workspace --bins
fi
exec "$programs/chaos" "$@"
