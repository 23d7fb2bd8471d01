"""Documents over HTTPS, with `requests` and `http-message-signatures`: a form of an order and a document.

Prints what it saw as JSON; anything wrong ends it with an exception.

    documents_client.py seal PROFILE TLS_CA ORDER IN KEY OUT       seals a document
    documents_client.py refused PROFILE TLS_CA ORDER IN KEY        the same, expected to be refused
    documents_client.py verify PROFILE TLS_CA ORDER IN             verifies one; ORDER may be empty
    documents_client.py mistakes PROFILE TLS_CA IN                 what is refused, and as what
    documents_client.py usage PROFILE TLS_CA                       signatures of the app
    documents_client.py job PROFILE TLS_CA ORDER COUNT KEY IN      makes a job, puts COUNT documents in, starts it
    documents_client.py later PROFILE TLS_CA ORDER IN KEY          seals a document that is too large to be waited for
    documents_client.py operation PROFILE TLS_CA ID                how it stands
    documents_client.py fetch PROFILE TLS_CA ID COUNT FOLDER       fetches what is sealed
    documents_client.py cancel|erase PROFILE TLS_CA ID
    documents_client.py unknown PROFILE TLS_CA ID                  every path of an operation, each expected to be unknown
"""

import base64
import hashlib
import json
import pathlib
import sys
import tomllib

import requests

from https_client import Client, answered, refused


class Documents(Client):
    def call(self, method, path, key=None, spoil=None, **body):
        """A request whose body `requests` encodes; it is signed over what was encoded."""
        headers = {"Idempotency-Key": key} if key else {}
        headers.update(body.pop("headers", {}))
        request = self.http.prepare_request(requests.Request(method, self.base + path, headers, **body))
        self.sign(request, request.body)
        if spoil:
            spoil(request)
        return self.http.send(request, timeout=30)

    def form(self, path, order, document, key=None, spoil=None):
        parts = {"document": ("document", document, "application/octet-stream")}
        if order is not None:
            parts["order"] = (None, order, "application/json")
        return self.call("POST", path, key, spoil, files=parts)

    def seal(self, order, document, key):
        return self.form("/v1/documents/seal", order, document, key)


def numbered(document, number):
    """Another document that looks the same: with a comment behind its end."""
    return document + b"%% number %d\n" % number


def sealed(client, order, document, key, out):
    response = client.seal(order, document, key)
    assert response.status_code == 200, (response.status_code, response.text)
    pathlib.Path(out).write_bytes(response.content)
    return {
        "type": response.headers["Content-Type"],
        "bytes": len(response.content),
        "begins_with_the_document": response.content.startswith(document),
        "sha256": hashlib.sha256(response.content).hexdigest(),
    }


