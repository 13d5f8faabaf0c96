"""Ten visitors who look around, beside two who do harm, and without them: how long their frames take, and the memory.

    .venv/bin/python tests/attack/beside.py --minutes 5 [--scene examples/room_desk]

One of the two floods the viewer's socket with paths and the largest frames, the other uploads what he never uses; both
from a process of their own, so that what they do there holds up the server alone and not those whose times are taken.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPO), str(REPO / "tests" / "web")]
os.environ.setdefault("no_proxy", "*")
# A shell's background job ignores SIGINT, and so would the server, which is to end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)

from serving import serving  # noqa: E402
from visitor import Visitor, memory, on_disk  # noqa: E402
from websockets.asyncio.client import connect  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402

MIB = 1 << 20
LARGE = ([512, 1024], [1024, 1024])  # the most that a CPU is asked for, and more than that
EVERY = 5  # seconds between two looks at the memory
GROWTH = 300  # MB that the two may add
LARGEST = 1200  # MB that a frame of the largest size takes while it is rendered


class Phase(NamedTuple):
    """The median seconds of a frame, and the server's resident memory in MB."""

    frame: float
    at_one_minute: float
    at_end: float
    most: float


class Line:
    """A visitor's socket."""

    def __init__(self, address: str, example: str):
        self.visitor = Visitor(address)
        self.token = self.visitor.token()
        how, self.first = self.visitor.call("open_example", [example])
        assert how == "ok", self.first
        self.url = f"{address.replace('http', 'ws')}/nvs/socket?visit={self.token}"

    def open(self):
        return connect(self.url, additional_headers={"cookie": self.visitor.cookie}, max_size=None, proxy=None)

    def frame(self, number: int, hw: list[int]) -> str:
        """A look of the capture's first, turned a little by its number."""
        view = {"c2w": self.first[0]["c2w"], "fov": self.first[0]["fov"]}
        return json.dumps({"type": "frame", "id": number, **view, "hw": hw, "format": "jpeg"})


async def good(line: Line, until: float, took: list[float]) -> None:
    """Asks for a frame, waits for it, looks at it for a moment."""
    async with line.open() as socket:
        number = 0
        while time.monotonic() < until:
            number += 1
            start = time.monotonic()
            await socket.send(line.frame(number, [64, 64]))
            while True:
                answer = await socket.recv()
                if isinstance(answer, bytes):
                    found = json.loads(answer[4 : 4 + int.from_bytes(answer[:4], "little")])
                    if found["id"] == number:
                        break
            took.append(time.monotonic() - start)
            await asyncio.sleep(0.5)


async def flood(line: Line, until: float) -> None:
    """The largest frames and paths, as fast as they are taken; again when the server ends the line, as it does with who
    does not answer its pings."""
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionClosed):
            await flood_once(line, until)


async def flood_once(line: Line, until: float) -> None:
    """Until the line ends. Raises ConnectionClosed."""
    spec = {"preset": "orbit", "seconds": 60, "fps": 30, "image_hw": [1024, 1024]}
    async with line.open() as socket:

        async def read() -> None:
            with contextlib.suppress(ConnectionClosed):
                async for _ in socket:
                    pass

        reader = asyncio.create_task(read())
        number = 0
        try:
            while time.monotonic() < until:
                number += 1
                await socket.send(line.frame(number, LARGE[number % len(LARGE)]))
                await socket.send(json.dumps({"type": "path", "id": number, "spec": spec}))
                await asyncio.sleep(0)
        finally:
            reader.cancel()


def uploads(visitor: Visitor, until: float) -> int:
    """Uploads that nobody uses; how many were taken."""
    taken = 0
    while time.monotonic() < until:
        answer = visitor.client.post("/gradio_api/upload", files={"files": ("a.bin", random.randbytes(20 * MIB))})
        taken += answer.status_code == 200
        time.sleep(0.2)
    return taken


def hostile(address: str, example: str, until: float) -> None:
    """The two, until then."""

    async def both() -> None:
        await asyncio.gather(flood(Line(address, example), until), asyncio.to_thread(uploads, Visitor(address), until))

    asyncio.run(both())


async def phase(address: str, process: int, example: str, seconds: float, beside: bool) -> Phase:
    """Runs the visitors for so many seconds; prints their times and the memory."""
    lines = [Line(address, example) for _ in range(10)]
    until, took, held = time.monotonic() + seconds, [], []
    tasks = [asyncio.create_task(good(line, until, took)) for line in lines]
    two = multiprocessing.get_context("spawn").Process(target=hostile, args=(address, example, until))
    if beside:
        two.start()
    while time.monotonic() < until:
        held.append(memory(process, "VmRSS") / MIB)
        await asyncio.sleep(EVERY)
    await asyncio.gather(*tasks)
    if beside:
        two.join()
    slow = sorted(took)[int(0.95 * len(took))]
    what = "beside two hostile" if beside else "alone"
    print(f"{what}: {len(took)} frames, median {median(took):.3f} s, 95 % below {slow:.3f} s;", end=" ")
    print(f"memory {held[0]:.0f} to {held[-1]:.0f} MB, at most {max(held):.0f};", end=" ")
    print(f"{on_disk(process) / MIB:.0f} MB on disk", flush=True)
    return Phase(median(took), held[min(len(held) - 1, 60 // EVERY)], held[-1], max(held))


def verdict(alone: Phase, beside: Phase) -> str:
    """The bounds, each with its figures: frames within 3 times, memory flat from the first minute on and near the run
    without the two."""
    bounds = {
        f"frames take {beside.frame / alone.frame:.2f} times as long (at most 3)": beside.frame <= 3 * alone.frame,
        f"memory {beside.at_one_minute:.0f} MB at one minute, {beside.at_end:.0f} at the end (at most {GROWTH} more)": (
            beside.at_end - beside.at_one_minute <= GROWTH
        ),
        f"at most {beside.most:.0f} MB, {alone.most:.0f} without the two (at most {LARGEST} more)": (
            beside.most - alone.most <= LARGEST
        ),
    }
    return "\n".join(f"{'holds' if held else 'FAILS'}: {words}" for words, held in bounds.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--scene", type=Path, default=REPO / "examples" / "object_chair")
    args = parser.parse_args()
    words = ("--scene", args.scene, "--visitors", 32, "--visitors-per-address", 32, "--upload-mb", 256)
    with serving(REPO / "checkpoints", *words) as address:
        visitor = Visitor(address)
        path = visitor.client.post("/gradio_api/upload", files={"files": ("a", b"x")}).json()[0]
        process = int(re.search(r"nvs-web-(\d+)-", path)[1])  # type: ignore[index]
        example = visitor.call("examples", [])[1][0][0]
        visitor.client.timeout = 600
        assert visitor.call("open_example", [example])[0] == "ok"
        alone = asyncio.run(phase(address, process, example, 60 * args.minutes, False))
        beside = asyncio.run(phase(address, process, example, 60 * args.minutes, True))
        print(verdict(alone, beside))


if __name__ == "__main__":
    main()
