"""Cinnabar beside other signing services: the same work (a digest of 32 bytes), the same number of requests in flight, one
machine, one run, client and server on the same processors. Each measurement is repeated in every round, after each other, so
that what slows the machine for a while slows all of them; medians are shown.

CPU is that of the server's processes (user and system, /proc/PID/stat), for each signature; memory is what they hold by
themselves and share in part (Pss). Peers run as fast as they can: without TLS, without an audit log, keys in memory.
"""

import argparse
import base64
import hashlib
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

DIGEST = hashlib.sha256(b"peers").digest()
BATCH = 64
TICKS = os.sysconf("SC_CLK_TCK")
SOFTHSM = "/usr/lib/softhsm/libsofthsm2.so"
P11_KIT_CLIENT = "/usr/lib/x86_64-linux-gnu/pkcs11/p11-kit-client.so"
PIN = "123456"


def descendants(pid):
    """A process and all below it that live."""
    found, rest = [], [pid]
    while rest:
        one = rest.pop()
        found.append(one)
        for task in pathlib.Path(f"/proc/{one}/task").glob("*/children"):
            rest += [int(child) for child in task.read_text().split()]
    return found


def cpu_seconds(pid):
    """User and system time of a process, of its children that have ended, and of those that live."""
    ticks = 0
    for number, one in enumerate(descendants(pid)):
        fields = pathlib.Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(field) for field in fields[11 : 15 if number == 0 else 13])
    return ticks / TICKS


def memory_mib(pid):
    pss = 0
    for one in descendants(pid):
        text = pathlib.Path(f"/proc/{one}/smaps_rollup").read_text()
        pss += int(re.search(r"^Pss: +(\d+)", text, re.M)[1])
    return pss / 1024


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, condition, process, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            sys.exit(f"{what} has ended with {process.returncode}")
        if condition():
            return
        time.sleep(0.05)
    sys.exit(f"{what} is not there after {seconds} s")


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Bench:
    """What all peers need: where things are, how long to measure, and what was started."""

    def __init__(self, arguments, folder):
        self.arguments = arguments
        self.folder = pathlib.Path(folder)
        self.processes = []

    def start(self, name, command, **more):
        log = open(self.folder / f"{name}.log", "wb")
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, start_new_session=True, **more)
        self.processes.append(process)
        return process

    def binary(self, name):
        return pathlib.Path(self.arguments.binaries).resolve() / name

    def tool(self, name):
        return pathlib.Path(self.arguments.venv).resolve() / "bin" / name

    def stop(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)

    def http(self, pid, port, path, body, expect, in_flight, signatures=1, headers=()):
        """One query over and over on as many connections as may be in flight."""
        file = self.folder / "body"
        file.write_bytes(json.dumps(body).encode())
        command = [self.binary("cinnabar-load"), "http", "--address", f"127.0.0.1:{port}", "--path", path, "--type", "application/json",
                   "--body", file, "--connections", in_flight, "--expect", expect.encode().hex()]
        for header in headers:
            command += ["--header", header]
        run = lambda seconds, warm_up: json.loads(subprocess.run(
            [str(part) for part in [*command, "--duration", f"{seconds}s", "--warm-up", f"{warm_up}s"]],
            check=True, stdout=subprocess.PIPE).stdout)
        run(1, 0)
        before = cpu_seconds(pid)
        told = run(self.arguments.seconds, 0)
        used = cpu_seconds(pid) - before
        latency = told["latency_us"]
        return {
            "rate": told["answers_per_second"] * signatures,
            "p50": latency["p50"] / 1000, "p99": latency["p99"] / 1000, "max": latency["max"] / 1000,
            "cpu": used * 1e6 / (told["answers"] * signatures), "memory": memory_mib(pid),
        }


