"""`python -m nvs_app benchmark-web`: how fast the viewer answers a drag, and how ten visitors share a server.

The visitors are WebSocket clients that do what the page does: they send a camera, wait for the newest frame, decode
it, and send the next one. Without gradio the socket is served alone; the route is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from nvs_app.bundled import bundled
from nvs_app.cli.common import add_model_options, load_renderer, positive_int
from nvs_app.errors import NVSError
from nvs_app.evaluation.evaluate import versions
from nvs_app.evaluation.report.files import write_json
from nvs_app.rendering.device import device_name
from nvs_app.web.services.threads import run_in_fresh_thread

PARTS = ("wait", "model", "pack", "line", "decode")  # of what a frame takes, in their order


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Registers the command and its options."""
    parser = subparsers.add_parser(
        "benchmark-web",
        help="time the viewer's connection, alone and with many visitors",
        description="Drags the view over a WebSocket of this machine. Times are medians: of waiting for a turn (wait),"
        " of the model, of packing the image (pack), of the way there and back and what else the server does (line),"
        " and of decoding (decode).",
    )
    parser.add_argument(
        "--sizes", type=positive_int, nargs="+", default=[128, 256], metavar="S", help="frames (default: 128 256)"
    )
    parser.add_argument("--frames", type=positive_int, default=40, metavar="N", help="of each size (default: 40)")
    parser.add_argument("--visitors", type=int, default=0, metavar="N", help="then so many drag at once (default: 0)")
    parser.add_argument("--seconds", type=positive_int, default=60, metavar="S", help="for so long (default: 60)")
    parser.add_argument("--visitor-size", type=positive_int, default=128, metavar="S", help="their frames")
    parser.add_argument("--scene", type=Path, metavar="PATH", help="default: the first bundled example")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures")
    add_model_options(parser)


def run(args: argparse.Namespace) -> int:
    """Runs the command. Returns 1 when a visitor was refused a frame."""
    from nvs_app.web.app_state import AppState
    from nvs_app.web.services.opening import find_examples

    examples = find_examples(bundled("examples"), [args.scene] if args.scene else [])
    if not examples:
        raise NVSError("--scene: no bundled example is there; name a scene")
    app_state = AppState(run_in_fresh_thread(lambda: load_renderer(args)), examples)
    try:
        return _measure(app_state, next(iter(examples)), args)
    finally:
        app_state.close()


def _measure(app_state: Any, example: str, args: argparse.Namespace) -> int:
    run_in_fresh_thread(lambda: app_state.example(example))
    figures: dict[str, Any] = {"device": device_name(app_state.renderer().device), **versions()}
    with _Served(app_state) as port:
        for size in args.sizes:
            token = _visit(app_state, example)
            figures[f"{size}x{size}"] = row = asyncio.run(_drag(port, token, size, args.frames))
            parts = " + ".join(f"{name} {row[f'{name}_ms']:.1f}" for name in PARTS)
            print(
                f"{size}x{size}: {row['total_ms']:.1f} ms from camera to decoded frame, p95 {row['total_p95_ms']:.1f}"
                f" = {parts}; all but the model {row['rest_ms']:.1f}, p95 {row['rest_p95_ms']:.1f}"
            )
        errors = 0
        if args.visitors:
            tokens = [_visit(app_state, example) for _ in range(args.visitors)]
            crowd = asyncio.run(_crowd(port, tokens, args.visitor_size, args.seconds))
            figures["visitors"] = crowd
            errors = crowd["errors"]
            print(
                f"{args.visitors} visitors, {args.seconds} s: {crowd['frames']} frames, {crowd['least']} to "
                f"{crowd['most']} each, {errors} errors; memory {crowd['rss_mb'][0]} MB after warming up, "
                f"{crowd['rss_mb'][-1]} MB at the end, {max(crowd['rss_mb'])} MB at most"
            )
    if args.json:
        write_json(figures, args.json, "--json")
    return 1 if errors else 0


class _Served:
    """The viewer's route on a free port of this machine, in a thread."""

    def __init__(self, app_state: Any):
        self.app_state = app_state

    def __enter__(self) -> int:
        import uvicorn
        from starlette.applications import Starlette

        from nvs_app.web.access import routes

        app = Starlette(routes=routes(self.app_state))
        app.cookie_id, app.tokens = "none", {}  # type: ignore[attr-defined]  # as gradio's application has them
        app.get_blocks = lambda: argparse.Namespace(auth=None)  # type: ignore[attr-defined]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="error"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            if not self.thread.is_alive():
                raise NVSError("the benchmark's server did not start")
            time.sleep(0.02)
        return port

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()


