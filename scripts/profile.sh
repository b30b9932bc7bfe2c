#!/usr/bin/env bash
# Says where the processor's time goes while a part of scripts/bench.sh runs:
#
#   scripts/profile.sh PART [OPTIONS OF scripts/bench.sh]
#
# Prints how much each program took, and the functions that took most of each; the record stays in .demo/profile, for
# `perf report`. With inferno's programs on the PATH (`cargo install inferno`), it also writes a flame graph there.
# Needs perf, and leave to watch other processes: root, or kernel.perf_event_paranoid at -1.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
[[ $# -ge 1 && "$1" != -* ]] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 2; }
part="$1"
shift
if ! perf record --all-cpus --output /dev/null -- true >/dev/null 2>&1; then
    echo "profile.sh: perf cannot watch this machine: install it (Debian: linux-perf), and run this as root or set" \
        "kernel.perf_event_paranoid to -1" >&2
    exit 1
fi
folder="$root/.demo/profile"
mkdir -p "$folder"
record="$folder/$part.data"
# Stacks need more than most programs here are built with; without frame pointers, the innermost functions are right.
perf record --quiet --all-cpus --freq 499 --call-graph fp --output "$record" -- "$root/scripts/bench.sh" --only "$part" "$@"
report() { perf report --input "$record" --no-children --call-graph none --stdio --stdio-color never "$@" 2>/dev/null | grep --extended-regexp '^ +[0-9]' || true; }
echo "== programs"
report --sort comm --percent-limit 1
for program in tokio-rt-worker python blob-writer; do
    echo "== functions of $program"
    report --comms "$program" --percentage relative --sort symbol --percent-limit 1 | head -30
done
if command -v inferno-collapse-perf >/dev/null && command -v inferno-flamegraph >/dev/null; then
    perf script --input "$record" --no-inline 2>/dev/null | inferno-collapse-perf | inferno-flamegraph >"$folder/$part.svg"
    echo "flame graph: $folder/$part.svg"
fi
echo "record: $record"
