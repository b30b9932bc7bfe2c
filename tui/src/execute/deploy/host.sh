#!/bin/sh
# Runs on a VM, as root, by `sh -s -- STEP ...`: the steps of docs/operations.md.
set -eu
secret=/etc/idunno/secret.pem
staged=/run/idunno-deploy

fail() {
    echo "$*" >&2
    exit 1
}

# What is there, a word a line.
check() {
    command -v dpkg >/dev/null || fail "it is no Debian or Ubuntu: there is no dpkg (scripts/install.sh needs none)"
    [ -d /run/systemd/system ] || fail "it does not run systemd"
    command -v ip >/dev/null || fail "there is no program 'ip': install iproute2"
    echo "version $(dpkg-query --show --showformat='${Version}' idunno 2>/dev/null || true)"
    echo "secret $([ -e "$secret" ] && echo yes || echo no)"
    ip -o address show | awk '{ sub("/.*", "", $4); print "address " $4 }'
}

with_port() { # ADDRESS PORT
    case "$1" in
        *:*) echo "[$1]:$2" ;;
        *) echo "$1:$2" ;;
    esac
}

install_package() { # INTRODUCER IS_INTRODUCER WITH_MODELS
    me="$(ip -json route get "$1" | sed 's/.*"prefsrc":"\([^"]*\)".*/\1/')"
    # Whatever happens, no copy of the secret is left.
    trap 'rm -rf "$staged"' EXIT
    export DEBIAN_FRONTEND=noninteractive
    apt-get install --yes --quiet=2 --no-install-recommends -o Dpkg::Options::=--force-confdef \
        -o Dpkg::Options::=--force-confold "$staged/idunno.deb" >&2
    [ -e "$secret" ] || install -m 0600 "$staged/secret.pem" "$secret"
    if [ "$3" = yes ] && [ ! -e /opt/idunno/venv ]; then
        python3 -m venv --help >/dev/null 2>&1 || apt-get install --yes --quiet=2 python3-venv >&2
        idunno-setup-python >&2
    fi
    # Settings that somebody has changed stay.
    sed -i "s|^# advertise = .*|advertise = \"$me\"|" /etc/idunno/introducer.toml
    sed -i "s|^# advertise = .*|advertise = \"$me\"|; s|^# introducer = .*|introducer = \"$(with_port "$1" 7400)\"|" \
        /etc/idunno/member.toml
    idunnod check-config member --config /etc/idunno/member.toml --secret "$secret" >&2
    if [ "$2" = yes ]; then systemctl enable --quiet --now idunno-introducer; fi
    # An upgrade has restarted what was running.
    systemctl enable --quiet --now idunno-member
    await_working "$me"
    echo "version $(dpkg-query --show --showformat='${Version}' idunno)"
    echo "address $me"
}

# The member answers, and no file lacks a copy: the next VM may be taken away for a while.
await_working() { # ADDRESS
    tries=0
    until said="$(idunno --timeout 5 --identity "$secret" --cluster "$(with_port "$1" 7401)" --output json status 2>&1)" &&
        echo "$said" | grep -q '"under_replicated":0[,}]'; do
        tries=$((tries + 1))
        [ "$tries" -lt 90 ] || fail "its member does not work after 90 attempts: $said"
        systemctl is-failed --quiet idunno-member && fail "idunno-member has failed: see journalctl -u idunno-member"
        sleep 1
    done
}

# The script itself is standard input, of which nothing else may read.
"$@" </dev/null
