#!/usr/bin/env bash
# Captures the console from a real run: every page as text, and pictures of three, into docs/console. Sets everything
# up, then runs scripts/console_screens.py, whose flags it takes: see --help.
#
# Needs tmux. IDUNNO_PROGRAMS=DIR uses the programs in DIR and builds nothing.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
"$root/scripts/setup_python.sh"
"$root/scripts/setup_dev.sh"
programs=${IDUNNO_PROGRAMS:-${CARGO_TARGET_DIR:-$root/target}/release}
if [[ -z "${IDUNNO_PROGRAMS:-}" ]]; then
    cargo build --locked --release --manifest-path "$root/Cargo.toml" --package idunno-daemon --package idunno-console
fi
exec "$root/.venv-dev/bin/python" "$root/scripts/console_screens.py" \
    --programs "$programs" --python "$root/.venv/bin/python" "$@"
