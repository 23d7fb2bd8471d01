"""A client for the native protocol, written from docs/wire.cddl alone with aioquic and cbor2.

Does everything the page says once and prints what it saw as JSON; anything wrong ends it with an exception.

    native_client.py full PROFILE                           every key, batches, pipelining, retries
    native_client.py mistakes PROFILE                       what is refused, and as what
    native_client.py brief PROFILE [CERTIFICATE KEY]        one signature; with a certificate, binding 2
    native_client.py refused PROFILE [CERTIFICATE KEY]      a session that is expected not to be proved
"""

import asyncio
import base64
import hashlib
import hmac
import itertools
import json
import os
import sys
import tomllib

import cbor2
from aioquic.asyncio import QuicConnectionProtocol, connect
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding

from checks import DEFAULT_USER_ID, check, is_valid, pair_to_der, takes

HELLO, WELCOME, PROVE, PROVED, SEALED, REPLY, CLOSING = range(1, 8)
SIGN, LOOKUP, CREDENTIALS, USAGE = range(1, 5)
RAW, PAIR, CMS = 0, 1, 2
ALGORITHMS = {
    "ecdsa-p256-sha256": 1, "ecdsa-p384-sha384": 2,
    "rsa-pkcs1-sha256": 3, "rsa-pkcs1-sha384": 4, "rsa-pkcs1-sha512": 5,
    "rsa-pss-sha256": 6, "rsa-pss-sha384": 7, "rsa-pss-sha512": 8,
    "ed25519": 9, "sm2-sm3-e": 10, "sm2-sm3": 11,
}  # fmt: skip
NAMES = {number: name for name, number in ALGORITHMS.items()}
SERVER_CERTIFICATE, CLIENT_CERTIFICATE = 0, 2


class Closing(Exception):
    """The server said goodbye: its refusal."""


class Connection(QuicConnectionProtocol):
    """Remembers how it ended."""

    terminated = None

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated):
            self.terminated = event
        super().quic_event_received(event)


def hmac_sha256(key, data):
    return hmac.digest(key, data, "sha256")


def session_key(secret, client_nonce, server_nonce, app_id, certificate_hash):
    info = b"cinnabar/1 session\0" + app_id.encode() + b"\0" + certificate_hash
    return HKDF(SHA256(), 32, salt=server_nonce + client_nonce, info=info).derive(secret)


def check_test_vector():
    certificate_hash = bytes(range(0x40, 0x60))
    key = session_key(b"\x0b" * 32, bytes(range(32)), bytes(range(32, 64)), "demo-app", certificate_hash)
    expected = "26ac41e0599ca12c19de90ddef816640056c5df88bc1d2842b271bc6969e3d08"
    assert hmac_sha256(key, b"cinnabar").hex() == expected


def understood(payload):
    frame = cbor2.loads(payload)
    if frame[0] == CLOSING:
        raise Closing(frame[1])
    return frame


