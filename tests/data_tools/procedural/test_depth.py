"""Depth of procedural scenes: exact for a box made by hand, and one view's depth lands on the next view's."""

import pytest
import torch

from data_tools.procedural import ProceduralSource
from data_tools.procedural.cameras import look_at
from data_tools.procedural.depth import pixel_depth
from data_tools.procedural.rasterize import rasterize
from data_tools.procedural.shadows import w2c_from_c2w


def _box() -> torch.Tensor:
    """The 12 triangles of the box [-1, 1]^3."""
    square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    faces = []
    for axis in range(3):
        for side in (-1.0, 1.0):
            corners = torch.full((4, 3), side)
            corners[:, [k for k in range(3) if k != axis]] = square
            faces += [corners[[0, 1, 2]], corners[[0, 2, 3]]]
    return torch.stack(faces)


def _views():
    eye = torch.tensor([[4.0, 1.0, 2.0], [-1.5, 5.0, 0.3]])
    c2w = torch.cat(
        [look_at(eye, torch.zeros(2, 3), torch.tensor([0.2, 1.0])), torch.tensor([[[0.0, 0, 0, 1]]] * 2)], 1
    )
    return c2w, torch.tensor([[30.0, 32.0, 21.0, 15.0]] * 2), (32, 40)


def _slab(c2w, fxfycxcy, image_hw):
    """Depth of the box by the ray-box test at the pixels' centres, 0 where the ray misses; and rays that do both
    or neither within the pixel."""
    height, width = image_hw
    found = []
    for shift_y, shift_x in ((0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)):
        y, x = torch.meshgrid(torch.arange(height) + shift_y, torch.arange(width) + shift_x, indexing="ij")
        fx, fy, cx, cy = fxfycxcy.double()[:, :, None, None].unbind(1)
        ray = torch.stack([(x - cx) / fx, (y - cy) / fy, torch.ones_like(cx).expand(2, height, width)], -1)
        ray = torch.einsum("nij,nhwj->nhwi", c2w[:, :3, :3].double(), ray)
        eye = c2w[:, None, None, :3, 3].double()
        near = torch.minimum((-1 - eye) / ray, (1 - eye) / ray).amax(-1)
        far = torch.maximum((-1 - eye) / ray, (1 - eye) / ray).amin(-1)
        found.append(torch.where(near < far, near, 0.0))
    return found[0], torch.stack([hit > 0 for hit in found]).sum(0)


def _depth_of(triangles, sky=None):
    c2w, intrinsics, image_hw = _views()
    scene = torch.zeros(len(triangles), dtype=torch.int64)
    keys = rasterize(triangles, scene, w2c_from_c2w(c2w)[None], 2 * intrinsics[None], (64, 80))
    sky = torch.zeros(len(triangles), dtype=torch.bool) if sky is None else sky
    return pixel_depth(keys[0], c2w, intrinsics, triangles, sky)


def test_a_box_is_exact():
    depth = _depth_of(_box())
    want, hits = _slab(*_views())
    inside, outside = hits == 5, hits == 0
    assert 0.1 < inside.float().mean() < 0.6
    assert (depth[outside] == 0).all()
    off = (depth[inside] / want[inside] - 1).abs()
    # Pixels on the box's edges may follow either face.
    assert off.quantile(0.95) < 1e-5 and off.max() < 0.05


def test_sky_is_infinitely_far():
    sky = torch.zeros(24, dtype=torch.bool)
    sky[12:] = True
    depth = _depth_of(torch.cat([_box(), 50 * _box()]), sky)
    alone = _depth_of(_box())
    assert (torch.isinf(depth) == (alone == 0)).all()
    assert torch.equal(depth[alone > 0], alone[alone > 0])


@pytest.mark.parametrize("kind", ["object", "room", "outdoor", "tabletop"])
def test_depth_of_one_view_lands_on_the_next(kind):
    source = ProceduralSource("cpu", seed=3)
    posed = source.batch([11, 12], 6, (48, 64), [kind] * 2, depth=True)
    plain = source.batch([11, 12], 6, (48, 64), [kind] * 2)
    assert plain.depth is None and torch.equal(plain.images, posed.images)
    depth, cameras = posed.depth, posed.cameras
    assert depth.shape == (2, 6, 48, 64)
    assert (depth == 0).any() == (kind == "object") and depth.isinf().any() == (kind == "outdoor") and depth.min() >= 0
    agree, seen, colours = 0, 0, []
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    for scene in range(2):
        for first in range(6):
            for second in range(6):
                fx, fy, cx, cy = cameras.fxfycxcy[scene, first]
                z = depth[scene, first]
                known = (z > 0) & z.isfinite()
                point = torch.stack([(x - cx) / fx * z, (y - cy) / fy * z, z, torch.ones_like(z)], -1)[known]
                there = (point @ cameras.c2w[scene, first].T) @ torch.linalg.inv(cameras.c2w[scene, second]).T
                fx, fy, cx, cy = cameras.fxfycxcy[scene, second]
                u, v = there[:, 0] / there[:, 2] * fx + cx, there[:, 1] / there[:, 2] * fy + cy
                inside = (there[:, 2] > 0.05) & (u >= 0) & (u < 64) & (v >= 0) & (v < 48)
                row, column = v[inside].long(), u[inside].long()
                found, want = depth[scene, second, row, column], there[inside, 2]
                same = (found / want - 1).abs() < 0.02
                # Nothing lies much behind: it would have to be seen through what the first view saw.
                agree += (same | ((found < want) & (found > 0))).sum()
                seen += inside.sum()
                before = posed.images[scene, first].permute(1, 2, 0)[known][inside][same].float()
                colours.append((posed.images[scene, second, :, row, column].T[same] - before).abs().mean(-1))
    assert seen > 10_000
    assert agree / seen > 0.9
    # Shine and half a pixel's shift apart, colours are the same.
    assert torch.cat(colours).median() < 12


def test_chunks_change_no_depth(monkeypatch):
    source = ProceduralSource("cpu", seed=3)
    whole = source.batch([4, 6], 2, (24, 16), ["object", "room"], depth=True)
    monkeypatch.setattr("data_tools.procedural.source._CHUNK_SAMPLES", 1)
    monkeypatch.setattr("data_tools.procedural.depth._CHUNK_PIXELS", 1)
    parts = source.batch([4, 6], 2, (24, 16), ["object", "room"], depth=True)
    assert torch.equal(whole.depth, parts.depth)
