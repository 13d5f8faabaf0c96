"""Camera paths as the page makes them: presets, and a timeline of keyframes that is saved and edited again.

    cameras = preset("turntable", capture, (256, 256), seconds=4)
    timeline = Timeline((Keyframe(c2w, 50.0, 2.0), Keyframe(other, 35.0, 2.0)), fps=24, loop=True)
    renderer.render(state, timeline.cameras())
    save_path("path.json", timeline)              # what nerfstudio's viewer and `nvs_app render --path` read
    timeline = load_path("path.json").timeline    # the same keyframes
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

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
from nvs_app.scenes.camera_path import (
    CameraPath,
    parse_number,
    parse_pose,
    read_camera_path,
    write_camera_path,
)

PRESETS = ("turntable", "spiral", "capture", "dolly zoom")
MAX_FRAMES = 20_000
MAX_KEYFRAMES = 500
MAX_SIDE = 4096
SECONDS_RANGE = (0.05, 600.0)  # from one keyframe to the next
FOV_RANGE = (1.0, 170.0)
FPS_RANGE = (1.0, 240.0)


@dataclass(frozen=True)
class Keyframe:
    """A camera that the path goes through.

    Attributes:
        c2w: OpenCV axes, in the scene's own frame.
        fov: vertical field of view, degrees.
        seconds: from this keyframe to the next; of the last one, back to the first in a loop.
    """

    c2w: Float[Tensor, "4 4"]
    fov: float | int = 50.0
    seconds: float | int = 2.0

    def __post_init__(self) -> None:
        # Written as "not inside", so that NaN is refused too.
        if not FOV_RANGE[0] <= self.fov <= FOV_RANGE[1]:
            low, high = FOV_RANGE
            raise NVSError(f"keyframe: field of view {self.fov:g}, expected {low:g} to {high:g} degrees")
        if not SECONDS_RANGE[0] <= self.seconds <= SECONDS_RANGE[1]:
            low, high = SECONDS_RANGE
            raise NVSError(f"keyframe: {self.seconds:g} seconds to the next, expected {low:g} to {high:g}")

    def camera(self, image_hw: tuple[int, int]) -> Cameras:
        """The keyframe as one camera [1]: square pixels, centred principal point."""
        blank = Cameras(self.c2w[None].float(), torch.ones(1, 4), image_hw)
        return with_vertical_fov(blank, float(self.fov))


@dataclass(frozen=True)
class Timeline:
    """Keyframes in their order, and how the film through them is shown.

    Positions and focal lengths follow a Catmull-Rom spline, rotations squad, as in `geometry.paths.spline`; time
    goes through the keyframes at the seconds that they ask for, without a jolt where those differ.
    """

    keyframes: tuple[Keyframe, ...] = ()
    fps: float | int = 24.0
    loop: bool = False
    image_hw: tuple[int, int] = (256, 256)

    def __post_init__(self) -> None:
        if len(self.keyframes) > MAX_KEYFRAMES:
            raise NVSError(f"camera path: {len(self.keyframes)} keyframes, {MAX_KEYFRAMES} at most")
        if not FPS_RANGE[0] <= self.fps <= FPS_RANGE[1]:
            low, high = FPS_RANGE
            raise NVSError(f"camera path: {self.fps:g} frames a second, expected {low:g} to {high:g}")
        _check_size(self.image_hw)

    @property
    def times(self) -> list[float]:
        """When each keyframe is reached, in seconds from the start."""
        at, reached = 0.0, []
        for key in self.keyframes:
            reached.append(at)
            at += key.seconds
        return reached

    @property
    def seconds(self) -> float:
        """From the first keyframe to the last, or around; one keyframe is held for its own seconds."""
        held = self.loop or len(self.keyframes) == 1
        return sum(key.seconds for key in (self.keyframes if held else self.keyframes[:-1]))

    @property
    def frames(self) -> int:
        """Number of frames; without a loop the last one is the last keyframe."""
        between = round(self.seconds * self.fps)
        return max(1, between + (0 if self.loop or len(self.keyframes) < 2 else 1))

    def cameras(self) -> Cameras:
        """The whole path, [frames]. Raises NVSError without keyframes, or where it would be too long."""
        if not self.keyframes:
            raise NVSError("camera path: no keyframes yet; add the present view as the first")
        if self.frames > MAX_FRAMES:
            raise NVSError(f"camera path: {self.frames} frames, {MAX_FRAMES} at most; shorten it or lower the rate")
        keys = Cameras.cat([key.camera(self.image_hw) for key in self.keyframes])
        if len(keys) == 1:
            return keys[[0] * self.frames]
        loop, seconds = self.loop, [key.seconds for key in self.keyframes]
        if loop:
            time = torch.arange(self.frames, dtype=torch.float64) * (self.seconds / self.frames)
        else:
            time = torch.linspace(0, self.seconds, self.frames, dtype=torch.float64)
        return paths.spline_at(keys, _place_of(time, seconds if loop else seconds[:-1], loop), loop)

    def with_keyframe(self, keyframe: Keyframe, at: int | None = None) -> Timeline:
        """The timeline with a keyframe more: before number `at`, or at the end."""
        keys = list(self.keyframes)
        keys.insert(len(keys) if at is None else self._checked(at, len(keys)), keyframe)
        return replace(self, keyframes=tuple(keys))

    def replaced(self, at: int, keyframe: Keyframe) -> Timeline:
        """The timeline with another keyframe in place of number `at`."""
        keys = list(self.keyframes)
        keys[self._checked(at, len(keys) - 1)] = keyframe
        return replace(self, keyframes=tuple(keys))

    def without(self, at: int) -> Timeline:
        """The timeline without keyframe number `at`."""
        at = self._checked(at, len(self.keyframes) - 1)
        return replace(self, keyframes=self.keyframes[:at] + self.keyframes[at + 1 :])

    def moved(self, at: int, to: int) -> Timeline:
        """The timeline with keyframe number `at` as number `to`."""
        key = self.keyframes[self._checked(at, len(self.keyframes) - 1)]
        return self.without(at).with_keyframe(key, to)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; poses are 16 numbers row by row, OpenCV axes."""
        keys = [
            {"c2w": key.c2w.detach().cpu().double().flatten().tolist(), "fov": key.fov, "seconds": key.seconds}
            for key in self.keyframes
        ]
        return {"keyframes": keys, "fps": self.fps, "loop": self.loop, "image_hw": list(self.image_hw)}

    @staticmethod
    def from_dict(values: Any) -> Timeline:
        """The inverse of `to_dict`, for values that anyone may have sent. Raises NVSError.

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

    def _checked(self, index: int, last: int) -> int:
        if not 0 <= index <= last:
            raise NVSError(f"camera path: keyframe {index} does not exist, there are {len(self.keyframes)}")
        return index


@dataclass(frozen=True)
class Loaded:
    """A path file: what it renders, and its keyframes where it has any (None: it cannot be edited as it is)."""

    path: CameraPath
    timeline: Timeline | None = field(default=None)


def preset(
    name: str,
    cameras: Cameras,
    image_hw: tuple[int, int],
    seconds: float | int,
    fps: float | int = 24.0,
    fov: float | int | None = None,
    start: Cameras | None = None,
    strength: float | int = 2.0,
) -> Cameras:
    """A path made for a capture.

    Args:
        name: one of PRESETS. "dolly zoom": the camera moves away from and towards what it looks at, and its field
            of view changes with it, so that the subject keeps its size while all behind it grows or shrinks.
        cameras: the capture (or its context views), [v], in the scene's frame.
        image_hw: size of the frames.
        seconds, fps: length and rate.
        fov: vertical field of view in degrees; the capture's unless given (dolly zoom: at its start).
        start: one camera [1] from which a dolly zoom goes out; a view of the capture's unless given.
        strength: of a dolly zoom, the largest over the smallest distance to the subject.

    Returns:
        Cameras [seconds * fps]; all presets but "capture" close, so that the film can loop.

    Raises:
        NVSError: an unknown name, no frames or too many, a value out of its range.
    """
    _check_size(image_hw)
    if name not in PRESETS:
        raise NVSError(f"camera path: {name!r} is no preset, expected one of {', '.join(PRESETS)}")
    if not 0 < seconds * fps <= MAX_FRAMES:
        raise NVSError(f"camera path: {seconds:g} seconds at {fps:g} a second, expected 1 to {MAX_FRAMES} frames")
    if fov is not None and not FOV_RANGE[0] <= fov <= FOV_RANGE[1]:
        raise NVSError(f"camera path: field of view {fov:g}, expected {FOV_RANGE[0]:g} to {FOV_RANGE[1]:g} degrees")
    count = max(1, round(seconds * fps))
    framed = crop_resize_cameras(cameras.flatten(), image_hw)
    if name == "dolly zoom":
        begin = paths.orbit(framed, 1) if start is None else with_vertical_fov(start, vertical_fov(start), image_hw)
        begin = begin if fov is None else with_vertical_fov(begin, float(fov))
        return dolly_zoom(begin, paths.focus_point(framed.c2w), count, strength)
    makers: dict[str, Callable[[Cameras, int], Cameras]] = {
        "turntable": paths.orbit,
        "spiral": paths.spiral,
        "capture": paths.capture,
    }
    path = makers[name](framed, count)
    return path if fov is None else with_vertical_fov(path, float(fov))


def dolly_zoom(start: Cameras, subject: Float[Tensor, "3"], n: int, strength: float | int = 2.0) -> Cameras:
    """From `start` away from the subject, back, towards it, and back, while the subject keeps its size.

    Args:
        start: one camera [1].
        subject: a point of the world; its depth before the camera is what counts.
        n: number of cameras; the path closes.
        strength: the largest over the smallest distance.

    Returns:
        Cameras [n]: they move along the line of sight of `start`, focal lengths in proportion to the distance.
    """
    if n < 1:
        raise NVSError(f"camera path: {n} frames asked for, expected 1 or more")
    if not 1.0 <= strength <= 10.0:
        raise NVSError(f"dolly zoom: strength {strength:g}, expected 1 to 10")
    c2w, fxfycxcy = start.c2w[0].double(), start.fxfycxcy[0].double()
    eye, forward = c2w[:3, 3], c2w[:3, 2]
    offset = subject.double().to(eye.device) - eye
    depth = offset @ forward
    # Looking past the subject, or away from it: its distance serves as well as anything.
    depth = depth if bool(depth > 0.1 * offset.norm()) else offset.norm().clamp_min(1e-3)
    phase = torch.arange(n, dtype=torch.float64, device=eye.device) * (2 * math.pi / n)
    factor = torch.exp(0.5 * math.log(strength) * torch.sin(phase))
    poses = c2w.expand(n, 4, 4).clone()
    poses[:, :3, 3] = eye + ((1 - factor) * depth)[:, None] * forward
    lenses = fxfycxcy.expand(n, 4).clone()
    lenses[:, :2] *= factor[:, None]
    return Cameras(poses.to(start.c2w.dtype), lenses.to(start.fxfycxcy.dtype), start.image_hw)


def keyframes_of(cameras: Cameras, fps: float | int, count: int = 8, loop: bool = False) -> Timeline:
    """A timeline through evenly chosen cameras of a path [n], so that any path can be edited.

    The spline through them is not the path itself, only near it; more keyframes are nearer.
    """
    n = len(cameras)
    count = max(1, min(count, n, MAX_KEYFRAMES))
    if loop or count == 1:
        chosen = [i * n // count for i in range(count)]
    else:
        chosen = [round(i * (n - 1) / (count - 1)) for i in range(count)]
    ends = [*chosen[1:], n if loop else chosen[-1] + 1]
    degrees = vertical_fov(cameras).tolist()
    keys = tuple(
        Keyframe(
            cameras.c2w[first].detach().cpu(),
            min(max(degrees[first], FOV_RANGE[0]), FOV_RANGE[1]),
            min(max((last - first) / fps, SECONDS_RANGE[0]), SECONDS_RANGE[1]),
        )
        for first, last in zip(chosen, ends)
    )
    return Timeline(keys, fps, loop, cameras.image_hw)


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


def load_path(path: Path | str) -> Loaded:
    """Reads a camera path of nerfstudio's viewer or of `save_path`. Raises NVSError, also for files too large to
    render; a file whose keyframes cannot be understood still renders, and has no timeline."""
    path = Path(path)
    found = read_camera_path(path)
    if len(found.cameras) > MAX_FRAMES:
        raise NVSError(f"{path.name}: {len(found.cameras)} cameras, {MAX_FRAMES} at most")
    try:
        _check_size(found.cameras.image_hw)
    except NVSError as error:
        raise NVSError(f"{path.name}: {error}") from error
    try:
        return Loaded(found, _timeline(found))
    except NVSError:
        return Loaded(found, None)


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


def _place_of(time: Tensor, seconds: list[float], loop: bool) -> Tensor:
    """Where on the path (in keyframes) the film is at `time` [n]: monotone and smooth (Fritsch and Butland's cubic),
    a straight line where all seconds are equal."""
    gaps = torch.tensor(seconds, dtype=torch.float64)
    reached = torch.cat([gaps.new_zeros(1), gaps.cumsum(0)])
    # At a keyframe the harmonic mean of the speeds before and after, which keeps the cubic monotone.
    before = gaps.roll(1) if loop else torch.cat([gaps[:1], gaps[:-1]])
    speed = 2.0 / (before + gaps)
    speed = torch.cat([speed, speed[:1] if loop else 1.0 / gaps[-1:]])
    start = (torch.searchsorted(reached, time, right=True) - 1).clamp(0, len(gaps) - 1)
    gap = gaps[start]
    t = ((time - reached[start]) / gap).clamp(0, 1)
    rise = t * t * (3 - 2 * t)
    bend = gap * (speed[start] * t * (1 - t) ** 2 - speed[start + 1] * t * t * (1 - t))
    return (start + rise + bend).clamp(0, len(gaps))


def _check_size(image_hw: tuple[int, int]) -> None:
    if not all(1 <= side <= MAX_SIDE for side in image_hw):
        raise NVSError(f"size {image_hw[0]}x{image_hw[1]}: expected 1 to {MAX_SIDE} pixels a side")
