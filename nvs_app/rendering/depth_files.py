"""Depth maps on disk: a file beside each image of a folder, or a colour-mapped video.

    maps = DepthFolder(Path("frames"), "png", scale=1000)
    maps.save(0, renderer.render(state, cameras, depth=True)[:1])     # frames/00000.depth.png

    with DepthVideo(Path("orbit.depth.mp4"), fps=24) as video:
        video.add(renderer.render(state, cameras, depth=True))

Depth is z along the camera's forward axis in units of the scene's own frame. It is 0 where `surface` or `seen` is below
0.5: sky, a plain background, and parts that no photo shows.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from nvs_app.atomic_io import atomic_write, write_whole
from nvs_app.errors import NVSError
from nvs_app.rendering.video import VideoWriter
from nvs_app.rendering.views import RenderedViews

KINDS = ("png", "npy", "npz")
DEFAULT_SCALE = 1000.0  # as depth cameras store millimetres
SURE = 0.5
NOTES_FILE = "depth.json"
_UNITS = "z along the camera's forward axis, in units of the scene's own frame"
_INVALID = f"surface or seen below {SURE}: sky, a plain background, parts that no photo shows"
_LARGEST = 65535
_SAMPLES = 4096  # pixels of a frame that the range of a video is taken from


def masked_depth(views: RenderedViews) -> Float[Tensor, "v h w"]:
    """Depth, 0 where there is no surface or no photo shows it."""
    sure = (views.surface >= SURE) & (views.seen >= SURE)
    return torch.where(sure, views.depth, 0.0)


class DepthFolder:
    """Depth maps NNNNN.depth.png, .npy or .npz beside the images NNNNN.png of a folder; depth.json explains them.

    png: 16 bits, depth times `scale`, at most 65535. npy: float32 [H, W]. npz: float32 "depth" (not masked),
    "uncertainty", "surface" and "seen", see `RenderedViews`.

    Attributes:
        beyond: pixels so far whose depth was too large for a PNG of this scale.
    """

    def __init__(self, folder: Path, kind: str, scale: float = DEFAULT_SCALE):
        self.folder, self.kind, self.scale = folder, kind, scale
        self.beyond = 0

    def notes(self) -> dict[str, Any]:
        """What depth.json says."""
        notes: dict[str, Any] = {"files": f"NNNNN.depth.{self.kind}", "depth": _UNITS, "invalid": f"0: {_INVALID}"}
        if self.kind == "png":
            notes |= {"scale": self.scale, "largest": _LARGEST, "values": "depth times scale, rounded, 16 bits"}
        if self.kind == "npz":
            notes["invalid"] = f"nothing is masked; in the other formats it is {_INVALID}"
            notes["uncertainty"] = "relative: depth is off by this share of itself, one standard deviation"
            notes["surface"] = "0 to 1: how surely the pixel shows a surface"
            notes["seen"] = "0 to 1: how surely some photo shows what the pixel shows"
        return notes

    def start(self) -> None:
        """Writes depth.json. Raises NVSError where the folder holds depth maps of another format or scale."""
        file = self.folder / NOTES_FILE
        try:
            found = json.loads(file.read_text("utf-8")) if file.is_file() else None
        except (OSError, ValueError) as error:
            raise NVSError(f"{file}: cannot be read ({error}); give another folder or --overwrite") from error
        if found is not None and found != self.notes() and depth_files(self.folder):
            raise NVSError(f"{file}: depth maps of another format or scale; use another folder or --overwrite")
        write_whole(file, json.dumps(self.notes(), indent=1) + "\n")

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self.folder / f"{index:05d}.depth.{self.kind}"

    def save(self, index: int, view: RenderedViews) -> None:
        """Writes the maps of one view (v = 1), whole or not at all. Raises NVSError."""
        with atomic_write(self.path(index)) as temporary, temporary.open("wb") as file:
            if self.kind == "png":
                file.write(self._png(masked_depth(view)[0]))
            elif self.kind == "npy":
                np.save(file, masked_depth(view)[0].cpu().numpy())
            else:
                maps = {name: getattr(view, name)[0].cpu().numpy() for name in vars(view) if name != "images"}
                np.savez_compressed(file, **maps)

    def _png(self, depth: Float[Tensor, "h w"]) -> bytes:
        values = depth.double() * self.scale
        self.beyond += int((values > _LARGEST).sum())
        # A surface is never 0, however near.
        values = torch.where(depth > 0, values.round().clamp(1, _LARGEST), 0.0)
        done, encoded = cv2.imencode(".png", values.cpu().numpy().astype(np.uint16))
        assert done
        return encoded.tobytes()


def depth_files(folder: Path) -> list[Path]:
    """The depth maps in a folder."""
    return [path for kind in KINDS for path in folder.glob(f"[0-9][0-9][0-9][0-9][0-9].depth.{kind}")]


def depth_video(out: Path) -> Path:
    """The depth video beside a video: orbit.mp4 -> orbit.depth.mp4."""
    return out.with_name(f"{out.stem}.depth{out.suffix}")


class DepthVideo:
    """A video of depth in the colours of turbo; its range is that of all frames, and stands in a JSON file beside it.

    Frames wait on disk until the range is known; the files appear when the block ends well.
    """

    def __init__(self, path: Path, fps: float, record: dict[str, Any] | None = None):
        """record: see `VideoWriter`."""
        self.path, self.fps, self.record = path, fps, record
        self._frames: IO[bytes] | None = None
        self._hw: tuple[int, int] = (0, 0)
        self._samples: list[np.ndarray] = []

    def __enter__(self) -> DepthVideo:
        self._frames = tempfile.TemporaryFile()
        return self

    def add(self, views: RenderedViews) -> None:
        """Appends frames."""
        assert self._frames is not None
        depth = masked_depth(views).cpu().numpy()
        self._hw = (depth.shape[1], depth.shape[2])
        try:
            for frame in depth:
                self._frames.write(np.ascontiguousarray(frame, np.float32).tobytes())
        except OSError as error:
            raise NVSError(f"{self.path}: its frames find no room in {tempfile.gettempdir()} ({error})") from error
        for frame in depth:
            known = frame[frame > 0]
            self._samples.append(known[:: max(1, len(known) // _SAMPLES)])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._frames is not None
        with self._frames:
            if kind is None and self._samples:
                self._write()

    def _write(self) -> None:
        assert self._frames is not None
        samples = np.concatenate(self._samples)
        near, far = map(float, np.quantile(samples, [0.01, 0.99])) if len(samples) else (1.0, 1.0)
        height, width = self._hw
        self._frames.seek(0)
        with VideoWriter(self.path, self.fps, self.record) as video:
            for _ in self._samples:
                frame = np.frombuffer(self._frames.read(4 * height * width), np.float32).reshape(height, width)
                colours = torch.from_numpy(coloured(frame, near, far))
                video.add(colours.permute(2, 0, 1)[None].float() / 255)
        notes = {
            "video": self.path.name,
            "depth": _UNITS,
            "nearest": near if len(samples) else None,
            "farthest": far if len(samples) else None,
            "colours": "OpenCV's turbo over the logarithm of depth: red at nearest and nearer, blue at farthest and"
            " farther",
            "range": "1st and 99th percentile of all frames",
            "invalid": f"black: {_INVALID}",
        }
        write_whole(self.path.with_suffix(".json"), json.dumps(notes, indent=1) + "\n")


def coloured(depth: np.ndarray, near: float, far: float) -> np.ndarray:
    """A depth map [H, W] in the colours of turbo, uint8 RGB [H, W, 3]; red at `near`, blue at `far`, black where 0."""
    known = depth > 0
    span = max(np.log(far / near), 1e-6)
    share = np.log(np.where(known, depth, near) / near) / span
    levels = np.rint(255 * (1 - share.clip(0, 1))).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    return colours * known[..., None].astype(np.uint8)
