"""Validates the first signature of a PDF with pyHanko from the validation data in the file alone (PAdES B-LTA).

usage: pyhanko_long_term.py FILE.pdf ROOTS
"""

import sys

from asn1crypto import x509
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.validation.ltv import RevocationInfoValidationType, validate_pdf_ltv_signature


def certificates(data):
    while data:
        certificate = x509.Certificate.load(data)
        yield certificate
        data = data[len(certificate.dump()):]


def main():
    with open(sys.argv[2], "rb") as file:
        anchors = list(certificates(file.read()))
    with open(sys.argv[1], "rb") as pdf:
        reader = PdfFileReader(pdf)
        status = validate_pdf_ltv_signature(
            reader.embedded_regular_signatures[0],
            RevocationInfoValidationType.PADES_LTA,
            validation_context_kwargs={"trust_roots": anchors, "allow_fetching": False},
        )
        print(f"bottom_line={status.bottom_line}\tcoverage={status.coverage.name}\tchanges={status.modification_level}")


main()
