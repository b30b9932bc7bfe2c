#!/usr/bin/env bash
# Answers the dataset DATASET with the model MODEL, and writes the rows to a file of today: nightly.sh MODEL DATASET DIR
#
# The model is asked only about inputs that are new or have changed since the last night; the file has all rows.
# For cron. IDUNNO_CLUSTER and IDUNNO_IDENTITY name the cluster and the identity. Needs jq. The exit code is that of the
# command that failed: see docs/clients.md.
set -euo pipefail

model=$1 dataset=$2 dir=$3
rows="$dir/$model-$(date +%F).jsonl"

job="$(idunno --output json add-job "$model" --dataset "$dataset" | jq --raw-output .job)"
idunno start-job "$job" --only-new --wait >/dev/null
idunno get-job-results "$job" "$rows"

# Queries that failed permanently have a row with an error. They do not fail the job, so look at them.
dead="$(idunno --output json get-job-stats "$job" | jq '.items[0].dead_letters')"
if ((dead > 0)); then
    echo "nightly.sh: $dead queries of $job failed: idunno dead-letters list $job" >&2
fi
