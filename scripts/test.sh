#!/usr/bin/env bash
# Runs all tests, Rust and Python, with their set-up. All are run, whichever fail; the exit code is 0 only if none did.
# The last line says which suites failed, or that all passed.
#
# The Rust tests run under cargo-nextest where it is installed (.config/nextest.toml), and under `cargo test` elsewhere.
# IDUNNO_TEST_RUNNER=cargo chooses `cargo test`; NEXTEST_PROFILE chooses nextest's profile.
set -euo pipefail
cd "$(dirname "$0")/.."

./scripts/setup_python.sh
export IDUNNO_TEST_PYTHON="$PWD/.venv/bin/python"
failed=()

nextest=
if [[ "${IDUNNO_TEST_RUNNER:-}" != cargo ]] && command -v cargo-nextest >/dev/null; then
    if cargo nextest show-config version >/dev/null 2>&1; then
        nextest=1
    else
        echo "test.sh: cargo-nextest is older than .config/nextest.toml needs: using cargo test"
    fi
fi

# The model server's tests mostly wait, so they run while the workspace is built.
output="$(mktemp)"
trap 'rm -f "$output"' EXIT
.venv/bin/python -m pytest --quiet python_model_server/tests >"$output" 2>&1 &
model_server=$!
# This also builds the programs that the cluster tests run: the packages of the programs have tests beside them.
cargo test --locked --workspace --all-targets --no-run || failed+=(build)
wait "$model_server" || failed+=("model server")
cat "$output"

if [[ -n "$nextest" ]]; then
    cargo nextest run --locked --workspace || failed+=(Rust)
    # nextest runs no examples in documentation.
    cargo test --locked --workspace --doc || failed+=("Rust documentation")
else
    cargo test --locked --workspace --no-fail-fast || failed+=(Rust)
fi
.venv/bin/python -m pytest --quiet scripts/tests || failed+=(scripts)

if ((${#failed[@]})); then
    printf -v list '%s, ' "${failed[@]}"
    echo "test.sh: tests failed: ${list%, }" >&2
    exit 1
fi
echo "test.sh: all tests passed"
