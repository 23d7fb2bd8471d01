#!/usr/bin/env bash
# Cinnabar beside others, in one run on this machine and with the same work: what `make peers` runs. Installs the others into
# target/peers; scripts/peers.py starts, loads and measures them.
#   ROUNDS (5)   SECONDS_EACH (5)   BINARIES (target/release)
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install.sh bench
venv=target/peers/venv
wanted=scripts/peers-requirements.txt
if ! cmp -s "$wanted" "$venv/installed.txt"; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q --disable-pip-version-check -r "$wanted"
    cp "$wanted" "$venv/installed.txt"
fi
# The loop that calls a PKCS#11 module directly is a mode of the device bench.
loop=$(cargo bench -q --locked -p hsm-pool --bench devices --no-run --message-format=json |
    python3 -c 'import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and made["target"]["name"] == "devices": print(made["executable"])')
export CINNABAR_CRYPTO_MB=${CINNABAR_CRYPTO_MB-$(scripts/crypto-mb.sh target/crypto-mb)}
python3 scripts/peers.py --binaries "${BINARIES:-target/release}" --venv "$venv" --loop "$loop" \
    --rounds "${ROUNDS:-5}" --seconds "${SECONDS_EACH:-5}" "$@"
