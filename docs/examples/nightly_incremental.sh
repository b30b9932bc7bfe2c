#!/usr/bin/env bash
# Answers what is new in a folder since the last run: nightly_incremental.sh MODEL INCOMING STATE
#
# Each file of INCOMING is a query, once. STATE keeps the names of the files that were answered (done), and the rows of
# each run (rows/TIME.jsonl). A run that fails marks nothing as done, so the next one takes its files again. One run at a
# time: a second one ends with the exit code 1. IDUNNO_CLUSTER and IDUNNO_IDENTITY name the cluster and the identity.
# Needs jq.
set -euo pipefail
export LC_ALL=C # comm needs the order of sort

model=$1 incoming=$2 state=$3
mkdir -p "$state/rows"
exec 9>"$state/lock"
flock --nonblock 9 || { echo "nightly_incremental.sh: another run is using $state" >&2 && exit 1; }
touch "$state/done"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
# Names end with NUL: a file's name may have any other character. Files that are still being written are hidden by custom.
find "$incoming" -type f ! -name '.*' -printf '%P\0' | sort -z >"$work/present"
sort -z "$state/done" | comm -z -23 "$work/present" - >"$work/new"
count="$(tr -dc '\0' <"$work/new" | wc -c)"
if ((count == 0)); then
    echo "nothing new in $incoming"
    exit 0
fi
mkdir "$work/inputs"
(cd "$incoming" && xargs -0 cp --parents --target-directory "$work/inputs") <"$work/new"

run="$(date --utc +%Y%m%dT%H%M%SZ)"
dataset="nightly/$run"
idunno populate-test-data "$work/inputs" --dataset "$dataset" >/dev/null
job="$(idunno --output json add-job "$model" --dataset "$dataset" --name "nightly-$run" | jq --raw-output .job)"
idunno start-job "$job" --wait >/dev/null
idunno get-job-results "$job" "$work/rows.jsonl" >/dev/null

# Rows first, then the mark. A run that dies in between answers its files again, and loses none.
cp "$work/rows.jsonl" "$state/rows/.$run.part"
sync "$state/rows/.$run.part"
mv "$state/rows/.$run.part" "$state/rows/$run.jsonl"
cat "$work/new" >>"$state/done"
dead="$(idunno --output json get-job-stats "$job" | jq '.items[0].dead_letters')"
echo "$count new files answered by $job, of which $dead failed: $state/rows/$run.jsonl"
