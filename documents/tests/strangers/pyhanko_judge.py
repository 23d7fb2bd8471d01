"""Validates every signature of a PDF with pyHanko, on the day of the tests, trusting one root.

usage: pyhanko_judge.py FILE.pdf ROOT.der
One line each: field, intact, valid, trusted, bottom line, coverage, changes later, docmdp ok, time stamp ok.
"""

import sys
from datetime import datetime, timezone

from asn1crypto import x509
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.validation import validate_pdf_signature, validate_pdf_timestamp
from pyhanko_certvalidator import ValidationContext

DAY = datetime(2027, 1, 15, 8, 0, 0, tzinfo=timezone.utc)


def main():
    with open(sys.argv[2], "rb") as root:
        anchor = x509.Certificate.load(root.read())
    with open(sys.argv[1], "rb") as pdf:
        # pyHanko looks at hybrid files only when it need not be strict.
        is_hybrid = b"/XRefStm" in pdf.read()
        reader = PdfFileReader(pdf, strict=not is_hybrid)
        for signature in reader.embedded_signatures:
            context = ValidationContext(trust_roots=[anchor], moment=DAY, allow_fetching=False)
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
                f"bottom_line={status.bottom_line}",
                f"coverage={status.coverage.name}",
                f"changes={status.modification_level.name if status.modification_level is not None else None}",
                f"docmdp={docmdp}",
                f"stamp={None if stamp is None else bool(stamp.valid and stamp.intact)}",
                sep="\t",
            )


main()
