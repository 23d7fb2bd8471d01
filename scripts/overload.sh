#!/usr/bin/env bash
# Overload on this machine: a fresh engine with one device of known capacity C, offered parts and multiples of C; a table of
# what came back, for docs/benchmarks.md, and a picture. `make overload` runs it. Client and server share the processors.
# C is measured first: what the device brings through the engine while half as much again is offered as it can do by its
# own account (what a call takes while there is little to do, in each of its processes).
#   DEVICES ("simulated softhsm")   the first waits MS (20) a call in PROCESSES (8) processes, the second computes RSA-4096 on
#                 the last processor, which it has for itself, as an HSM has its own; engine and load tool share the others.
#                 "softhsm-shared" lets it compete with them: then refusals and the load itself take from its capacity
#   SECONDS_EACH (60)   FACTORS ("0.5 0.9 1.1 2 5 10")   SVG (docs/overload.svg)   OUT (a folder for reports with plots)
#   BINARIES (target/release)
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD
source scripts/lib.sh
each=${SECONDS_EACH:-60} ms=${MS:-20} out=${OUT:-} svg=$(realpath -m "${SVG:-docs/overload.svg}")
if [[ -n $out ]]; then mkdir -p "$out" && out=$(realpath "$out"); fi

# Worker processes are the engine's children, and one that hangs or ends is followed by another.
token_processor() { # token_processor NUMBER: whatever calls the token runs there, and nowhere else
    (while kill -0 $engine 2>/dev/null; do
        for worker in $(pgrep -P $engine); do taskset -a -c -p "$1" "$worker"; done
        sleep 0.2
    done) >/dev/null 2>&1 &
    watch=$!
    sleep 1
}

for device in ${DEVICES:-simulated softhsm}; do
    case $device in
        simulated) processes=${PROCESSES:-8} kind=p256 what="simulated device, $processes processes, $ms ms a call, P-256" ;;
        softhsm) processes=1 kind=rsa4096 what="SoftHSM2, 1 process on a processor of its own, RSA-4096" ;;
        softhsm-shared) processes=$(nproc) kind=rsa4096 what="SoftHSM2, $processes processes that compete with engine and load tool, RSA-4096" ;;
        *) echo "DEVICES: 'simulated', 'softhsm' or 'softhsm-shared', not '$device'" >&2; exit 2 ;;
    esac
    make_device "$device" "$processes"
    on=()
    if [[ $device == softhsm ]]; then on=(taskset -c "0-$(($(nproc) - 2))"); fi
    start_engine
    if [[ $device == softhsm ]]; then token_processor "$(($(nproc) - 1))"; fi
    cinnabar key create --tenant demo --kind $kind --device hsm seal >/dev/null
    if [[ $device == simulated ]]; then
        slow_device "$ms"
    fi
    load --profile var/dev/app.toml --credential seal --rate 10 --duration 5s
    call_us=$(cinnabar device list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["devices"][0]["service_us"])')
    nominal=$(python3 -c "print($processes * 1e6 / $call_us)")
    run() { load --profile var/dev/app.toml --credential seal --rate "$1" --duration "${each}s" "${@:2}"; }
    run "$(python3 -c "print(round($nominal * 1.5))")" --warm-up 3s
    capacity=$(json 'r["ok"] / r["seconds"]')
    for factor in ${FACTORS:-0.5 0.9 1.1 2 5 10}; do
        run "$(python3 -c "print(max(1, round($capacity * $factor)))")" ${out:+--html "$out/overload-$device-$factor.html"}
        python3 "$top/scripts/overload.py" take "$what" "$nominal" "$capacity" "$factor" json >>"$folder/rows"
    done
    stop_engine
    cd "$top"
done
python3 scripts/overload.py show "$folder/rows" "$svg"
