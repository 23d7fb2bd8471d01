#!/bin/sh
# Documents sealed in a second on one core, pyHanko on the same PDF before and after, and the memory for a PDF of 100 MB.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-target/venv/bin/python}
pdf=documents/tests/fixtures/pdf/libreoffice.pdf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
${CARGO:-cargo} bench --locked -p documents --bench seal --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*seal-[^"]*\)".*/\1/p' | tail -n 1 > "$work/path"
bench=$(cat "$work/path")
"$python" scripts/bench_pyhanko.py "$pdf" "$work"
"$bench"
"$python" scripts/bench_pyhanko.py "$pdf" "$work"
"$python" - "$work/large.pdf" <<'PYTHON'
"""A PDF of one page and 100 MB: a stream that is never drawn."""
import os
import sys

objects = [
    b"<</Type/Catalog/Pages 2 0 R>>",
    b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
    b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/PieceInfo<</Bulk<</Private 4 0 R>>>>>>",
]
with open(sys.argv[1], "wb") as out:
    out.write(b"%PDF-1.7\n")
    places = []
    for number, text in enumerate(objects, 1):
        places.append(out.tell())
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, text))
    places.append(out.tell())
    size = 100_000_000
    out.write(b"4 0 obj\n<</Length %d>>\nstream\n" % size)
    for _ in range(100):
        out.write(os.urandom(size // 100))
    out.write(b"\nendstream\nendobj\n")
    start = out.tell()
    out.write(b"xref\n0 5\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % at for at in places))
    out.write(b"trailer\n<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % start)
PYTHON
"$bench" memory whole "$work/large.pdf"
"$bench" memory prepare "$work/large.pdf"
