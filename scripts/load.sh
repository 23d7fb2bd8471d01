#!/usr/bin/env bash
# End-to-end load on this machine: a fresh engine, both transports, a table of what came back. `make load` runs it.
# Client and server share the processors.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=$PWD/target/release
folder=$(mktemp -d)
trap 'kill $engine 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT

export CINNABAR_CRYPTO_MB=${CINNABAR_CRYPTO_MB-$(scripts/crypto-mb.sh target/crypto-mb)}
"$binary/cinnabar" --home "$folder/var" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --set pki=127.0.0.1:0 --console 127.0.0.1:0 serve --dev >"$folder/out" 2>"$folder/err" &
engine=$!
until grep -q '^cinnabar is ready' "$folder/out"; do
    kill -0 $engine 2>/dev/null || { cat "$folder/err" >&2; exit 4; }
    sleep 0.1
done

show() { # show LABEL ARGUMENTS…
    local label=$1
    shift
    "$binary/cinnabar-load" run --profile "$folder/var/dev/app.toml" --duration "${DURATION:-10s}" --json "$folder/json" "$@" \
        >"$folder/text" || true
    python3 - "$label" "$folder/json" <<'PY'
import json, sys
r = json.load(open(sys.argv[2]))
l = r["latency_ms"]
cpu = r["server_cpu_us"]
print(f"| {sys.argv[1]} | {r['signatures_per_second']:,.0f} | {l['avg']:.1f} | {l['p50']:.1f} | {l['p99']:.1f} | {l['p999']:.1f} "
      f"| {l['max']:.0f} | {cpu:.1f} | {r['errors'] or 'none'}{' (generator saturated)' if r['saturated'] else ''} |")
PY
}

# What one local signature costs on this machine now: processors of the same name differ, and one differs from hour to hour.
openssl speed -seconds 2 ecdsap256 2>/dev/null | awk '/nistp256/ { printf "openssl speed ecdsap256: %.1f µs a signature on one core\n\n", 1e6 / $(NF - 1) }'
echo "| load | signatures/s | avg ms | p50 | p99 | p99.9 | max | server CPU µs | errors |"
echo "|---|---|---|---|---|---|---|---|---|"
show "QUIC P-256 at 1,000/s" --credential demo-p256 --rate 1000
show "QUIC P-256 at 10,000/s" --credential demo-p256 --rate 10000
show "QUIC P-256 at ${QUIC_RATE:-25000}/s" --credential demo-p256 --rate "${QUIC_RATE:-25000}"
show "QUIC P-256 at ${QUIC_TOP_RATE:-38000}/s" --credential demo-p256 --rate "${QUIC_TOP_RATE:-38000}"
show "QUIC P-256 at ${QUIC_BATCH_RATE:-500}/s × 64" --credential demo-p256 --rate "${QUIC_BATCH_RATE:-500}" --batch 64
show "HTTPS P-256 at 1,000/s" --credential demo-p256 --rate 1000 --transport https
show "HTTPS P-256 at ${HTTPS_RATE:-12000}/s" --credential demo-p256 --rate "${HTTPS_RATE:-12000}" --transport https
show "QUIC RSA-2048 at 1,000/s" --credential demo-rsa2048 --rate 1000
show "QUIC Ed25519 at 5,000/s" --credential demo-ed25519 --rate 5000
show "QUIC SM2 at 5,000/s" --credential demo-sm2 --rate 5000
