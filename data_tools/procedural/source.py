"""Procedural scenes by number: scene i is a pure function of (seed, i), rendered in batches on the training device.

source = ProceduralSource("cuda", seed=0, assets=Path("assets"))
posed = source.batch(range(8), num_views=16, image_hw=(128, 128))     # uint8 [8, 16, 3, 128, 128]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from data_tools.procedural.asset_pack import read_assets
from data_tools.procedural.cameras import object_cameras, room_cameras, tabletop_cameras
from data_tools.procedural.capture_styles import CAPTURES
from data_tools.procedural.depth import pixel_depth
from data_tools.procedural.instances import SKY, MeshInstances
from data_tools.procedural.lights import object_lights, outdoor_lights, room_lights, tabletop_lights
from data_tools.procedural.mesh_batch import MeshBatch, Mesher, face_attributes
from data_tools.procedural.objects import asset_scene, object_scene
from data_tools.procedural.outdoor import FAR_SLOTS, outdoor_scene
from data_tools.procedural.outdoor_cameras import outdoor_cameras
from data_tools.procedural.rasterize import rasterize
from data_tools.procedural.rng import CounterRNG, scene_keys
from data_tools.procedural.rooms import room_scene
from data_tools.procedural.shade import shade_pixels
from data_tools.procedural.shading_buffers import ShadingBuffers
from data_tools.procedural.shadows import shadow_maps, sky_visibility, w2c_from_c2w
from data_tools.procedural.tabletop import tabletop_scene
from data_tools.procedural.texture_bank import TextureBank, read_surfaces
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.posed import PosedImages

KINDS = ("object", "asset", "room", "outdoor", "tabletop")
DEFAULT_MIX = {"object": 0.28, "asset": 0.24, "room": 0.28, "outdoor": 0.2}
SUPERSAMPLING = 2
SHELL_SLOTS = 6
_CHUNK_SAMPLES = 2**28
"""Samples rasterised at once: a visibility buffer of 2 GiB, about as much again for pairs of triangles and views."""


@dataclass(frozen=True)
class _SceneGroup:
    """Scenes of one kind, k of the batch's.

    Attributes:
        member: their positions in the batch.
        lights: rows of ``lights.LIGHT_FIELDS``.
        centre, radius: of the ball that shadow maps show; dome: radius of the ball for which the sky is probed.
        casts: instances that cast shadows; metric: scenes in metres, which are not normalised.
    """

    member: Int64[Tensor, " k"]
    instances: MeshInstances
    c2w: Float[Tensor, "k v 4 4"]
    fxfycxcy: Float[Tensor, "k v 4"]
    lights: Float[Tensor, "k l"]
    centre: Float[Tensor, "k 3"]
    radius: Float[Tensor, " k"]
    dome: Float[Tensor, " k"]
    casts: Bool[Tensor, "k n"]
    metric: Bool[Tensor, " k"]


class ProceduralSource:
    """Endless synthetic scenes.

    Args:
        device: where everything is made and kept.
        seed: the world's seed; another seed gives other scenes.
        assets: folder with ``objects_pack.npz`` and ``textures/*.jpg``; without it "asset" scenes are "object" ones.
        mix: relative weights of the kinds "object" (primitives and furniture on white), "asset" (textured scans on
            white), "room", "outdoor" (open places under a sky) and "tabletop" (cluttered tables in rooms).

    Raises:
        NVSError: unknown kind or weights that do not add up to more than 0; assets folder without a pack.
    """

    def __init__(
        self,
        device: torch.device | str,
        seed: int = 0,
        assets: Path | None = None,
        mix: dict[str, float] | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.seed = seed
        self.mix = dict(DEFAULT_MIX if mix is None else mix)
        unknown = set(self.mix) - set(KINDS)
        if unknown or min(self.mix.values(), default=0) < 0 or sum(self.mix.values()) <= 0:
            raise NVSError(f"procedural mix {self.mix}: expected weights >= 0, not all 0, of {', '.join(KINDS)}")
        self.pack = None if assets is None else read_assets(Path(assets), self.device)
        surfaces = [] if assets is None else read_surfaces(Path(assets) / "textures")
        self.bank = TextureBank(self.device, seed, surfaces, [] if self.pack is None else self.pack.atlases)
        self.mesher = Mesher(self.device, self.pack)

    def kinds_of(self, indices: Sequence[int]) -> list[str]:
        """The kind of each scene number."""
        keys = scene_keys(self.seed, torch.as_tensor(list(indices), dtype=torch.int64))
        picked = CounterRNG(keys, "kind", 1).choice([self.mix.get(kind, 0.0) for kind in KINDS])
        names = [KINDS[number] for number in picked.tolist()]
        return [self._available(name) for name in names]

    def _available(self, kind: str) -> str:
        return "object" if kind == "asset" and self.pack is None else kind

    @torch.no_grad()
    def batch(
        self,
        indices: Sequence[int] | Int64[Tensor, " s"],
        num_views: int,
        image_hw: tuple[int, int] = (128, 128),
        kinds: Sequence[str] | None = None,
        depth: bool = False,
        captures: Sequence[str] | None = None,
    ) -> PosedImages:
        """Render scenes.

        Args:
            indices: scene numbers, s of them.
            num_views: v, views of each scene; view j does not depend on v.
            image_hw: (height, width) in pixels.
            kinds: the kind of each scene instead of the one its number gives.
            depth: whether depth is returned too (``depth.pixel_depth`` says where in a pixel it is taken).
            captures: for each scene one of ``CAPTURES``: which lens and which kind of views; "mixed" if left out.

        Returns:
            Images uint8 [s, v, 3, H, W] and cameras [s, v], on the device, in each scene's own frame (z up); where
            asked for, depth float32 [s, v, H, W] along the forward axis in units of that frame, 0 where there is no
            surface and inf for sky.
        """
        numbers = [int(i) for i in (indices.tolist() if isinstance(indices, Tensor) else indices)]
        names = self.kinds_of(numbers) if kinds is None else [self._available(kind) for kind in kinds]
        if not set(names) <= set(KINDS) or len(names) != len(numbers):
            raise NVSError(f"procedural kinds {names}: expected {len(numbers)} of {', '.join(KINDS)}")
        captures = ["mixed"] * len(numbers) if captures is None else captures
        if not set(captures) <= set(CAPTURES) or len(captures) != len(numbers):
            raise NVSError(f"procedural captures {captures}: expected {len(numbers)} of {', '.join(CAPTURES)}")
        keys = scene_keys(self.seed, torch.tensor(numbers, dtype=torch.int64)).to(self.device)
        capture = torch.tensor([CAPTURES.index(name) for name in captures], dtype=torch.int64).to(self.device)

        groups = []
        for kind in KINDS:
            members = [position for position, name in enumerate(names) if name == kind]
            if members:
                member = torch.tensor(members, device=self.device)
                groups.append(self._group(kind, member, keys[member], num_views, image_hw, capture[member]))
        order = torch.cat([group.member for group in groups]).argsort()
        instances = MeshInstances.cat([group.instances.map(lambda value: value.flatten(0, 1)) for group in groups], 0)
        scene = torch.cat([g.member.repeat_interleave(g.instances.mesh.shape[1]) for g in groups])
        casts = torch.cat([group.casts.flatten() for group in groups])
        # In the order of the scenes: the triangles of a run of scenes are then one run of rows.
        scene, by_scene = scene.sort(stable=True)
        instances, casts = instances.map(lambda value: value[by_scene]), casts[by_scene]

        def joined(name: str) -> Shaped[Tensor, "..."]:
            return torch.cat([getattr(group, name) for group in groups])[order]

        c2w, intrinsics, lights = joined("c2w"), joined("fxfycxcy"), joined("lights")
        centre, radius, dome = joined("centre"), joined("radius"), joined("dome")
        meshes = self.mesher(instances, scene)
        meshes = _normalised(meshes, joined("metric"), len(numbers))
        cast = casts[meshes.instance].nonzero().squeeze(-1)
        blockers, blocker_scene = meshes.corners[cast], meshes.scene[cast]
        self.bank.ensure(instances.texture[meshes.instance] if self.device.type == "cpu" else instances.texture)
        sky = sky_visibility(meshes, blockers, blocker_scene, centre, dome)
        rows = face_attributes(meshes, instances, self.bank, sky)
        shadow_camera, shadow_depth = shadow_maps(blockers, blocker_scene, lights[:, 6:9], centre, radius)

        sample_hw = (image_hw[0] * SUPERSAMPLING, image_hw[1] * SUPERSAMPLING)
        sample_intrinsics = intrinsics * SUPERSAMPLING
        w2c = w2c_from_c2w(c2w)
        view_rows = torch.cat([c2w[..., :3, :].flatten(2), sample_intrinsics], -1)
        images = torch.empty((len(numbers), num_views, 3, *image_hw), dtype=torch.uint8, device=self.device)
        depths = torch.empty((len(numbers), num_views, *image_hw), device=self.device) if depth else None
        limit = _CHUNK_SAMPLES if self.device.type == "cuda" else _CHUNK_SAMPLES >> 4
        step = max(1, limit // (num_views * sample_hw[0] * sample_hw[1]))
        starts = list(range(0, len(numbers), step))
        edges = [0, len(meshes.scene)]
        if len(starts) > 1:
            bounds = torch.tensor(starts[1:], device=self.device)
            edges[1:1] = torch.searchsorted(meshes.scene, bounds).tolist()
        for start, first, last in zip(starts, edges[:-1], edges[1:], strict=True):
            part, faces = slice(start, start + step), slice(first, last)
            # Copied, if it is a part: a kernel would compile anew for pointers that are less aligned.
            whole = len(starts) == 1
            corners, instance = (
                value if whole else value[faces].clone() for value in (meshes.corners, meshes.instance)
            )
            hits = rasterize(corners, meshes.scene[faces] - start, w2c[part], sample_intrinsics[part], sample_hw)
            view_scene = torch.arange(start, start + len(hits), device=self.device).repeat_interleave(num_views)
            buffers = ShadingBuffers(
                rows[faces], instance, instances.texture, instances.material, self.bank.table, self.bank.texels, lights,
                shadow_camera, shadow_depth,
            )  # fmt: skip
            images[part] = shade_pixels(
                hits.flatten(0, 1), view_rows[part].flatten(0, 1), view_scene, buffers, SUPERSAMPLING
            ).unflatten(0, hits.shape[:2])
            if depths is not None:
                depths[part] = pixel_depth(
                    hits.flatten(0, 1), c2w[part].flatten(0, 1), intrinsics[part].flatten(0, 1), corners,
                    instances.material[instance, SKY] > 0.5,
                ).unflatten(0, hits.shape[:2])  # fmt: skip
        return PosedImages(images, Cameras(c2w, intrinsics, image_hw), depths)

    def _group(
        self,
        kind: str,
        member: Int64[Tensor, " k"],
        keys: Int64[Tensor, " k"],
        num_views: int,
        image_hw: tuple[int, int],
        capture: Int64[Tensor, " k"],
    ) -> _SceneGroup:
        """Instances, cameras and lights of the scenes of one kind."""
        count = len(keys)
        hidden = 0  # instances that cast no shadows, from the first
        if kind == "room":
            instances, room = room_scene(keys, self.bank, self.pack)
            cameras = room_cameras(keys, room, num_views, image_hw, capture)
            lights = room_lights(keys, room.half, room.height, room.focus)
            centre, radius = room.focus, room.radius * 1.6
            dome = radius
            hidden = SHELL_SLOTS  # lamps hang inside the shell, the sky's light comes through it
        elif kind == "tabletop":
            instances, room = tabletop_scene(keys, self.bank, self.pack)
            cameras = tabletop_cameras(keys, room, num_views, image_hw, capture)
            lights = tabletop_lights(keys, room.height, room.focus)
            centre, radius = room.focus, room.radius * 1.15
            dome, hidden = radius, SHELL_SLOTS
        elif kind == "outdoor":
            instances, place = outdoor_scene(keys, self.bank, self.pack)
            cameras = outdoor_cameras(keys, place, num_views, image_hw, capture)
            lights = outdoor_lights(keys, place.focus, place.reach, place.sun, place.overcast)
            # Sharp shadows around the cluster, none far off.
            centre, radius = place.focus, torch.minimum(place.reach, place.radius * 5.0 + 8.0)
            dome = place.radius * 2.0
            hidden = FAR_SLOTS
        else:
            if kind == "asset":
                assert self.pack is not None
                instances = asset_scene(keys, self.bank, self.pack)
            else:
                instances = object_scene(keys, self.bank)
            cameras = object_cameras(keys, num_views, image_hw, capture)
            lights = object_lights(keys)
            centre = torch.zeros(count, 3, device=self.device)
            radius = dome = torch.full((count,), 1.02, device=self.device)
        casts = torch.ones_like(instances.mesh, dtype=torch.bool)
        casts[:, :hidden] = False
        metric = torch.full((count,), kind not in ("object", "asset"), device=self.device)
        return _SceneGroup(
            member, instances, cameras.c2w, cameras.fxfycxcy, lights, centre, radius, dome, casts, metric
        )


def _normalised(meshes: MeshBatch, metric: Bool[Tensor, " s"], scenes: int) -> MeshBatch:
    """Objects moved to the origin and scaled into the unit ball (scenes in metres stay as they are)."""

    def extreme(values: Float[Tensor, "f k"], how: str) -> Float[Tensor, "s k"]:
        start = torch.full((scenes, values.shape[-1]), -math.inf if how == "amax" else math.inf, device=values.device)
        index = meshes.scene[:, None].expand_as(values)
        return start.scatter_reduce(0, index, values, how)

    low, high = extreme(meshes.corners.amin(1), "amin"), extreme(meshes.corners.amax(1), "amax")
    centre = torch.where(metric[:, None], 0.0, 0.5 * (low + high))
    centred = meshes.corners - centre[meshes.scene][:, None]
    reach = extreme(centred.norm(dim=-1).amax(1, keepdim=True), "amax")
    scale = torch.where(metric[:, None], 1.0, 1.0 / reach.clamp_min(1e-6))
    return MeshBatch(centred * scale[meshes.scene][:, None], meshes.normals, meshes.uvs, meshes.instance, meshes.scene)