class Cinnabar:
    """Durable, authenticated, metered and recorded, over QUIC (TLS 1.3) and HTTPS."""

    def __init__(self, bench, name, *settings):
        self.bench, self.name = bench, name
        home = bench.folder / name
        self.profile = home / "dev/app.toml"
        any_port = "127.0.0.1:0"
        command = [bench.binary("cinnabar"), "--home", home, "--listen", any_port, "--admin", any_port, "--console", any_port,
                   "--set", f"pki={any_port}", *settings, "serve", "--dev"]
        self.process = bench.start(name, command)
        log = bench.folder / f"{name}.log"
        wait_for(name, lambda: "cinnabar is ready" in log.read_text(), self.process)

    def measure(self, credential, in_flight, *more, batch=1):
        report = self.bench.folder / "report.json"
        command = [self.bench.binary("cinnabar-load"), "closed", "--profile", self.profile, "--credential", credential,
                   "--in-flight", in_flight, "--batch", batch, "--duration", f"{self.bench.arguments.seconds}s",
                   "--progress", "none", "--json", report, *more]
        done = subprocess.run([str(part) for part in command], stdout=subprocess.DEVNULL)
        told = json.loads(report.read_text())
        if done.returncode not in (0, 1) or told["errors"]:
            sys.exit(f"{self.name}: {told['errors']}")
        latency = told["latency_ms"]
        return {
            "rate": told["signatures_per_second"], "p50": latency["p50"], "p99": latency["p99"], "max": latency["max"],
            "cpu": told["server_cpu_us"], "memory": memory_mib(self.process.pid),
        }


class OpenBao:
    """Transit engine of a development server: plain HTTP, storage in memory, no audit device."""

    def __init__(self, bench):
        self.bench, self.port = bench, free_port()
        environment = {**os.environ, "BAO_DEV_ROOT_TOKEN_ID": "root", "HOME": str(bench.folder)}
        command = [bench.tool("bao"), "server", "-dev", f"-dev-listen-address=127.0.0.1:{self.port}", "-dev-no-store-token", "-log-level=error"]
        self.process = bench.start("openbao", command, env=environment)
        wait_for("OpenBao", lambda: listens(self.port), self.process)
        time.sleep(1)
        self.ask("sys/mounts/transit", {"type": "transit"})
        self.ask("transit/keys/ec", {"type": "ecdsa-p256"})
        self.ask("transit/keys/rsa", {"type": "rsa-2048"})

    def ask(self, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/v1/{path}", json.dumps(body).encode(), {"X-Vault-Token": "root"})
        with urllib.request.urlopen(request) as answer:
            answer.read()

    def measure(self, key, in_flight, batch=1):
        text = base64.b64encode(DIGEST).decode()
        body = {"input": text} if batch == 1 else {"batch_input": [{"input": text}] * batch}
        body |= {"prehashed": True} | ({"signature_algorithm": "pkcs1v15"} if key == "rsa" else {})
        return self.bench.http(self.process.pid, self.port, f"/v1/transit/sign/{key}/sha2-256", body, '{"', in_flight, batch, ["X-Vault-Token: root"])


CSC = """
keysets:
  peers:
    keys:
      root: {path: root.pem}
      signer: {path: signer.pem}
pki-architectures:
  peers:
    keyset: peers
    entity-defaults: {country-name: CN, organization-name: Peers}
    entities:
      root: {common-name: Root}
      signer: {common-name: Signer}
    certs:
      root:
        subject: root
        issuer: root
        authority-key: root
        validity: {valid-from: "2020-01-01T00:00:00+0000", valid-to: "2100-01-01T00:00:00+0000"}
      signer:
        subject: signer
        issuer: root
        authority-key: root
        validity: {valid-from: "2020-01-01T00:00:00+0000", valid-to: "2100-01-01T00:00:00+0000"}
"""


class Certomancer:
    """The CSC 1.0.4 server of certomancer, with the one authorisation that all calls use; a test tool by its own account."""

    def __init__(self, bench):
        self.bench, self.port = bench, free_port()
        folder = bench.folder / "csc"
        folder.mkdir()
        for name in ("root", "signer"):
            subprocess.run(["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", folder / f"{name}.pem"],
                           check=True, stderr=subprocess.DEVNULL)
        (folder / "certomancer.yml").write_text(CSC)
        # Its own entry point logs every request in full; this one is its library's, without.
        program = f"from csc_dummy.runner import run_from_file; run_from_file('certomancer.yml', {self.port})"
        self.process = bench.start("csc", [bench.tool("python"), "-c", program], cwd=folder)
        wait_for("certomancer", lambda: listens(self.port), self.process)
        text = base64.b64encode(DIGEST).decode()
        order = {"credentialID": "peers/signer", "numSignatures": 1, "hash": [text]}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/csc/v1/credentials/authorize", json.dumps(order).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            sad = json.load(answer)["SAD"]
        self.body = {"credentialID": "peers/signer", "SAD": sad, "hash": [text], "signAlgo": "1.2.840.10045.4.3.2"}

    def measure(self, in_flight):
        return self.bench.http(self.process.pid, self.port, "/csc/v1/signatures/signHash", self.body, '{"signatures"', in_flight)


class Token:
    """SoftHSM2, called by loops in processes of their own: in those processes, or behind `p11-kit server`."""

    def __init__(self, bench):
        self.bench = bench
        folder = bench.folder / "tokens"
        folder.mkdir()
        conf = bench.folder / "softhsm2.conf"
        conf.write_text(f"directories.tokendir = {folder}\nobjectstore.backend = file\n")
        self.environment = {**os.environ, "SOFTHSM2_CONF": str(conf), "XDG_RUNTIME_DIR": str(bench.folder)}
        quiet = {"check": True, "env": self.environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["softhsm2-util", "--init-token", "--free", "--label", "test", "--pin", PIN, "--so-pin", "12345678"], **quiet)
        tool = ["pkcs11-tool", "--module", SOFTHSM, "--token-label", "test", "--login", "--pin", PIN]
        self.keys = {}
        for kind, name, number in (("EC:prime256v1", "p256", "01"), ("rsa:2048", "rsa2048", "02")):
            subprocess.run([*tool, "--keypairgen", "--key-type", kind, "--id", number, "--label", name], **quiet)
            file = bench.folder / f"{name}.der"
            subprocess.run([*tool, "--read-object", "--type", "pubkey", "--id", number, "-o", file], **quiet)
            self.keys[name] = (number, file.read_bytes().hex())
        socket_path = bench.folder / "p11"
        command = ["p11-kit", "server", "--foreground", "--provider", SOFTHSM, "--name", socket_path, "pkcs11:token=test"]
        self.kit = bench.start("p11-kit", command, env=self.environment)
        wait_for("p11-kit server", socket_path.exists, self.kit)
        self.environment["P11_KIT_SERVER_ADDRESS"] = f"unix:path={socket_path}"

    def measure(self, key, processes, module):
        number, public = self.keys[key]
        milliseconds = str(self.bench.arguments.seconds * 1000)
        command = [self.bench.arguments.loop, "direct", module, number, public, milliseconds, "false"]
        loops = []
        # One after another: SoftHSM2 processes that start at the same time do not all see their token.
        for _ in range(processes):
            loop = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self.environment, text=True)
            loop.stdout.readline()
            loops.append(loop)
        own = module == SOFTHSM
        servers = [loop.pid for loop in loops] if own else [self.kit.pid]
        before = sum(map(cpu_seconds, servers))
        for loop in loops:
            loop.stdin.write("go\n")
            loop.stdin.flush()
        # While they run: what has ended has neither memory nor a place in /proc.
        time.sleep(self.bench.arguments.seconds * 0.8)
        used, memory = (sum(map(cpu_seconds, servers)) - before) / 0.8, sum(map(memory_mib, servers))
        said = [json.loads(loop.communicate()[0]) for loop in loops]
        rate = sum(one["per_second"] for one in said)
        latency = lambda name, of: of(one["latency_us"][name] for one in said) / 1000
        return {
            "rate": rate, "p50": latency("p50", statistics.median), "p99": latency("p99", max), "max": latency("max", max),
            "cpu": used * 1e6 / (rate * self.bench.arguments.seconds), "memory": memory,
        }