def mistakes(client, document):
    path, order = "/v1/documents/seal", json.dumps({"signers": [{"credential": "demo-p256"}]})

    def without(*names):
        return lambda request: [request.headers.pop(name) for name in names]

    def another_body(request):
        request.body = request.body.replace(b"demo-p256", b"demo-p257")

    def seal(order=order, document=document, key="mistake", **named):
        return refused(client.form(path, order, document, key, **named))

    def wants(**fields):
        return json.dumps({"signers": [{"credential": "demo-p256"}], **fields})

    return {
        "not signed": seal(spoil=without("Signature", "Signature-Input")),
        "another body": seal(spoil=another_body),
        "no digest": seal(spoil=without("Content-Digest")),
        "no key": seal(key=None),
        "no order": seal(order=None),
        "no form": refused(client.call("POST", path, "mistake", data=document)),
        "an order that is none": seal(order="{"),
        "an order with a member too many": seal(order=wants(colour="red")),
        "no signer": seal(order=json.dumps({"signers": []})),
        "unknown credential": seal(order=json.dumps({"signers": [{"credential": "nobody"}]})),
        "no document": seal(document=b"GIF89a"),
        "half a document": seal(document=document[: len(document) // 2]),
        "a page that is not there": seal(order=wants(picture=PICTURE, place={"at": {"page": 99, "x": 0, "y": 0}})),
        "a picture that is none": seal(order=wants(picture="AAAA", place={"at": {"page": 1, "x": 0, "y": 0}})),
        "a word that is nowhere": seal(order=wants(picture=PICTURE, place={"keyword": {"text": "nowhere to be found"}})),
        "SM2 without an electronic seal": seal(order=json.dumps({"signers": [{"credential": "demo-sm2"}]})),
        "verify: no document": refused(client.form("/v1/documents/verify", None, b"GIF89a")),
        "verify: an order that is none": refused(client.form("/v1/documents/verify", "{", document)),
        "a job of none": refused(job(client, order, 0, "job-of-none")),
        "a job of too many": refused(job(client, order, 1001, "job-of-too-many")),
        "unknown operation": refused(client.call("GET", "/v1/operations/0123456789abcdef")),
        "a name that is none": refused(client.call("GET", "/v1/operations/nothing")),
    }


# A red pixel.
PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def job(client, order, count, key):
    body = json.dumps({"order": json.loads(order), "documents": count})
    headers = {"Content-Type": "application/json"}
    return client.call("POST", "/v1/documents/jobs", key, data=body.encode(), headers=headers)


def accepted(response):
    assert response.status_code == 202, (response.status_code, response.text)
    operation = response.json()
    assert response.headers["Location"] == f"/v1/operations/{operation['operation']}"
    return operation


def start(client, order, count, key, document):
    operation = accepted(job(client, order, count, key))
    assert operation["state"] == "open", operation
    again = accepted(job(client, order, count, key))
    assert again["operation"] == operation["operation"], "the same key, another job"
    path = f"/v1/operations/{operation['operation']}"
    early = refused(client.call("POST", path + "/start"))
    assert early == [409, "wrong_state"], early
    for number in range(count):
        one = numbered(document, number)
        put = answered(client.call("PUT", f"{path}/documents/{number}", data=one))
        assert put["bytes"] == len(one) and put["sha256"] == hashlib.sha256(one).hexdigest(), put
    beyond = refused(client.call("PUT", f"{path}/documents/{count}", data=document))
    assert beyond == [404, "not_found"], beyond
    started = accepted(client.call("POST", path + "/start"))
    late = refused(client.call("PUT", f"{path}/documents/0", data=document))
    assert late == [409, "wrong_state"], late
    return started


def fetch(client, operation, count, folder, document=None):
    path = f"/v1/operations/{operation}/documents"
    listed = answered(client.call("GET", path))["documents"]
    assert [one["document"] for one in listed] == list(range(count)), listed
    outcomes = []
    for one in listed:
        response = client.call("GET", f"{path}/{one['document']}")
        if response.status_code != 200:
            outcomes.append(refused(response))
            continue
        assert len(response.content) == one["sealed_bytes"]
        pathlib.Path(folder, f"{one['document']}.pdf").write_bytes(response.content)
        outcomes.append("done")
    return {"outcomes": outcomes, "states": [one["state"] for one in listed]}


def unknown(client, operation):
    path = f"/v1/operations/{operation}"
    return [
        refused(client.call(method, path + rest, data=body))
        for method, rest, body in [
            ("GET", "", None),
            ("GET", "/documents", None),
            ("GET", "/documents/0", None),
            ("PUT", "/documents/0", b"%PDF-1.4"),
            ("POST", "/start", None),
            ("POST", "/cancellation", None),
            ("DELETE", "", None),
        ]
    ]


def main(scenario, profile, tls_ca, *rest):
    profile = tomllib.loads(pathlib.Path(profile).read_text())
    client = Documents(profile, tls_ca, "hmac-sha256", base64.b64decode(profile["secret"]))
    match scenario, rest:
        case "seal", [order, document, key, out]:
            return sealed(client, order, pathlib.Path(document).read_bytes(), key, out)
        case "refused", [order, document, key]:
            return refused(client.seal(order, pathlib.Path(document).read_bytes(), key))
        case "verify", [order, document]:
            return answered(client.form("/v1/documents/verify", order or None, pathlib.Path(document).read_bytes()))
        case "mistakes", [document]:
            return mistakes(client, pathlib.Path(document).read_bytes())
        case "usage", []:
            return client.get("/v1/usage")
        case "job", [order, count, key, document]:
            return start(client, order, int(count), key, pathlib.Path(document).read_bytes())
        case "later", [order, document, key]:
            return accepted(client.seal(order, pathlib.Path(document).read_bytes(), key))
        case "operation", [operation]:
            return answered(client.call("GET", f"/v1/operations/{operation}"))
        case "fetch", [operation, count, folder]:
            return fetch(client, operation, int(count), folder)
        case "cancel", [operation]:
            return answered(client.call("POST", f"/v1/operations/{operation}/cancellation"))
        case "erase", [operation]:
            return answered(client.call("DELETE", f"/v1/operations/{operation}"))
        case "unknown", [operation]:
            return unknown(client, operation)
    raise SystemExit(__doc__)


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
