"""Camera paths as the page makes them: presets, and timelines that are saved and edited again.

cameras = preset("orbit", capture, (256, 256), seconds=4)
save_path("path.json", timeline)              # what nerfstudio's viewer and `nvs_app render --path` read
timeline = load_path("path.json").timeline    # the same keyframes
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nvs_app.errors import NVSError
from nvs_app.geometry import paths
from nvs_app.geometry.cameras import (
    Cameras,
    crop_resize_cameras,
    opencv_to_opengl,
    opengl_to_opencv,
    vertical_fov,
    with_vertical_fov,
)
from nvs_app.geometry.timeline import (
    FOV_RANGE,
    FPS_RANGE,
    MAX_FRAMES,
    MAX_KEYFRAMES,
    SECONDS_RANGE,
    Keyframe,
    Timeline,
    check_size,
)
from nvs_app.scenes.camera_path import (
    CameraPath,
    parse_number,
    parse_pose,
    read_camera_path,
    write_camera_path,
)

PRESETS = ("orbit", "spiral", "capture", "dolly zoom")


def timeline_from_dict(values: Any) -> Timeline:
    """The inverse of `Timeline.to_dict`, for values that anyone may have sent. Raises NVSError.

    Instead of "seconds" of each keyframe one "seconds" of the whole may stand beside "keyframes".
    """
    where = "camera path: "
    entries = values.get("keyframes") if isinstance(values, dict) else None
    if not isinstance(entries, list):
        raise NVSError(f'{where}no list of "keyframes"')
    if len(entries) > MAX_KEYFRAMES:
        raise NVSError(f"{where}{len(entries)} keyframes, {MAX_KEYFRAMES} at most")
    size = values.get("image_hw", [256, 256])
    if not isinstance(size, list) or len(size) != 2 or not all(type(side) is int for side in size):
        raise NVSError(f"{where}image_hw: expected two whole numbers, height and width")
    loop, keys = values.get("loop") is True, []
    gaps = max(1, len(entries) - (0 if loop else 1))
    even: dict[str, Any] = {}
    if "seconds" in values:
        even = {"seconds": parse_number(values, "seconds", where, 0.0, 1e5) / gaps}
    for number, entry in enumerate(entries):
        at = f"{where}keyframe {number}: "
        if not isinstance(entry, dict):
            raise NVSError(f"{at}{type(entry).__name__}, expected an object with c2w, fov and seconds")
        keys.append(
            Keyframe(
                parse_pose(entry.get("c2w"), f"{at}c2w"),
                parse_number(entry, "fov", at, *FOV_RANGE),
                parse_number({**even, **entry}, "seconds", at, *SECONDS_RANGE),
            )
        )
    fps = parse_number({"fps": values.get("fps", 24.0)}, "fps", where, *FPS_RANGE)
    return Timeline(tuple(keys), fps, loop, (size[0], size[1]))


@dataclass(frozen=True)
class LoadedPath:
    """A path file: what it renders, and its keyframes where it has any (None: it cannot be edited as it is)."""

    path: CameraPath
    timeline: Timeline | None = None


def preset(
    name: str,
    cameras: Cameras,
    image_hw: tuple[int, int],
    seconds: float | int,
    fps: float | int = 24.0,
    start: Cameras | None = None,
) -> Cameras:
    """A path made for a capture.

    Args:
        name: one of PRESETS. "dolly zoom": the camera moves away from and towards what it looks at, and its field
            of view changes with it, so that the subject keeps its size while all behind it grows or shrinks.
        cameras: the capture (or its context views), [v], in the scene's frame.
        image_hw: size of the frames.
        seconds, fps: length and rate.
        start: one camera [1] from which a dolly zoom goes out; a view of the capture's unless given.

    Returns:
        Cameras [seconds * fps]; all presets but "capture" close, so that the video can loop.

    Raises:
        NVSError: an unknown name, no frames or too many, a value out of its range.
    """
    check_size(image_hw)
    if name == "turntable":  # the orbit's name before, read for one release more
        name = "orbit"
    if name not in PRESETS:
        raise NVSError(f"camera path: {name!r} is no preset, expected one of {', '.join(PRESETS)}")
    if not 0 < seconds * fps <= MAX_FRAMES:
        raise NVSError(f"camera path: {seconds:g} seconds at {fps:g} a second, expected 1 to {MAX_FRAMES} frames")
    count = max(1, round(seconds * fps))
    framed = crop_resize_cameras(cameras.flatten(), image_hw)
    if name == "dolly zoom":
        begin = paths.orbit(framed, 1) if start is None else with_vertical_fov(start, vertical_fov(start), image_hw)
        return paths.dolly_zoom(begin, paths.focus_point(framed.c2w), count)
    makers: dict[str, Callable[[Cameras, int], Cameras]] = {
        "orbit": paths.orbit,
        "spiral": paths.spiral,
        "capture": paths.capture,
    }
    return makers[name](framed, count)


def save_path(path: Path | str, what: Timeline | CameraPath) -> Path:
    """Writes a nerfstudio camera path; a timeline's keyframes go with it. Raises NVSError without keyframes."""
    if isinstance(what, CameraPath):
        return write_camera_path(path, what)
    cameras = what.cameras()
    aspect = what.image_hw[1] / what.image_hw[0]
    keys = []
    for number, key in enumerate(what.keyframes):
        pose = opencv_to_opengl(key.c2w.detach().cpu().double())
        keys.append(
            {
                "matrix": pose.flatten().tolist(),
                "fov": key.fov,
                "aspect": aspect,
                # There a keyframe has the time of the way to it; of the first one, that of the way around.
                "override_transition_enabled": True,
                "override_transition_sec": what.keyframes[number - 1].seconds,
            }
        )
    extra = {
        "default_fov": what.keyframes[0].fov,
        "default_transition_sec": what.keyframes[0].seconds,
        "is_cycle": what.loop,
        "smoothness_value": 0.0,
    }
    return write_camera_path(path, CameraPath(cameras, float(what.fps), keys, extra))