class Stream:
    """Frames in and out."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    def send(self, item):
        payload = item if isinstance(item, bytes) else cbor2.dumps(item)
        self.writer.write(len(payload).to_bytes(4) + payload)
        return payload

    async def receive_payload(self):
        length = int.from_bytes(await self.reader.readexactly(4))
        return await self.reader.readexactly(length)

    async def receive(self):
        return understood(await self.receive_payload())


class Session:
    """A proved session. Replies are handed to whoever sent the request, in any order."""

    def __init__(self, profile, connection, binding):
        self.profile, self.connection, self.binding = profile, connection, binding
        self.ids = itertools.count(1)
        self.waiting = {}
        self.arrived = []

    async def prove(self, flip=0, version=1, hello=None):
        """Section 3 of the page. `flip` spoils the client's MAC."""
        self.stream = Stream(*await self.connection.create_stream())
        nonce = os.urandom(32)
        fields = {0: version, 1: self.profile["app_id"], 2: nonce, 3: self.binding}
        hello = self.stream.send(hello or [HELLO, fields])
        welcome = await self.stream.receive_payload()
        kind, fields = understood(welcome)
        assert kind == WELCOME and fields[0] == 1, fields
        self.limits = {"frame_bytes": fields[2], "inputs": fields[3], "in_flight": fields[4]}
        if self.binding == CLIENT_CERTIFICATE:
            self.key, client_mac, server_mac = None, b"", b""
        else:
            self.key = self.derive_key(nonce, fields[1])
            transcript = hashlib.sha256(hello + welcome).digest()
            client_mac = hmac_sha256(self.key, b"cinnabar/1 client" + transcript)
            server_mac = hmac_sha256(self.key, b"cinnabar/1 server" + transcript)
        self.stream.send([PROVE, {0: bytes(byte ^ flip for byte in client_mac)}])
        kind, fields = await self.stream.receive()
        assert kind == PROVED and fields[0] == server_mac, "the server does not know the secret"
        self.listen(self.stream)

    def derive_key(self, client_nonce, server_nonce):
        certificate = self.connection._quic.tls._peer_certificate.public_bytes(Encoding.DER)
        secret = base64.b64decode(self.profile["secret"])
        certificate_hash = hashlib.sha256(certificate).digest()
        return session_key(secret, client_nonce, server_nonce, self.profile["app_id"], certificate_hash)

    def listen(self, stream):
        stream.listener = asyncio.ensure_future(self.read_replies(stream))

    async def another_stream(self):
        stream = Stream(*await self.connection.create_stream())
        self.listen(stream)
        return stream

    async def read_replies(self, stream):
        """Hands replies out until the stream ends; what ends it is also heard by all who still wait."""
        try:
            while True:
                kind, fields = await stream.receive()
                assert kind == REPLY, kind
                self.arrived.append(fields[0])
                self.waiting.pop(fields[0]).set_result(fields)
        except asyncio.IncompleteReadError:
            self.give_up(ConnectionError("the stream ended"))
        except Exception as error:
            self.give_up(error)
            raise

    def give_up(self, error):
        for future in self.waiting.values():
            future.set_exception(error)
            future.exception()  # nobody has to listen
        self.waiting.clear()

    def ask(self, kind, fields, stream=None, flip=0):
        """Sends a request; the future of its reply. `flip` spoils its MAC."""
        number = next(self.ids)
        body = cbor2.dumps([kind, {0: number, 1: self.profile["app_id"], **fields}])
        mac = hmac_sha256(self.key, body) if self.key else b""
        self.waiting[number] = future = asyncio.get_running_loop().create_future()
        (stream or self.stream).send([SEALED, body, bytes(byte ^ flip for byte in mac)])
        return future

    def sign(self, credential, algorithm, key, inputs, extra=None, **named):
        fields = {2: credential, 3: ALGORITHMS[algorithm], 4: key, 5: inputs, **(extra or {})}
        return self.ask(SIGN, fields, **named)


def done(reply, count=1):
    """The signatures of a reply; every item must be done."""
    assert 1 in reply, reply
    assert len(reply[1]) == count and all(item[0] == 0 and item[2] > 0 for item in reply[1]), reply
    return [item[1] for item in reply[1]]


def refused(reply):
    """Number and name of a refusal of the whole request."""
    refusal = reply[2]
    assert refusal[2] and isinstance(refusal[3], bool), refusal
    return [refusal[0], refusal[1]]


def configuration(profile, certificate=None, key=None):
    made = QuicConfiguration(is_client=True, alpn_protocols=["cinnabar/1"], server_name=profile["server_name"])
    made.load_verify_locations(cadata=profile["server_ca"].encode())
    if certificate:
        made.load_cert_chain(certificate, key)
    return made


def dial(profile, *client):
    host, port = profile["address"].rsplit(":", 1)
    return connect(host, int(port), configuration=configuration(profile, *client), create_protocol=Connection)


