"""A browser without a page, and what its server uses."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import httpx

SECONDS = 30  # of any request


class Visitor:
    """A browser of his own, without a page."""

    def __init__(self, address: str):
        self.address = address
        self.client = httpx.Client(base_url=address, timeout=SECONDS, trust_env=False)
        self.client.get("/")  # brings the cookie
        self.hash = f"attack{random.getrandbits(40)}"

    def token(self) -> str:
        """Enters the page: the visit's token, for the viewer's socket."""
        config = self.client.get("/config").json()
        enter = next(d["id"] for d in config["dependencies"] if d["targets"] and d["targets"][0][1] == "load")
        body = {"data": [""], "fn_index": enter, "session_hash": self.hash}
        return self.client.post("/gradio_api/run/predict", json=body).json()["data"][0]

    @property
    def cookie(self) -> str:
        """The header that its requests bear."""
        return "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())

    def call(self, name: str, data: list[Any], event: int | None = None, brought: Any = None) -> tuple[str, Any]:
        """ "ok" and the values, or how it was refused and the words."""
        body = json.dumps({"data": data, "session_hash": self.hash, "fn_index": event, "event_data": brought})
        kind = {"content-type": "application/json"}
        answer = self.client.post(f"/gradio_api/run/{name}", content=body, headers=kind)
        found = answer.json() if answer.headers.get("content-type", "").startswith("application/json") else answer.text
        if answer.status_code == 200:
            return "ok", found["data"]
        words = found.get("error", found.get("detail")) if isinstance(found, dict) else found
        return f"{answer.status_code}", words

    def bring(self, name: str, data: bytes) -> tuple[str, Any]:
        """Uploads a file and has it looked at; the size is none, so that nothing is encoded."""
        answer = self.client.post("/gradio_api/upload", files={"files": (name, data)})
        if answer.status_code != 200:
            return "upload refused", answer.text
        file = {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}, "orig_name": name}
        kind, words = self.call("encode", [[file], None, "nothing"])
        return ("accepted", words) if "expected WIDTHxHEIGHT" in str(words) else (kind, words)


def memory(process: int, name: str = "VmHWM") -> int:
    text = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(next(row for row in text.splitlines() if row.startswith(name)).split()[1])


def on_disk(process: int) -> int:
    """Bytes of the files that the server keeps for visitors."""
    total = 0
    for root in Path(tempfile.gettempdir()).glob(f"nvs-web-{process}-*"):
        for path in root.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                total += path.lstat().st_size if path.is_file() else 0
    return total
