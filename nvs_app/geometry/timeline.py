"""Keyframes of a camera path: the cameras that it goes through, and when.

timeline = Timeline((Keyframe(c2w, 50.0, 2.0), Keyframe(other, 35.0, 2.0)), fps=24, loop=True)
renderer.render(state, timeline.cameras())
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.errors import NVSError
from nvs_app.geometry import paths
from nvs_app.geometry.cameras import Cameras, vertical_fov, with_vertical_fov

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
        blank = Cameras(self.c2w[None].double(), torch.ones(1, 4), image_hw)
        return with_vertical_fov(blank, float(self.fov))


@dataclass(frozen=True)
class Timeline:
    """Keyframes in their order, and how the video through them is shown.

    Positions and focal lengths follow a Catmull-Rom spline, rotations squad, as in `paths.spline`; time
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
        check_size(self.image_hw)

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
            raise NVSError("camera path: no keyframes yet; add the current view as the first")
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

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; poses are 16 numbers row by row, OpenCV axes."""
        keys = [
            {"c2w": key.c2w.detach().cpu().double().flatten().tolist(), "fov": key.fov, "seconds": key.seconds}
            for key in self.keyframes
        ]
        return {"keyframes": keys, "fps": self.fps, "loop": self.loop, "image_hw": list(self.image_hw)}


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


def check_size(image_hw: tuple[int, int]) -> None:
    """Raises NVSError for a frame of no pixels, or of more than MAX_SIDE a side."""
    if not all(1 <= side <= MAX_SIDE for side in image_hw):
        raise NVSError(f"size {image_hw[0]}x{image_hw[1]}: expected 1 to {MAX_SIDE} pixels a side")


def _place_of(time: Tensor, seconds: list[float], loop: bool) -> Tensor:
    """Where on the path (in keyframes) the video is at `time` [n]: monotone and smooth (Fritsch and Butland's cubic),
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
