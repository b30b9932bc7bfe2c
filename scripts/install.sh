#!/usr/bin/env bash
# Installs IDunno on a VM with systemd, without a package. Run it again to upgrade.
#
#   scripts/install.sh introducer|member|both [--programs DIR] [--wheels DIR] [--without-python]
#   scripts/install.sh uninstall [--purge]
#
#   --programs DIR     directory of idunno and idunnod (target/release)
#   --wheels DIR       take the model server's dependencies and data files from DIR, without a package index
#   --without-python   install no model server, for a member that only stores files
#   --purge            also delete data and settings, which are kept otherwise
#
# Programs go to /usr/local, settings to /etc/idunno, data to /var/lib/idunno*, the model server's Python environment to
# /opt/idunno. Existing settings are never changed. An upgrade restarts the services that are running; no service is
# enabled or started. Needs root, and Python 3.11 or newer with venv for a member that runs models.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
programs="$root/target/release"
wheels=()
with_python=1
purge=
what="${1:-}"

fail() {
    echo "install.sh: $*" >&2
    exit 1
}
usage() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }

case "$what" in
    introducer | member | both | uninstall) shift ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
esac
while [[ $# -gt 0 ]]; do
    case "$1" in
        --programs | --wheels)
            [[ -d "${2:-}" ]] || fail "$1 needs a directory"
            if [[ "$1" == --programs ]]; then programs="$2"; else wheels=(--wheels "$2"); fi
            shift 2
            ;;
        --without-python) with_python= && shift ;;
        --purge) purge=1 && shift ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done
[[ "$EUID" == 0 ]] || fail "needs root"
command -v systemctl >/dev/null || fail "needs systemd"
if dpkg-query --show --showformat='${db:Status-Status}' idunno 2>/dev/null | grep -qx installed; then
    fail "the Debian package is installed on this machine: upgrade or remove it"
fi

if [[ "$what" == uninstall ]]; then
    for unit in member model-server introducer; do
        systemctl disable --now "idunno-$unit.service" 2>/dev/null || true
        rm -f "/etc/systemd/system/idunno-$unit.service" "/etc/systemd/system/idunno-$unit.service.d/gpu.conf"
        rmdir "/etc/systemd/system/idunno-$unit.service.d" 2>/dev/null || true
    done
    systemctl daemon-reload || true
    rm -f /usr/local/bin/idunno /usr/local/bin/idunnod /usr/local/sbin/idunno-setup-python \
        /usr/local/sbin/idunno-setup-gpu
    rm -rf /usr/local/share/idunno /opt/idunno/venv /opt/idunno/venv-*
    rmdir /opt/idunno 2>/dev/null || true
    if [[ -z "$purge" ]]; then
        echo "data and settings are kept: /var/lib/idunno*, /etc/idunno"
    else
        rm -rf /etc/idunno /var/lib/idunno /var/lib/idunno-introducer /var/lib/idunno-model-{server,files} \
            /var/log/idunno /var/log/idunno-introducer
        for user in idunno idunno-models; do
            id "$user" >/dev/null 2>&1 && userdel "$user"
        done
    fi
    exit 0
fi

for program in idunno idunnod; do
    [[ -x "$programs/$program" ]] || fail "$programs/$program does not exist: run cargo build --release"
done
for user in idunno idunno-models; do
    id "$user" >/dev/null 2>&1 ||
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
done

put() { # put MODE FILE TARGET: replaces the target, also while it is a running program
    mkdir -p "$(dirname "$3")"
    install -m "$1" "$2" "$3.new"
    mv "$3.new" "$3"
}
put 755 "$programs/idunno" /usr/local/bin/idunno
put 755 "$programs/idunnod" /usr/local/bin/idunnod
put 755 "$root/scripts/idunno-setup-python" /usr/local/sbin/idunno-setup-python
put 755 "$root/scripts/idunno-setup-gpu" /usr/local/sbin/idunno-setup-gpu
put 644 "$root/scripts/systemd/gpu.conf" /usr/local/share/idunno/gpu.conf

roles=("$what")
[[ "$what" == both ]] && roles=(introducer member)
for role in "${roles[@]}"; do
    put 644 "$root/scripts/systemd/idunno-$role.service" "/etc/systemd/system/idunno-$role.service"
    [[ -e "/etc/idunno/$role.toml" ]] && continue
    put 644 "$root/scripts/systemd/$role.toml" "/etc/idunno/$role.toml"
    if [[ "$role" == member && -z "$with_python" ]]; then
        sed -i '/^model_files_dir/d; s/^model_server_url = .*/model_server_url = "none"/' /etc/idunno/member.toml
    fi
done
# The member writes there, and the model server's user may enter.
[[ "$what" == introducer ]] || install -d -m 0750 -o idunno -g idunno-models /var/lib/idunno-model-files
if [[ "$what" != introducer && -n "$with_python" ]]; then
    put 644 "$root/scripts/systemd/idunno-model-server.service" /etc/systemd/system/idunno-model-server.service
    share=/usr/local/share/idunno/python
    for file in pyproject.toml requirements.lock; do
        put 644 "$root/python_model_server/$file" "$share/$file"
    done
    rm -rf "$share/src" "$share"/*.whl
    cp -r "$root/python_model_server/src" "$share/src"
    idunno-setup-python --source "$share" "${wheels[@]}"
fi

systemctl daemon-reload || true
for unit in idunno-introducer idunno-model-server idunno-member; do
    [[ -f "/etc/systemd/system/$unit.service" ]] || continue
    systemctl try-restart "$unit.service" || echo "install.sh: $unit did not restart: see journalctl -u $unit" >&2
done
[[ -e /etc/idunno/secret.pem ]] ||
    echo "put the cluster's secret into /etc/idunno/secret.pem, mode 600; 'idunno cluster init --out FILE' makes it, once"
for role in "${roles[@]}"; do
    systemctl is-enabled --quiet "idunno-$role.service" 2>/dev/null ||
        echo "set the addresses in /etc/idunno/$role.toml, then: systemctl enable --now idunno-$role"
done
