#!/usr/bin/env bash
# Makes what people install, from these sources: the Debian package, the wheels, their bill of materials (CycloneDX), and the
# files of a container image, which is built of the package. Prints a line for each artefact, and writes their SHA-256 sums
# into SHA256SUMS beside them.
#
#   scripts/release.sh [--only KIND] [--out DIR] [--programs DIR] [--sign KEY]
#
#   --only KIND      'deb', 'wheels', 'sbom' or 'container'; may be given several times (all kinds)
#   --out DIR        folder of the artefacts, made if it does not exist (target/release-artefacts)
#   --programs DIR   folder of idunno, idunnod and idunno-gateway in place of building them; IDUNNO_PROGRAMS is the same
#   --sign KEY       sign SHA256SUMS with an SSH key, or with the public half of one that an agent holds: SHA256SUMS.sig.
#                    docs/release.md says how people verify it
#
# The wheel `idunno` is for every Python from 3.11 on, on this architecture, and needs the glibc that its name says or a
# newer one: it is linked with that of this machine. It brings the command line, the daemon's program and the gateway's.
#
# Needs cargo, a C compiler, Python 3.11 or newer with venv, and a package index for what builds wheels, which is locked in
# scripts/requirements-release.lock; the Debian package needs what scripts/package.sh says.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
out="$root/target/release-artefacts"
programs="${IDUNNO_PROGRAMS:-}"
key=""
kinds=()

fail() {
    echo "release.sh: $*" >&2
    exit 1
}

while [[ $# -gt 0 ]]; do
    case "$1" in
        --only | --out | --programs | --sign)
            [[ $# -ge 2 ]] || fail "$1 needs a value"
            case "$1" in
                --only) kinds+=("$2") ;;
                --out) out="$2" ;;
                --programs) programs="$2" ;;
                --sign) key="$2" ;;
            esac
            shift 2
            ;;
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit 0 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done
((${#kinds[@]})) || kinds=(deb wheels sbom container)
# Before an hour of building.
[[ -z "$key" || -r "$key" ]] || fail "there is no key $key"

umask 022
mkdir -p "$out"
out="$(cd "$out" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
target="${CARGO_TARGET_DIR:-$root/target}"

# A folder with the programs: the one that was named, or that of the build.
built_programs() {
    if [[ -z "$programs" ]]; then
        (cd "$root" && cargo build --locked --release -p idunno-daemon -p idunno-console --bins --features parquet,references) >&2
        # A workspace of its own, built into the same folder.
        (cd "$root" && CARGO_TARGET_DIR="$target" cargo build --locked --release --manifest-path daemon/gateway/Cargo.toml) >&2
        programs="$target/release"
    fi
}

make_deb() {
    built_programs
    "$root/scripts/package.sh" --programs "$programs" --out "$out" >"$work/deb"
    made+=("$(basename "$(tail -1 "$work/deb")")")
}

# An environment of its own: what builds a release is locked, and nothing else is in it.
build_python() {
    local lock="$root/scripts/requirements-release.lock" venv="$target/release-venv"
    python="$venv/bin/python"
    cmp --silent "$lock" "$venv/.idunno-release" && return
    rm -rf "$venv"
    "${PYTHON:-python3}" -m venv "$venv"
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: -r "$lock"
    cp "$lock" "$venv/.idunno-release"
}

make_wheels() {
    build_python
    built_programs
    (cd "$root/shared/python" && CARGO_TARGET_DIR="$target/python" "$(dirname "$python")/maturin" build --release --locked --features parquet,references \
        --interpreter "$python" --out "$work/maturin") >&2
    local built glibc program tree unpacked wheel
    "$python" -m wheel unpack --dest "$work/unpacked" "$work"/maturin/idunno-*.whl >&2
    unpacked=("$work"/unpacked/idunno-*)
    tree="${unpacked[0]}"
    built=("$work"/maturin/idunno-*.whl)
    # The programs of local clusters, which pip puts beside the command line.
    for program in idunnod idunno-gateway; do
        if [[ ! -x "$programs/$program" && "$program" == idunno-gateway ]]; then
            echo "release.sh: the wheel is without the gateway: there is no $programs/$program" >&2
            continue
        fi
        # The name says which glibc is needed, and no program may need a newer one than the library.
        glibc="$(grep -aoE 'GLIBC_2\.[0-9]+' "$programs/$program" | sed 's/GLIBC_2\.//' | sort -nu | tail -1)"
        if [[ "${built[0]}" =~ manylinux_2_([0-9]+) ]] && ((glibc > BASH_REMATCH[1])); then
            fail "$programs/$program needs glibc 2.$glibc, newer than the 2.${BASH_REMATCH[1]} of the wheel"
        fi
        install -D -m 755 "$programs/$program" "$tree/$(basename "$tree").data/scripts/$program"
        strip "$tree/$(basename "$tree").data/scripts/$program"
    done
    mkdir "$work/wheels"
    "$python" -m wheel pack --dest-dir "$work/wheels" "$tree" >&2
    "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --no-index --no-build-isolation \
        --wheel-dir "$work/wheels" "$root/python_model_server"
    for wheel in "$work"/wheels/*.whl; do
        mv "$wheel" "$out/"
        made+=("$(basename "$wheel")")
    done
}

make_sbom() {
    local version
    version="$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1)"
    build_python
    "$python" "$root/scripts/sbom.py" "$out/idunno-$version.cdx.json" >&2
    made+=("idunno-$version.cdx.json")
}

# The folder of the release is the context of the image, which takes the Debian package from it.
make_container() {
    local file
    for file in Dockerfile .dockerignore entrypoint compose.yaml; do
        cp "$root/scripts/container/$file" "$out/"
        made+=("$file")
    done
}

made=()
for kind in "${kinds[@]}"; do
    case "$kind" in
        deb) make_deb ;;
        wheels) make_wheels ;;
        sbom) make_sbom ;;
        container) make_container ;;
        *) fail "there is no kind '$kind': see --help" ;;
    esac
done
"$root/scripts/sign_release.sh" ${key:+--sign "$key"} "$out" "${made[@]}"
