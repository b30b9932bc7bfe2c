#!/usr/bin/env bash
# The main job on a local cluster: sets everything up, then runs scripts/demo.py. Flags are demo.py's: see --help.
# Paths among the flags are the caller's. IDUNNO_PROFILE=dev builds for development, as the tests do, instead of release.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
"$root/scripts/setup_python.sh"
profile=${IDUNNO_PROFILE:-release}
cargo build --profile "$profile" --quiet --manifest-path "$root/Cargo.toml" --package idunno-daemon --package idunno-console
programs=${CARGO_TARGET_DIR:-$root/target}/${profile/#dev/debug}
python="$root/.venv/bin/python"
exec "$python" "$root/scripts/demo.py" --programs "$programs" --python "$python" "$@"
