"""Open places: no holes, a sky that no lamp changes and that is infinitely far, cameras that are clear of things."""

import math

import pytest
import torch

from data_tools.procedural import ProceduralSource
from data_tools.procedural.capture_styles import CAPTURES
from data_tools.procedural.instances import NO_MESH, SKY
from data_tools.procedural.outdoor import FAR_SLOTS, outdoor_scene
from data_tools.procedural.outdoor_cameras import outdoor_cameras
from data_tools.procedural.rng import scene_keys
from data_tools.procedural.sky import OVERCAST, SKIES, SKY_HW, make_skies, sky_keys


@pytest.fixture(scope="module")
def source():
    return ProceduralSource("cpu", seed=3)


@pytest.fixture(scope="module")
def places(source):
    keys = scene_keys(3, torch.arange(48))
    return keys, *outdoor_scene(keys, source.bank, None)


def test_pieces(places):
    _, instances, layout = places
    assert (instances.material[..., SKY] > 0.5).sum(1).eq(1).all()  # one sky
    for value in (instances.linear, instances.offset, instances.material, instances.shape):
        assert torch.isfinite(value).all()
    alive = instances.mesh != NO_MESH
    assert alive[:, :4].all() and (alive[:, FAR_SLOTS:].sum(1) > 15).all()
    # The middle is free of all but the cluster; something is a hundred times as far as that.
    away = instances.offset[..., :2].norm(dim=-1)
    assert (torch.where(alive, away, 0.0).amax(1) > 30 * layout.radius).all()


def test_cameras_are_clear_of_things(places):
    keys, _, layout = places
    plain = torch.full_like(keys, CAPTURES.index("plain"))
    cameras = outdoor_cameras(keys, layout, 12, (48, 64), plain)
    eye = cameras.c2w[..., :3, 3]
    assert (eye[..., 2] > 0.19).all()
    middle, axes = layout.blocks
    length = axes.norm(dim=-2).clamp_min(1e-6)
    local = torch.einsum("snij,svni->svnj", axes / length[..., None, :], eye[:, :, None] - middle[:, None])
    inside = ((local.abs() - length[:, None]).amax(-1) < 0).any(-1)
    assert inside.float().mean() < 0.03
    fov = 2 * torch.rad2deg(torch.atan(24 / cameras.fxfycxcy[..., 0]))
    assert (fov > 34).all() and (fov < 100.1).all()
    few = outdoor_cameras(keys, layout, 3, (48, 64), plain)
    assert torch.equal(few.c2w, cameras.c2w[:, :3])


def test_sky_and_depth(source, places):
    posed = source.batch(range(3), 4, (16, 24), ["outdoor"] * 3, depth=True)
    depth, sky = posed.depth, torch.isinf(posed.depth)
    assert (depth > 0).all()  # no holes
    assert 0.03 < sky.float().mean() < 0.7
    far = depth[~sky]
    assert far.quantile(0.99) > 8 * far.quantile(0.2)
    # The sky is what its texture is, by exposure: brighter than what it lights.
    bright = posed.images.float().mean(2)
    assert bright[sky].mean() > bright[~sky].mean()


def test_skies_close_around_the_horizon():
    numbers = torch.tensor([0, SKIES - 1])
    skies = make_skies(sky_keys(0, numbers), numbers >= SKIES - OVERCAST).float()
    assert skies.shape == (2, 3, *SKY_HW)
    step = (skies[..., 1:] - skies[..., :-1]).abs().mean()
    seam = (skies[..., 0] - skies[..., -1]).abs().mean()
    assert seam < 3 * step + 0.5
    # Overcast ones are grey.
    assert (skies[1].amax(0) - skies[1].amin(0)).mean() < (skies[0].amax(0) - skies[0].amin(0)).mean()


def test_a_place_depends_on_its_number_alone(source):
    both = source.batch([4, 5], 3, (16, 16), ["outdoor"] * 2)
    alone = source.batch([5], 2, (16, 16), ["outdoor"])
    assert torch.equal(both.cameras.c2w[1, :2], alone.cameras.c2w[0])
    difference = (both.images[1, :2].float() - alone.images[0].float()).abs()
    assert difference.mean() < 0.05 and math.isfinite(float(difference.max()))
