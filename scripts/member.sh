#!/usr/bin/env bash
# Starts a member by hand, with its model server, and reads commands for it, one a line; `help` lists them. `quit`, or
# the end of the input, ends the member, which leaves the cluster.
#
#   scripts/member.sh PORT
#
#   IDUNNO_INTRODUCER           the introducer, as HOST:PORT [default: the one that introducer.sh runs on this machine]
#   IDUNNO_ADVERTISE            this machine's address for others [default: that of its introducer, or the one it
#                               reaches others from]
#   IDUNNO_NAME                 the member's name [default: HOST-PORT]
#   IDUNNO_MODEL_SERVER_PYTHON  a Python with the model server [default: .venv, made on first use]
#
# Builds the programs on first use; by_hand.sh says where everything lies. Started again with the same port it is the
# same member with the same files.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=by_hand.sh
source "$(dirname "${BASH_SOURCE[0]}")/by_hand.sh"

(($# == 1)) || fail "usage: $0 PORT"
check_port "$1" 1
port="$1"
if [[ -n "${IDUNNO_INTRODUCER:-}" ]]; then
    introducer="$IDUNNO_INTRODUCER"
elif [[ -f "$introducer_address" ]]; then
    introducer="$(<"$introducer_address")"
else
    fail "no introducer runs on this machine: start scripts/introducer.sh PORT, or set IDUNNO_INTRODUCER=HOST:PORT"
fi
[[ -f "$secret" ]] || fail "there is no $secret: copy it from the introducer's machine, mode 600"
advertise="${IDUNNO_ADVERTISE:-}"
if [[ -z "$advertise" ]]; then
    case "${IDUNNO_INTRODUCER:-}" in
    '' | 127.* | '[::1]:'*) advertise="$(host_of "$introducer")" ;;
    localhost:*) advertise=127.0.0.1 ;;
    *) advertise="$(primary_address)" || fail "this machine's address is not known: set IDUNNO_ADVERTISE" ;;
    esac
fi

find_programs
python="${IDUNNO_MODEL_SERVER_PYTHON:-}"
if [[ -z "$python" ]]; then
    "$root/scripts/setup_python.sh"
    python="$root/.venv/bin/python"
fi

start_daemon "$home/member-$port" member --listen "$(listen_at "$port" "$advertise")" --advertise "$advertise" \
    --introducer "$introducer" --name "${IDUNNO_NAME:-$(hostname | cut -d. -f1)-$port}" --model-server-python "$python"

# Settings for other commands of this terminal are not this member's.
unset IDUNNO_MEMBER IDUNNO_CLUSTER IDUNNO_CONTEXT
idunno=("$programs/idunno" --identity "$secret" --cluster "$address")
say "waiting to join through $introducer"
for ((tries = 0; tries < 300; tries++)); do
    check_daemon
    joined="$("${idunno[@]}" --output json list_self 2>/dev/null || true)"
    [[ "$joined" != *'"joined":true'* ]] || break
    sleep 0.1
done
[[ "$joined" == *'"joined":true'* ]] || fail "cannot join through $introducer: see $home/member-$port/logs"
say "member $address has joined; help lists the commands"

# In the background, so that a request to end is heeded at once. Ctrl-C ends the command that runs, and neither the
# prompt nor the member.
trap : INT
"${idunno[@]}" shell <&0 &
prompt_pid=$!
trap 'kill "$prompt_pid" 2>/dev/null; exit 143' TERM HUP
code=0
# Ctrl-C ends the wait, and not what is waited for.
while kill -0 "$prompt_pid" 2>/dev/null; do
    if ! kill -0 "$daemon_pid" 2>/dev/null; then
        kill "$prompt_pid" 2>/dev/null || true
        echo >&2
        check_daemon
    fi
    code=0
    wait -n "$prompt_pid" "$daemon_pid" || code=$?
done
exit "$code"
