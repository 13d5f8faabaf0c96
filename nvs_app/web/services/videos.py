"""Camera paths and videos for visitors: presets and timelines as the page sends them, previews, exports."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, vertical_fov
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.geometry.timeline import Timeline, keyframes_of
from nvs_app.scenes.camera_path import CameraPath
from nvs_app.scenes.nerfstudio_frame import to_scene
from nvs_app.web.app_state import AppState
from nvs_app.web.services.exports import command_line, export_video, save_state
from nvs_app.web.services.jobs import Job
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.services.paths import LoadedPath, preset, save_path, timeline_from_dict
from nvs_app.web.services.viewpoint import FOV_RANGE, camera_from_page
from nvs_app.web.sessions import Session

KINDS = {"MP4": ".mp4", "GIF": ".gif", "PNG (zip)": ".zip"}
PREVIEW_VIEWS = 1800
_GPU_CHUNK = 8


class Videos:
    """Paths through the scenes of visitors, and videos along them."""

    def __init__(self, app_state: AppState):
        self.app_state = app_state

    def path(self, opened: LoadedScene, spec: Any) -> tuple[Cameras, Timeline | None, float]:
        """The cameras of a path as the page describes it, its keyframes, and its frames a second.

        spec: {"preset": name, "seconds", "fps", "image_hw", "start": view} or {"timeline": {...}}; see
        `timeline_from_dict`. Raises NVSError for anything else, and for videos that are too long or too large.
        """
        if not isinstance(spec, dict):
            raise NVSError("camera path: expected a JSON object")
        limits = self.app_state.limits
        if "preset" in spec:
            hw, seconds, fps = spec.get("image_hw"), spec.get("seconds", 4), spec.get("fps", 24)
            numbers = all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in (seconds, fps))
            if not numbers or not 0 < seconds <= 600 or not 1 <= fps <= 120:
                raise NVSError("camera path: expected seconds from 0 to 600 and 1 to 120 frames a second")
            self._check_size(hw)
            assert isinstance(hw, list)
            start = spec.get("start")
            if start is not None and not isinstance(start, dict):
                raise NVSError("camera path: start is no view")
            camera = None if start is None else camera_from_page({**start, "hw": hw}, limits.video_side)
            if round(seconds * fps) > limits.video_frames:
                raise NVSError(self._too_long(round(seconds * fps)))
            name = str(spec["preset"])
            taken = opened.cameras if name == "capture" else opened.read
            cameras = preset(name, taken, (hw[0], hw[1]), seconds, fps, start=camera)
            timeline = keyframes_of(cameras, fps, 8, loop=name != "capture")
            return cameras, timeline, float(fps)
        timeline = timeline_from_dict(spec.get("timeline"))
        self._check_size(list(timeline.image_hw))
        if timeline.frames > limits.video_frames:
            raise NVSError(self._too_long(timeline.frames))
        return timeline.cameras(), timeline, float(timeline.fps)

    def preview(self, session: Session, spec: Any) -> dict[str, Any]:
        """The path as views for the viewer's script."""
        opened = self.app_state.require_scene(session)
        cameras, timeline, fps = self.path(opened, spec)
        if len(cameras) > PREVIEW_VIEWS:
            raise NVSError(self._too_long(len(cameras)))
        return {**views_for_page(cameras), "fps": fps, "timeline": timeline.to_dict() if timeline else None}

    def save(self, session: Session, spec: Any) -> Path:
        """The path as a nerfstudio camera path file."""
        opened = self.app_state.require_scene(session)
        cameras, timeline, fps = self.path(opened, spec)
        exact = "preset" in spec  # a preset is more exact than keyframes taken from it
        what = CameraPath(cameras, fps) if exact or timeline is None else timeline
        return save_path(session.download("camera_path.json"), what)

    @staticmethod
    def loaded(found: LoadedPath, frame: SimilarityTransform | None = None) -> Timeline:
        """The keyframes of a file, or keyframes along its cameras where it has none.

        frame: the way from the scene's own frame to the one that the file is in; None where it is the scene's own."""
        timeline = found.timeline
        if timeline is None:
            timeline = keyframes_of(found.path.cameras, found.path.fps, count=min(24, len(found.path.cameras)))
        if frame is None:
            return timeline
        poses = to_scene(frame, Cameras.cat([key.camera(timeline.image_hw) for key in timeline.keyframes])).c2w
        return replace(timeline, keyframes=tuple(replace(k, c2w=c) for k, c in zip(timeline.keyframes, poses)))

    def export(self, session: Session, spec: Any, kind: str) -> Job:
        """Puts a video into the row; the visitor's older one is cancelled. Result: (files, command line)."""
        opened = self.app_state.require_scene(session)
        if kind not in KINDS:
            raise NVSError(f"video: {kind!r} is no kind, expected one of {', '.join(KINDS)}")
        cameras, _, fps = self.path(opened, spec)
        if session.video is not None:
            session.video.cancel()
        stem = file_stem(opened.name)
        lane = f"{session.token}:video"
        gpu = opened.renderer.device.type == "cuda"

        def draw(part: Cameras) -> Tensor:
            return self.draw(lane, opened, part)

        def work(job: Job) -> tuple[list[Path], str]:
            out = session.download(f"{stem}{KINDS[kind]}")

            def tell(fraction: float | int, words: str) -> None:
                session.touch()
                job.report("video", float(fraction), words)

            export_video(draw, cameras, fps, out, tell, job.cancelled, _GPU_CHUNK if gpu else 1)
            path_file = self.save(session, spec)
            return [out, path_file], self.command(opened, out.name, path_file.name)

        session.video = self.app_state.videos.submit(work)
        return session.video

    def draw(self, lane: str, opened: LoadedScene, cameras: Cameras) -> Tensor:
        """Renders cameras [k] in a turn of their own, between the frames of others."""
        state = self.app_state.state(opened)
        with self.app_state.scheduler.turn(lane):
            return opened.renderer.render(state, cameras)

    def still(self, session: Session, view: dict[str, Any], most: int | None = None) -> tuple[Tensor, Cameras]:
        """One image [3, h, w] of a view as the page sends it, and its camera [1]."""
        opened = self.app_state.require_scene(session)
        camera = camera_from_page(view, most or self.app_state.limits.video_side)
        return self.draw(f"{session.token}:still", opened, camera)[0], camera

    def command(self, opened: LoadedScene, out: str, path_file: str) -> str:
        """The command that renders the same video from the state and the path that can be taken away."""
        card = opened.renderer.card
        return command_line(
            out,
            path_file,
            checkpoint=str(card.get("name") or "CHECKPOINT"),
            state_file=f"{file_stem(opened.name)}.safetensors",
            detail=opened.renderer.detail or opened.renderer.model.detail_head is None,
            views=opened.renderer.views,
        )

    def save_state(self, session: Session) -> Path:
        """The encoded scene as a file."""
        opened = self.app_state.require_scene(session)
        return save_state(self.app_state.state(opened), session.download(f"{file_stem(opened.name)}.safetensors"))

    def _check_size(self, hw: Any) -> None:
        most = self.app_state.limits.video_side
        if not isinstance(hw, list) or len(hw) != 2 or not all(type(x) is int and 16 <= x <= most for x in hw):
            raise NVSError(f"camera path: image_hw is {hw!r}, expected [height, width] of 16 to {most} pixels")

    def _too_long(self, frames: int) -> str:
        return (
            f"camera path: {frames} frames, {self.app_state.limits.video_frames} at most; shorten it or lower the rate"
        )


def views_for_page(cameras: Cameras) -> dict[str, Any]:
    """Cameras [n] as views for the viewer's script, rounded to what an image can show."""
    poses = cameras.c2w.detach().cpu().double().flatten(1).numpy().round(7).tolist()
    fovs = vertical_fov(cameras).detach().cpu().double().clamp(*FOV_RANGE).numpy().round(4).tolist()
    return {"views": [{"c2w": pose, "fov": fov} for pose, fov in zip(poses, fovs)]}


def file_stem(name: str) -> str:
    """A scene's name as a file name."""
    return re.sub(r"[^\w-]+", "_", name).strip("_")[:60] or "scene"


def view_from_page(text: str) -> dict[str, Any]:
    """A view {"c2w", "fov", "hw"} that the page sent as text."""
    try:
        view = json.loads(text or "null")
    except ValueError as error:
        raise NVSError("the view could not be read") from error
    if not isinstance(view, dict):
        raise NVSError("There is no view yet.")
    return view
