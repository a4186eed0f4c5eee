"""A real browser for the tests of pages: Debian's chromium without a window, told what to do through its own pipe.

Needs no package: what chromium reads and writes is JSON with a zero byte between messages (`--remote-debugging-pipe`).
"""

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no name is found, so that nothing can be reached
    "--remote-debugging-pipe",
)


class Page:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int):
        self._to, self._from, self._rest, self._number, self.session = to_browser, from_browser, b"", 0, None
        self.said: list[str] = []
        """Console messages, errors that nobody caught, what the policy refused."""
        self.asked: list[str] = []
        """Addresses that the page asked for."""

    def call(self, method: str, **parameters) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            got = self._next()
            if got.get("id") == self._number:
                if "error" in got:
                    raise RuntimeError(f"{method}: {got['error']['message']}")
                return got["result"]

    def open(self, address: str, *, width: int = 1400, height: int = 900) -> None:
        """Load the address and wait until all of it is there."""
        self.resize(width, height)
        self.call("Page.navigate", url=address)
        while not self._is_there():
            pass

    def _is_there(self) -> bool:
        try:
            return self.run("document.readyState === 'complete' && location.href !== 'about:blank'")
        except RuntimeError:  # between the blank page and the one that was asked for there is none
            return False

    def resize(self, width: int, height: int = 900) -> None:
        """Another window."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def run(self, script: str) -> Any:
        """The value of a script's last expression."""
        got = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in got:
            raise RuntimeError(got["exceptionDetails"]["exception"]["description"])
        return got["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the whole page."""
        got = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(got["data"]))

    def pdf(self, path: Path) -> None:
        """The page as it is printed."""
        got = self.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)  # A4, inches
        path.write_bytes(base64.b64decode(got["data"]))

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not (more := os.read(self._from, 1 << 20)):
                raise RuntimeError("the browser has ended")
            self._rest += more
        first, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(first)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, event: str, of: dict[str, Any]) -> None:
        if event == "Runtime.consoleAPICalled":
            self.said.append(f"{of['type']}: {[one.get('value') for one in of['args']]}")
        elif event == "Runtime.exceptionThrown":
            self.said.append(str(of["exceptionDetails"]))
        elif event == "Log.entryAdded":
            self.said.append(f"{of['entry']['level']}: {of['entry']['text']}")
        elif event == "Page.javascriptDialogOpening":
            self.said.append(f"dialog: {of['message']}")
        elif event == "Network.requestWillBeSent":
            self.asked.append(of["request"]["url"][:200])


def _high(number: int) -> int:
    high = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 20)
    os.close(number)
    return high


@contextlib.contextmanager
def browser() -> Iterator[Page]:
    """Yield a tab of a fresh browser, which can reach nothing but files."""
    assert BROWSER is not None
    # High numbers: 3 and 4 are the browser's, and must not be taken by these before.
    (to_us, from_browser), (to_browser, from_us) = (map(_high, os.pipe()) for _ in range(2))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # By a shell: what runs between fork and exec in Python is refused in a process where jax has threads.
        started = f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}'
        process = subprocess.Popen(
            ["bash", "-c", started, BROWSER, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser), os.close(from_browser)
        page = Page(from_us, to_us)
        try:
            target = page.call("Target.createTarget", url="about:blank")["targetId"]
            page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                page.call(f"{domain}.enable")
            yield page
        finally:
            process.kill()
            process.wait()
            os.close(from_us), os.close(to_us)
