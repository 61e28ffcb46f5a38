"""A headless Chromium, driven through its pipe: pages as people see them, without a driver.

`python tests/report/browser.py PAGE PICTURE [WIDTH] [dark]` makes a picture of a page.
"""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--hide-scrollbars", "--no-first-run", "--remote-debugging-pipe"),
)

_PATIENCE = 60  # seconds
# The browser's ends of the pipes are to be its descriptors 3 and 4.
_LAUNCHER = """
import os, sys
for descriptor, end in enumerate(sys.argv[1:3], start=3):
    os.dup2(int(end), descriptor)
os.execv(sys.argv[3], sys.argv[3:])
"""


def found() -> str:
    """Returns the path of a browser, "" if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), "")


class Page:
    """A page; `errors` is what the browser wrote to its console."""

    def __init__(self, write: int, read: int):
        self._write, self._read = write, read
        self._left, self._calls, self._session, self._loaded = b"", 0, None, False
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._calls += 1
        message = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._calls:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self):
        while b"\0" not in self._left:
            assert select.select([self._read], [], [], _PATIENCE)[0], "the browser says nothing"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser ended"
            self._left += data
        line, _, self._left = self._left.partition(b"\0")
        return json.loads(line)

    def _note(self, event):
        self._loaded |= event.get("method") == "Page.loadEventFired"
        if event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.errors.append(json.dumps(event["params"]))

    def open(self, path, *, width=1100, dark=False, script=True, media=""):
        """Opens a file, `width` pixels wide; waits until it is shown."""
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self._loaded = False
        self.call("Page.navigate", url=Path(path).resolve().as_uri())
        while not self._loaded:
            self._note(self._next())

    def tell(self, expression):
        """Returns the value of an expression in the page."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def picture(self, height=None):
        """Returns a PNG of the page, all of it or its upper part."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        height = min(height or size["height"], size["height"])
        clip = {"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def printed(self):
        """Returns the page as a PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])


def _pipe():
    """Returns a pipe whose ends are not among the first descriptors, which the browser needs."""
    low = os.pipe()
    high = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 20) for end in low]
    for end in low:
        os.close(end)
    return high


@contextlib.contextmanager
def page():
    """Starts a browser and gives its page."""
    to_browser, from_browser = _pipe(), _pipe()
    ends = to_browser[0], from_browser[1]
    launch = [sys.executable, "-Ic", _LAUNCHER, *map(str, ends)]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [*launch, found(), *_OPTIONS, f"--user-data-dir={profile}"],
            pass_fds=ends,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0])
        os.close(from_browser[1])
        try:
            yield Page(to_browser[1], from_browser[0])
        finally:
            process.terminate()
            process.wait(timeout=20)
            os.close(to_browser[1])
            os.close(from_browser[0])


def main(path, picture, width="1100", *options):
    with page() as shown:
        shown.open(path, width=int(width), dark="dark" in options)
        height = next((int(option) for option in options if option.isdigit()), None)
        Path(picture).write_bytes(shown.picture(height))
        wide = shown.tell("document.documentElement.scrollWidth")
        print(f"{wide} pixels wide; console: {shown.errors}")


if __name__ == "__main__":
    main(*sys.argv[1:])
