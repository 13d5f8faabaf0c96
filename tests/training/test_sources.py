"""Where training examples come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from train_fakes import circle, fake_procedural, make_scene

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.prefetch import Prefetcher
from nvs_app.training import sources
from nvs_app.training.sampling import (
    Augmentation,
    PoolOptions,
    make_examples,
    mirror_world,
    sample_views,
    step_generator,
)
from nvs_app.training.schedule import ViewCount
from nvs_app.training.sources import ProceduralPool, SourcePlan, TrainSource

CPU = torch.device("cpu")
COUNT = ViewCount(3, 4, 1.0)


@pytest.fixture(autouse=True)
def cheap_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "make_procedural", lambda plan, device, seed: fake_procedural)


def make_pool(rank: int = 0, world: int = 1) -> tuple[ProceduralPool, list[int]]:
    made: list[int] = []

    def make(indices: list[int], views: int, image_hw: tuple[int, int]):
        made.extend(indices)
        return fake_procedural(indices, views, image_hw)

    return ProceduralPool(make, PoolOptions((8, 8), 12, 8, 1.5, 0.5, 0, rank, world), 4), made


def test_pool_is_a_function_of_the_step() -> None:
    walked, made = make_pool()
    for step in range(21):
        drawn = walked.draw(step, 5, COUNT, stream=1)
    jumped, made_at_once = make_pool()
    posed = jumped.draw(20, 5, COUNT, stream=1)
    assert torch.equal(drawn.images, posed.images)
    assert torch.equal(drawn.cameras.c2w, posed.cameras.c2w)
    assert len(made_at_once) == 12 and made == list(range(40))  # no scene is made twice
    assert torch.equal(walked.images, jumped.images)
    assert not torch.equal(walked.draw(20, 5, COUNT, stream=2).images, posed.images)


def test_prefetching_changes_nothing() -> None:
    plain, _ = make_pool()
    ahead, made = make_pool()
    ahead.prefetcher = Prefetcher(CPU)
    for step in (0, 1, 2, 3, 8, 9, 40, 3):  # on, over a gap, and back
        one, two = plain.draw(step, 5, COUNT, stream=1), ahead.draw(step, 5, COUNT, stream=1)
        assert torch.equal(one.images, two.images) and torch.equal(one.cameras.c2w, two.cameras.c2w)
    assert made[:16] == list(range(16))


def test_ranks_see_different_scenes() -> None:
    pools = [make_pool(rank, 2) for rank in range(2)]
    for pool, _ in pools:
        pool.advance(10)
    assert not set(pools[0][1]) & set(pools[1][1])


def test_views_are_distinct_and_spread() -> None:
    c2w = circle(24).expand(50, -1, -1, -1)
    for even_view_prob in (0.0, 1.0):
        views = sample_views(c2w, 8, 8, even_view_prob, step_generator(0, 0, 0, CPU))
        assert all(len(set(row.tolist())) == 16 for row in views)

    def gap(even_view_prob: float) -> float:
        views = sample_views(c2w, 4, 1, even_view_prob, step_generator(0, 0, 0, CPU))[:, :4]
        positions = c2w[0, :, :3, 3][views]
        return float((torch.cdist(positions, positions) + 9 * torch.eye(4)).amin((1, 2)).mean())

    assert gap(1.0) > 1.5 * gap(0.0)
    short = sample_views(c2w[:, :5], 3, 4, 0.5, step_generator(0, 0, 0, CPU))
    assert all(not set(row[:3]) & set(row[3:]) for row in short.tolist())


def test_mirror_reflects_the_world() -> None:
    cameras = Cameras(circle(4)[None], torch.tensor([20.0, 22, 7, 9]).expand(1, 4, 4), (16, 20))
    images = torch.arange(20, dtype=torch.uint8).expand(1, 4, 3, 16, 20)
    depth = torch.arange(20.0).expand(1, 4, 16, 20)
    posed = mirror_world(PosedImages(images, cameras, depth), torch.tensor([True]))
    mirrored = posed.cameras
    assert posed.images[0, 0, 0, 0, 0] == 19 and posed.depth is not None and posed.depth[0, 0, 0, 0] == 19
    point = torch.tensor([0.3, -0.2, 0.1, 1.0])

    def project(cameras: Cameras, point: torch.Tensor) -> torch.Tensor:
        local = (cameras.w2c @ point)[..., :3]
        return local[..., :2] / local[..., 2:] * cameras.fxfycxcy[..., :2] + cameras.fxfycxcy[..., 2:]

    before, after = project(cameras, point), project(mirrored, point * torch.tensor([-1.0, 1, 1, 1]))
    assert torch.allclose(after[..., 0], 20 - before[..., 0], atol=1e-4)
    assert torch.allclose(after[..., 1], before[..., 1], atol=1e-4)
    assert torch.allclose(torch.linalg.det(mirrored.c2w[..., :3, :3]), torch.ones(1, 4))


def test_augmentations_keep_the_range_and_the_background() -> None:
    images = torch.randint(0, 256, (6, 5, 3, 8, 8), dtype=torch.uint8)
    images[..., :2] = 255
    cameras = Cameras(circle(5).expand(6, -1, -1, -1), torch.tensor([8.0, 8, 4, 4]).expand(6, 5, 4), (8, 8))
    examples = make_examples(PosedImages(images, cameras), 3, Augmentation(0.0, 1.0, 0.2), step_generator(0, 0, 0, CPU))
    assert examples.context_images.shape == (6, 3, 3, 8, 8) and examples.target_images.shape == (6, 2, 3, 8, 8)
    assert (examples.context_images[..., :2] == 1).all()
    assert examples.context_images.min() >= 0 and examples.context_images.max() <= 1
    distance = examples.context.c2w[..., :3, 3].norm(dim=-1).mean(1)
    assert distance.std() > 0.01 and (distance - 1).abs().max() < 0.5


def test_repeated_context_views_are_targets_with_their_own_cameras() -> None:
    images = torch.randint(256, (40, 6, 3, 8, 8), dtype=torch.uint8)
    c2w = torch.eye(4).repeat(40, 6, 1, 1)
    c2w[..., :3, 3] = torch.randn(40, 6, 3)
    cameras = Cameras(c2w, torch.tensor([10.0, 10, 4, 4]).expand(40, 6, 4), (8, 8))
    examples = make_examples(PosedImages(images, cameras), 4, Augmentation(repeat=0.5), step_generator(0, 0, 0, CPU))
    same = (examples.context_images == examples.target_images[:, :1]).flatten(2).all(2)
    assert 10 <= same.any(1).sum() <= 30 and same.any(0).all()
    scene, view = same.nonzero().T
    assert torch.equal(examples.context.c2w[scene, view], examples.target.c2w[scene, 0])
    others = ~same.any(1)
    assert torch.equal(examples.target_images[others, 0], images[others, 4] * (1 / 255))
    assert torch.equal(examples.target_images[:, 1], images[:, 5] * (1 / 255))


def test_mix_of_procedural_and_folders(tmp_path: Path) -> None:
    folder = make_scene(tmp_path / "scene", views=5)
    plan = SourcePlan({"procedural": 3.0, str(folder): 1.0}, pool=4, pool_views=8, generate=4, reuse=2.0)
    source = TrainSource(plan, 0, 0, 1, CPU)
    totals: dict[str, int] = {}
    for step in range(20):
        for name, number in source.counts(step, 6).items():
            totals[name] = totals.get(name, 0) + number
        assert sum(source.counts(step, 6).values()) == 6
    assert 20 <= totals[str(folder)] <= 40
    first = source.examples(3, (16, 16), COUNT, 6, 6)
    again = TrainSource(plan, 0, 0, 1, CPU).examples(3, (16, 16), COUNT, 6, 6)
    assert first.context_images.shape == (6, 3, 3, 16, 16)
    assert torch.equal(first.target_images, again.target_images)
    assert torch.equal(first.target.c2w, again.target.c2w)


def test_sizes_that_alternate_keep_a_pool_each() -> None:
    plan = SourcePlan({"procedural": 1.0}, pool=4, pool_views=8, generate=2, reuse=2.0)
    sizes = [(8, 8), (16, 16)]
    source = TrainSource(plan, 0, 0, 1, CPU)
    source.examples(0, (8, 8), COUNT, 2, 2)
    shown = [source.examples(step, sizes[step % 2], COUNT, 2, 2, sizes) for step in range(1, 5)]
    assert [example.target_images.shape[-1] for example in shown] == [16, 8, 16, 8]
    assert sorted(key[1] for key in source.pools) == sizes
    again = TrainSource(plan, 0, 0, 1, CPU).examples(4, (8, 8), COUNT, 2, 2, sizes)
    assert torch.equal(shown[-1].target_images, again.target_images)
    source.examples(5, (16, 16), COUNT, 2, 2)
    assert [key[1] for key in source.pools] == [(16, 16)]


def test_a_folder_of_scenes_and_wrong_paths(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    for name in ("one", "two"):
        make_scene(tmp_path / name).rename(tmp_path / "all" / name)
    assert len(sources.open_scenes(tmp_path / "all", "--data")) == 2
    for wrong in (tmp_path / "none", tmp_path):
        with pytest.raises(NVSError, match="--data"):
            sources.open_scenes(wrong, "--data")
