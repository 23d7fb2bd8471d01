#!/usr/bin/env bash
# Overload on this machine: a fresh engine with one simulated device of known capacity C, offered parts and multiples of C;
# a table of what came back, for docs/benchmarks.md. `make overload` runs it. Client and server share the processors, so C is
# kept small: the device waits, and does not compute. C is the set time alone; what a signature takes besides is missing in goodput.
#   SECONDS_EACH (60)  MS (20, the service time)  PROCESSES (8)  FACTORS ("0.5 0.9 1.1 2 5 10")  OUT (a folder for reports and pictures)
#   BINARIES (target/release)
#   TOKEN=softhsm      SoftHSM2 with RSA-4096 instead of the simulated device; C is then what calibration promises
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${BINARIES:-$PWD/target/release}
folder=$(mktemp -d)
engine=
trap 'if [[ -n $engine ]]; then kill $engine 2>/dev/null || true; fi; wait 2>/dev/null || true; rm -rf "$folder"' EXIT
each=${SECONDS_EACH:-60} ms=${MS:-20} processes=${PROCESSES:-8} out=${OUT:-}
[[ -z $out ]] || mkdir -p "$out"

pin=87120936
mkdir "$folder/tokens"
printf 'directories.tokendir = %s\nobjectstore.backend = file\n' "$folder/tokens" >"$folder/softhsm2.conf"
SOFTHSM2_CONF=$folder/softhsm2.conf softhsm2-util --init-token --free --label load --pin $pin --so-pin 12345678 >/dev/null
echo $pin >"$folder/pin"
if [[ ${TOKEN:-simulated} == softhsm ]]; then
    module=/usr/lib/softhsm/libsofthsm2.so kind=rsa4096 processes=$(nproc)
else
    module=$binary/libfaulty_token.so kind=p256
fi
cat >"$folder/cinnabar.toml" <<TOML
[[device]]
name = "hsm"
module = "$module"
token_label = "load"
pin_file = "$folder/pin"
processes = $processes
environment = { SOFTHSM2_CONF = "$folder/softhsm2.conf", FAULTY_TOKEN_SCRIPT = "$folder/script" }
TOML
echo ok >"$folder/script"

cd "$folder"
"$binary/cinnabar" --home var --listen 127.0.0.1:0 --admin 127.0.0.1:0 --set pki=127.0.0.1:0 --console 127.0.0.1:0 serve --dev >out 2>err &
engine=$!
until grep -q '^cinnabar is ready' out; do
    kill -0 $engine 2>/dev/null || { cat err >&2; exit 4; }
    sleep 0.1
done
cinnabar() { "$binary/cinnabar" --home var "$@"; }
cinnabar key create --tenant demo --kind $kind --device hsm seal >/dev/null
if [[ ${TOKEN:-simulated} == softhsm ]]; then
    # The device computes on the processors that client and engine use, too: what it can do beside them is what counts.
    capacity=$(cinnabar device calibrate hsm --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["per_second_at_knee"])')
else
    echo "slow $ms" >next && mv next script
    capacity=$(python3 -c "print($processes * 1000 / $ms)")
fi
printf 'C = %.0f signatures/s: %s, %s processes, %s\n\n' "$capacity" "$kind" "$processes" "${TOKEN:-simulated, $ms ms a call}"
echo "| offered | a second | goodput | of the lower of offered and C | admitted avg ms | p99 | max | refused | refusals p99 ms | nothing above 3 s |"
echo "|---|---|---|---|---|---|---|---|---|---|"
for factor in ${FACTORS:-0.5 0.9 1.1 2 5 10}; do
    rate=$(python3 -c "print(round($capacity * $factor))")
    "$binary/cinnabar-load" run --profile var/dev/app.toml --credential seal --rate "$rate" --duration "${each}s" --json json \
        ${out:+--html "$out/overload-$factor.html"} >text 2>&1 || true
    python3 - "$factor" "$capacity" json <<'PY'
import json, sys
factor, capacity, r = float(sys.argv[1]), float(sys.argv[2]), json.load(open(sys.argv[3]))
ok, failed = r["ok_latency_ms"], r["failed_latency_ms"]
offered = r["offered"] / r["seconds"]
could = min(offered, capacity)
refused = r["offered"] - r["ok"]
print(f"| {factor:g} C | {offered:,.0f} | {r['signatures_per_second']:,.0f} | {100 * r['signatures_per_second'] / could:.1f} % "
      f"| {ok['avg']:.1f} | {ok['p99']:.1f} | {ok['max']:.0f} | {refused:,} {' '.join(r['errors'])} | {failed['p99'] if refused else 0:.1f} "
      f"| {'yes' if max(ok['max'], failed['max']) <= 3000 else 'NO'}{' (generator saturated)' if r['saturated'] else ''} |", flush=True)
PY
done
