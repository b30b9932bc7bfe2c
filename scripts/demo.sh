#!/usr/bin/env bash
# Runs the main job on a local cluster: sets everything up, then runs scripts/demo.py with the same arguments: see --help.
# IDUNNO_PROGRAMS=DIR uses the programs in DIR and builds nothing.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
"$root/scripts/setup_python.sh"
programs=${IDUNNO_PROGRAMS:-${CARGO_TARGET_DIR:-$root/target}/demo}
if [[ -z "${IDUNNO_PROGRAMS:-}" ]]; then
    cargo build --locked --profile demo --manifest-path "$root/Cargo.toml" --package idunno-daemon --package idunno-console
fi
python="$root/.venv/bin/python"
exec "$python" "$root/scripts/demo.py" --programs "$programs" --python "$python" "$@"
