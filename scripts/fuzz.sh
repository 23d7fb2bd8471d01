#!/bin/sh
# Every parser against libFuzzer, SECONDS_EACH (60) each, from the corpus in fuzz/corpus; what is found new is kept in
# target/fuzz, a crash as a file there. Panics, overflows, 10 s for one input or 2 GB of memory are findings.
#   scripts/fuzz.sh [TARGET…]        SANITIZER=address scripts/fuzz.sh pdf
set -eu
cd "$(dirname "$0")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1"
# Sanitizers are an unstable flag; this crate graph has no unsafe code of ours, so coverage is what counts.
if [ -n "${SANITIZER:-}" ]; then flags="$flags -Zsanitizer=$SANITIZER"; fi
bins=""
for target in "$@"; do bins="$bins --bin $target"; done
# The flags are for the target only, not for build scripts.
RUSTC_BOOTSTRAP=1 RUSTFLAGS="$flags" ${CARGO:-cargo} build --release --locked --manifest-path fuzz/Cargo.toml \
    --target-dir target/fuzz --target "$host" $bins
targets=${*:-$(ls fuzz/fuzz_targets | sed 's/\.rs$//')}
for target in $targets; do
    found=target/fuzz/found/$target
    mkdir -p "$found"
    echo "fuzz: $target"
    "target/fuzz/$host/release/$target" "$found" "fuzz/corpus/$target" -artifact_prefix="$found/" -timeout=10 \
        -rss_limit_mb=2048 -max_len=65536 -max_total_time="${SECONDS_EACH:-60}" -print_final_stats=1 2>&1 |
        grep -E '^(#[0-9]+.*(DONE|NEW)|==|SUMMARY|stat::number_of_executed|stat::peak_rss|thread|artifact)|panicked' |
        tail -n 8
    if ls "$found" | grep -qE '^(crash|timeout|oom|leak)-'; then echo "fuzz: $target has findings in $found" >&2; exit 1; fi
done
