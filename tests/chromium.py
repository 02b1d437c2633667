"""Headless Chromium over its debugging pipe: opens a page, and keeps what it asked for and complained about."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_PATIENCE = 120.0  # seconds; only a browser that hangs takes that long
_OFF = ("gpu", "extensions", "background-networking", "component-update", "sync", "dev-shm-usage")
_FLAGS = ["--headless=new", "--no-sandbox", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe"]
_FLAGS += [f"--disable-{what}" for what in _OFF]

# Text whose contrast against what is behind it is below 4.5, as WCAG 2 AA asks.
_FAINT = """
(() => {
  const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const colour = parsed(getComputedStyle(e).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || ["SCRIPT", "STYLE", "NOSCRIPT", "title", "desc"].includes(e.tagName)) continue;
    const style = getComputedStyle(e);
    const ink = parsed(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${e.tagName} ${e.textContent.trim().slice(0, 30)}`);
  }
  return found;
})()
"""


class Browser:
    """A running browser with one tab."""

    def __init__(self, folder: Path) -> None:
        to_browser, ours = os.pipe()
        theirs, from_browser = os.pipe()
        self._in, self._out, self._buffer, self._number = theirs, ours, b"", 0
        flags = [*_FLAGS, f"--user-data-dir={folder / 'profile'}"]
        line = 'exec "$0" "$@" 3<&{} 4>&{}'.format(to_browser, from_browser)  # noqa: UP032
        self._process = subprocess.Popen(
            ["bash", "-c", line, str(PROGRAM), *flags],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = None
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        self.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    _session: str | None = None

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command of the protocol, and its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + _PATIENCE
        while b"\0" not in self._buffer:
            assert select.select([self._in], [], [], max(0.0, end - time.monotonic()))[0], "the browser hangs"
            data = os.read(self._in, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def open(self, page: Path | str, *, dark: bool = False, width: int = 1280) -> None:
        """Opens a page, from its file or at its address."""
        self.events.clear()
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": _scheme(dark)}])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")

    def evaluate(self, script: str) -> Any:
        """The value of an expression on the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key, down and up."""
        code = {"Tab": 9, " ": 32, "Enter": 13}[key]
        text = {"text": key} if key == " " else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **text)

    def downloaded(self, name: str) -> str:
        """The text of a file that the page gave to be saved."""
        end = time.monotonic() + _PATIENCE
        while not (self.downloads / name).exists():
            assert time.monotonic() < end, f"{name} was not downloaded"
            time.sleep(0.02)
        return (self.downloads / name).read_text(encoding="utf-8")

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    @property
    def requests(self) -> list[str]:
        """The addresses that the page asked for, besides data in it."""
        found = [e["params"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [p["request"]["url"] for p in found if not p["request"]["url"].startswith(("data:", "blob:"))]

    @property
    def complaints(self) -> list[Any]:
        """Exceptions, and everything in the console and the log."""
        names = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in names]

    @property
    def faint(self) -> list[str]:
        """Texts of too little contrast."""
        found: list[str] = self.evaluate(_FAINT)
        return found

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _scheme(dark: bool) -> str:
    return "dark" if dark else "light"


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser, which ends with the block."""
    found = Browser(folder)
    try:
        yield found
    finally:
        found.close()