class Scenario:
    """What a session is asked to do, with what came of it."""

    def __init__(self, session):
        self.session = session
        self.saw = {}
        self.signed = 0

    async def list_credentials(self):
        reply = await self.session.ask(CREDENTIALS, {})
        self.spki = {entry[0]: entry[4] for entry in reply[3]}
        algorithms = {entry[0]: [NAMES[number] for number in entry[2]] for entry in reply[3]}
        assert all(entry[3] is True and len(entry[5]) >= 1 for entry in reply[3]), "active, with a certificate"
        self.saw["credentials"] = {entry[0]: [entry[1], algorithms[entry[0]]] for entry in reply[3]}
        return algorithms

    async def usage(self):
        reply = await self.session.ask(USAGE, {})
        assert reply[4][0] == sum(reply[4][1].values()) == sum(reply[4][2].values()), reply
        return reply[4][0]

    async def sign_checked(self, credential, algorithm, key, user_id=None, form=RAW):
        """One signature over a message of its own, checked."""
        message, spki = f"message of {key}".encode(), self.spki[credential]
        user = user_id or DEFAULT_USER_ID
        extra = {8: user_id} if user_id else {}
        if form:
            extra[7] = form
        inputs = [takes(algorithm, message, spki, user)]
        [signature] = done(await self.session.sign(credential, algorithm, key, inputs, extra))
        self.signed += 1
        der = pair_to_der(signature) if form == PAIR else signature
        check(algorithm, spki, message, der, user)
        assert not is_valid(algorithm, spki, message + b"!", der, user)
        return signature

    async def every_algorithm(self, algorithms):
        verified = []
        for credential, names in algorithms.items():
            for name in names:
                await self.sign_checked(credential, name, f"{credential}/{name}")
                verified.append(f"{credential} {name}")
        self.saw["verified"] = verified
        await self.sign_checked("demo-sm2", "sm2-sm3", "user-id", user_id=b"alice@example.com")
        for credential, name in [("demo-p256", "ecdsa-p256-sha256"), ("demo-sm2", "sm2-sm3-e")]:
            pair = await self.sign_checked(credential, name, f"pair/{name}", form=PAIR)
            assert len(pair) == 64

    async def batch(self):
        messages = [f"document {number}".encode() for number in range(64)]
        digests = [hashlib.sha256(message).digest() for message in messages]
        signatures = done(await self.session.sign("demo-p256", "ecdsa-p256-sha256", "batch", digests), 64)
        self.signed += 64
        for message, signature in zip(messages, signatures):
            check("ecdsa-p256-sha256", self.spki["demo-p256"], message, signature)
        self.saw["batch"] = len(set(signatures))

    async def pipelined(self):
        """200 requests at once on two streams: slow signatures first, quick answers behind them."""
        second = await self.session.another_stream()
        self.session.arrived.clear()
        waiting = {}
        for number in range(180):
            rsa = number < 60
            credential, name = ("demo-rsa2048", "rsa-pkcs1-sha256") if rsa else ("demo-p256", "ecdsa-p256-sha256")
            message = f"pipelined {number}".encode()
            digest = hashlib.sha256(message).digest()
            stream = second if number % 2 else None
            future = self.session.sign(credential, name, f"pipelined-{number}", [digest], stream=stream)
            waiting[future] = (name, credential, message)
        asks = [self.session.ask(USAGE, {}) for _ in range(20)]
        for future, (name, credential, message) in waiting.items():
            [signature] = done(await future)
            check(name, self.spki[credential], message, signature)
        await asyncio.gather(*asks)
        self.signed += 180
        arrived = self.session.arrived
        self.saw["pipelined"] = len(arrived)
        self.saw["overtaken"] = sum(1 for one, next_one in itertools.pairwise(arrived) if one > next_one)

    async def replayed(self, form, digest):
        """Whether a retry and a lookup bring what the first call brought, in its format."""
        key = f"format-{form}"
        ask = lambda: self.session.sign("demo-p256", "ecdsa-p256-sha256", key, [digest], {7: form})
        first = done(await ask())
        self.signed += 1
        return done(await ask()) == first == done(await self.session.ask(LOOKUP, {2: key}))

    async def retries(self):
        digest, other = hashlib.sha256(b"one").digest(), hashlib.sha256(b"another").digest()
        ask = lambda key, what: self.session.sign("demo-p256", "ecdsa-p256-sha256", key, [what])
        first = done(await ask("retry", digest))
        # Twice at once, the second waits for the first; and once more.
        both = [done(reply) for reply in await asyncio.gather(ask("at-once", digest), ask("at-once", digest))]
        self.signed += 2
        known = done(await self.session.ask(LOOKUP, {2: "retry"}))
        self.saw["retry_same_bytes"] = done(await ask("retry", digest)) == first == known
        self.saw["at_once_same_bytes"] = both[0] == both[1]
        self.saw["formats_same_bytes"] = [await self.replayed(form, digest) for form in (RAW, PAIR, CMS)]
        self.saw["reused"] = refused(await ask("retry", other))
        self.saw["never_used"] = refused(await self.session.ask(LOOKUP, {2: "never-used"}))


async def goodbye(session, waiting):
    """Number in the closing frame, and of the connection's end."""
    try:
        await waiting
        said = None
    except Closing as closing:
        said = closing.args[0]
    await session.connection.wait_closed()
    # aioquic would try to finish a stream that the server has reset.
    session.stream.writer.transport._closing = True
    ended = session.connection.terminated
    assert ended.frame_type is None, "closed by QUIC, not by the application"
    return {"frame": [said[0], said[1]], "connection": ended.error_code}


