#!/usr/bin/env bash
# Fetches the multi-buffer part of Intel's Cryptography Primitives Library (Apache-2.0) and makes a shared object of
# what the engine calls in it.
#   crypto-mb.sh FOLDER     prints the path of the library; prints why not, and exits with 1, where it cannot be had
# The wheel, the archive in it and the shared object are all pinned by SHA-256; the engine checks the last once more
# before it loads it (hsm-pool/src/multi/library.rs). The linker is the Rust toolchain's own, so that what comes out
# does not depend on the system.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$1
python=${PYTHON:-python3}
version=2026.2.0
wheel=ipp_crypto_static-$version-py2.py3-none-manylinux_2_28_x86_64.whl
wheel_sha256=b4b952a9435f7aab3d1684822f644d586ce5f6bda874e4bfb8c008ee674ca5c5
archive_sha256=fcf1870dc5fcb03dff876b3a0fb77fe689cb33b33d7edaca22514bacc2df7813
pin=$(sed -n 's/^pub const PINNED.*\["\([0-9a-f]*\)"\];$/\1/p' hsm-pool/src/multi/library.rs)

fail() { echo "signatures are made one at a time: $*" >&2; exit 1; }

[ "$(uname -m)" = x86_64 ] && grep -qw avx512ifma /proc/cpuinfo || fail "the processor has no AVX-512 IFMA"
mkdir -p "$folder"
chmod 755 "$folder"
folder=$(cd "$folder" && pwd)
library=$folder/libcrypto_mb-$version.so
if [ -f "$library" ] && echo "$pin  $library" | sha256sum --check --status; then
    echo "$library"
    exit 0
fi
linker=$(find "$(rustc --print sysroot)/lib/rustlib" -name rust-lld -print -quit 2>/dev/null)
[ -n "$linker" ] || fail "the toolchain has no rust-lld"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$python" -m pip --version >/dev/null 2>&1 || fail "there is no pip"
"$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$scratch" "ipp-crypto-static==$version" >&2 || fail "the wheel ipp-crypto-static $version cannot be fetched"
echo "$wheel_sha256  $scratch/$wheel" | sha256sum --check --status || fail "the wheel is not the pinned one"
"$python" -m zipfile --extract "$scratch/$wheel" "$scratch"
archive=$scratch/ipp_crypto_static-$version.data/data/lib/libcrypto_mb.a
echo "$archive_sha256  $archive" | sha256sum --check --status || fail "the archive in the wheel is not the pinned one"

# The variants that take OpenSSL's numbers are not called: nothing of OpenSSL is needed then.
functions="mbx_nistp256_ecdsa_sign_mb8 mbx_nistp384_ecdsa_sign_mb8 mbx_sm2_ecpublic_key_mb8 mbx_ed25519_sign_mb8 mbx_rsa_private_crt_mb8 mbx_RSA_private_crt_Method mbx_RSA_Method_BufSize"
flags=()
for function in $functions; do flags+=(-u "$function"); done
for function in BN_bin2bn BN_bn2lebinpad BN_num_bits ECDSA_SIG_get0; do flags+=("--defsym=$function=0"); done
echo "{ global: ${functions// /; }; local: *; };" >"$scratch/map"
"$linker" -flavor gnu -shared -o "$scratch/library" "${flags[@]}" --version-script="$scratch/map" --gc-sections --strip-all --build-id=none -z relro -z now -z noexecstack "$archive" >&2 || fail "the library cannot be linked"
echo "$pin  $scratch/library" | sha256sum --check --status || fail "the linked library has the digest $(sha256sum <"$scratch/library" | cut -d' ' -f1), not the pinned one"
install -m 755 "$scratch/library" "$library"
echo "$library"
