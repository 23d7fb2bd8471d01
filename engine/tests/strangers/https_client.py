"""A client for the HTTPS front, made of `requests` and `http-message-signatures`.

Prints what it saw as JSON; anything wrong ends it with an exception.

    https_client.py full PROFILE TLS_CA SIGNING_CA                every key and format, retries, the OpenAPI document
    https_client.py mistakes PROFILE TLS_CA                       what is refused, and as what
    https_client.py brief PROFILE TLS_CA [ALGORITHM KEY]          each path once; proved by a private key if given
    https_client.py certificate PROFILE TLS_CA CERTIFICATE KEY    the same, proved by a client certificate
    https_client.py refused PROFILE TLS_CA CERTIFICATE KEY        a client certificate that is expected to be refused
"""

import base64
import datetime
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import tomllib
from urllib.parse import quote

import requests
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver, algorithms

from checks import check, is_valid, pair_to_der, takes

ALGORITHMS = {
    "hmac-sha256": algorithms.HMAC_SHA256,
    "ecdsa-p256-sha256": algorithms.ECDSA_P256_SHA256,
    "ed25519": algorithms.ED25519,
}
COVERED = ("@method", "@authority", "@path", "@query")


def b64(data):
    return base64.b64encode(data).decode()


class Client:
    """Sends requests, each signed unless a client certificate speaks for it."""

    def __init__(self, profile, tls_ca, algorithm=None, key=None, certificate=None):
        port = profile["address"].rsplit(":", 1)[1]
        self.base = f"https://{profile['server_name']}:{port}"
        self.app_id, self.algorithm, self.key = profile["app_id"], algorithm, key
        self.http = requests.Session()
        self.http.trust_env = False  # no proxies
        self.http.verify = tls_ca
        self.http.cert = certificate

    def send(self, method, path, body=None, key=None, spoil=None, **signing):
        headers = {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if key is not None:
            headers["Idempotency-Key"] = key
        content = None if body is None else json.dumps(body).encode()
        request = self.http.prepare_request(requests.Request(method, self.base + path, headers, data=content))
        if self.algorithm:
            self.sign(request, content, **signing)
        if spoil:
            spoil(request)
        return self.http.send(request, timeout=10)

    def sign(self, request, content, key=None, created=None, covered=None, tag="cinnabar"):
        resolver = MappingKeyResolver(public_keys={}, private_keys={self.app_id: key or self.key})
        signer = HTTPMessageSigner(signature_algorithm=ALGORITHMS[self.algorithm], key_resolver=resolver)
        if covered is None:
            covered = COVERED + (("idempotency-key",) if "Idempotency-Key" in request.headers else ())
        signer.sign(request, key_id=self.app_id, created=created, tag=tag, covered_component_ids=covered, body=content)

    def get(self, path):
        return answered(self.send("GET", path))

    def post(self, key, **body):
        """The signatures of a POST; every item must be done."""
        items = answered(self.send("POST", "/v1/signatures", body, key))["items"]
        assert all(item["status"] == "done" and item["sequence"] > 0 for item in items), items
        return [base64.b64decode(item["signature"]) for item in items]

    def credentials(self):
        """Public key and algorithms by credential."""
        keys = {}
        for entry in self.get("/v1/credentials")["credentials"]:
            assert entry["active"] is True
            public_key = base64.b64decode(entry["public_key"].split("-----")[2])
            keys[entry["id"]] = (public_key, entry["algorithms"])
            if entry["kind"] != "sm2":  # `cryptography` does not know that curve
                certified = load_pem_x509_certificate(entry["chain"][0].encode()).public_key()
                assert certified == load_pem_public_key(entry["public_key"].encode())
        return keys


def answered(response):
    assert response.status_code == 200, (response.status_code, response.text)
    assert response.headers["Content-Type"] == "application/json"
    return response.json()


def refused(response):
    """Status and code of a problem document (RFC 9457)."""
    assert response.headers["Content-Type"] == "application/problem+json", response.headers
    problem = response.json()
    assert problem["status"] == response.status_code and problem["type"] and problem["title"] and problem["detail"]
    assert isinstance(problem["retryable"], bool)
    return [response.status_code, problem["code"]]


def lookup_path(key):
    return "/v1/signatures/" + quote(key, safe="")


def each_path_once(client):
    """One signature, looked up and counted."""
    keys = client.credentials()
    before = client.get("/v1/usage")
    digest = hashlib.sha256(b"one").digest()
    key = f"brief/{client.app_id}/{client.algorithm}?#%&=+:"  # a key that a path has to escape
    [signature] = client.post(key, credential="demo-p256", digest=b64(digest))
    check("ecdsa-p256-sha256", keys["demo-p256"][0], b"one", signature)
    [known] = client.get(lookup_path(key))["items"]
    assert known["status"] == "done" and base64.b64decode(known["signature"]) == signature
    after = client.get("/v1/usage")
    assert after["signatures"] == before["signatures"] + 1 == sum(after["by_month"].values())
    return {"signed": 1}


def every_algorithm(client):
    verified = []
    for credential, (spki, names) in client.credentials().items():
        for name in names:
            message = f"{credential} signs {name}".encode()
            wanted = {"credential": credential, "algorithm": name}
            sent = b64(takes(name, message, spki))
            [signature] = client.post(f"{credential}/{name}", digest=sent, **wanted)
            check(name, spki, message, signature)
            assert not is_valid(name, spki, message + b"!", signature)
            if name.startswith(("ecdsa", "sm2")):
                [pair] = client.post(f"pair/{name}", digest=sent, format="pair", **wanted)
                check(name, spki, message, pair_to_der(pair))
            verified.append(f"{credential} {name}")
    return verified


def user_id(client, spki):
    wanted = {"credential": "demo-sm2", "algorithm": "sm2-sm3", "digest": b64(b"text"), "user_id": b64(b"alice")}
    [signature] = client.post("user-id", **wanted)
    check("sm2-sm3", spki, b"text", signature, b"alice")
    return not is_valid("sm2-sm3", spki, b"text", signature)


def batch(client, spki):
    messages = [f"document {number}".encode() for number in range(64)]
    digests = [b64(hashlib.sha256(message).digest()) for message in messages]
    signatures = client.post("batch", credential="demo-p256", digests=digests)
    for message, signature in zip(messages, signatures, strict=True):
        check("ecdsa-p256-sha256", spki, message, signature)
    return len(set(signatures))


def cms(client, signing_ca):
    content = b"content of a detached CMS"
    for credential, name in [("demo-p256", "ecdsa-p256-sha256"), ("demo-rsa2048", "rsa-pss-sha256")]:
        digest = b64(hashlib.sha256(content).digest())
        [made] = client.post(f"cms/{name}", credential=credential, algorithm=name, digest=digest, format="cms")
        with tempfile.TemporaryDirectory() as folder:
            signed, text = pathlib.Path(folder, "cms"), pathlib.Path(folder, "content")
            signed.write_bytes(made)
            text.write_bytes(content)
            command = f"openssl cms -verify -binary -inform DER -in {signed} -content {text} -CAfile {signing_ca}"
            ran = subprocess.run(command.split(), capture_output=True, check=True)
            assert ran.stdout == content
    return True


def retries(client):
    wanted = {"credential": "demo-p256", "digest": b64(hashlib.sha256(b"one").digest())}
    other = {**wanted, "digest": b64(hashlib.sha256(b"another").digest())}
    first = client.post("retry", **wanted)
    return {
        "same_bytes": client.post("retry", **wanted) == first,
        "same_bytes_quoted": client.post('"retry"', **wanted) == first,
        "reused": refused(client.send("POST", "/v1/signatures", other, "retry")),
        "never_used": refused(client.send("GET", lookup_path("never-used"))),
    }


def mistakes(client):
    """What is refused, and as what."""
    path = "/v1/signatures"
    body = {"credential": "demo-p256", "digest": b64(hashlib.sha256(b"one").digest())}
    long_ago = datetime.datetime.now() - datetime.timedelta(seconds=62)

    def without(*names):
        return lambda request: [request.headers.pop(name) for name in names]

    def another_body(request):
        request.body = request.body.replace(b"demo-p256", b"demo-p257")

    def post(key="mistake", body=body, **named):
        return refused(client.send("POST", path, body, key, **named))

    return {
        "not signed": post(spoil=without("Signature", "Signature-Input")),
        "signed with another secret": post(spoil=lambda request: resign(client, request)),
        "signed long ago": post(created=long_ago),
        "signed for another service": post(tag="another"),
        "key not covered": post(covered=COVERED),
        "another body": post(spoil=another_body),
        "no digest": post(spoil=without("Content-Digest")),
        "no key": post(key=None),
        "short digest": post(body={**body, "digest": b64(b"short")}),
        "unknown member": post(body={**body, "digset": "AA=="}),
        "unknown credential": post(body={**body, "credential": "nobody"}),
        "too many": post(body={"credential": "demo-p256", "digests": [body["digest"]] * 65}),
        "unknown path": refused(client.send("GET", "/v1/nothing")),
        "wrong method": refused(client.send("DELETE", path)),
    }


def resign(client, request):
    """Signs again, with a secret that is not the app's."""
    for name in ("Signature", "Signature-Input", "Content-Digest"):
        del request.headers[name]
    client.sign(request, request.body, key=b"not the secret")


def references(node):
    """Every $ref of a document."""
    if isinstance(node, dict):
        yield from (value for name, value in node.items() if name == "$ref")
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from references(child)


def openapi(client):
    """The document, fetched without any proof: version, and what it describes."""
    document = answered(client.http.get(client.base + "/openapi.json", timeout=10))
    assert document["openapi"].startswith("3.1."), document["openapi"]
    found = set(references(document))
    for reference in found:
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    assert {f"#/components/schemas/{name}" for name in ("SignBody", "ItemsBody", "Problem")} <= found
    operations = {}
    for path, methods in document["paths"].items():
        operations[path] = sorted(methods)
        assert all({"200", "202"} & method["responses"].keys() for method in methods.values())
    # What a call takes in its path and in its query is described.
    lookup = document["paths"]["/v1/signatures/{idempotency_key}"]["get"]["parameters"]
    described = {entry["name"]: (entry["in"], entry["required"]) for entry in lookup}
    assert described == {"idempotency_key": ("path", True), "proof": ("query", False)}, described
    return operations


def full(client, signing_ca):
    keys = client.credentials()
    return {
        "verified": every_algorithm(client),
        "user_id": user_id(client, keys["demo-sm2"][0]),
        "batch": batch(client, keys["demo-p256"][0]),
        "cms": cms(client, signing_ca),
        "retries": retries(client),
        "openapi": openapi(client),
        **each_path_once(client),
    }


def main(scenario, profile, tls_ca, *rest):
    profile = tomllib.loads(pathlib.Path(profile).read_text())
    by_secret = Client(profile, tls_ca, "hmac-sha256", base64.b64decode(profile["secret"]))
    match scenario, rest:
        case "full", [signing_ca]:
            return full(by_secret, signing_ca)
        case "mistakes", []:
            return mistakes(by_secret)
        case "brief", []:
            return each_path_once(by_secret)
        case "brief", [algorithm, key]:
            return each_path_once(Client(profile, tls_ca, algorithm, pathlib.Path(key).read_bytes()))
        case "certificate", [_, _]:
            return each_path_once(Client(profile, tls_ca, certificate=rest))
        case "refused", [_, _]:
            return refused(Client(profile, tls_ca, certificate=rest).send("GET", "/v1/usage"))
    raise SystemExit(__doc__)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
