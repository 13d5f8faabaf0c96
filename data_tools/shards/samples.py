"""A scene as a sample of a training shard: its cameras as JSON and its images as JPEG or PNG.

files = make_sample(scene, ShardOptions(max_side=256))     # {"cameras.json": b"...", "000.jpg": b"...", ...}
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from data_tools.shards.read import CAMERAS, MAX_SCENE_BYTES
from data_tools.shards.tar_stream import MAX_MEMBER_BYTES
from nvs_app.errors import NVSError
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import spread_views

MIB = 1 << 20
KEPT = {b"\xff\xd8\xff": "jpg", b"\x89PNG": "png"}  # images whose bytes are taken over as they are


@dataclass(frozen=True)
class ShardOptions:
    """How scenes become samples. Raises NVSError for impossible values.

    Attributes:
        image_hw: crop and resize all images to it; or
        max_side: shrink images whose longer side is longer. With neither, the size stays, and JPEG and PNG files
            without lens distortion are copied byte for byte.
        quality: of JPEG, 1 to 100; 0 writes PNG. Transparency becomes white where an image is written anew.
        max_views: keep at most so many views, evenly spread.
        scenes_per_shard, shard_mib: a shard ends at whichever comes first; 0 for no limit.
    """

    image_hw: tuple[int, int] | None = None
    max_side: int = 0
    quality: int = 92
    max_views: int = 0
    scenes_per_shard: int = 0
    shard_mib: int = 256

    def __post_init__(self) -> None:
        if self.image_hw is not None and (self.max_side or min(self.image_hw) < 1):
            raise NVSError("shards: --image-hw needs two positive numbers, and no --max-side beside it")
        if not 0 <= self.quality <= 100:
            raise NVSError(f"shards: --quality {self.quality} is impossible, expected 1 to 100, or 0 for PNG")
        if min(self.max_side, self.scenes_per_shard, self.shard_mib) < 0:
            raise NVSError("shards: --max-side, --scenes-per-shard and --shard-mib must be 0 or more")
        if self.max_views == 1 or self.max_views < 0:
            raise NVSError(f"shards: --max-views {self.max_views} is impossible, expected 2 or more, or 0 for all")


def make_sample(scene: Scene, options: ShardOptions) -> dict[str, bytes]:
    """A scene as the members of its sample: extension -> bytes, the cameras first.

    Raises:
        NVSError: an image that cannot be read, fewer than two views, more than 4 GiB.
    """
    if options.max_views and len(scene) > options.max_views:
        scene = scene.subset(sorted(spread_views(scene.c2w, options.max_views)))
    if len(scene) < 2:
        raise NVSError(f"{scene.name}: one view, two or more are needed to train on")
    c2w = scene.c2w.double()
    if not bool(torch.isfinite(c2w).all() and torch.isfinite(scene.fxfycxcy).all()):
        raise NVSError(f"{scene.name}: a camera holds NaN or infinity")
    files: dict[str, bytes] = {CAMERAS: b""}
    intrinsics, sizes, total = [], [], 0
    for index in range(len(scene)):
        hw = _size(scene, index, options)
        data = _stored(scene, index) if hw == tuple(scene.image_hws[index].tolist()) else None
        if data is None:
            posed = scene.load([index], hw)
            data, fxfycxcy = _encode(posed.images[0], options.quality), posed.cameras.fxfycxcy[0]
        else:
            scene.load([index])  # decoded only to know that it can be
            fxfycxcy = scene.fxfycxcy[index]
        total += len(data)
        if len(data) > MAX_MEMBER_BYTES or total > MAX_SCENE_BYTES - MIB:
            raise NVSError(f"{scene.name}: too large for one sample, give --max-side or --max-views")
        files[f"{index:03d}.{_kind(data)}"] = data
        intrinsics.append(fxfycxcy.tolist())
        sizes.append(list(hw))
    cameras = {
        "name": scene.name, "files": list(files)[1:], "names": [path.name for path in scene.image_paths],
        "split": scene.split, "image_hw": sizes, "fxfycxcy": intrinsics, "c2w": scene.c2w.tolist(),
    }  # fmt: skip
    files[CAMERAS] = json.dumps(cameras).encode()
    return files


def _size(scene: Scene, index: int, options: ShardOptions) -> tuple[int, int]:
    height, width = scene.image_hws[index].tolist()
    if options.image_hw is not None:
        return options.image_hw
    factor = min(1.0, options.max_side / max(height, width)) if options.max_side else 1.0
    return max(1, round(height * factor)), max(1, round(width * factor))


def _kind(data: bytes) -> str:
    return next((kind for magic, kind in KEPT.items() if data.startswith(magic)), "")


def _stored(scene: Scene, index: int) -> bytes | None:
    """The image's own bytes where they can be taken over: JPEG or PNG, no lens distortion, not over-large."""
    if scene.lenses and scene.lenses[index] is not None or scene.orientations and scene.orientations[index] != 1:
        return None
    if scene.encoded:
        data = scene.encoded[index]
    else:
        path = scene.image_paths[index]
        if path.stat().st_size > MAX_MEMBER_BYTES:
            return None
        data = path.read_bytes()
    return data if _kind(data) else None


def _encode(image: torch.Tensor, quality: int) -> bytes:
    """JPEG without colour subsampling (quality 1 to 100) or PNG (0) of float RGB [3, h, w] in [0, 1]."""
    rows = np.ascontiguousarray((image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()[:, :, ::-1])
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality,
                  cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]  # fmt: skip
    done, data = cv2.imencode(".jpg", rows, parameters) if quality else cv2.imencode(".png", rows)
    if not done:
        raise NVSError(f"an image of {rows.shape[1]}x{rows.shape[0]} cannot be encoded, give --max-side")
    return data.tobytes()
