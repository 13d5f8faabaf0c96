"""What a renderer needs of a 3D asset: triangles in one frame, materials, images; and the limits on strangers' files.

Only numpy here and in all that a render worker imports: a worker starts in under a second and stays small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from jaxtyping import Float, Int32, UInt8

from nvs_app.errors import NVSError

# Refused beyond these; a file is judged by what it declares before memory is spent on it.
MAX_FILE_BYTES = 1 << 30
MAX_JSON_BYTES = 64 << 20
MAX_TRIANGLES = 10_000_000
MAX_VERTICES = 15_000_000
MAX_IMAGE_PIXELS = 100_000_000
MAX_TEXELS = 256_000_000  # of all images of an asset, as kept

# Numbers of the texture slots of a material, as in the shader.
BASE, METAL_ROUGH, NORMAL, OCCLUSION, EMISSIVE = range(5)


@dataclass(frozen=True)
class TextureUse:
    """An image on a surface.

    Attributes:
        image: number in ``Asset.images``.
        uv_set: number of the set; of a :class:`Part`, among those that it holds.
        transform: takes (u, v, 1) to the texture's coordinates.
        wrap: GL numbers for s and t: 10497 repeat, 33071 clamp to edge, 33648 mirrored repeat.
        nearest: not filtered.
    """

    image: int
    uv_set: int = 0
    transform: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    wrap: tuple[int, int] = (10497, 10497)
    nearest: bool = False


@dataclass(frozen=True)
class Material:
    """glTF's metallic-roughness material; colours are linear.

    Attributes:
        alpha_mode: "OPAQUE", "MASK" or "BLEND".
        textures: slot (BASE, METAL_ROUGH, ...) -> use.
    """

    base_color: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    metallic: float = 1.0
    roughness: float = 1.0
    emissive: tuple[float, float, float] = (0.0, 0.0, 0.0)
    normal_scale: float = 1.0
    occlusion_strength: float = 1.0
    alpha_mode: str = "OPAQUE"
    alpha_cutoff: float = 0.5
    double_sided: bool = False
    unlit: bool = False
    textures: dict[int, TextureUse] = field(default_factory=dict)


@dataclass
class Part:
    """Triangles of one material, in the asset's frame.

    Attributes:
        positions: float64 as read, since files are placed on maps and globes too; float32 once normalised.
        normals: of unit length, or None for flat ones.
        uvs: the sets that its textures use side by side, v downwards as in glTF; None where no texture needs them.
        colors: linear RGBA, or None.
    """

    positions: Float[np.ndarray, "n 3"]
    faces: Int32[np.ndarray, "m 3"]
    material: Material
    normals: Float[np.ndarray, "n 3"] | None = None
    uvs: Float[np.ndarray, "n uv"] | None = None
    colors: Float[np.ndarray, "n 4"] | None = None


@dataclass
class Asset:
    """Parts and the images on them, RGBA as stored (sRGB for colours).

    Attributes:
        notes: what was left out or assumed, for the log.
    """

    parts: list[Part]
    images: list[UInt8[np.ndarray, "h w 4"]]
    notes: list[str] = field(default_factory=list)

    @property
    def triangles(self) -> int:
        """The number of triangles."""
        return sum(len(part.faces) for part in self.parts)


def normalise(asset: Asset) -> tuple[list[float], float]:
    """Move and scale the asset, in place, so that its bounding box has its centre at 0 and a longest side of 1.

    Returns:
        centre and scale: new = (old - centre) * scale.

    Raises:
        NVSError: no triangles, vertices that are no numbers, or a bounding box without extent.
    """
    parts = [part for part in asset.parts if len(part.faces)]
    if not parts:
        raise NVSError("no triangles to draw (an empty scene, or points and lines only)")
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for part in parts:
        used = part.positions[np.unique(part.faces)].astype(np.float64)
        bad = int((~np.isfinite(used)).any(axis=1).sum())
        if bad:
            raise NVSError(f"{bad} of {len(used)} vertices are NaN or infinite")
        low, high = np.minimum(low, used.min(axis=0)), np.maximum(high, used.max(axis=0))
    side = float((high - low).max())
    if not 1e-30 < side < 1e30:
        raise NVSError(f"its bounding box has a longest side of {side:g}")
    centre = 0.5 * (low + high)
    for part in parts:
        part.positions = ((part.positions.astype(np.float64) - centre) / side).astype(np.float32)
        np.nan_to_num(part.positions, copy=False, posinf=0.0, neginf=0.0)  # vertices that no face uses
    asset.parts = parts
    return centre.tolist(), 1.0 / side


class AssetFiles:
    """The files beside an asset, none outside of ``root``.

    Attributes:
        root: the folder that the user named, or the one of the file that the user named.
        folder: the asset's own folder, inside ``root``; relative names start there.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root.resolve()

    def read(self, uri: str) -> bytes:
        """The bytes of a relative uri.

        Raises:
            NVSError: an address, an absolute path, a path or link that leads out of the root, no such file, too large.
        """
        shown = uri if len(uri) <= 80 else f"{uri[:77]}..."
        name = unquote(uri)
        if not name or not name.isprintable() or ":" in name or name.startswith(("/", "\\", "~")):
            raise NVSError(f"{shown!r}: only files beside the asset are read, expected a relative path")
        try:
            path = (self.folder / name.replace("\\", "/")).resolve()
            if not path.is_relative_to(self.root):
                raise NVSError(f"{shown!r}: leads out of the asset's folder")
            if not path.is_file():
                raise NVSError(f"{shown!r}: no such file beside the asset")
            return read_limited(path)
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
            raise NVSError(f"{shown!r}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def read_limited(path: Path) -> bytes:
    """All bytes of a file of at most 1 GiB. Raises NVSError, OSError."""
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise NVSError(f"{path.name}: {size >> 20} MiB, at most {MAX_FILE_BYTES >> 20} MiB are read")
    return path.read_bytes()