def _visit(app_state: Any, example: str) -> str:
    from nvs_app.web.access import owner_of

    session = app_state.store.create(owner_of({}, None))
    app_state.show(session, app_state.example(example))
    return session.token


def _views(scene: dict[str, Any], count: int) -> list[list[float]]:
    """Cameras of a drag: the first look, turned about the scene's up axis by a degree each."""
    import torch

    c2w = torch.tensor(scene["c2w"]).view(4, 4)
    up, focus = torch.tensor(scene["up"]), torch.tensor(scene["focus"])
    cross = torch.linalg.cross(up.expand(3, 3), torch.eye(3))  # columns: the axis times the unit vectors
    found = []
    for index in range(count):
        turn = torch.linalg.matrix_exp(cross.T * (index * torch.pi / 180))
        view = torch.eye(4)
        view[:3, :3] = turn @ c2w[:3, :3]
        view[:3, 3] = focus + turn @ (c2w[:3, 3] - focus)
        found.append(view.flatten().tolist())
    return found


async def _open(port: int, token: str) -> tuple[Any, dict[str, Any]]:
    from websockets.asyncio.client import connect

    line = await connect(f"ws://127.0.0.1:{port}/nvs/socket?visit={token}", max_size=None, compression=None)
    return line, json.loads(await line.recv())


async def _frame(line: Any, view: list[float], fov: float, size: int, number: int) -> dict[str, float]:
    """Sends a camera and decodes its frame: the milliseconds of each of PARTS and of all ("total_ms")."""
    import cv2
    import numpy as np

    from nvs_app.web.protocol import unpack

    start = time.perf_counter()
    message = {"type": "frame", "id": number, "c2w": view, "fov": fov, "hw": [size, size], "quality": 80}
    await line.send(json.dumps(message))
    answer = await line.recv()
    there = time.perf_counter()
    if isinstance(answer, str):
        raise NVSError(json.loads(answer).get("message", answer))
    header, data = unpack(answer)
    cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    end = time.perf_counter()
    times = {f"{name}_ms": header[f"{name}_ms"] for name in ("wait", "model", "pack")}
    times |= {"line_ms": 1e3 * (there - start) - sum(times.values()), "decode_ms": 1e3 * (end - there)}
    return times | {"total_ms": 1e3 * (end - start)}


async def _drag(port: int, token: str, size: int, count: int) -> dict[str, float]:
    line, scene = await _open(port, token)
    rows = []
    for number, view in enumerate(_views(scene, count + 3)):
        times = await _frame(line, view, scene["fov"], size, number)
        if number >= 3:  # the first ones warm up
            rows.append(times | {"rest_ms": times["total_ms"] - times["model_ms"]})
    await line.close()
    columns = {name: sorted(row[name] for row in rows) for name in rows[0]}
    row = {name: round(statistics.median(values), 2) for name, values in columns.items()}
    last = int(0.95 * (len(rows) - 1))
    return row | {f"{name}_p95_ms": round(columns[f"{name}_ms"][last], 2) for name in ("total", "rest")}


async def _crowd(port: int, tokens: list[str], size: int, seconds: float) -> dict[str, Any]:
    counts = [0] * len(tokens)
    errors: list[str] = []
    stop = time.perf_counter() + seconds
    memory: list[int] = []

    async def one(index: int) -> None:
        line, scene = await _open(port, tokens[index])
        views, number = _views(scene, 360), 0
        while not number or time.perf_counter() < stop:  # each one asks, however long it took to come
            try:
                await _frame(line, views[(number + 36 * index) % 360], scene["fov"], size, number)
                counts[index] += 1
            except NVSError as error:
                errors.append(str(error))
            number += 1
        await line.close()

    async def watch() -> None:
        await asyncio.sleep(min(5.0, seconds / 4))
        while time.perf_counter() < stop:
            memory.append(_rss_mb())
            await asyncio.sleep(1)

    await asyncio.gather(watch(), *(one(index) for index in range(len(tokens))))
    return {
        "frames": sum(counts),
        "least": min(counts),
        "most": max(counts),
        "errors": len(errors),
        "first_error": errors[0] if errors else "",
        "rss_mb": memory or [_rss_mb()],
    }


def _rss_mb() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20
