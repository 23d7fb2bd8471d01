#!/usr/bin/env bash
# A long run at a steady rate on this machine: what the engine's memory and the percentiles do meanwhile. `make soak` runs it.
#   soak.sh DURATION (as 20m)   RATE (15000) is 60 % of what the machine keeps up with   BINARIES (target/release)
#   CREDENTIAL (demo-p256)      JSON (a file for the whole report)
# It prints a line a minute and a verdict; exit code 1 when memory grew, percentiles drifted, or the SLA was not kept, 5 when
# the generator was saturated and the run proves nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
source scripts/lib.sh
duration=${1:-20m} report=$(realpath -m "${JSON:-$folder/json}")
start_engine
(while kill -0 $engine 2>/dev/null; do
    awk -v at="$(date +%s%3N)" '/^VmRSS/ { print at, $2 / 1024 }' "/proc/$engine/status" 2>/dev/null
    sleep 5
done) >memory &
watch=$!
load --profile var/dev/app.toml --credential "${CREDENTIAL:-demo-p256}" --rate "${RATE:-15000}" --duration "$duration"
kill -0 $engine 2>/dev/null || { echo "the engine has ended" >&2; tail -5 err >&2; exit 4; }
[[ $report == "$folder/json" ]] || cp json "$report"
python3 "$top/scripts/soak.py" json memory
