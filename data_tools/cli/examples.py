"""`examples`: write the bundled example scenes (procedural content only).

python -m data_tools examples examples
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from PIL import Image

EXAMPLES = (("object_chair", "object", 0), ("object_shapes", "object", 14), ("room_desk", "room", 9))
"""(folder, kind, scene number) with seed 7; an earlier generator made those in the repository."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Register the command."""
    parser = subparsers.add_parser("examples", help="write the bundled example scenes")
    parser.add_argument("out", type=Path, help="folder to write them to")
    parser.add_argument("--views", type=int, default=28, help="views of each scene")
    parser.add_argument("--image-hw", type=int, nargs=2, default=(256, 256), metavar=("H", "W"), help="pixels")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write every example as a nerfstudio transforms.json with JPEG images."""
    from data_tools.procedural import ProceduralSource

    source = ProceduralSource("cpu", seed=7)
    for name, kind, number in EXAMPLES:
        posed = source.batch([number], options.views, tuple(options.image_hw), [kind], captures=["plain"])[0]
        write_transforms(options.out / name, posed)
        print(f"{options.out / name}: {options.views} views")
    return 0


def write_transforms(folder: Path, posed) -> None:
    """Write one scene (PosedImages [v], uint8): images/000.jpg ... and transforms.json with OpenGL axes."""
    from nvs_app.geometry.cameras import opencv_to_opengl

    (folder / "images").mkdir(parents=True, exist_ok=True)
    height, width = posed.cameras.image_hw
    frames = []
    poses = opencv_to_opengl(posed.cameras.c2w).tolist()
    for view, (image, pose, k) in enumerate(zip(posed.images, poses, posed.cameras.fxfycxcy.tolist(), strict=True)):
        name = f"images/{view:03d}.jpg"
        Image.fromarray(image.permute(1, 2, 0).contiguous().cpu().numpy()).save(
            folder / name, quality=92, subsampling=0
        )
        rounded = [[round(value, 6) for value in row] for row in pose]
        fl_x, fl_y, cx, cy = (round(value, 4) for value in k)
        frames.append({"file_path": name, "fl_x": fl_x, "fl_y": fl_y, "cx": cx, "cy": cy, "w": width, "h": height,
                       "transform_matrix": rounded})  # fmt: skip
    text = json.dumps({"camera_model": "OPENCV", "frames": frames}, indent=1)
    (folder / "transforms.json").write_text(text + "\n")
