"""Strangers at a real server: mutated uploads, odd messages and arguments. It answers each in time and in one line, its
log has no traceback, its memory and disk come back.

    make test PYTEST_ARGS="tests/attack --attacks 2000 --attack-seed 7 -s"
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fuzz
import imageio.v2 as imageio
import numpy as np
import pytest
from serving import serving
from visitor import SECONDS, Visitor, memory, on_disk
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

MIB = 1 << 20
pytestmark = pytest.mark.timeout(7200)  # of a long attack


@pytest.fixture(scope="module")
def server(checkpoints: Path, small_scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    words = ("--scene", small_scene, "--context", 3, "--upload-mb", 64, "--visit-mb", 100)
    with serving(checkpoints, *words) as address:
        path = Visitor(address).client.post("/gradio_api/upload", files={"files": ("a", b"x")}).json()[0]
        yield address, int(re.search(r"nvs-web-(\d+)-", path)[1])  # type: ignore[index]


@pytest.fixture(scope="module")
def files(
    server: tuple[str, int], small_scene: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, bytes]]:
    folder = tmp_path_factory.mktemp("samples")
    visitor = Visitor(server[0])
    kind, _ = visitor.call("open_example", ["small scene"])
    assert kind == "ok"
    kind, made = visitor.call("take_away", ["state"])
    assert kind == "ok", made
    (folder / "state").write_bytes(visitor.client.get(f"/gradio_api/file={made[0]['path']}").content)
    with imageio.get_writer(folder / "video.mp4", format="FFMPEG", mode="I", fps=10, macro_block_size=1) as video:  # type: ignore[arg-type]
        for number in range(12):
            video.append_data(np.full((64, 64, 3), 20 * number, np.uint8))
    return fuzz.samples(folder, small_scene, folder / "state")


def test_good_files_are_accepted(server: tuple[str, int], files: dict[str, tuple[str, bytes]]) -> None:
    visitor = Visitor(server[0])
    outcome = {kind: visitor.bring(*file) for kind, file in files.items()}
    refused = {kind: words for kind, (how, words) in outcome.items() if how not in ("accepted", "ok")}
    assert set(refused) == {"photo", "tiff", "cameras"}, refused  # one photo, and cameras without photos


def test_mutated_uploads(
    server: tuple[str, int], files: dict[str, tuple[str, bytes]], request: pytest.FixtureRequest, capsys
) -> None:
    address, process = server
    count, seed = request.config.getoption("--attacks"), request.config.getoption("--attack-seed")
    draw, outcomes, slowest = random.Random(seed), Counter(), 0.0
    idle, disk = memory(process, "VmRSS"), on_disk(process)
    kinds = sorted(files)
    visitor, bad = Visitor(address), []
    for number in range(count):
        name, data = files[kinds[number % len(kinds)]]
        start = time.monotonic()
        how, words = visitor.bring(name, fuzz.mutated(data, draw))
        slowest = max(slowest, time.monotonic() - start)
        outcomes["accepted" if how in ("ok", "accepted") else "refused by the page" if how == "500" else how] += 1
        text = words if isinstance(words, str) else json.dumps(words)
        if how not in ("ok", "accepted") and ("\n" in text or not 0 < len(text) < 1500 or "/nvs-web-" in text):
            bad.append((number, name, how, text[:300]))
        if how not in ("ok", "accepted", "500", "upload refused"):
            bad.append((number, name, how, text[:300]))
        if number % 50 == 49:
            visitor.client.close()
            visitor = Visitor(address)
    peak, left = memory(process) - idle, on_disk(process)
    with capsys.disabled():  # tracebacks in the log: `serving` looks at its end
        print(f"\nseed {seed}: {count} uploads, {dict(outcomes)}, {len(bad)} answers amiss, slowest {slowest:.1f} s;")
        print(f"at most {peak / MIB:.0f} MB above idle; on disk {disk / MIB:.1f} MB before, {left / MIB:.1f} after")
    assert not bad
    assert slowest < SECONDS and peak < 1024 * MIB
    # A visit keeps one accepted upload until it ends; the rest is gone.
    visits = 2 + count // 50
    largest = max(len(data) for _, data in files.values())
    assert left - disk < visits * 20 * largest + MIB


GOOD: dict[str, list[Any]] = {
    "examples": [], "open_example": ["small scene"], "encode": [[], 3, "64x64"], "cameras": [],
    "render": [{"c2w": fuzz.IDENTITY, "fov": 40}, 32, 32], "truth": [1],
    "video": [{"preset": "orbit", "seconds": 0.2, "fps": 10, "image_hw": [32, 32]}, "GIF"], "take_away": ["scene"],
}  # fmt: skip


def test_every_argument_of_every_function(server: tuple[str, int], request: pytest.FixtureRequest) -> None:
    visitor = Visitor(server[0])
    assert visitor.call("open_example", ["small scene"])[0] == "ok"
    count, seed = request.config.getoption("--attacks"), request.config.getoption("--attack-seed")
    bad, odd = [], random.Random(seed)
    for name, values in fuzz.arguments(GOOD, odd, 2 * count):
        how, words = visitor.call(name, values)
        text = words if isinstance(words, str) else json.dumps(words)
        if how not in ("ok", "500", "422", "400") or (how != "ok" and ("\n" in text or len(text) > 1500)):
            bad.append((name, str(values)[:200], how, text[:300]))
    assert not bad
    assert visitor.call("open_example", ["small scene"])[0] == "ok"


def test_every_event_of_the_page(server: tuple[str, int], request: pytest.FixtureRequest) -> None:
    """Also those that have no name for programs: whoever reads the page can call them."""
    visitor = Visitor(server[0])
    assert visitor.call("open_example", ["small scene"])[0] == "ok"
    count, draw = request.config.getoption("--attacks"), random.Random(request.config.getoption("--attack-seed"))
    events = [event for event in visitor.client.get("/config").json()["dependencies"] if event["backend_fn"]]
    assert len(events) > 20
    bad = []
    for number in range(len(events) + 2 * count):
        event = events[number % len(events)]
        odd = fuzz.ODD if number >= len(events) else [None]  # each of them with nothing at all first
        values = [draw.choice(odd) for _ in event["inputs"]]
        picked = draw.choice((None, {}, {"value": draw.choice(fuzz.ODD)}, {"value": {"action": draw.choice(fuzz.ODD)}}))
        how, words = visitor.call("predict", values, event["id"], picked)
        text = words if isinstance(words, str) else json.dumps(words)
        if how not in ("ok", "500", "422", "400") or (how != "ok" and ("\n" in text or len(text) > 1500)):
            bad.append((event["id"], str(values)[:200], how, text[:300]))
    assert not bad


def test_every_message_of_the_socket(server: tuple[str, int], request: pytest.FixtureRequest) -> None:
    address, _ = server
    count, seed = request.config.getoption("--attacks"), request.config.getoption("--attack-seed")
    visitor = Visitor(address)
    token = visitor.token()
    assert visitor.call("open_example", ["small scene"])[0] == "ok"
    good = {"type": "frame", "id": 4242, "c2w": fuzz.IDENTITY, "fov": 40, "hw": [16, 16]}
    texts = fuzz.messages(random.Random(seed), 4 * count)

    async def talk() -> list[str]:
        bad: list[str] = []
        url = f"{address.replace('http', 'ws')}/nvs/socket?visit={token}"
        async with connect(url, additional_headers={"cookie": visitor.cookie}, max_size=None, proxy=None) as line:
            for start in range(0, len(texts), 20):
                for text in texts[start : start + 20]:
                    await line.send(text)
                await line.send(json.dumps({**good, "id": 4242 + start}))
                while True:  # what comes meanwhile, until the good frame
                    answer = await asyncio.wait_for(line.recv(), SECONDS)
                    if isinstance(answer, bytes):
                        if json.loads(answer[4 : 4 + int.from_bytes(answer[:4], "little")])["id"] == 4242 + start:
                            break
                    elif len(answer) > 200_000 or ('"error"' in answer and len(answer) > 2000):
                        bad.append(answer[:300])
        return bad

    with contextlib.suppress(ConnectionClosed):
        with ThreadPoolExecutor(1) as pool:  # another test's event loop may live on in this thread
            assert pool.submit(lambda: asyncio.run(talk())).result() == []
        return
    raise AssertionError("the server closed the line")