def load_path(path: Path | str) -> LoadedPath:
    """Reads a camera path of nerfstudio's viewer or of `save_path`. Raises NVSError, also for files too large to
    render; a file whose keyframes cannot be understood still renders, and has no timeline."""
    path = Path(path)
    found = read_camera_path(path)
    if len(found.cameras) > MAX_FRAMES:
        raise NVSError(f"{path.name}: {len(found.cameras)} cameras, {MAX_FRAMES} at most")
    try:
        check_size(found.cameras.image_hw)
    except NVSError as error:
        raise NVSError(f"{path.name}: {error}") from error
    try:
        return LoadedPath(found, _timeline(found))
    except NVSError:
        return LoadedPath(found, None)


def _timeline(found: CameraPath) -> Timeline | None:
    """The timeline of a file's keyframes; None where it has none."""
    if not found.keyframes:
        return None
    if len(found.keyframes) > MAX_KEYFRAMES:
        raise NVSError(f"{len(found.keyframes)} keyframes, {MAX_KEYFRAMES} at most")
    poses, fovs, ways = [], [], []
    default = {"seconds": found.extra.get("default_transition_sec") or 2.0}
    for entry in found.keyframes:
        if not isinstance(entry, dict):
            raise NVSError("keyframe: no object")
        poses.append(opengl_to_opencv(parse_pose(entry.get("matrix"), "keyframe: matrix")))
        fovs.append(parse_number(entry, "fov", "keyframe: ", *FOV_RANGE))
        own = entry.get("override_transition_sec")
        given = {"seconds": own} if entry.get("override_transition_enabled") and own is not None else default
        ways.append(parse_number(given, "seconds", "keyframe: ", *SECONDS_RANGE))
    keys = tuple(Keyframe(*values) for values in zip(poses, fovs, [*ways[1:], ways[0]]))
    return Timeline(keys, found.fps, found.extra.get("is_cycle") is True, found.cameras.image_hw)