def openssl_speed(name, pattern):
    """One core, no service at all."""
    text = subprocess.run(["openssl", "speed", "-seconds", "2", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True).stdout
    line = next(line for line in text.splitlines() if re.search(pattern, line))
    rate = float(line.split()[-2])
    return {"rate": rate, "p50": None, "p99": None, "max": None, "cpu": 1e6 / rate, "memory": None}


def measurements(bench):
    """What is measured: section, who, and how. The first of a section is what the others are held against."""
    quick, sure = Cinnabar(bench, "cinnabar"), Cinnabar(bench, "cinnabar-all", "--set", "verify=all")
    bao, csc, token = OpenBao(bench), Certomancer(bench), Token(bench)
    https = ("--transport", "https", "--connections", "64")
    return [
        ("P-256, 64 in flight", "Cinnabar, QUIC", lambda: quick.measure("demo-p256", 64)),
        ("P-256, 64 in flight", "Cinnabar, QUIC, verify = all", lambda: sure.measure("demo-p256", 64)),
        ("P-256, 64 in flight", "Cinnabar, HTTPS", lambda: quick.measure("demo-p256", 64, *https)),
        ("P-256, 64 in flight", "OpenBao transit", lambda: bao.measure("ec", 64)),
        ("P-256, 64 in flight", "certomancer CSC", lambda: csc.measure(64)),
        ("P-256, 16 loops", "SoftHSM2 behind p11-kit server", lambda: token.measure("p256", 16, P11_KIT_CLIENT)),
        ("P-256, 16 loops", "SoftHSM2 in process", lambda: token.measure("p256", 16, SOFTHSM)),
        ("P-256, one core", "openssl speed", lambda: openssl_speed("ecdsap256", "nistp256")),
        ("P-256, 256 in flight", "Cinnabar, QUIC", lambda: quick.measure("demo-p256", 256)),
        ("P-256, 256 in flight", "Cinnabar, QUIC, verify = all", lambda: sure.measure("demo-p256", 256)),
        ("P-256, 256 in flight", "OpenBao transit", lambda: bao.measure("ec", 256)),
        ("P-256, 16 in flight, batches of 64", "Cinnabar, QUIC", lambda: quick.measure("demo-p256", 16, batch=BATCH)),
        ("P-256, 16 in flight, batches of 64", "Cinnabar, QUIC, verify = all", lambda: sure.measure("demo-p256", 16, batch=BATCH)),
        ("P-256, 16 in flight, batches of 64", "OpenBao transit", lambda: bao.measure("ec", 16, batch=BATCH)),
        ("RSA-2048, 64 in flight", "Cinnabar, QUIC", lambda: quick.measure("demo-rsa2048", 64)),
        ("RSA-2048, 64 in flight", "Cinnabar, HTTPS", lambda: quick.measure("demo-rsa2048", 64, *https)),
        ("RSA-2048, 64 in flight", "OpenBao transit", lambda: bao.measure("rsa", 64)),
        ("RSA-2048, 16 loops", "SoftHSM2 behind p11-kit server", lambda: token.measure("rsa2048", 16, P11_KIT_CLIENT)),
        ("RSA-2048, 16 loops", "SoftHSM2 in process", lambda: token.measure("rsa2048", 16, SOFTHSM)),
        ("RSA-2048, one core", "openssl speed", lambda: openssl_speed("rsa2048", r"^rsa +2048")),
        ("SM2, 256 in flight", "Cinnabar, QUIC", lambda: quick.measure("demo-sm2", 256)),
        ("SM2, 256 in flight", "Cinnabar, QUIC, verify = all", lambda: sure.measure("demo-sm2", 256)),
        ("SM2, one core", "openssl speed", lambda: openssl_speed("sm2", "SM2")),
    ]


def show(rows):
    first = {}
    cell = lambda value, form: "" if value is None else format(value, form)
    print("| work | who | signatures/s | p50 ms | p99 ms | max ms | server CPU µs | memory MiB | Cinnabar does |\n|---|---|---|---|---|---|---|---|---|")
    for (work, who), results in rows.items():
        middle = {name: None if results[0][name] is None else statistics.median(one[name] for one in results) for name in results[0]}
        kind = work.split(",")[0]
        best = first.setdefault(work, middle["rate"]) if who.startswith("Cinnabar") else first.get(work, first.get(f"{kind}, 64 in flight", first.get(f"{kind}, 256 in flight")))
        ratio = "" if who.startswith("Cinnabar") or best is None else f"{best / middle['rate']:.1f} ×"
        print(f"| {work} | {who} | {middle['rate']:,.0f} | {cell(middle['p50'], '.2f')} | {cell(middle['p99'], '.1f')} | {cell(middle['max'], '.0f')} "
              f"| {middle['cpu']:.1f} | {cell(middle['memory'], '.0f')} | {ratio} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("binaries", "venv", "loop"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--only", default="", help="a regular expression: what to measure")
    parser.add_argument("--json", help="a file for every result")
    arguments = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(arguments, folder)
        try:
            wanted = [one for one in measurements(bench) if re.search(arguments.only, f"{one[0]}: {one[1]}")]
            for number in range(arguments.rounds):
                for work, who, measure in wanted:
                    print(f"round {number + 1}: {work}: {who}", file=sys.stderr)
                    rows.setdefault((work, who), []).append(measure())
        finally:
            bench.stop()
    show(rows)
    if arguments.json:
        told = [{"work": work, "who": who, "results": results} for (work, who), results in rows.items()]
        pathlib.Path(arguments.json).write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
