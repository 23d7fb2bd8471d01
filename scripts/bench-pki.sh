#!/usr/bin/env bash
# Time stamps and OCSP answers a second, over plain HTTP with connections that stay open: a fresh engine, the load tool, a
# table. `make bench-pki` runs it. Client and server share the processors. DURATION=5s CONNECTIONS=16 are the defaults;
# BINARIES is where the two programs are.
set -euo pipefail
cd "$(dirname "$0")/.."
binary=${BINARIES:-$PWD/target/release}
folder=$(mktemp -d)
trap 'kill $engine 2>/dev/null || true; wait 2>/dev/null || true; rm -rf "$folder"' EXIT

"$binary/cinnabar" --home "$folder/var" --listen 127.0.0.1:0 --admin 127.0.0.1:0 --set pki=127.0.0.1:0 --console 127.0.0.1:0 serve --dev >"$folder/out" 2>"$folder/err" &
engine=$!
until grep -q '^cinnabar is ready' "$folder/out"; do
    kill -0 $engine 2>/dev/null || { cat "$folder/err" >&2; exit 4; }
    sleep 0.1
done
address() { sed -n "s/.*$1 \(127\.0\.0\.1:[0-9]*\).*/\1/p" "$folder/out" | head -n 1; }
pki=$(address 'PKI on')
admin=$(address 'metrics on')
cli() { "$binary/cinnabar" --home "$folder/var" "$@"; }

ask() { # ask LABEL EXPECTED ARGUMENTS…
    local label=$1 expected=$2
    shift 2
    "$binary/cinnabar-load" http --address "$pki" --admin "$admin" --connections "${CONNECTIONS:-16}" \
        --duration "${DURATION:-5s}" --expect "$expected" "$@" >"$folder/json"
    python3 - "$label" "$folder/json" <<'PY'
import json, sys
r = json.load(open(sys.argv[2]))
l = r["latency_us"]
print(f"| {sys.argv[1]} | {r['answers_per_second']:,.0f} | {l['p50']} | {l['p99']} | {l['max']} "
      f"| {r['server_cpu_us']:.1f} | {r['client_cpu_us']:.1f} |")
PY
}

# Queries: a digest with the certificate asked for, as `openssl ts -query -cert` makes it; status with and without a nonce.
head -c 1000 /dev/urandom >"$folder/data"
openssl ts -query -data "$folder/data" -sha256 -cert -out "$folder/query" 2>/dev/null
openssl ts -query -data "$folder/data" -sha256 -out "$folder/short" 2>/dev/null
python3 - "$folder" <(cli cert list --tenant demo) <(cli ca list) <<'PY'
import json, sys
folder, certificates, authorities = sys.argv[1], json.load(open(sys.argv[2])), json.load(open(sys.argv[3]))
pem = next(one["certificate"] for one in certificates if one["credential"] == "demo-p256")
issuer = next(one["certificate"] for one in authorities if one["name"] == "dev-p256")
open(f"{folder}/subject.pem", "w").write(pem)
open(f"{folder}/issuer.pem", "w").write(issuer)
PY
openssl ocsp -issuer "$folder/issuer.pem" -cert "$folder/subject.pem" -no_nonce -reqout "$folder/status"
openssl ocsp -issuer "$folder/issuer.pem" -cert "$folder/subject.pem" -nonce -reqout "$folder/nonce"
granted=3003020100 # PKIStatusInfo with status granted
successful=0a0100  # OCSPResponseStatus successful
token=$(cli tsa token --profile "$folder/var/dev/app.toml")
status=(--path /ocsp --type application/ocsp-request)

# What one local signature costs on this machine now.
openssl speed -seconds 2 ecdsap256 rsa2048 2>/dev/null |
    awk '/nistp256/ { printf "openssl speed: P-256 %.1f µs", 1e6 / $(NF - 1) } /rsa +2048/ { printf "openssl speed: RSA-2048 %.0f µs\n", 1e6 / $(NF - 1) } END { print "" }'
echo
echo "| ${CONNECTIONS:-16} connections | answers/s | p50 µs | p99 µs | max µs | server CPU µs | client CPU µs |"
echo "|---|---|---|---|---|---|---|"
ask "time stamp P-256 with certificates" $granted --body "$folder/query"
ask "time stamp P-256" $granted --body "$folder/short"
ask "time stamp RSA-2048 with certificates" $granted --body "$folder/query" --path '/tsa?authority=dev-tsa-rsa2048'
ask "time stamp P-256, of an app, recorded and charged" $granted --body "$folder/query" --path "/tsa/$token"
ask "OCSP from memory" $successful --body "$folder/status" "${status[@]}"
ask "OCSP with a nonce, signed" $successful --body "$folder/nonce" "${status[@]}"
ask "revocation list" 30 --path /crl/dev-p256.crl
