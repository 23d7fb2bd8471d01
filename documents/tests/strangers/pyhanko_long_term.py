"""Validates the first signature of a PDF with pyHanko as PAdES B-LTA (ETSI EN 319 102-1 5.6.3): nothing is fetched, and
revocation information, which is required, comes from the file.

usage: pyhanko_long_term.py FILE.pdf ROOTS
"""

import asyncio
import sys

from asn1crypto import x509
from pyhanko.pdf_utils.reader import PdfFileReader
from pyhanko.sign.validation.ades import ades_lta_validation
from pyhanko.sign.validation.policy_decl import (
    CertValidationPolicySpec,
    PdfSignatureValidationSpec,
    RevinfoOnlineFetchingRule,
    RevocationInfoGatheringSpec,
    SignatureValidationSpec,
)
from pyhanko_certvalidator.context import SimpleTrustManager
from pyhanko_certvalidator.policy_decl import NO_REVOCATION, REQUIRE_REVINFO, CertRevTrustPolicy


def certificates(data):
    while data:
        certificate = x509.Certificate.load(data)
        yield certificate
        data = data[len(certificate.dump()):]


def policy(anchors, revocation):
    return CertValidationPolicySpec(
        trust_manager=SimpleTrustManager.build(trust_roots=anchors),
        revinfo_policy=CertRevTrustPolicy(revocation_checking_policy=revocation),
    )


def main():
    with open(sys.argv[2], "rb") as file:
        anchors = list(certificates(file.read()))
    spec = SignatureValidationSpec(
        cert_validation_policy=policy(anchors, REQUIRE_REVINFO),
        # The authority of the tests is an anchor itself and has no revocation list.
        ts_cert_validation_policy=policy(anchors, NO_REVOCATION),
        revinfo_gathering_policy=RevocationInfoGatheringSpec(RevinfoOnlineFetchingRule.LOCAL_ONLY),
    )
    with open(sys.argv[1], "rb") as pdf:
        signature = PdfFileReader(pdf).embedded_regular_signatures[0]
        result = asyncio.run(ades_lta_validation(signature, PdfSignatureValidationSpec(spec)))
        print(f"{result.ades_subindic}\t{result.failure_msg}")


main()
