#!/usr/bin/env bash
# Programs that others wrote, unchanged, against local clusters and their gateways. Over S3: awscli, boto3, rclone, s3cmd, s3fs with pandas,
# pyarrow, DuckDB, object_store. Over OpenAI's batch API: the openai package, with a server that repeats what it is told and with llama.cpp's.
# In Parquet, as datasets and as results: DuckDB, pandas, polars. Of webhooks: standardwebhooks, which verifies their signatures.
# Installs them from the registry into .venv-clients, builds the programs, runs tests/clients, prints a table of operations by client and one
# of calls, and ends with a line that counts. Exit code 0 only if all passed.
#
# Further arguments go to pytest. IDUNNO_PROGRAMS names a folder with idunno and idunnod, and perhaps idunno-gateway, in place of building them
# (with the features parquet and references);
# IDUNNO_WHEELS one with the Python client's wheel; IDUNNO_TEST_PYTHON a Python with the model server; IDUNNO_CLIENTS_VENV another
# place of the environments; IDUNNO_CLIENTS_PARTS the parts of 16 MiB of the large upload (64), IDUNNO_CLIENTS_LINES the lines of the
# large batch (10000), IDUNNO_EXAMPLES_REVIEWS the reviews of the notebook (2000). S3_TESTS names a clone of ceph/s3-tests, and
# S3S_E2E the program s3s-e2e: without them these public suites of S3 are skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

venvs="${IDUNNO_CLIENTS_VENV:-$PWD/.venv-clients}"
install() { # ENVIRONMENT PIP-ARGUMENTS...
    local name="$1"
    shift
    [[ -x "$venvs/$name/bin/pip" ]] || python3 -m venv "$venvs/$name"
    "$venvs/$name/bin/pip" install --quiet --disable-pip-version-check "$@"
}
# s3fs asks for an older botocore than awscli, so it has an environment of its own.
install main -r tests/clients/requirements.txt
install s3fs -r tests/clients/requirements-s3fs.txt
install llama --no-deps -r tests/clients/requirements-llama.txt
export IDUNNO_LLAMA_PYTHON="$venvs/llama/bin/python"
if [[ -z "${IDUNNO_TEST_PYTHON:-}" ]]; then
    scripts/setup_python.sh
    export IDUNNO_TEST_PYTHON="$PWD/.venv/bin/python"
fi

reports="$(mktemp -d)"
trap 'rm -rf "$reports"' EXIT
given="${IDUNNO_PROGRAMS:-}"
profile="${IDUNNO_CLIENTS_PROFILE:-release}"
flags=()
[[ "$profile" == release ]] && flags=(--release)
programs="$reports/programs"
mkdir "$programs"
link() { # FOLDER NAME...
    local folder="$1" name
    shift
    for name in "$@"; do ln -s "$(realpath "$folder/$name")" "$programs/$name"; done
}
if [[ -n "$given" ]]; then
    link "$given" idunno idunnod
else
    cargo build --locked "${flags[@]}" --package idunno-daemon --package idunno-console --features parquet,references
    link "${CARGO_TARGET_DIR:-target}/$profile" idunno idunnod
fi
if [[ -n "$given" && -x "$given/idunno-gateway" ]]; then
    link "$given" idunno-gateway
else
    # A workspace of its own.
    cargo build --locked "${flags[@]}" --manifest-path daemon/gateway/Cargo.toml
    link "${CARGO_TARGET_DIR:-daemon/gateway/target}/$profile" idunno-gateway
fi
# The Python client, for examples.
wheels="${IDUNNO_WHEELS:-}"
if [[ -z "$wheels" ]]; then
    wheels="$reports/wheels"
    scripts/release.sh --only wheels --programs "$programs" --out "$wheels"
fi
install main --no-deps --no-index --force-reinstall "$wheels"/idunno-[0-9]*.whl
export IDUNNO_PROGRAMS="$programs"

export IDUNNO_CLIENTS_TABLE="$reports/table"
: >"$IDUNNO_CLIENTS_TABLE"
status=0
run() { # ENVIRONMENT ARGUMENTS...
    local name="$1" code=0
    shift
    "$venvs/$name/bin/python" -m pytest -p no:cacheprovider --junit-xml "$reports/$name.xml" "$@" || code=$?
    # Code 5: a choice of tests has none in this environment.
    ((code == 0 || code == 5)) || status=1
}
run main tests/clients --ignore tests/clients/test_s3fs.py "$@"
run s3fs tests/clients/test_s3fs.py "$@"
"$venvs/main/bin/python" - "$reports"/*.xml <<'PYTHON'
import sys
import xml.etree.ElementTree as tree

suites = [tree.parse(path).getroot().find("testsuite") for path in sys.argv[1:]]
tests, failed, errors, skipped = (
    sum(int(suite.get(name)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
)
print(f"{tests - failed - errors - skipped} passed, {failed + errors} failed, {skipped} skipped")
PYTHON
exit "$status"