async def refused_session(profile, *client, **spoilt):
    binding = CLIENT_CERTIFICATE if client else SERVER_CERTIFICATE
    async with dial(profile, *client) as connection:
        session = Session(profile, connection, binding)
        return await goodbye(session, session.prove(**spoilt))


async def refused_frame(profile, frame):
    """A proved session that ends over a frame, which `frame` sends."""
    async with dial(profile) as connection:
        session = Session(profile, connection, SERVER_CERTIFICATE)
        await session.prove()
        # An honest request before it is answered still.
        honest = session.ask(USAGE, {})
        frame(session)
        assert 4 in await honest
        return await goodbye(session, session.stream.listener)


async def refused_requests(session):
    """Mistakes that cost the request and not the session."""
    digest = hashlib.sha256(b"one").digest()

    async def sign(key="mistake", algorithm="ecdsa-p256-sha256", credential="demo-p256", inputs=(digest,), extra=None):
        return refused(await session.sign(credential, algorithm, key, list(inputs), extra))

    return {
        "a digest too short": await sign(inputs=[digest[1:]]),
        "an algorithm of another key": await sign(algorithm="ed25519"),
        "an algorithm of no key": await sign(extra={3: 99}),
        "no such credential": await sign(credential="nobody"),
        "a key with a space": await sign(key="with space"),
        "a batch of 65": await sign(inputs=[digest] * 65),
        "a message too long": await sign(credential="demo-ed25519", algorithm="ed25519", inputs=[bytes(65537)]),
        "no such format": await sign(extra={7: 9}),
    }


async def mistakes(profile):
    async with dial(profile) as connection:
        session = Session(profile, connection, SERVER_CERTIFICATE)
        await session.prove()
        saw = await refused_requests(session)
    unknown = {**profile, "app_id": "nobody"}
    hello = [HELLO, {0: 1, 1: profile["app_id"], 2: bytes(32), 3: SERVER_CERTIFICATE}]
    too_large = lambda session: session.stream.writer.write((262145).to_bytes(4))
    return {
        **saw,
        "wrong MAC of a request": await refused_frame(profile, lambda session: session.ask(USAGE, {}, flip=1)),
        "wrong MAC of the session": await refused_session(profile, flip=1),
        "no such app": await refused_session(unknown),
        "no such version": await refused_session(profile, version=2),
        "a frame too large": await refused_frame(profile, too_large),
        "a frame too large for a hello": await refused_session(profile, hello=bytes(4097)),
        "a frame that is no CBOR": await refused_frame(profile, lambda session: session.stream.send(b"\xff\xff")),
        "a frame of no bytes": await refused_frame(profile, lambda session: session.stream.send(b"")),
        "a second hello": await refused_frame(profile, lambda session: session.stream.send(hello)),
    }


async def full(profile):
    check_test_vector()
    async with dial(profile) as connection:
        session = Session(profile, connection, SERVER_CERTIFICATE)
        await session.prove()
        scenario = Scenario(session)
        algorithms = await scenario.list_credentials()
        before = await scenario.usage()
        await scenario.every_algorithm(algorithms)
        await scenario.batch()
        await scenario.pipelined()
        await scenario.retries()
        charged = await scenario.usage() - before
    return {**scenario.saw, "limits": session.limits, "signed": scenario.signed, "charged": charged}


async def brief(profile, *client):
    binding = CLIENT_CERTIFICATE if client else SERVER_CERTIFICATE
    async with dial(profile, *client) as connection:
        session = Session(profile, connection, binding)
        await session.prove()
        scenario = Scenario(session)
        await scenario.list_credentials()
        await scenario.sign_checked("demo-p256", "ecdsa-p256-sha256", f"brief-{os.urandom(8).hex()}")
        asked = connection._quic.tls._certificate_request is not None
    return {"signed": scenario.signed, "asked_for_certificate": asked}


SCENARIOS = {"full": full, "mistakes": mistakes, "brief": brief, "refused": refused_session}


async def main(scenario, profile, *client):
    with open(profile, "rb") as file:
        profile = tomllib.load(file)
    async with asyncio.timeout(40):
        saw = await SCENARIOS[scenario](profile, *client)
    print(json.dumps(saw))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
