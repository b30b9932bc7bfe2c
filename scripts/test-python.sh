#!/usr/bin/env bash
# Tests the Python client as people get it: builds its wheel, installs it alone in a bare environment of every Python that
# is found, checks stubs and types, runs the examples of its documentation, and runs shared/python/tests against a local
# cluster of real programs with model servers. Ends with a line that counts. Exit code 0 only if all passed.
#
# Further arguments go to pytest. IDUNNO_PROGRAMS names a folder with idunno and idunnod in place of building them;
# IDUNNO_WHEELS a folder with the wheel; IDUNNO_MODEL_SERVER_PYTHON a Python with the model server; IDUNNO_PYTHON_VENVS
# another place of the environment of the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

package=shared/python
venvs="${IDUNNO_PYTHON_VENVS:-$PWD/.venv-python}"
if [[ -z "${IDUNNO_MODEL_SERVER_PYTHON:-}" ]]; then
    ./scripts/setup_python.sh
    export IDUNNO_MODEL_SERVER_PYTHON="$PWD/.venv/bin/python"
fi
wheels="${IDUNNO_WHEELS:-}"
if [[ -z "$wheels" ]]; then
    wheels="$PWD/target/wheels"
    # Clippy stands in for the compiler of our own crates, and a warning is an error.
    RUSTC_WORKSPACE_WRAPPER="$(rustc --print sysroot)/bin/clippy-driver"
    export RUSTC_WORKSPACE_WRAPPER CLIPPY_ARGS="-Dwarnings__CLIPPY_HACKERY__"
    cargo fmt --check --manifest-path "$package/Cargo.toml"
    ./scripts/release.sh --only wheels --out "$wheels"
fi
wheel=("$wheels"/idunno-[0-9]*.whl)
# The programs are those of the wheel.
unset IDUNNO_PROGRAMS

passed=0 failed=()
check() { # check NAME COMMAND...
    local name="$1"
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "test-python.sh: $name: ok"
    else
        failed+=("$name")
        echo "test-python.sh: $name: FAILED" >&2
    fi
}

# Nothing but the wheel, and no index: it needs no other package.
bare() { # bare PYTHON
    local venv
    venv="$(mktemp -d)"
    "$1" -m venv "$venv" && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-index "${wheel[0]}" &&
        "$venv/bin/idunno" --version && "$venv/bin/idunnod" --version && "$venv/bin/python" - <<'PYTHON'
import idunno

with idunno.LocalCluster(members=1, model_servers=False) as cluster:
    client = cluster.connect()
    client.put(b"bytes", "a/file")
    assert client.get("a/file") == b"bytes"
PYTHON
    local status=$?
    rm -rf "$venv"
    return "$status"
}
for version in 3.11 3.12 3.13 3.14; do
    if "python$version" --version >/dev/null 2>&1; then
        check "bare Python $version" bare "python$version"
    else
        echo "test-python.sh: Python $version: skipped, it is not installed"
    fi
done

python="$venvs/bin/python"
lock="$package/requirements-test.lock"
if ! cmp --silent "$lock" "$venvs/.idunno-test"; then
    rm -rf "$venvs"
    "${PYTHON:-python3}" -m venv "$venvs"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r "$lock"
    cp "$lock" "$venvs/.idunno-test"
fi
"$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-index --force-reinstall "${wheel[0]}"

in_package() { (cd "$package" && "$@"); }
check "ruff" in_package "$python" -m ruff check --quiet .
check "ruff format" in_package "$python" -m ruff format --quiet --check .
check "mypy" in_package "$python" -m mypy --no-error-summary
# Outside the sources: what is checked is what was installed.
check "stubtest" env -C / "$python" -m mypy.stubtest idunno._native
installed="$("$python" -c 'import idunno, pathlib; print(pathlib.Path(idunno.__file__).parent)')"
# Not the folder of the sources, which lacks the native part.
check "doctest" env -C / "$python" -m pytest -p no:cacheprovider --quiet --doctest-modules --ignore="$installed/__main__.py" "$installed"

report="$(mktemp)"
status=0
in_package "$python" -m pytest -p no:cacheprovider --junit-xml "$report" "$@" || status=$?
((status == 0)) || failed+=(tests)
"$python" - "$report" "$passed" "${#failed[@]}" <<'PYTHON'
import sys
import xml.etree.ElementTree as tree

suite = tree.parse(sys.argv[1]).getroot().find("testsuite")
tests, wrong, errors, skipped = (int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped"))
print(
    f"python client: {sys.argv[2]} checks passed; {tests - wrong - errors - skipped} tests passed, "
    f"{wrong + errors} failed, {skipped} skipped"
)
PYTHON
rm -f "$report"
if ((${#failed[@]})); then
    echo "test-python.sh: failed: ${failed[*]}" >&2
    exit 1
fi
