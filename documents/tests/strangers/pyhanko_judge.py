"""Validates every signature of a PDF with pyHanko, trusting the certificates of one file.

usage: pyhanko_judge.py FILE.pdf ROOTS [DAY]
ROOTS is PEM, or DER one after the other; DAY is in seconds since 1970, and now where it is left out.
One line each: field, intact, valid, trusted, bottom line, coverage, changes later, docmdp ok, time stamp ok.
"""

import sys
from datetime import datetime, timezone

from asn1crypto import pem, x509
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.fields import enumerate_sig_fields
from pyhanko.sign.validation import EmbeddedPdfSignature, validate_pdf_signature, validate_pdf_timestamp
from pyhanko_certvalidator import ValidationContext


def roots(data):
    if pem.detect(data):
        data = b"".join(der for _, _, der in pem.unarmor(data, multiple=True))
    while data:
        certificate = x509.Certificate.load(data)
        yield certificate
        data = data[len(certificate.dump()):]


def signatures(reader):
    try:
        yield from reader.embedded_signatures
    except ValueError:
        # A signature that is no CMS, such as a seal signature, keeps pyHanko from listing the others.
        for name, _, field in enumerate_sig_fields(reader, filled_status=True):
            try:
                yield EmbeddedPdfSignature(reader, field, name)
            except ValueError:
                pass


def main():
    with open(sys.argv[2], "rb") as file:
        anchors = list(roots(file.read()))
    day = datetime.fromtimestamp(int(sys.argv[3]), timezone.utc) if len(sys.argv) > 3 else None
    with open(sys.argv[1], "rb") as pdf:
        # pyHanko looks at hybrid files only when it need not be strict.
        is_hybrid = b"/XRefStm" in pdf.read()
        reader = PdfFileReader(pdf, strict=not is_hybrid)
        if reader.encrypted:
            reader.decrypt(b"")
        for signature in signatures(reader):
            context = ValidationContext(trust_roots=anchors, moment=day, allow_fetching=False)
            if signature.sig_object_type == "/DocTimeStamp":
                status = validate_pdf_timestamp(signature, context)
                docmdp = True
            else:
                status = validate_pdf_signature(signature, context)
                docmdp = status.docmdp_ok
            stamp = getattr(status, "timestamp_validity", None)
            print(
                signature.field_name,
                f"intact={status.intact}",
                f"valid={status.valid}",
                f"trusted={status.trusted}",
                f"bottom_line={getattr(status, 'bottom_line', status.valid and status.trusted)}",
                f"coverage={status.coverage.name}",
                f"changes={status.modification_level.name if status.modification_level is not None else None}",
                f"docmdp={docmdp}",
                f"stamp={None if stamp is None else bool(stamp.valid and stamp.intact and stamp.trusted)}",
                sep="\t",
            )


main()
