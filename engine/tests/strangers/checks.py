"""Checks signatures with libraries that share no code with Cinnabar: `cryptography`, and `gmssl` for SM2."""

import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key
from gmssl import sm2, sm3

DEFAULT_USER_ID = b"1234567812345678"
HASHES = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}


def takes(algorithm, message, spki, user_id=DEFAULT_USER_ID):
    """What has to be sent to have `message` signed: its digest, or all of it."""
    if algorithm in ("ed25519", "sm2-sm3"):
        return message
    if algorithm == "sm2-sm3-e":
        return sm2_e(spki, message, user_id)
    return hashlib.new(algorithm.rsplit("-", 1)[1], message).digest()


def check(algorithm, spki, message, signature, user_id=DEFAULT_USER_ID):
    """Raises unless `signature` (DER for ECDSA and SM2) is over `message`."""
    if algorithm.startswith("sm2"):
        return check_sm2(spki, sm2_e(spki, message, user_id), signature)
    key = load_der_public_key(spki)
    if algorithm == "ed25519":
        return key.verify(signature, message)
    # Given as a digest, so that it is certain what was signed.
    digest = takes(algorithm, message, spki)
    hash_made = HASHES[algorithm.rsplit("-", 1)[1]]()
    if algorithm.startswith("ecdsa"):
        return key.verify(signature, digest, ec.ECDSA(Prehashed(hash_made)))
    if algorithm.startswith("rsa-pkcs1"):
        return key.verify(signature, digest, padding.PKCS1v15(), Prehashed(hash_made))
    pss = padding.PSS(padding.MGF1(hash_made), salt_length=hash_made.digest_size)
    return key.verify(signature, digest, pss, Prehashed(hash_made))


def is_valid(*what, **named):
    """Whether `check` is content."""
    try:
        check(*what, **named)
    except Exception:  # every library has its own
        return False
    return True


def pair_to_der(pair):
    """r and s side by side, as DER."""
    half = len(pair) // 2
    return encode_dss_signature(int.from_bytes(pair[:half]), int.from_bytes(pair[half:]))


def sm2_point(spki):
    """x and y of an SM2 public key in hexadecimal: they are what a SubjectPublicKeyInfo ends with, after a 04."""
    assert spki[-65] == 4, "the point must be uncompressed"
    return spki[-64:].hex()


def sm2_e(spki, message, user_id):
    """e = SM3(Z || M), by GB/T 32918.2 5.5 and 6.1."""
    table = sm2.default_ecc_table
    numbers = bytes.fromhex(table["a"] + table["b"] + table["g"] + sm2_point(spki))
    z = sm3.sm3_hash(list((len(user_id) * 8).to_bytes(2) + user_id + numbers))
    return bytes.fromhex(sm3.sm3_hash(list(bytes.fromhex(z) + message)))


def check_sm2(spki, e, signature):
    verifier = sm2.CryptSM2(private_key="", public_key="")
    # Set afterwards: the constructor strips leading zeros and fours, which may belong to x.
    verifier.public_key = sm2_point(spki)
    r, s = decode_dss_signature(signature)
    assert verifier.verify(f"{r:064x}{s:064x}", e), "gmssl does not verify this SM2 signature"
