#!/usr/bin/env bash
# All tests, Rust and Python, with their set-up. All are run, whichever fail; the exit code is 0 only if none did.
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup_python.sh
export IDUNNO_TEST_PYTHON="$PWD/.venv/bin/python"
failed=()
# The model server's tests mostly wait: they run while everything is built.
said="$(mktemp)"
trap 'rm -f "$said"' EXIT
.venv/bin/python -m pytest --quiet python_model_server/tests >"$said" 2>&1 &
# This builds the programs too, which the cluster tests run: each of their packages has tests of its own beside it.
cargo test --workspace --no-run || failed+=(build)
wait "$!" || failed+=("model server")
cat "$said"
cargo test --workspace --no-fail-fast || failed+=(Rust)
.venv/bin/python -m pytest --quiet scripts/tests || failed+=(scripts)
if ((${#failed[@]})); then
    echo "test.sh: tests failed: ${failed[*]}" >&2
    exit 1
fi
