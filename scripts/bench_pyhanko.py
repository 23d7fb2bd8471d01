"""How many PDFs pyHanko signs in a second with a P-256 key, as PAdES B-B, from bytes to bytes.

usage: bench_pyhanko.py FILE.pdf FOLDER        BENCH_SECONDS (3)
"""

import io
import os
import subprocess
import sys
import time

from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import signers
from pyhanko.sign.fields import SigSeedSubFilter


def openssl(folder, line):
    subprocess.run(["openssl", *line.split()], cwd=folder, check=True, capture_output=True)


def main():
    path, folder = sys.argv[1:]
    openssl(folder, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem")
    openssl(folder, "req -x509 -key key.pem -subj /CN=Signer -days 30 -out signer.pem")
    key, certificate = (os.path.join(folder, name) for name in ("key.pem", "signer.pem"))
    signer = signers.SimpleSigner.load(key, certificate)
    with open(path, "rb") as file:
        pdf = file.read()
    meta = signers.PdfSignatureMetadata(field_name="Signature1", subfilter=SigSeedSubFilter.PADES, md_algorithm="sha256")

    def sign():
        signers.sign_pdf(IncrementalPdfFileWriter(io.BytesIO(pdf)), meta, signer=signer, output=io.BytesIO())

    sign()
    count, start = 0, time.perf_counter()
    seconds = float(os.environ.get("BENCH_SECONDS", "3"))
    while time.perf_counter() - start < seconds:
        sign()
        count += 1
    print(f"pyHanko: PDF of one page, P-256\t{count / (time.perf_counter() - start):.0f} a second")


main()
