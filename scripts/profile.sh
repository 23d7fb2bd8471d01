#!/usr/bin/env bash
# A flame graph of the engine under load, and where its time goes by thread. `make profile` runs it.
#   RATE (25000)   CREDENTIAL (demo-p256)   MORE (further arguments of `cinnabar-load run`)   SECONDS_EACH (10)
#   OUT (target/profile.svg)                BINARIES (target/release)
# Wants `perf` (Debian linux-perf) and, for the picture, inferno, which is built once into target/profile-tools.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD out=$(realpath -m "${OUT:-target/profile.svg}")
command -v perf >/dev/null || { echo "perf is not there: apt install linux-perf" >&2; exit 4; }
if [[ ! -x target/profile-tools/bin/inferno-flamegraph ]]; then
    "${CARGO:-cargo}" install -q --locked --root target/profile-tools inferno --version 0.12.4
fi
export CINNABAR_CRYPTO_MB=${CINNABAR_CRYPTO_MB-$(scripts/crypto-mb.sh target/crypto-mb)}
source scripts/lib.sh
start_engine
seconds=${SECONDS_EACH:-10}
read -ra more <<<"${MORE:-}"
# The engine is not dumpable, so only root may look into it; samples by the clock, because virtual machines count no cycles.
(sleep 3 && perf record -q -e cpu-clock -F 499 --call-graph dwarf,8192 -p "$engine" -o stacks -- sleep "$seconds") &
recording=$!
load --profile var/dev/app.toml --credential "${CREDENTIAL:-demo-p256}" --rate "${RATE:-25000}" --duration "$((seconds + 4))s" "${more[@]}"
wait "$recording"
json '"{:,.0f} signatures/s, {:.1f} µs of CPU each; client {:.1f} µs".format(r["signatures_per_second"], r["server_cpu_us"], r["client_cpu_us"])'
perf script -i stacks --no-inline 2>/dev/null | "$top/target/profile-tools/bin/inferno-collapse-perf" >folded
python3 "$top/scripts/profile.py" folded "$(json 'r["server_cpu_us"]')"
"$top/target/profile-tools/bin/inferno-flamegraph" --title "cinnabar under load" --hash <folded >"$out"
echo "$out"
