#!/usr/bin/env bash
# Clients of S3 that others wrote, unchanged, against a local cluster and its gateway: awscli, boto3, rclone, s3cmd, s3fs with pandas,
# pyarrow, DuckDB, object_store. Installs them from the registry into .venv-clients, builds the programs, runs tests/clients,
# prints a table of operations by client, and ends with a line that counts. Exit code 0 only if all passed.
#
# Further arguments go to pytest. IDUNNO_PROGRAMS names a folder with idunno, idunnod and idunno-gateway in place of building them;
# IDUNNO_CLIENTS_VENV another place of the environment; IDUNNO_CLIENTS_PARTS the parts of 16 MiB of the large upload (64).
set -euo pipefail
cd "$(dirname "$0")/.."

venvs="${IDUNNO_CLIENTS_VENV:-$PWD/.venv-clients}"
# s3fs asks for an older botocore than awscli, so it has an environment of its own.
for name in main s3fs; do
    [[ -x "$venvs/$name/bin/pip" ]] || python3 -m venv "$venvs/$name"
done
"$venvs/main/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements.txt
"$venvs/s3fs/bin/pip" install --quiet --disable-pip-version-check -r tests/clients/requirements-s3fs.txt

if [[ -z "${IDUNNO_PROGRAMS:-}" ]]; then
    profile="${IDUNNO_CLIENTS_PROFILE:-release}"
    flag=()
    [[ "$profile" == release ]] && flag=(--release)
    cargo build --locked --workspace --bins "${flag[@]}"
    cargo build --locked --manifest-path daemon/gateway/Cargo.toml "${flag[@]}"
    programs="$(mktemp -d)"
    trap 'rm -rf "$programs"' EXIT
    for name in idunno idunnod; do ln -s "$PWD/target/$profile/$name" "$programs/$name"; done
    ln -s "$PWD/daemon/gateway/target/$profile/idunno-gateway" "$programs/idunno-gateway"
    export IDUNNO_PROGRAMS="$programs"
fi

reports="$(mktemp -d)"
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
rm -rf "$reports"
exit "$status"
