"""Signs a PDF with pyHanko as PAdES B-B.

usage: pyhanko_sign.py IN.pdf OUT.pdf FIELD KEY.der SIGNER.der ROOT.der
"""

import sys
from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
from pyhanko.sign import signers
from pyhanko.sign.fields import SigSeedSubFilter


def main():
    source, target, field, key, certificate, root = sys.argv[1:]
    signer = signers.SimpleSigner.load(key, certificate, ca_chain_files=(root,))
    meta = signers.PdfSignatureMetadata(field_name=field, subfilter=SigSeedSubFilter.PADES, md_algorithm="sha256")
    with open(source, "rb") as pdf, open(target, "wb") as out:
        signers.sign_pdf(IncrementalPdfFileWriter(pdf), meta, signer=signer, output=out)


main()
