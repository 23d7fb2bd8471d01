# The seal signatures (GB/T 38540 in /Contents, /SubFilter /GM.sm2seal) of PDF files, with nothing of ours: /ByteRange by
# regular expression, DER by asn1crypto, SM3 by OpenSSL, SM2 by sm2_check.py and by gmssl.
import hashlib
import os
import re
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from ofd_check import chk, kids, pub, rs, seal, top
from gmssl import sm2


def by_gmssl(certificate, signature, message):
    _, _, point = pub(certificate)
    verifier = sm2.CryptSM2(private_key="", public_key="%064x%064x" % point)
    return verifier.verify_with_sm3("%064x%064x" % rs(signature), message)


def go(name):
    data = open(name, "rb").read()
    for found in re.finditer(rb"/SubFilter\s*/GM\.sm2seal", data):
        match = re.compile(rb"/ByteRange\s*\[\s*(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s*\]").search(data, found.start())
        start, length, second, rest = map(int, match.groups())
        gap = data[start + length:second]
        print("gap is one hexadecimal string:", gap[:1] + gap[-1:] == b"<>" and re.fullmatch(rb"[0-9A-Fa-f]+", gap[1:-1]) is not None)
        value = bytes.fromhex(gap[1:-1].decode())
        signature = kids(top(value)[2])
        tbs = kids(signature[0][2])
        covered = data[start:start + length] + data[second:second + rest]
        print("data hash is SM3 of the ranges:", tbs[3][2][1:] == hashlib.new("sm3", covered).digest())
        print("property", tbs[4][2].decode(), "range agrees:", match.group(0).replace(b" [", b" [") == tbs[4][2] or
              tbs[4][2].decode() == "/ByteRange [%d %d %d %d]" % (start, length, second, rest))
        certificate, bits = signature[1][2], signature[3][2][1:]
        print("SIG:", chk(certificate, bits, [("tbs", signature[0][3])]))
        print("gmssl:", "OK" if by_gmssl(certificate, bits, signature[0][3]) else "FAIL")
        seal(tbs[1][3])
        print("members", len(signature), "time stamp bytes", len(signature[4][2]) if len(signature) > 4 else 0)


for name in sys.argv[1:]:
    go(name)
