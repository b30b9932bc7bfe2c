#!/usr/bin/env bash
# Starts a member by hand, with its model server, and reads commands for it, one a line; `help` lists them. `quit`, or
# the end of the input, ends the member, which leaves the cluster.
#
#   scripts/member.sh PORT
#
#   IDUNNO_INTRODUCER           the introducer, as HOST:PORT [default: the one that introducer.sh runs on this machine]
#   IDUNNO_ADVERTISE            this machine's address for others [default: 127.0.0.1 where the introducer was found
#                               there or on this machine, else the one it reaches others from]
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
elif [[ -f "$introducer_port" ]]; then
    introducer="127.0.0.1:$(<"$introducer_port")"
else
    fail "no introducer runs on this machine: start scripts/introducer.sh PORT, or set IDUNNO_INTRODUCER=HOST:PORT"
fi
[[ -f "$secret" ]] || fail "there is no $secret: copy it from the introducer's machine, mode 600"
case "${introducer%:*}" in
127.* | localhost | '[::1]') default_address=127.0.0.1 ;;
*) default_address="$(primary_address)" || fail "this machine's address is not known: set IDUNNO_ADVERTISE" ;;
esac
advertise="${IDUNNO_ADVERTISE:-$default_address}"
listen=0.0.0.0
[[ "$advertise" != 127.* ]] || listen=127.0.0.1

find_programs
python="${IDUNNO_MODEL_SERVER_PYTHON:-}"
if [[ -z "$python" ]]; then
    "$root/scripts/setup_python.sh"
    python="$root/.venv/bin/python"
fi

start_daemon "$home/member-$port" member --listen "$listen:$port" --advertise "$advertise" --introducer "$introducer" \
    --name "${IDUNNO_NAME:-$(hostname | cut -d. -f1)-$port}" --model-server-python "$python"

idunno=("$programs/idunno" --identity "$secret" --cluster "${advertise%:*}:$port")
say "waiting to join through $introducer"
for ((tries = 0; tries < 300; tries++)); do
    kill -0 "$daemon_pid" 2>/dev/null || fail "idunnod ended: $(tail -n 5 "$home/member-$port/stdout.log")"
    joined="$("${idunno[@]}" --output json list_self 2>/dev/null || true)"
    [[ "$joined" != *'"joined":true'* ]] || break
    sleep 0.1
done
[[ "$joined" == *'"joined":true'* ]] || fail "cannot join through $introducer: see $home/member-$port/logs"
say "member ${advertise%:*}:$port has joined; help lists the commands"

# Settings for other commands of this terminal are not this member's.
unset IDUNNO_MEMBER IDUNNO_CLUSTER IDUNNO_CONTEXT
# In the background, so that a request to end is heeded at once. Ctrl-C ends the command that runs, and neither the
# prompt nor the member.
trap : INT
"${idunno[@]}" shell <&0 &
prompt_pid=$!
trap 'kill "$prompt_pid" 2>/dev/null; exit 143' TERM HUP
while true; do
    code=0
    wait "$prompt_pid" || code=$?
    # Ctrl-C ends the wait, and not what is waited for.
    kill -0 "$prompt_pid" 2>/dev/null || break
done
exit "$code"
