"""Lenses, rolls and views from above: what each capture fixes, and that it fixes nothing else."""

import math

import pytest
import torch

from data_tools.procedural import ProceduralSource
from data_tools.procedural.cameras import WIDEST, object_cameras
from data_tools.procedural.capture_styles import CAPTURES
from data_tools.procedural.rng import scene_keys
from nvs_app.errors import NVSError

SCENES, VIEWS = 300, 6


def _objects(capture="mixed", image_hw=(64, 64), views=VIEWS):
    captures = torch.full((SCENES,), CAPTURES.index(capture))
    return object_cameras(scene_keys(5, torch.arange(SCENES)), views, image_hw, captures)


def _fov(cameras):
    """Degrees along the shorter side, [s, v]."""
    return 2 * torch.rad2deg(torch.atan(0.5 * min(cameras.image_hw) / cameras.fxfycxcy[..., 0]))


def test_mixed_captures_have_their_shares():
    cameras = _objects()
    fov = _fov(cameras)[:, 0]
    assert 0.18 < ((fov > 12) & (fov < 28)).float().mean() < 0.3
    assert 0.07 < ((fov > 80) & (fov < 110)).float().mean() < 0.17
    up = -cameras.c2w[..., :3, 1]  # what is up in the image, in world axes
    side = cameras.c2w[..., 2, 0].abs()  # 0 where the horizon is level
    assert (up[..., 2] < -0.5).any() and 0.1 < (side > 0.2).float().mean() < 0.4
    eye = torch.nn.functional.normalize(cameras.c2w[..., :3, 3], dim=-1)
    assert (eye[..., 2] > 0.98).any() and (eye[..., 2] < -0.95).any()


def test_fixed_captures():
    plain, rolled, narrow = _objects("plain"), _objects("rolled"), _objects("narrow")
    assert torch.equal(plain.c2w[..., 3], rolled.c2w[..., 3])  # the same eyes,
    assert torch.equal(plain.c2w[..., 2], rolled.c2w[..., 2])  # the same directions of view,
    assert torch.equal(plain.fxfycxcy, rolled.fxfycxcy)
    between = (plain.c2w[..., :3, 0] * rolled.c2w[..., :3, 0]).sum(-1)
    torch.testing.assert_close(between, torch.full_like(between, math.cos(math.radians(30))))
    assert (_fov(plain) > 27.9).all() and (_fov(plain) < 65.1).all()
    assert (_fov(narrow) > 14.9).all() and (_fov(narrow) < 25.1).all()
    wide = _fov(_objects("wide"))
    assert (wide > 89.9).all() and (wide < 105.1).all()
    eye = torch.nn.functional.normalize(_objects("above").c2w[..., :3, 3], dim=-1)
    assert (eye[..., 2] > math.cos(math.radians(15.1))).all()


@pytest.mark.parametrize("image_hw", [(256, 448), (448, 256)])
def test_objects_stay_in_frame_at_any_aspect(image_hw):
    for capture in ("mixed", "above", "narrow", "wide"):
        cameras = _objects(capture, image_hw)
        origin = torch.linalg.inv(cameras.c2w)[..., :3, 3]
        pixel = origin[..., :2] / origin[..., 2:] * cameras.fxfycxcy[..., :2] + cameras.fxfycxcy[..., 2:]
        size = torch.tensor([image_hw[1], image_hw[0]])
        assert (origin[..., 2] > 1.1).all()  # outside the unit ball
        assert ((pixel / size - 0.5).abs() < 0.25).all()
        # Along the shorter side the ball is neither a dot nor far larger than the frame.
        share = 2 * cameras.fxfycxcy[..., 0] / origin[..., 2] / min(image_hw)
        assert (share > 0.4).all() and (share < 2.0).all()
        longer = 2 * torch.atan(0.5 * max(image_hw) / cameras.fxfycxcy[..., 0])
        assert (longer < WIDEST + 1e-4).all()


def test_a_view_depends_on_its_number_alone():
    many, few = _objects(views=9), _objects(views=2)
    assert torch.equal(many.c2w[:, :2], few.c2w) and torch.equal(many.fxfycxcy[:, :2], few.fxfycxcy)


def test_captures_by_scene():
    source = ProceduralSource("cpu", seed=3)
    kinds, captures = ["object", "room"], ["rolled", "wide"]
    both = source.batch([4, 5], 2, (16, 24), kinds, captures=captures)
    again = source.batch([5], 2, (16, 24), ["room"], captures=["wide"])
    assert torch.equal(both.cameras.c2w[1], again.cameras.c2w[0])
    # As wide as the longer side allows: 24 / 16 as long as the shorter one.
    assert (_fov(both.cameras)[1] > 80).all()
    with pytest.raises(NVSError, match="captures"):
        source.batch([5], 2, (16, 24), ["room"], captures=["upside down"])
