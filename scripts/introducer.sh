#!/usr/bin/env bash
# Starts the introducer by hand, in the foreground; Ctrl-C ends it. Members join through it: see member.sh.
#
#   scripts/introducer.sh PORT                0 for a free port, which is printed
#
#   IDUNNO_ADVERTISE  this machine's address for others [default: the one it reaches others from]
#
# Builds the programs and makes the cluster's secret on first use; by_hand.sh says where. Members on other machines need
# a copy of the secret.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=by_hand.sh
source "$(dirname "${BASH_SOURCE[0]}")/by_hand.sh"

(($# == 1)) || fail "usage: $0 PORT"
check_port "$1" 0
find_programs
make_secret
advertise="${IDUNNO_ADVERTISE:-$(primary_address || echo 127.0.0.1)}"

start_daemon "$home/introducer" introducer --listen "$(listen_at "$1" "$advertise")" --advertise "$advertise"
# shellcheck disable=SC2034 # stop_daemon deletes it
written="$introducer_address"
echo "$address" >"$introducer_address"
echo "introducer at $address"
echo "a member on this machine:  scripts/member.sh PORT"
if [[ "$address" == 127.* ]]; then
    echo "on another machine:        not possible at this address: set IDUNNO_ADVERTISE to one that others reach"
else
    echo "on another machine:        copy $secret to \${IDUNNO_HOME:-~/.idunno}/secret.pem there (mode 600), then"
    echo "                           IDUNNO_INTRODUCER=$address scripts/member.sh PORT"
fi
wait "$daemon_pid" || check_daemon
