"""The viewer's connection: cameras come in, frames go out, over one WebSocket on the page's own address.

The messages are in `web.protocol`. Of one visitor's requests the newest of each kind counts: one that still waits when
the next is asked for is never answered, and none is once the connection is closed. The page computes no sizes: what it
asks for stands in the scene's message and, where it has told its stage, in a `plan` whenever it changes.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.images import to_uint8
from nvs_app.web import protocol
from nvs_app.web.app_state import AppState, RenderedFrame
from nvs_app.web.services.frame_plan import FrameCost, Viewport, plan_frames
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.services.videos import Videos
from nvs_app.web.services.viewpoint import camera_for_page
from nvs_app.web.sessions import Session

MAX_MESSAGE = 1 << 20  # characters; a timeline of hundreds of keyframes is far below
MAX_UNREAD = 32
MESSAGES = 400  # a second that one connection is listened to: 2.5 ms, less than any frame takes
SHARE = 0.2  # of the time of this thread, which serves all connections, that the messages of one may take
REFUSED = 4401  # close codes of our own: the page starts a new visit
TAKEN = 4409  # another tab of the same visit took over


class Pace:
    """So many messages a second, fewer where they make much work, and after a silence as many at once."""

    def __init__(self, rate: int):
        self.rate, self._next = rate, 0.0

    def wait(self, now: float, spent: float = 0.0) -> float:
        """Seconds that who has sent a message at `now`, which took `spent` seconds, is not listened to."""
        self._next = max(self._next, now - 1.0) + max(1.0 / self.rate, spent / SHARE)
        return max(0.0, self._next - now)


class ViewerConnection:
    """One open connection of one visit."""

    def __init__(self, app_state: AppState, session: Session, ws: WebSocket):
        self.app_state, self.session, self.ws = app_state, session, ws
        self.lanes = f"{session.token}:{secrets.token_hex(4)}"  # of this connection alone
        self.loop = asyncio.get_running_loop()
        self.out: asyncio.Queue[protocol.Message | str | bytes] = asyncio.Queue()
        self.stage: Viewport | None = None  # until a page tells it; programs have none
        self.cost = FrameCost()
        self.plan: dict[str, Any] | None = None  # as the page has it

    def post(self, message: protocol.Message | str | bytes) -> None:
        """Puts a message, or one that is packed already, into the way out; from any thread."""
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
        if self.session.unheard is not None:
            self.session.tell(self.session.unheard)
        sender, pace = asyncio.create_task(self._send()), Pace(MESSAGES)
        try:
            while True:
                text = await self.ws.receive_text()
                if len(text) > MAX_MESSAGE:
                    await self.ws.close(1009, "too long a message")
                    return
                begun = self.loop.time()
                self._take(text)
                now = self.loop.time()
                await asyncio.sleep(pace.wait(now, now - begun))  # what was posted is counted below
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
            self.app_state.scheduler.drop(self.lanes)

    async def _send(self) -> None:
        while True:
            message = await self.out.get()
            try:
                if isinstance(message, bytes):
                    await self.ws.send_bytes(message)
                    continue
                if isinstance(message, str):
                    await self.ws.send_text(message)
                    continue
                if isinstance(message, protocol.SceneMessage):
                    self.plan = self._planned()
                    message = replace(message, plan=self.plan)
                await self.ws.send_text(self._text(message))
                if isinstance(message, protocol.EndedMessage):
                    await self.ws.close(REFUSED if self.session.ended else TAKEN)
                    return
            except (RuntimeError, WebSocketDisconnect, OSError):  # closed meanwhile; the receiver ends the line
                return

    @staticmethod
    def _text(message: protocol.Message) -> str:
        """The JSON of a message; of one that holds NaN or infinity, which JSON has not, that it cannot be told."""
        try:
            return json.dumps(message.to_dict(), allow_nan=False)
        except ValueError:
            error = protocol.ErrorMessage(getattr(message, "id", None), "the answer holds numbers that are not finite")
            return json.dumps(error.to_dict())

    def _take(self, text: str) -> None:
        try:
            request = protocol.parse(text, self.app_state.limits.frame_side)
        except protocol.BadRequest as error:
            self.session.touch()
            self.post(protocol.ErrorMessage(error.id, error_line(error)))
            return
        by_itself = isinstance(request, protocol.FrameRequest) and request.auto
        if not by_itself and not isinstance(request, protocol.StageRequest):  # windows change, connections break
            self.session.touch()
        try:
            match request:
                case protocol.FrameRequest():
                    self._frame(request)
                case protocol.PointRequest():
                    self._point(request)
                case protocol.ViewRequest():
                    self._view(request)
                case protocol.PathRequest():
                    self._path(request)
                case protocol.StageRequest():
                    self._stage(request)
        except NVSError as error:
            self.post(protocol.ErrorMessage(request.id, error_line(error)))

    def _frame(self, request: protocol.FrameRequest) -> None:
        if self.out.qsize() > MAX_UNREAD:
            return  # a page that asks and does not read gets no more
        asked = time.perf_counter()
        opened = self._scene_for(request.camera)
        if request.beside:
            opened = self.session.other
            if opened is None:
                raise NVSError("There is no scene beside this one.")
        revision, hw = self.session.revision, request.camera.image_hw

        def work() -> tuple[RenderedFrame, np.ndarray, float]:
            started = time.perf_counter()
            frame = self.app_state.frame(opened, request.camera, request.output, request.quick)
            pixels = to_uint8(frame.image).cpu().numpy()
            wait_ms = 1e3 * (started - asked)
            # Others wait too: half of that is for the size of frames to mend.
            self._call(lambda: self._measured(hw, frame.model_ms + 0.5 * wait_ms, request.quick))
            return frame, pixels, wait_ms

        def pack(frame: RenderedFrame, pixels: np.ndarray, wait_ms: float) -> bytes:
            began = time.perf_counter()
            data = encode_frame(pixels, request.format == "png", request.quality)
            packed = time.perf_counter()
            times = (frame.model_ms, wait_ms, 1e3 * (packed - began), 1e3 * (packed - asked))
            header = protocol.FrameHeader(request.id, revision, hw, request.output, request.format, *times, frame.facts)
            return protocol.pack(header, data)

        def packed(found: tuple[RenderedFrame, np.ndarray, float]) -> None:
            # Beside the next rendering, which need not wait for it.
            self._answer(request.id, self.app_state.packer.submit(pack, *found), self.post)

        # Small images beside the view (of keyframes) have a lane of their own, or the next frame would replace them.
        lane = f"{self.lanes}:{'small' if request.small else 'beside' if request.beside else 'frame'}"
        seconds = self.app_state.frame_seconds(opened, hw, request.quick)
        self._answer(request.id, self.app_state.scheduler.submit(lane, work, seconds), packed)

    def _path(self, request: protocol.PathRequest) -> None:
        def work() -> str:  # as text already: that takes the event loop as long as a frame
            return self._text(
                protocol.PathMessage(request.id, **Videos(self.app_state).preview(self.session, request.spec))
            )

        self._answer(request.id, self.app_state.scheduler.submit(f"{self.lanes}:path", work), self.post)

    def _view(self, request: protocol.ViewRequest) -> None:
        opened, index = self.app_state.require_scene(self.session), request.index
        if index >= len(opened.cameras):
            raise NVSError(f"view {index}: there are views 0 to {len(opened.cameras) - 1}")
        self.post(protocol.ViewMessage(request.id, **camera_for_page(opened.cameras[index : index + 1])))

    def _point(self, request: protocol.PointRequest) -> None:
        opened = self._scene_for(request.camera)
        future = self.app_state.scheduler.submit(
            f"{self.lanes}:point", lambda: self.app_state.point(opened, request.camera, request.at)
        )
        self._answer(request.id, future, lambda found: self.post(protocol.PointMessage(request.id, **found)))

    def _stage(self, request: protocol.StageRequest) -> None:
        self.stage = Viewport(request.hw, request.side)
        self.plan = self._planned()
        self.post(protocol.PlanMessage(request.id, self.plan))

    def _planned(self) -> dict[str, Any] | None:
        opened = self.session.scene
        if opened is None:
            return None
        return plan_frames(opened, self.stage or Viewport(), self.app_state.limits, self.cost).to_dict()

    def _measured(self, hw: tuple[int, int], milliseconds: float, quick: bool) -> None:
        """A frame took so long; where that changes the plan, the page is told."""
        self.cost.add(hw, milliseconds, quick)
        plan = self._planned()
        if self.stage is not None and plan is not None and plan != self.plan:
            self.plan = plan
            self.post(protocol.PlanMessage(None, plan))

    def _scene_for(self, camera: Cameras) -> LoadedScene:
        """The scene that is looked at. Raises NVSError for a frame that its device is not asked for."""
        opened, (height, width) = self.app_state.require_scene(self.session), camera.image_hw
        most = self.app_state.limits.frame_pixels(opened.renderer.device)
        if height * width > most:
            raise NVSError(f"camera: a frame of {height}x{width}, expected {most} pixels at most on this device")
        return opened

    def _answer(self, number: protocol.Id, future: Future, deliver: Callable[[Any], None]) -> None:
        """Delivers a result, or the reason why there is none."""

        def done(future: Future) -> None:
            if future.cancelled():
                self.post(protocol.DroppedMessage(number))
                return
            error = future.exception()
            if error is None:
                deliver(future.result())
                return
            if not isinstance(error, NVSError):
                traceback.print_exception(error)
            self.post(protocol.ErrorMessage(number, error_line(error)))

        future.add_done_callback(done)


def error_line(error: BaseException) -> str:
    """One line for the page; of an error of ours no more than its kind (the log has the rest)."""
    if isinstance(error, NVSError):
        return " ".join(str(error).split())
    return f"this could not be rendered ({type(error).__name__}); the server's log says why"


def encode_frame(pixels: np.ndarray, lossless: bool, quality: int) -> bytes:
    """Pixels [H, W, 3], uint8, as a JPEG of this quality, or as a PNG with exactly the renderer's pixels."""
    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    if lossless:
        return cv2.imencode(".png", pixels)[1].tobytes()
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return cv2.imencode(".jpg", pixels, options)[1].tobytes()


def same_origin(headers: Any, own: str | None = None) -> bool:
    """Whether a page of our own address opened the socket. Programs send no Origin; browsers always do.

    own: the public address (scheme://host/path) where a proxy hides it from us."""
    origin = headers.get("origin")
    if origin is None:
        return True
    hosts = {headers.get("host"), headers.get("x-forwarded-host"), urlsplit(own or "").netloc}
    return urlsplit(origin).netloc in {host for host in hosts if host}
