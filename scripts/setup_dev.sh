#!/usr/bin/env bash
# Makes the Python environment of the tools for shell scripts, spelling and screens; does nothing if it is up to date.
# Prints nothing on success.
#
#   scripts/setup_dev.sh [VENV_DIR]        default: .venv-dev in the repository
#
# Needs Python 3.11 or newer with venv, and a package index; PYTHON names another interpreter than python3. The packages
# are the wheels whose hashes scripts/requirements-dev.lock has.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
requirements="$root/scripts/requirements-dev.lock"
venv="${1:-$root/.venv-dev}"
python="${PYTHON:-python3}"
stamp="$venv/.idunno-dev"

fail() {
    echo "setup_dev.sh: $*" >&2
    exit 1
}

cmp --silent "$requirements" "$stamp" && exit 0
# An environment that this script did not make is never changed.
if [[ -n "$(ls -A "$venv" 2>/dev/null)" && ! -f "$stamp" ]]; then
    fail "$venv exists and was not made by this script; name another directory"
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
    fail "needs Python 3.11 or newer, which $python is not; set PYTHON"
mkdir -p "$venv"
: >"$stamp" # made by this script from here on, and out of date until the end
"$python" -m venv "$venv" || fail "cannot make a virtual environment; install python3-venv"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    -r "$requirements" ||
    fail "cannot install the development tools; is a package index reachable?"
# Python 3.11's venv brings it, with a .pth file that runs at every start.
"$venv/bin/python" -m pip uninstall --quiet --quiet --yes setuptools
cp "$requirements" "$stamp"
