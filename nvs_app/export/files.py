"""Points and splats as files of other programs: PLY, and the compact `.splat`.

    write_points(Path("points.ply"), surfels)      # coloured points with normals
    write_splats(Path("splats.ply"), splats)       # as the tools of 3D Gaussian splatting read them
    write_splats(Path("splats.splat"), splats)     # 32 bytes a splat

All in the frame and scale of the cameras that were given. Files are whole or absent. Far from the origin (`offset`, see
`SurfaceViews`) points are of type double; splats, which every reader takes as float, say in a comment what to add.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nvs_app.atomic_io import atomic_write
from nvs_app.errors import NVSError
from nvs_app.export.fusion import Surfels
from nvs_app.export.shading import DEGREE
from nvs_app.export.splats import Splats

SPLAT_KINDS = (".ply", ".splat")
_DEGREES = {".ply": DEGREE}  # of the harmonics that a format carries; all others have one colour a splat
_SH0 = 0.28209479177387814  # the zeroth spherical harmonic, which 3DGS files count colours in
Offset = tuple[float, float, float]


def harmonics_degree(path: Path) -> int:
    """Up to which degree a file of this name carries harmonics; 0: one colour in all directions."""
    return _DEGREES.get(path.suffix.lower(), 0)


def write_points(path: Path, surfels: Surfels, offset: Offset = (0.0, 0.0, 0.0)) -> Path:
    """Coloured points with normals, and in `agreeing` how many other views show the surface there: binary PLY.

    offset: is added to the points, which are of type double then.
    """
    kind, word = ("<f8", "double") if any(offset) else ("<f4", "float")
    fields = [("xyz", kind, 3), ("normal", "<f4", 3), ("rgb", "u1", 3), ("agreeing", "u1")]
    vertices = np.zeros(len(surfels), fields)
    vertices["xyz"], vertices["normal"] = _numbers(surfels.points), _numbers(surfels.normals)
    vertices["xyz"] += offset
    vertices["rgb"] = np.rint(255 * _numbers(surfels.colours))
    vertices["agreeing"] = _numbers(surfels.agreeing).clip(0, 255)
    places = [f"{word} {name}" for name in "xyz"] + [f"float n{name}" for name in "xyz"]
    return _write_ply(path, vertices, [*places, *(f"uchar {name}" for name in ("red", "green", "blue", "agreeing"))])


def write_splats(path: Path, splats: Splats, offset: Offset = (0.0, 0.0, 0.0)) -> Path:
    """Splats in the format of the name's end. Raises NVSError for another one than SPLAT_KINDS.

    offset: what a reader has to add to the positions; a PLY file has it as a comment, `.splat` has no place for it.
    """
    if path.suffix not in SPLAT_KINDS:
        raise NVSError(f"{path.name}: expected a name that ends in {' or '.join(SPLAT_KINDS)}")
    if path.suffix == ".splat":
        with atomic_write(path) as temporary:
            temporary.write_bytes(splat_bytes(splats))
        return path
    return _write_ply(path, *_gaussian_columns(splats), offset)


def offset_words(offset: Offset) -> str:
    """x y z, as text."""
    return " ".join(f"{value:.15g}" for value in offset)


def splat_bytes(splats: Splats) -> bytes:
    """The compact format: position and scale as floats, colour with opacity and rotation as bytes; the largest and
    most opaque first, so that what is read of a cut file says most."""
    weight = splats.opacities * splats.scales.sort(dim=-1).values[:, 1:].prod(dim=-1)
    splats = splats[weight.argsort(descending=True)]
    rows = np.zeros(len(splats), [("xyz", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("turn", "u1", 4)])
    rows["xyz"], rows["scale"] = _numbers(splats.means), _numbers(splats.scales)
    rows["rgba"] = np.rint(255 * _numbers(torch.cat([splats.colours, splats.opacities[:, None]], dim=-1)))
    rows["turn"] = np.rint(128 * _numbers(splats.quats) + 128).clip(0, 255)
    return rows.tobytes()


def _gaussian_columns(splats: Splats) -> tuple[np.ndarray, list[str]]:
    """Rows and their names as Kerbl et al.'s files have them; without harmonics, the zeroth only."""
    zero = torch.zeros_like(splats.means)
    opacity = splats.opacities.double().clamp(1e-6, 1 - 1e-6).logit().float()[:, None]
    columns = {
        "x y z": splats.means,
        "nx ny nz": zero,
        "f_dc_0 f_dc_1 f_dc_2": (splats.colours - 0.5) / _SH0,
        **_rest(splats),
        "opacity": opacity,
        "scale_0 scale_1 scale_2": splats.scales.log(),
        "rot_0 rot_1 rot_2 rot_3": splats.quats,
    }
    rows = np.ascontiguousarray(_numbers(torch.cat(list(columns.values()), dim=-1)), "<f4")
    return rows, [f"float {name}" for name in " ".join(columns).split()]


def _rest(splats: Splats) -> dict[str, Tensor]:
    """The columns of the harmonics above the zeroth: all of red, all of green, all of blue."""
    if splats.harmonics is None or not splats.harmonics.shape[1]:
        return {}
    values = splats.harmonics.mT.flatten(1)
    return {" ".join(f"f_rest_{index}" for index in range(values.shape[1])): values}


def _write_ply(path: Path, rows: np.ndarray, properties: list[str], offset: Offset = (0.0, 0.0, 0.0)) -> Path:
    header = ["ply", "format binary_little_endian 1.0"]
    if any(offset):
        header.append(f"comment offset {offset_words(offset)}")
    header += [f"element vertex {len(rows)}", *(f"property {name}" for name in properties), "end_header\n"]
    with atomic_write(path) as temporary:
        temporary.write_bytes("\n".join(header).encode() + rows.tobytes())
    return path


def _numbers(values: Tensor) -> np.ndarray:
    return values.detach().float().cpu().numpy()
