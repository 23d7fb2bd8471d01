#!/usr/bin/env bash
# Fairness on this machine: ten tenants share one simulated device of capacity C. One asks for ten times its share (10 × C/10),
# nine for half of theirs (C/20 each); the nine must be served to 99 % and more. A table for each of them, exit code 1 when one
# was not. `make fairness` runs it.
#   SECONDS_EACH (30)   MS (20, what a call takes)   PROCESSES (8)   BINARIES (target/release)
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/lib.sh
ms=${MS:-20} processes=${PROCESSES:-8}
make_device simulated "$processes"
start_engine
for number in 0 1 2 3 4 5 6 7 8 9; do
    cinnabar tenant create "tenant-$number" >/dev/null
    cinnabar key create --tenant "tenant-$number" --kind p256 --device hsm "seal-$number" >/dev/null
    listen=$(sed -n 's/^cinnabar is ready: QUIC and HTTPS on \([^,]*\),.*/\1/p' out)
    admin=$(sed -n 's/.*health and metrics on \([^,]*\),.*/\1/p' out)
    cinnabar --listen "$listen" --admin "$admin" app create --tenant "tenant-$number" "app-$number" --profile-out "app-$number.toml" >/dev/null
done
slow_device "$ms"

# One share is 1; the greedy tenant asks for ten, the others for half of one: 14.5 in all.
python3 - >mix.toml <<'PY'
for number in range(10):
    weight = 10 if number == 0 else 0.5
    print(f'[[class]]\nprofile = "app-{number}.toml"\ncredential = "seal-{number}"\nweight = {weight}\n')
PY
capacity=$(python3 -c "print($processes * 1000 / $ms)")
load --mix mix.toml --rate "$(python3 -c "print($capacity / 10 * 14.5)")" --duration "${SECONDS_EACH:-30}s" --warm-up 3s
python3 - "$capacity" json <<'PY'
import json, sys
capacity, r = float(sys.argv[1]), json.load(open(sys.argv[2]))
share = capacity / 10
print(f"C = {capacity:.0f} a second by the device's set time, a share {share:.0f}; {r['ok'] / r['seconds']:.0f} a second were served in all.\n")
print("| app of a tenant | asked for, shares | a second | served a second | served | avg ms | p99 ms |\n|---|---|---|---|---|---|---|")
unfair = []
for group in r["classes"]:
    offered, served = group["offered"] / r["seconds"], group["ok"] / max(1, group["offered"])
    l = group["ok_latency_ms"]
    print(f"| {group['name'].split()[0]} | {offered / share:.2f} | {offered:.1f} | {group['ok'] / r['seconds']:.1f} | {100 * served:.2f} % | {l['avg']:.1f} | {l['p99']:.1f} |")
    if not group["name"].startswith("app-0 ") and served < 0.99:
        unfair.append(group["name"])
late = r["latency_ms"]["max"]
print(f"\nlongest answer {late:.0f} ms; " + ("the nine were served to 99 % and more" if not unfair else "NOT served to 99 %: " + ", ".join(unfair)))
sys.exit(1 if unfair or late > 3000 or len(r["classes"]) != 10 else 0)
PY
