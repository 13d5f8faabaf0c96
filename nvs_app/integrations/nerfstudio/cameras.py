"""nerfstudio's cameras and ours, both ways, exactly: only signs change and rows are added.

nerfstudio: `camera_to_worlds` [*b, 3, 4] with OpenGL axes, fx, fy, cx, cy, width, height [*b, 1] each, principal
points measured as ours (the first pixel's centre at (0.5, 0.5)).
"""

from __future__ import annotations

from pathlib import Path

import torch
from nerfstudio.cameras.cameras import Cameras as NerfstudioCameras
from nerfstudio.cameras.cameras import CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras, opencv_to_opengl, opengl_to_opencv
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.geometry.rays import pixel_rays
from nvs_app.scenes.images import image_header
from nvs_app.scenes.lens import Lens
from nvs_app.scenes.nerfstudio_frame import to_scene
from nvs_app.scenes.scene import Scene


def from_nerfstudio(cameras: NerfstudioCameras) -> Cameras:
    """Perspective cameras of one size -> ours, batch shape [n], in the same world frame.

    Raises:
        NVSError: a fisheye, a panorama or lens distortion (scenes are undistorted when they are read), or cameras
            of several sizes.
    """
    flat = cameras.reshape((-1,))
    types = sorted({CameraType(int(value)).name for value in flat.camera_type.flatten()})
    if types != [CameraType.PERSPECTIVE.name]:
        raise NVSError(f"camera type {', '.join(types).lower()}: lact renders perspective cameras only")
    if flat.distortion_params is not None and bool(flat.distortion_params.any()):
        raise NVSError("a camera with lens distortion: lact renders pinhole images only; set its distortion to 0")
    sizes = sorted(set(zip(flat.height.flatten().tolist(), flat.width.flatten().tolist())))
    if len(sizes) != 1:
        raise NVSError(f"cameras of sizes {sizes[:3]}: render cameras of one size at a time")
    fxfycxcy = torch.cat([flat.fx, flat.fy, flat.cx, flat.cy], dim=-1).float()
    height, width = sizes[0]
    return Cameras(_to_opencv(flat.camera_to_worlds), fxfycxcy, (int(height), int(width)))


def to_nerfstudio(cameras: Cameras, times: torch.Tensor | None = None) -> NerfstudioCameras:
    """Ours [n] -> nerfstudio's perspective cameras [n], in the same world frame."""
    fx, fy, cx, cy = cameras.fxfycxcy.float().split(1, dim=-1)
    height, width = cameras.image_hw
    return NerfstudioCameras(
        camera_to_worlds=opencv_to_opengl(cameras.c2w)[:, :3].float(),
        fx=fx,
        fy=fy,
        cx=cx,
        cy=cy,
        width=torch.full_like(fx, width, dtype=torch.int64),
        height=torch.full_like(fx, height, dtype=torch.int64),
        camera_type=CameraType.PERSPECTIVE,
        times=times,
    )


def scene_of(outputs: DataparserOutputs, frame: SimilarityTransform, name: str, look: bool = True) -> Scene:
    """What a dataparser found, as a scene of ours in the scene's own frame; photos are read as we read them.

    Args:
        outputs: one split of any dataparser.
        frame: the way from the scene's own frame to that of `outputs` (see `nvs_app.scenes.nerfstudio_frame`).
        name: for messages.
        look: take the photos' sizes from their files, which may differ by a pixel from a down-scaled camera's.

    Raises:
        NVSError: a camera that is neither perspective nor fisheye, or a missing or broken photo.
    """
    cameras = outputs.cameras.reshape((-1,))
    paths = [Path(path) for path in outputs.image_filenames]
    intrinsics = torch.cat([cameras.fx, cameras.fy, cameras.cx, cameras.cy], dim=-1).double()
    sizes = torch.cat([cameras.height, cameras.width], dim=-1).double()
    orientations: tuple[int, ...] = ()
    if look:
        headers = [image_header(path, (height, width)) for path, (height, width) in zip(paths, sizes.tolist())]
        found = torch.tensor([header.image_hw for header in headers], dtype=torch.float64)
        orientations = tuple(header.orientation for header in headers)
        factor = (found / sizes)[:, [1, 0, 1, 0]]
        if bool((factor - 1.0).abs().gt(0.02).any()):
            index = int((factor - 1.0).abs().amax(1).argmax())
            raise NVSError(
                f"{paths[index]}: {found[index, 1]:.0f}x{found[index, 0]:.0f} pixels, its camera says "
                f"{sizes[index, 1]:.0f}x{sizes[index, 0]:.0f}; give the dataparser the photos that were calibrated"
            )
        intrinsics, sizes = intrinsics * factor, found
    lenses = [_lens(cameras, index, tuple(row.tolist()), paths[index]) for index, row in enumerate(intrinsics)]
    pinholes = [
        row if lens is None else torch.tensor(lens.pinhole((int(height), int(width))), dtype=torch.float64)
        for lens, row, (height, width) in zip(lenses, intrinsics, sizes.tolist())
    ]
    fxfycxcy = torch.stack(pinholes).float()
    # Sizes differ from view to view; they play no part here.
    placed = to_scene(frame, Cameras(_to_opencv(cameras.camera_to_worlds), fxfycxcy, (1, 1)))
    return Scene(
        name=name,
        root=paths[0].parent,
        image_paths=paths,
        c2w=placed.c2w.double(),
        fxfycxcy=fxfycxcy,
        image_hws=sizes.long(),
        split=[None] * len(paths),
        lenses=tuple(lenses) if any(lenses) else (),
        orientations=orientations,
    )


def ray_lengths(cameras: Cameras) -> torch.Tensor:
    """Distance along each pixel's ray for a depth of 1 along the camera's axis, [v, H, W]: nerfstudio's depth is the
    former, ours the latter."""
    _, directions = pixel_rays(cameras)
    return 1 / torch.einsum("vchw,vc->vhw", directions, cameras.c2w[:, :3, 2])


def _to_opencv(camera_to_worlds: torch.Tensor) -> torch.Tensor:
    """[n, 3, 4] -> [n, 4, 4] with OpenCV axes."""
    bottom = camera_to_worlds.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(camera_to_worlds), 1, 4)
    return opengl_to_opencv(torch.cat([camera_to_worlds, bottom], dim=1).float())


def _lens(cameras: NerfstudioCameras, index: int, fxfycxcy: tuple[float, ...], path: Path) -> Lens | None:
    """The lens of one camera; None for a plain pinhole."""
    kind = CameraType(int(cameras.camera_type[index]))
    params = [0.0] * 6 if cameras.distortion_params is None else cameras.distortion_params[index].tolist()
    k1, k2, k3, k4, p1, p2 = params
    fx, fy, cx, cy = fxfycxcy
    if kind == CameraType.FISHEYE and not (p1 or p2):
        return Lens((fx, fy, cx, cy), (k1, k2, k3, k4), "OPENCV_FISHEYE")
    if kind != CameraType.PERSPECTIVE:
        raise NVSError(f"{path}: a {kind.name.lower()} camera; lact reads perspective and plain fisheye photos")
    if k4:
        return Lens((fx, fy, cx, cy), (k1, k2, p1, p2, k3, k4), "BROWN4")
    return Lens((fx, fy, cx, cy), (k1, k2, p1, p2, k3)) if any(params) else None
