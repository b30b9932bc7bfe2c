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

start_daemon "$home/introducer" introducer --listen "0.0.0.0:$1" --advertise "$advertise"
port="${address##*:}"
# shellcheck disable=SC2034 # stop_daemon deletes it
written="$introducer_port"
echo "$port" >"$introducer_port"
echo "introducer at port $port"
echo "a member on this machine:  scripts/member.sh PORT"
echo "on another machine:        copy $secret to \${IDUNNO_HOME:-~/.idunno}/secret.pem there (mode 600), then"
echo "                           IDUNNO_INTRODUCER=${advertise%:*}:$port scripts/member.sh PORT"
wait "$daemon_pid"
