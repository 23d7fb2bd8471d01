"""Validates the path to a certificate with a full and a delta revocation list, by pyhanko-certvalidator (RFC 5280 6)."""
import asyncio
import sys

from asn1crypto import crl, pem, x509
from pyhanko_certvalidator import CertificateValidator, ValidationContext
from pyhanko_certvalidator.errors import RevokedError


def blocks(path):
    with open(path, "rb") as file:
        return [der for _, _, der in pem.unarmor(file.read(), multiple=True)]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def main(anchors, certificate, *lists):
    context = ValidationContext(
        trust_roots=[x509.Certificate.load(der) for der in blocks(anchors)],
        crls=[crl.CertificateList.load(read(path)) for path in lists],
        revocation_mode="require",
        allow_fetching=False,
    )
    subject = x509.Certificate.load(blocks(certificate)[0])
    validator = CertificateValidator(subject, validation_context=context)
    try:
        asyncio.run(validator.async_validate_usage({"digital_signature"}))
        print("valid")
    except RevokedError as error:
        print("revoked", error.reason.native)


main(*sys.argv[1:])
