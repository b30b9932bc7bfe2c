#!/usr/bin/env bash
# Captures every page of the console as text: console_screens.sh IDUNNO CLUSTER_DIR OUT_DIR
# Needs tmux. The local cluster works already; its coordinator is killed while the console looks on, and started again
# in the end.
set -euo pipefail
program=$1 cluster=$2 out=$3
session="idunno-screens-$$"
trap 'tmux kill-session -t "$session" 2>/dev/null || true' EXIT

# Waits until the screen shows a text.
await() {
    for _ in $(seq 100); do
        if tmux capture-pane -p -t "$session" | grep -q -- "$1"; then return; fi
        sleep 0.1
    done
    echo "console_screens.sh: '$1' never came" >&2
    tmux capture-pane -p -t "$session" >&2
    exit 1
}

# Presses keys, waits for a text, writes the screen down.
page() {
    local name=$1 text=$2
    shift 2
    tmux send-keys -t "$session" "$@"
    await "$text"
    # Answers of the cluster come within a moment.
    sleep 1
    tmux capture-pane -p -t "$session" > "$out/$name-$size.txt"
}

# Goes back. A key right behind Escape would be taken for one with Alt.
back() {
    tmux send-keys -t "$session" Escape
    sleep 0.5
}

mkdir -p "$out"
for size in 120x40 80x24; do
    tmux new-session -d -s "$session" -x "${size%x*}" -y "${size#*x}" \
        "env LANG=C.UTF-8 LC_ALL=C.UTF-8 TERM=xterm-256color $program --dir $cluster"
    await LIVE
    # Charts want a past.
    sleep "${WARM_UP_S:-15}"
    killed=$("$program" --dir "$cluster" local kill --coordinator | grep -o -m1 -w 'm[0-9]*')
    await ELECTING
    tmux capture-pane -p -t "$session" > "$out/electing-$size.txt"
    await LIVE
    sleep 5
    page overview CLUSTER 1
    page members STATE 2 j
    page member "incarnation" Enter
    back
    # The newest jobs are those that run.
    page jobs PROGRESS 3 G k
    page job-vms "SHARE OF" Enter
    page job-batches 'TRY\|no batch' Right
    page job-dead-letters "dead letters" Right
    back
    page assignments "NOW" 4
    page files HOLDERS 5 j
    page models READY 6
    page logs following 7
    page events KIND 8
    page form "MODEL" a n
    back
    page line "add-job MODEL" : a d d - j o b
    back
    page palette "what?" C-p
    back
    page help "search" '?'
    tmux kill-session -t "$session"
    "$program" --dir "$cluster" local start "$killed"
done
