"""The viewer's connection: cameras come in, frames go out, over one WebSocket on the page's own address.

In (JSON): {"type": "frame", "id": 7, "revision": 1, "c2w": [16 numbers], "fov": 40, "hw": [256, 256],
"format": "jpeg" | "png", "quality": 85, "show": "image" | "depth" | "coverage", "auto": false,
"quick": false} (quick: rendered less closely, see `Renderer.stream`);
{"type": "path", "id": 3, "spec": {...}}; {"type": "view", "id": 4, "index": 12} (where the capture's camera 12 stands);
{"type": "point", "id": 5, "c2w", "fov", "hw", "at": [0.5, 0.5]} (the surface under that place of a view);
{"type": "stage", "id": 6, "hw": [900, 1200], "side": 256 | null} (pixels of the screen that frames are shown on, and
the chosen shorter side at rest), answered by {"type": "plan", "id": 6, "plan": {...} | null}.
Out: a frame as bytes (4 bytes little-endian length, that many bytes of JSON {"id", "hw", "show", "model_ms", ...} with
the facts of `web.surfaces`, the image); or JSON {"type": "scene" | "path" | "view" | "point" | "error" | "ended" |
"notice", ...}. The page computes no sizes: what it asks for stands in "plan" of the scene's message (see
`services.frame_plan.FramePlan`), and, where it has told its stage, in a message {"type": "plan", "plan": {...}} whenever
it changes.

Of one visitor's frames the newest counts: one that still waits when the next is asked for is never rendered.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from urllib.parse import urlsplit

import cv2
from starlette.websockets import WebSocket, WebSocketDisconnect

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.images import to_uint8
from nvs_app.web.app_state import SHOWS, AppState, Frame
from nvs_app.web.services.frame_plan import FrameCost, Stage, plan_frames
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.services.videos import Videos
from nvs_app.web.services.viewpoint import camera_for_page, camera_from_page
from nvs_app.web.sessions import Session

MAX_MESSAGE = 1 << 20  # characters; a timeline of hundreds of keyframes is far below
MAX_UNREAD = 32
REFUSED = 4401  # close codes of our own: the page starts a new visit
TAKEN = 4409  # another tab of the same visit took over


class ViewerConnection:
    """One open connection of one visit."""

    def __init__(self, app_state: AppState, session: Session, ws: WebSocket):
        self.app_state, self.session, self.ws = app_state, session, ws
        self.loop = asyncio.get_running_loop()
        self.out: asyncio.Queue[dict | bytes | None] = asyncio.Queue()
        self.stage: Stage | None = None  # until a page tells it; programs have none
        self.cost = FrameCost()
        self.plan: dict[str, Any] | None = None  # as the page has it

    def post(self, message: dict | bytes | None) -> None:
        """Puts a message into the way out; from any thread."""
        self._call(lambda: self.out.put_nowait(message))

    def _call(self, work: Callable[[], None]) -> None:
        try:
            self.loop.call_soon_threadsafe(work)
        except RuntimeError:  # the server stops
            return

    async def run(self) -> None:
        """Serves the connection until either side closes it."""
        leave = self.session.listen(self.post)
        scene = self.session.scene_message()
        if scene is not None:
            self.post(scene)
        sender = asyncio.create_task(self._send())
        try:
            while True:
                text = await self.ws.receive_text()
                if len(text) > MAX_MESSAGE:
                    await self.ws.close(1009, "too long a message")
                    return
                self._take(text)
                await asyncio.sleep(0)  # what was posted is counted below
                while self.out.qsize() > MAX_UNREAD and not sender.done():
                    await asyncio.sleep(0.05)  # who does not read is not listened to
                if sender.done():
                    return
        except KeyError:  # starlette's answer to a binary message
            await self.ws.close(1003, "expected text")
        except WebSocketDisconnect:
            return
        finally:
            leave()
            sender.cancel()

    async def _send(self) -> None:
        while True:
            message = await self.out.get()
            try:
                if isinstance(message, dict) and message.get("type") == "scene":
                    self.plan = self._planned()
                    message = {**message, "plan": self.plan}
                if isinstance(message, bytes):
                    await self.ws.send_bytes(message)
                else:
                    await self.ws.send_text(json.dumps(message, allow_nan=False))
                    if message is not None and message.get("type") == "ended":
                        await self.ws.close(REFUSED if self.session.ended else TAKEN)
                        return
            except (RuntimeError, WebSocketDisconnect, OSError):  # closed meanwhile; the receiver ends the line
                return

    def _take(self, text: str) -> None:
        message: dict[str, Any] = {}
        try:
            message = json.loads(text)
            if not isinstance(message, dict):
                raise NVSError("expected a JSON object")
            kind = message.get("type")
            if not message.get("auto") and kind != "stage":  # windows change and connections break by themselves
                self.session.touch()
            if kind == "frame":
                self._frame(message)
            elif kind == "path":
                self._path(message)
            elif kind == "view":
                self._view(message)
            elif kind == "point":
                self._point(message)
            elif kind == "stage":
                self._stage(message)
            elif kind != "ping":
                raise NVSError(f"message type {str(kind)[:40]!r}: unknown")
        except (NVSError, ValueError, RecursionError) as error:
            number = number_of(message) if isinstance(message, dict) else None
            self.post({"type": "error", "id": number, "message": sentence(error)})

    def _frame(self, message: dict[str, Any]) -> None:
        if self.out.qsize() > MAX_UNREAD:
            return  # a page that asks and does not read gets no more
        asked = time.perf_counter()
        opened = self.app_state.require_scene(self.session)
        revision = self.session.revision
        camera = self._camera(message, opened)
        quick = message.get("quick") is True
        lossless, quality = message.get("format") == "png", quality_of(message)
        number = number_of(message)
        show = message.get("show", "image")
        if show != "image" and (type(show) is not str or show not in SHOWS):
            raise NVSError(f"show {str(show)[:20]!r}: expected image, {' or '.join(SHOWS)}")

        def work() -> bytes:
            started = time.perf_counter()
            frame = self.app_state.frame(opened, camera, show, quick)
            rendered = time.perf_counter()
            data = encode_frame(frame, lossless, quality)
            packed = time.perf_counter()
            header = {
                "id": number,
                "revision": revision,
                "hw": list(camera.image_hw),
                "show": show,
                "format": "png" if lossless else "jpeg",
                "model_ms": round(frame.model_ms, 3),
                "wait_ms": round(1e3 * (started - asked), 3),
                "pack_ms": round(1e3 * (packed - rendered), 3),
                "server_ms": round(1e3 * (packed - asked), 3),
                **frame.facts,
            }
            took = frame.model_ms + 0.5 * header["wait_ms"]  # others wait too: half of that is for the size to mend
            self._call(lambda: self._measured(camera.image_hw, took, quick))
            return pack(header, data)

        # Small images beside the view (of keyframes) have a lane of their own, or the next frame would replace them.
        lane = f"{self.session.token}:small" if message.get("small") else self.session.token
        self._answer(number, self.app_state.scheduler.submit(lane, work), self.post)

    def _path(self, message: dict[str, Any]) -> None:
        number, spec = number_of(message), message.get("spec")
        future = self.app_state.pool.submit(Videos(self.app_state).preview, self.session, spec)
        self._answer(number, future, lambda found: self.post({"type": "path", "id": number, **found}))

    def _view(self, message: dict[str, Any]) -> None:
        opened, index = self.app_state.require_scene(self.session), message.get("index")
        if type(index) is not int or not 0 <= index < len(opened.cameras):
            raise NVSError(f"view {str(index)[:20]}: there are views 0 to {len(opened.cameras) - 1}")
        view = camera_for_page(opened.cameras[index : index + 1])
        self.post({"type": "view", "id": number_of(message), **view})

    def _stage(self, message: dict[str, Any]) -> None:
        hw, side = message.get("hw"), message.get("side")
        if not isinstance(hw, list) or len(hw) != 2 or not all(type(length) is int for length in hw):
            raise NVSError("stage: hw is not [height, width]")
        if side is not None and type(side) is not int:
            raise NVSError("stage: side is no whole number")
        self.stage = Stage((hw[0], hw[1]), side)
        self.plan = self._planned()
        self.post({"type": "plan", "id": number_of(message), "plan": self.plan})

    def _planned(self) -> dict[str, Any] | None:
        opened = self.session.scene
        if opened is None:
            return None
        return plan_frames(opened, self.stage or Stage(), self.app_state.limits, self.cost).to_dict()

    def _measured(self, hw: tuple[int, int], milliseconds: float, quick: bool) -> None:
        """A frame took so long; where that changes the plan, the page is told."""
        self.cost.add(hw, milliseconds, quick)
        plan = self._planned()
        if self.stage is not None and plan is not None and plan != self.plan:
            self.plan = plan
            self.post({"type": "plan", "plan": plan})

    def _camera(self, message: dict[str, Any], opened: LoadedScene) -> Cameras:
        limits = self.app_state.limits
        camera, most = camera_from_page(message, limits.frame_side), limits.frame_pixels(opened.renderer.device)
        height, width = camera.image_hw
        if height * width > most:
            raise NVSError(f"camera: a frame of {height}x{width}, expected {most} pixels at most on this device")
        return camera

    def _point(self, message: dict[str, Any]) -> None:
        opened, at = self.app_state.require_scene(self.session), message.get("at")
        camera = self._camera(message, opened)
        if not isinstance(at, list) or len(at) != 2 or not all(type(x) in (int, float) and 0 <= x <= 1 for x in at):
            raise NVSError("point: at is not [right, down], two numbers from 0 to 1")
        number, place = number_of(message), (float(at[0]), float(at[1]))
        future = self.app_state.scheduler.submit(
            f"{self.session.token}:point", lambda: self.app_state.point(opened, camera, place)
        )
        self._answer(number, future, lambda found: self.post({"type": "point", "id": number, **found}))

    def _answer(self, number: Any, future: Future, deliver: Callable[[Any], None]) -> None:
        """Delivers a result, or the reason why there is none; a request that was replaced gets no answer."""

        def done(future: Future) -> None:
            if future.cancelled():
                self.post({"type": "dropped", "id": number})
                return
            error = future.exception()
            if error is None:
                deliver(future.result())
                return
            if not isinstance(error, NVSError):
                traceback.print_exception(error)
            self.post({"type": "error", "id": number, "message": sentence(error)})

        future.add_done_callback(done)


def number_of(message: dict[str, Any]) -> int | str | None:
    """The number that an answer bears: whole or a short text. Anything else is not sent back."""
    number = message.get("id")
    if isinstance(number, str):
        return number if len(number) <= 64 else None
    return number if type(number) is int and abs(number) < 2**53 else None


def quality_of(message: dict[str, Any]) -> int:
    """The JPEG quality that is asked for, 30 to 98; 85 where it is no number."""
    quality = message.get("quality")
    if isinstance(quality, bool) or not isinstance(quality, (int, float)) or quality != quality:
        return 85
    return int(min(max(quality, 30), 98))


def sentence(error: BaseException) -> str:
    """One line for the page; of an error of ours no more than its kind (the log has the rest)."""
    if isinstance(error, NVSError):
        return " ".join(str(error).split())
    if isinstance(error, (ValueError, RecursionError)):
        return "the message could not be read"
    return f"this could not be rendered ({type(error).__name__}); the server's log says why"


def encode_frame(frame: Frame, lossless: bool, quality: int) -> bytes:
    """The image as a JPEG of this quality, or as a PNG with exactly the renderer's pixels."""
    pixels = cv2.cvtColor(to_uint8(frame.image).cpu().numpy(), cv2.COLOR_RGB2BGR)
    if lossless:
        return cv2.imencode(".png", pixels)[1].tobytes()
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def pack(header: dict[str, Any], data: bytes) -> bytes:
    """Header and image as one message."""
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + data


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The reverse of `pack`."""
    (length,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def same_origin(headers: Any, own: str | None = None) -> bool:
    """Whether a page of our own address opened the socket. Programs send no Origin; browsers always do.

    own: the public address (scheme://host/path) where a proxy hides it from us."""
    origin = headers.get("origin")
    if origin is None:
        return True
    hosts = {headers.get("host"), headers.get("x-forwarded-host"), urlsplit(own or "").netloc}
    return urlsplit(origin).netloc in {host for host in hosts if host}
