"""Headless Chromium, driven over its own debugging protocol."""

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import urllib.request
from pathlib import Path

from websockets.asyncio.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page:
    """One page."""

    def __init__(self, socket):
        self._socket, self._numbers = socket, itertools.count(1)
        self.complaints = []
        """Errors on the console, exceptions, and requests to anywhere else."""
        self._open = {}
        self._reader = asyncio.create_task(self._read())

    async def _read(self):
        async for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                self._open.pop(message["id"]).set_result(message)
            elif message["method"] == "Runtime.exceptionThrown":
                self.complaints.append(str(message["params"]["exceptionDetails"]))
            elif message["method"] == "Log.entryAdded":
                entry = message["params"]["entry"]
                if entry["level"] == "error":
                    self.complaints.append(entry["text"])
            elif message["method"] == "Network.requestWillBeSent":
                url = message["params"]["request"]["url"]
                if not url.startswith(("http://127.0.0.1", "data:", "blob:")):
                    self.complaints.append(f"asked for {url}")

    async def call(self, method, **params):
        number = next(self._numbers)
        future = self._open[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        answer = await asyncio.wait_for(future, 30)
        assert "error" not in answer, answer
        return answer["result"]

    async def value(self, expression):
        """Evaluate JavaScript; await a promise."""
        answer = await self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression, seconds=30):
        for _ in range(int(seconds * 20)):
            if await self.value(expression):
                return
            await asyncio.sleep(0.05)
        shown = await self.value("document.body.innerText")
        raise AssertionError(f"never true: {expression}; complaints {self.complaints}; {shown}")

    async def drag(self, box):
        """Draw a box (x, y, w, h) in pixels of the frame."""
        scale = await self.value(
            "(() => { const e = view.getBoundingClientRect();"
            " const s = Math.min(e.width / view.width, e.height / view.height);"
            " return [e.left + (e.width - view.width * s) / 2,"
            " e.top + (e.height - view.height * s) / 2, s]; })()"
        )
        left, top, s = scale
        x, y, w, h = box
        ends = [(left + x * s, top + y * s), (left + (x + w) * s, top + (y + h) * s)]
        for kind, (px, py) in zip(
            ("mousePressed", "mouseMoved", "mouseReleased"),
            (ends[0], ends[1], ends[1]),
            strict=True,
        ):
            await self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=px,
                y=py,
                button="left",
                buttons=1,
                clickCount=1,
            )

    async def key(self, name, modifiers=0):
        codes = {"Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for kind in ("keyDown", "keyUp"):
            await self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=name,
                modifiers=modifiers,
                windowsVirtualKeyCode=codes[name],
            )

    async def look(self, path):
        """Write a screenshot of the whole page."""
        answer = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        Path(path).write_bytes(base64.b64decode(answer["data"]))

    async def size(self, width, height, *, dark=False, mobile=False):
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=mobile,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.call("Emulation.setEmulatedMedia", features=[scheme])


@contextlib.asynccontextmanager
async def page(url, folder):
    """Open a page in a browser of its own; its camera is a made one."""
    words = [
        CHROMIUM,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-port=0",
        f"--user-data-dir={folder}",
        "--no-first-run",
        "--disable-background-networking",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        "--autoplay-policy=no-user-gesture-required",
        "about:blank",
    ]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        told = Path(folder) / "DevToolsActivePort"
        for _ in range(600):
            if told.is_file() and len(told.read_text().split()) > 1:
                break
            await asyncio.sleep(0.05)
        port = told.read_text().split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
            target = next(one for one in json.load(answer) if one["type"] == "page")
        async with connect(target["webSocketDebuggerUrl"], max_size=2**27) as socket:
            opened = Page(socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                await opened.call(f"{domain}.enable")
            await opened.size(1100, 1000)
            await opened.call("Page.navigate", url=url)
            await opened.until("document.readyState === 'complete'")
            yield opened
    finally:
        process.terminate()
        process.wait(10)
