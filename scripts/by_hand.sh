#!/usr/bin/env bash
# What introducer.sh and member.sh share. To be sourced, with $0 one of them.
#
#   IDUNNO_HOME      where everything lies [default: ~/.idunno]: secret.pem, and a directory for each process
#   IDUNNO_PROGRAMS  directory of idunno and idunnod [default: built with cargo]

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
home="${IDUNNO_HOME:-$HOME/.idunno}"
secret="$home/secret.pem"
# The address of this machine's introducer, while it runs.
# shellcheck disable=SC2034 # for those that source this
introducer_address="$home/introducer.address"
daemon_pid=
# What is deleted at the end.
written=

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

say() {
    echo "$(basename "$0"): $*" >&2
}

# check_port PORT LEAST
check_port() {
    if [[ ! "$1" =~ ^[0-9]{1,5}$ ]] || ((10#$1 < $2 || 10#$1 > 65535)); then
        fail "'$1' is not a port: give $2 to 65535"
    fi
}

# Sets `programs`.
find_programs() {
    if [[ -n "${IDUNNO_PROGRAMS:-}" ]]; then
        programs="$IDUNNO_PROGRAMS"
    else
        command -v cargo >/dev/null || fail "needs a Rust toolchain, or IDUNNO_PROGRAMS=DIR with idunno and idunnod"
        programs="${CARGO_TARGET_DIR:-$root/target}/release"
        say "building idunno and idunnod"
        cargo build --locked --release --manifest-path "$root/Cargo.toml" --package idunno-daemon --package idunno-console
    fi
    [[ -x "$programs/idunno" && -x "$programs/idunnod" ]] || fail "no idunno and idunnod in $programs"
}

# The cluster's secret. It is made where the introducer runs, and nowhere else.
make_secret() {
    umask 077
    mkdir -p "$home"
    if [[ ! -f "$secret" ]]; then
        "$programs/idunno" cluster init --out "$secret" >/dev/null
        say "made the cluster's secret: $secret"
    fi
}

# The address from which this machine reaches others. Nothing is sent.
primary_address() {
    local address
    address="$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p')"
    [[ -n "$address" ]] || address="$(hostname -I 2>/dev/null | cut -d' ' -f1)"
    [[ -n "$address" ]] || address="$(ipconfig getifaddr en0 2>/dev/null || true)"
    [[ -n "$address" ]] && echo "$address"
}

# The host of HOST:PORT, without the brackets of an IPv6 address.
host_of() {
    local host="${1%:*}"
    host="${host#[}"
    echo "${host%]}"
}

# What idunnod listens at, given PORT and the address for others: no more than that address needs.
listen_at() {
    case "$2" in
    127.* | localhost) echo "127.0.0.1:$1" ;;
    ::1 | '[::1]') echo "[::1]:$1" ;;
    \[* | *:*:*) echo "[::]:$1" ;;
    *) echo "0.0.0.0:$1" ;;
    esac
}

# start_daemon DATA_DIR ARGUMENT...: starts idunnod and waits until it listens; sets `daemon_pid`, and `address`, at
# which others reach it.
start_daemon() {
    local runtime="$1/runtime.json" text umask_before
    # The files of the store, the logs and the output are their owner's alone; what is typed at the prompt keeps the
    # user's own umask.
    umask_before="$(umask)"
    umask 077
    data_dir="$1"
    shift
    mkdir -p "$data_dir"
    # In a process group of its own: Ctrl-C at the terminal is not meant for it.
    set -m
    "$programs/idunnod" "$@" --data-dir "$data_dir" --secret "$secret" \
        </dev/null >"$data_dir/stdout.log" 2>&1 &
    daemon_pid=$!
    set +m
    umask "$umask_before"
    trap stop_daemon EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    while true; do
        text="$(cat "$runtime" 2>/dev/null || true)"
        if [[ "$text" =~ \"pid\":\ *${daemon_pid}[,}] && "$text" =~ \"address\":\ *\"([^\"]+)\" ]]; then
            address="${BASH_REMATCH[1]}"
            return
        fi
        check_daemon
        sleep 0.05
    done
}

# Fails if the daemon has ended without being asked to.
check_daemon() {
    if ! kill -0 "$daemon_pid" 2>/dev/null; then
        daemon_pid=
        fail "idunnod has ended (its log is in $data_dir/logs): $(tail -n 5 "$data_dir/stdout.log")"
    fi
}

# Ends the daemon as systemd would: by force after 60 s.
stop_daemon() {
    local code=$?
    trap - EXIT
    trap '' INT TERM HUP
    if [[ -n "$daemon_pid" ]]; then
        kill -TERM "$daemon_pid" 2>/dev/null || true
        for ((tries = 0; tries < 600; tries++)); do
            kill -0 "$daemon_pid" 2>/dev/null || break
            sleep 0.1
        done
        kill -KILL "$daemon_pid" 2>/dev/null || true
        wait "$daemon_pid" || true
    fi
    [[ -z "$written" ]] || rm -f "$written"
    exit "$code"
}
