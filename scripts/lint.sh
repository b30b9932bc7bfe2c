#!/usr/bin/env bash
# Runs the checks that need no test run: format, clippy, the Python package, shell scripts, spelling, licences, known
# vulnerabilities. All are run, whichever fail; the exit code is 0 only if none did. A check whose tool or database cannot
# be had is skipped and says so.
#
#   scripts/lint.sh [--no-cargo]
#
#   --no-cargo   leave out what compiles or formats Rust (cargo fmt, clippy)
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=1
case "${1:-}" in
    "") ;;
    --no-cargo) cargo= ;;
    -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit 0 ;;
    *) echo "lint.sh: unknown option $1; see --help" >&2 && exit 2 ;;
esac

failed=()
check() { # check NAME COMMAND...
    local name="$1"
    shift
    if "$@"; then
        echo "lint.sh: $name: ok"
    else
        failed+=("$name")
        echo "lint.sh: $name: FAILED" >&2
    fi
}
skip() { # skip NAME WHY
    echo "lint.sh: $1: skipped, $2"
}

mypy_package() {
    (cd python_model_server && ../.venv/bin/mypy --no-error-summary)
}
mypy_client() {
    (cd shared/python && ../../.venv/bin/mypy --no-error-summary)
}

if [[ -n "$cargo" ]]; then
    check "cargo fmt" cargo fmt --all --check
    check "clippy" cargo clippy --locked --quiet --workspace --all-targets -- -D warnings
fi

if command -v cargo-deny >/dev/null; then
    # Without its database of advisories, which it downloads, cargo-deny still checks licences, bans and sources.
    if [[ -d "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs" ]]; then
        check "cargo deny" cargo deny --offline --locked --log-level error check
    else
        check "cargo deny" cargo deny --offline --locked --log-level error check bans licenses sources
        skip "cargo deny, advisories" "there is no advisory database on this machine"
    fi
else
    skip "cargo deny" "cargo-deny is not installed"
fi

# The model server's environment has the linters of the Python code, and the types of what the package imports.
if ./scripts/setup_python.sh; then
    check "ruff, python_model_server" .venv/bin/ruff check --quiet python_model_server
    check "ruff format, python_model_server" .venv/bin/ruff format --quiet --check python_model_server
    check "ruff, scripts" .venv/bin/ruff check --quiet --config scripts/ruff.toml scripts docs/examples tests/clients tests/vms tests/servers
    check "ruff, shared/python" .venv/bin/ruff check --quiet shared/python
    check "ruff format, shared/python" .venv/bin/ruff format --quiet --check shared/python
    check "mypy" mypy_package
    check "mypy, shared/python" mypy_client
else
    skip "ruff and mypy" "scripts/setup_python.sh cannot make .venv"
fi

if ./scripts/setup_dev.sh; then
    mapfile -t shell < <(git ls-files -- '*.sh' .ci scripts/idunno-setup-python \
        scripts/debian/postinst scripts/debian/postrm scripts/debian/prerm)
    if shellcheck="$(PATH="$PWD/.venv-dev/bin:$PATH" command -v shellcheck)"; then
        check "shellcheck" "$shellcheck" "${shell[@]}"
    else
        skip "shellcheck" "there is no wheel for this platform, and it is not installed"
    fi
    check "typos" .venv-dev/bin/typos --format brief
    audited=0
    .venv-dev/bin/python scripts/audit_python.py || audited=$?
    if ((audited == 3)); then
        skip "pip-audit" "no advisory database could be asked"
    else
        check "pip-audit" test "$audited" = 0
    fi
else
    skip "shellcheck, typos and pip-audit" "scripts/setup_dev.sh cannot make .venv-dev"
fi

if ((${#failed[@]})); then
    printf -v list '%s, ' "${failed[@]}"
    echo "lint.sh: failed: ${list%, }" >&2
    exit 1
fi
echo "lint.sh: all checks passed"
