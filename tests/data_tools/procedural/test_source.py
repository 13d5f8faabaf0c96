"""Procedural scenes: pure functions of their number, white or filled backgrounds, proper cameras."""

import numpy as np
import pytest
import torch

from data_tools.cli import main
from data_tools.procedural import ProceduralSource
from data_tools.procedural.raster_constants import EMPTY
from data_tools.procedural.rng import scene_keys, uniform_table
from nvs_app.errors import NVSError

KINDS = ["object", "room", "object", "room"]


@pytest.fixture(scope="module")
def source():
    return ProceduralSource("cpu", seed=3)


@pytest.fixture(scope="module")
def posed(source):
    return source.batch([4, 5, 6, 7], 3, (28, 40), KINDS)


def test_shapes_and_cameras(posed):
    assert posed.images.dtype == torch.uint8
    assert posed.images.shape == (4, 3, 3, 28, 40)
    assert posed.cameras.shape == (4, 3)
    assert posed.cameras.image_hw == (28, 40)
    rotation = posed.cameras.c2w[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(4, 3), atol=1e-5, rtol=0)
    assert torch.isfinite(posed.cameras.c2w).all()
    assert (posed.cameras.fxfycxcy[..., 0] == posed.cameras.fxfycxcy[..., 1]).all()


def test_a_scene_depends_on_its_number_alone(source, posed):
    alone = source.batch([6], 2, (28, 40), ["object"])
    assert torch.equal(alone.cameras.c2w[0], posed.cameras.c2w[2, :2])
    assert torch.equal(alone.images[0], posed.images[2, :2])
    again = source.batch(torch.tensor([7, 4]), 3, (28, 40), ["room", "object"])
    # A compiled or differently blocked sum may round otherwise; a different scene would be far off.
    difference = (again.images[0].float() - posed.images[3].float()).abs()
    assert difference.mean() < 0.05
    assert not torch.equal(posed.images[0], posed.images[2])
    other = ProceduralSource("cpu", seed=4).batch([6], 2, (28, 40), ["object"])
    assert not torch.equal(other.images, alone.images)


def test_scenes_of_a_seed_stay_as_they_are(source):
    """Checkpoints were trained and figures reported on them: nothing may change what a number means."""
    keys = scene_keys(3, torch.tensor([0, 1, 2**33 + 5]))
    assert keys.tolist() == [1590007702, 653888758, 2461610821]
    table = uniform_table(keys, 7, 2) * 2**24
    assert table.tolist() == [[11420636, 99647], [4514987, 13209144], [4570482, 12897892]]
    posed = source.batch([4, 5, 6], 1, (28, 40), ["object", "room", "outdoor"])
    eyes = [[3.200371, 3.133478, 0.222175], [-0.190927, -1.354695, 1.266348], [1.913965, -1.654359, 1.549315]]
    torch.testing.assert_close(posed.cameras.c2w[:, 0, :3, 3], torch.tensor(eyes), atol=1e-4, rtol=0)
    means = [[239.493, 240.998, 237.966], [174.821, 166.146, 166.670], [66.094, 66.250, 47.761]]
    torch.testing.assert_close(posed.images.float().mean((1, 3, 4)), torch.tensor(means), atol=0.2, rtol=0)


def test_chunks_of_scenes_change_nothing(source, posed, monkeypatch):
    monkeypatch.setattr("data_tools.procedural.source._CHUNK_SAMPLES", 1)
    again = source.batch([4, 6], 3, (28, 40), ["object", "object"])
    assert torch.equal(again.images, posed.images[[0, 2]])


def test_objects_stand_on_exact_white(posed):
    objects = posed.images[[0, 2]]
    white = (objects == 255).all(2)
    assert 0.2 < white.float().mean() < 0.97
    assert (objects < 250).any(2).flatten(2).any(-1).all()  # and something is in every view


def test_rooms_have_no_holes(source):
    from data_tools.procedural import source as module

    seen = []
    original = module.rasterize

    def spy(*arguments):
        keys = original(*arguments)
        seen.append(keys)
        return keys

    module.rasterize = spy
    try:
        source.batch(range(20, 22), 4, (16, 16), ["room"] * 2)
    finally:
        module.rasterize = original
    assert (seen[-1] != EMPTY).all()


def test_kinds_follow_the_mix():
    source = ProceduralSource("cpu", seed=1, mix={"room": 1.0, "object": 3.0})
    kinds = source.kinds_of(range(400))
    assert 0.2 < np.mean([kind == "room" for kind in kinds]) < 0.3
    assert source.kinds_of([17]) == [kinds[17]]
    with pytest.raises(NVSError, match="mix"):
        ProceduralSource("cpu", mix={"kitchen": 1.0})


def test_missing_assets_folder(tmp_path):
    with pytest.raises(NVSError, match="objects_pack"):
        ProceduralSource("cpu", assets=tmp_path)


def test_contact_sheet(tmp_path):
    out = tmp_path / "sheet.png"
    arguments = ["--out", str(out), "--scenes", "1", "--views", "2", "--image-hw", "16", "16", "--kind", "object"]
    assert main(["contact-sheet", *arguments]) == 0
    assert out.stat().st_size > 100
