# One SM2 signature (DER) over a message, under the key of a certificate, judged by gmssl.
import sys

from asn1crypto import core, x509
from gmssl import sm2

certificate, message, signature = (open(name, "rb").read() for name in sys.argv[1:4])
spki = x509.Certificate.load(certificate)["tbs_certificate"]["subject_public_key_info"]
point = spki.contents[-64:].hex()


class Signature(core.Sequence):
    _fields = [("r", core.Integer), ("s", core.Integer)]


pair = Signature.load(signature, strict=True)
hexed = "%064x%064x" % (pair["r"].native, pair["s"].native)
verifier = sm2.CryptSM2(private_key="", public_key=point)
print("gmssl:", "OK" if verifier.verify_with_sm3(hexed, message) else "FAIL")
