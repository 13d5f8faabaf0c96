"""Tabletops: dozens of things of real size on a table, seen by a hand that walks past it."""

import pytest
import torch

from data_tools.procedural import ProceduralSource
from data_tools.procedural.cameras import tabletop_cameras
from data_tools.procedural.capture_styles import CAPTURES
from data_tools.procedural.instances import ASSET, MIRROR, NO_MESH
from data_tools.procedural.rng import scene_keys
from data_tools.procedural.source import SHELL_SLOTS
from data_tools.procedural.tabletop import SMALL, tabletop_scene


@pytest.fixture(scope="module")
def tables():
    source = ProceduralSource("cpu", seed=3)
    keys = scene_keys(3, torch.arange(24))
    return source, keys, *tabletop_scene(keys, source.bank, None)


def test_things_lie_on_the_table(tables):
    _, _, instances, layout = tables
    for value in (instances.linear, instances.offset, instances.material, instances.shape):
        assert torch.isfinite(value).all()
    alive = instances.mesh != NO_MESH
    assert alive[:, :SHELL_SLOTS].all() and (instances.mesh < ASSET).all()  # no pack, no scans
    ball = layout.spheres
    assert ((ball[..., 3] > 0).sum(1) > 25).all()
    local = (ball[..., :3] - layout.focus[:, None])[ball[..., 3] > 0]
    assert (local[:, 2] > -0.085).all() and (local[:, 2] < 0.6).all()  # the focus is 8 cm above the top
    reach = (ball[..., :3] - layout.focus[:, None])[..., 0].abs() / layout.radius[:, None]
    assert (reach[ball[..., 3] > 0] < 1.5).float().mean() > 0.98
    assert (ball[..., 3] < 0.4).all()  # what lies on tables is small
    assert (instances.material[..., MIRROR] >= 0).all() and (instances.material[..., MIRROR] <= 1).all()
    assert SMALL.search("ycb_mug") and SMALL.search("retail_BookA_01") and not SMALL.search("fire_station")


def test_a_table_depends_on_its_number_alone(tables):
    source, keys, instances, layout = tables
    alone, place = tabletop_scene(keys[[5]], source.bank, None)
    for name, value in vars(alone).items():
        torch.testing.assert_close(value[0], getattr(instances, name)[5], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(place.focus[0], layout.focus[5], atol=1e-6, rtol=0)


def test_cameras_walk_past_the_table(tables):
    _, keys, _, layout = tables
    plain = torch.full_like(keys, CAPTURES.index("plain"))
    cameras = tabletop_cameras(keys, layout, 16, (48, 48), plain)
    eye, forward = cameras.c2w[..., :3, 3], cameras.c2w[..., :3, 2]
    away = (eye - layout.focus[:, None]).norm(dim=-1)
    assert away.quantile(0.05) > 0.15 and away.quantile(0.95) < 1.9
    assert (eye[..., 2] > layout.focus[:, None, 2] - 0.01).float().mean() > 0.98
    assert (forward[..., 2] < 0).float().mean() > 0.75  # looking down
    few = tabletop_cameras(keys, layout, 3, (48, 48), plain)
    assert torch.equal(few.c2w, cameras.c2w[:, :3])
    # Views of one scene have neighbours near by: a walk, not places all over the room.
    apart = torch.cdist(eye, eye) + 9 * torch.eye(16)
    assert (apart.amin(-1) / away).median() < 0.2
