#!/usr/bin/env bash
# Makes the Python environment of the model server, its tests and its linters; does nothing if it is up to date.
#
#   scripts/setup_python.sh [VENV_DIR]        default: .venv in the repository
#
# Needs Python 3.11 or newer with venv; PYTHON selects an interpreter other than python3. Prints nothing on success.
# Every package is a wheel whose hash python_model_server/requirements-dev.lock has, and the models' data files are those
# of data_files.toml. Two stamp files in the environment hold hashes, one of what decides the dependencies and one of the
# package's sources: if only the sources have changed, only the package is reinstalled.
set -euo pipefail
unset PYTHONPATH PYTHONHOME # nothing but the environment's own packages runs

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
package="$root/python_model_server"
venv="${1:-$root/.venv}"
python="${PYTHON:-python3}"

fail() {
    echo "setup_python.sh: $*" >&2
    exit 1
}

# Prints one hash of the names and contents of files.
hash_of() {
    (cd "$package" && cat -- "$@" && printf '%s\n' "$@") | sha256sum | cut -d' ' -f1
}

mapfile -t sources < <(cd "$package" && find src -type f ! -name '*.pyc' | LC_ALL=C sort)
dependencies="$(hash_of pyproject.toml requirements-dev.lock)"
code="$(hash_of pyproject.toml "${sources[@]}")"

is_current() { # is_current STAMP HASH
    [[ -f "$venv/$1" && "$(<"$venv/$1")" == "$2" ]]
}

is_current .idunno-dependencies "$dependencies" && is_current .idunno-code "$code" && exit 0

# Never deletes a folder that this script did not make.
if [[ -n "$(ls -A "$venv" 2>/dev/null)" && ! -f "$venv/.idunno-dependencies" ]]; then
    fail "$venv exists and was not made by this script: choose another folder"
fi

# If two copies of this script run at once, the second waits and finds the work done.
if command -v flock >/dev/null; then
    exec 9<"$package/pyproject.toml"
    flock 9
fi

pip_install() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$@"
}

# What builds the package is in the environment, so this needs no package index. The data files are in the package's
# sources: those that have not changed are kept.
install_package() {
    pip_install --force-reinstall --no-index --no-build-isolation "$package"
    "$venv/bin/python" -m idunno_model_server.fetch_data --quiet "$venv/share/idunno/data"
    echo "$code" >"$venv/.idunno-code"
}

if ! is_current .idunno-dependencies "$dependencies"; then
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "needs Python 3.11 or newer; $python is not (set PYTHON to one that is)"
    echo "setup_python.sh: making $venv (about half a minute)" >&2
    mkdir -p "$venv"
    # The data files are kept.
    find "$venv/" -mindepth 1 -maxdepth 1 ! -name share -exec rm -rf {} +
    : >"$venv/.idunno-dependencies" # marks the folder as ours; it stays out of date until all is installed
    "$python" -m venv "$venv" || fail "cannot make a virtual environment: is python3-venv installed?"
    # The lock file lists every package, so pip has nothing to resolve. Wheels only: pip would run the code of others.
    pip_install --require-hashes --only-binary :all: -r "$package/requirements-dev.lock"
    # Python 3.11's venv brings it, with a .pth file that runs at every start.
    "$venv/bin/python" -m pip uninstall --quiet --quiet --yes setuptools
    echo "$dependencies" >"$venv/.idunno-dependencies"
fi
is_current .idunno-code "$code" || install_package
