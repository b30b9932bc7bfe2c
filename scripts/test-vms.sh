#!/usr/bin/env bash
# Boots six machines with systemd-nspawn from a Debian made by debootstrap, installs the Debian package on them, and breaks
# them while jobs run: see tests/vms/README.md. Build the programs first (cargo build --release).
#
#   scripts/test-vms.sh [--help] [--programs DIR] [--members N] [--keep] ...
#
# Needs root. Everything happens in a mount, network and process namespace of its own, in a cgroup, and in target/vms
# (2 GB); the machine's network and services are not touched. The first run downloads Debian and Python packages.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "test-vms.sh: $*" >&2
    exit 1
}

[[ "$(uname)" == Linux ]] || fail "needs Linux"
[[ "$EUID" == 0 ]] || fail "needs root: it boots machines (try sudo $0)"
for tool in debootstrap:debootstrap systemd-nspawn:systemd-container unshare:util-linux nsenter:util-linux ip:iproute2 \
    dpkg-deb:dpkg; do
    command -v "${tool%:*}" >/dev/null || fail "needs ${tool%:*}: apt-get install ${tool#*:}"
done
grep -qw cgroup2 /proc/filesystems || fail "needs a kernel with cgroup v2"
grep -qw overlay /proc/filesystems || modprobe overlay 2>/dev/null || fail "needs a kernel with overlayfs"
unshare --mount --net --pid --fork true 2>/dev/null ||
    fail "cannot make namespaces (a container without privileges?)"

export PYTHON="${PYTHON:-python3}"
exec "$PYTHON" tests/vms/run.py "$@"
