#!/usr/bin/env bash
# A long run at a steady rate on this machine: what the engine's memory and the percentiles do meanwhile. `make soak` runs it.
#   soak.sh DURATION     RATE (15000) is 60 % of what the machine keeps up with
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$PWD/target/release
folder=$(mktemp -d)
trap 'kill $engine $watch 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT

"$binary/cinnabar" --home "$folder/var" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --console 127.0.0.1:0 --set pki=127.0.0.1:0 serve --dev >"$folder/out" 2>"$folder/err" &
engine=$!
watch=$engine
until grep -q '^cinnabar is ready' "$folder/out"; do
    kill -0 $engine 2>/dev/null || { cat "$folder/err" >&2; exit 4; }
    sleep 0.1
done

while sleep 10; do awk '/^VmRSS/ { print NR, $2 / 1024 }' "/proc/$engine/status"; done >"$folder/memory" &
watch=$!
status=0
"$binary/cinnabar-load" run --profile "$folder/var/dev/app.toml" --credential demo-p256 --rate "${RATE:-15000}" --duration "$1" --json "$folder/json" >"$folder/text" || status=$?
python3 - "$folder" <<'PY'
import json, sys
folder = sys.argv[1]
r = json.load(open(f"{folder}/json"))
memory = [float(line.split()[1]) for line in open(f"{folder}/memory")]
l = r["latency_ms"]
print(f"{r['signatures_per_second']:,.0f}/s for {r['seconds']:.0f} s, errors {r['errors'] or 'none'}; ms: avg {l['avg']:.2f}, p50 {l['p50']:.2f}, p99 {l['p99']:.2f}, p99.9 {l['p999']:.2f}, max {l['max']:.0f}")
print("memory in MiB, every tenth of the run:", " ".join(f"{memory[len(memory) * at // 10]:.0f}" for at in range(10)), f"{memory[-1]:.0f}")
PY
exit $status
