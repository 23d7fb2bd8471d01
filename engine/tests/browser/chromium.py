"""Headless Chromium, driven by its DevTools protocol over pipes: nothing but the standard library."""

import json
import os
import select
import shutil
import subprocess
import tempfile
import time

PATIENCE = 30


class Browser:
    def __init__(self):
        program = shutil.which("chromium")
        if program is None:
            raise SystemExit("no chromium; `scripts/install.sh test target/venv` installs it")
        self.folder = tempfile.mkdtemp()
        ours, theirs_out = os.pipe()
        theirs_in, self.to = os.pipe()

        def give_pipes():
            # The protocol's descriptors are 3 (to the browser) and 4 (from it). What is in their place may be the other one.
            first, second = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(first, 3)
            os.dup2(second, 4)

        # The certificate is a development CA's; that it is checked is for the other tests to say.
        flags = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self.folder}", "--ignore-certificate-errors",
                 "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage", "--hide-scrollbars", "--disable-background-networking"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")
        self.process = subprocess.Popen([program, *flags, "about:blank"], preexec_fn=give_pipes, close_fds=False,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_out)
        os.close(theirs_in)
        self.source, self.buffer, self.number, self.events = ours, b"", 0, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility", "DOM"):
            self.call(domain + ".enable")

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def read(self, until):
        while b"\0" not in self.buffer:
            left = until - time.monotonic()
            if left <= 0 or not select.select([self.source], [], [], left)[0]:
                return None
            piece = os.read(self.source, 1 << 20)
            if not piece:
                raise SystemExit("chromium has ended")
            self.buffer += piece
        message, _, self.buffer = self.buffer.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if getattr(self, "session", None):
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        until = time.monotonic() + PATIENCE
        while (answer := self.read(until)) is not None:
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)
        raise AssertionError(f"{method}: no answer")

    def run(self, script):
        """What an expression comes to on the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise AssertionError(f"{script}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def until(self, what, script, patience=PATIENCE):
        """Waits until an expression is true; a page on its way is no error."""
        end = time.monotonic() + patience
        while time.monotonic() < end:
            try:
                if self.run(script):
                    return
            except AssertionError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"never: {what}")

    def key(self, name, modifiers=0):
        code = {"Tab": 9, "Enter": 13}[name]
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code, modifiers=modifiers)

    def size(self, width, height):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def scheme(self, name):
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path, whole=True):
        import base64
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def complaints(self):
        """Errors of scripts, violations of the policy, and what could not be loaded."""
        self.run("1")
        found = []
        for event in self.events:
            parameters = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(parameters["exceptionDetails"].get("exception", {}).get("description", "an exception"))
            elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
                found.append(parameters["entry"]["text"] + " " + parameters["entry"].get("url", ""))
            elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning"):
                found.append(str(parameters["args"]))
        return found

    def asked_for(self):
        """Addresses of everything that the page has loaded."""
        sent = [event["params"]["request"]["url"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("about:")]
