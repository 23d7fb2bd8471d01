#!/usr/bin/env bash
# Installs what is missing on a Debian machine, and does nothing where nothing is.
#   install.sh build          what building and running need
#   install.sh bench          what the device benches need besides
#   install.sh test FOLDER    what testing needs besides; Python packages go into a virtual environment in FOLDER
set -euo pipefail

want=() # Debian packages that are not there yet

need() { # need COMMAND-OR-FILE PACKAGE
    if [[ $1 == /* ]]; then [[ -e $1 ]] || want+=("$2"); else command -v "$1" >/dev/null || want+=("$2"); fi
}

need cc gcc
need g++ g++
need make make
# Fetches the library that signs eight at a time; without it signatures are made one at a time.
python3 -m pip --version >/dev/null 2>&1 || want+=(python3-pip)
if [[ $1 == test ]]; then
    need /usr/lib/softhsm/libsofthsm2.so softhsm2
    need openssl openssl
    need curl curl
    need pkcs11-tool opensc
    need rsvg-convert librsvg2-bin
    need /usr/share/fonts/truetype/arphic-gbsn00lp/gbsn00lp.ttf fonts-arphic-gbsn00lp
    need qpdf qpdf
    need /usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1 libfaketime
    need pdfsig poppler-utils
    need chromium chromium # looks at the dashboard
    need /usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc fonts-noto-cjk # Chinese on a screen
    need promtool prometheus # its server is started by the package where systemd runs; nothing here needs that one
    need python3 python3
    python3 -c 'import ensurepip, venv' 2>/dev/null || want+=(python3-venv)
    # Kryoptic, the second token: it links the system's OpenSSL and SQLite and generates its bindings by libclang.
    need pkg-config pkg-config
    need /usr/include/openssl/evp.h libssl-dev
    need /usr/include/sqlite3.h libsqlite3-dev
    compgen -G '/usr/lib/llvm-*/lib/libclang.so' >/dev/null || want+=(libclang-dev)
fi

if [[ $1 == bench ]]; then
    need /usr/lib/softhsm/libsofthsm2.so softhsm2
    need p11-kit p11-kit
    need /usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so p11-kit-modules
fi

if ((${#want[@]})); then
    echo "installing: ${want[*]}"
    as_root=()
    if [[ $(id -u) != 0 ]]; then as_root=(sudo); fi
    "${as_root[@]}" apt-get update -qq
    DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${want[@]}"
fi

if [[ $1 == test ]]; then
    folder=$2
    wanted=scripts/test-requirements.txt
    if ! cmp -s "$wanted" "$folder/installed.txt"; then
        python3 -m venv "$folder"
        "$folder/bin/pip" install -q --disable-pip-version-check -r "$wanted"
        cp "$wanted" "$folder/installed.txt"
    fi
fi

if [[ $1 == test ]]; then
    # About two minutes the first time on two processors, half a second when nothing has changed.
    "${CARGO:-cargo}" build -q --release --locked --manifest-path hsm-pool/kryoptic/Cargo.toml --target-dir target/kryoptic
fi
