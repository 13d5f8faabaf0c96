"""Training from shards: a few steps, exact resume, the split over processes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from train_fakes import make_scene, records, tiny_config, train_three_steps

from data_tools.shards.read import ShardSet, find_shards
from data_tools.shards.write import ShardOptions, write_shards
from nvs_app.errors import NVSError
from nvs_app.training import sources
from nvs_app.training import trainer as train
from nvs_app.training.sampling import PoolOptions
from nvs_app.training.schedule import ViewCount
from nvs_app.training.shard_source import ShardPool, shard_order
from nvs_app.training.sources import TrainSource
from nvs_app.training.state import state_path

CPU = torch.device("cpu")
COUNT = ViewCount(2, 2, 1.0)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, repo: Path) -> Path:
    """Shards of the bundled scenes, one a shard."""
    out = tmp_path_factory.mktemp("shards") / "examples"
    write_shards([repo / "examples"], out, ShardOptions(image_hw=(16, 16), max_views=12, scenes_per_shard=1))
    return out


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven shards of two scenes, named 0 to 13."""
    folder = tmp_path_factory.mktemp("many")
    make_scene(folder / "scenes" / "00", views=4, side=8)
    for number in range(1, 14):
        shutil.copytree(folder / "scenes" / "00", folder / "scenes" / f"{number:02d}")
    shutil.rmtree(folder / "scenes" / "00_images")
    write_shards([folder / "scenes"], folder / "out", ShardOptions(scenes_per_shard=2))
    return folder / "out"


def test_trains_from_shards_of_the_examples(examples: Path, tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path / "run",
        steps=16,
        data={"sources": {f"shards:{examples}/shard-{{000000..000002}}.tar": 1}},
        optimizer={"muon_lr": 1e-2, "adam_lr": 1e-2},
        augmentation={"mirror": 0.0, "colour": 0.0, "scale": 0.0},
    )
    train.run(config)
    losses = [record["loss"] for record in records(config.out)]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


class OneShardPool(ShardPool):
    """A window of one shard."""

    def __init__(self, shards: ShardSet, options: PoolOptions, device: torch.device) -> None:
        super().__init__(shards, replace(options, size=1), device)


@pytest.mark.parametrize("pool", [ShardPool, OneShardPool])
def test_resume_continues_exactly(
    examples: Path, tmp_path: Path, pool: type[ShardPool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over a change of resolution, with all shards in memory or one, and scenes of which some views are kept."""
    monkeypatch.setattr(sources, "ShardPool", pool)
    folder = make_scene(tmp_path / "scene")
    options: dict[str, Any] = {
        "steps": 8,
        "data": {"sources": {str(examples): 2, str(folder): 1}, "pool_views": 8, "reuse": 1.0},
        "views": {
            "resolutions": [(16, 16, 0), (24, 24, 0.6)],
            "scenes": {"16": 2, "24": 1},
            "counts": [(2, 2, 1)],
        },
    }
    whole, parts = tiny_config(tmp_path / "whole", **options), tiny_config(tmp_path / "parts", **options)
    train.run(whole)
    train_three_steps(parts)
    train.run(parts)
    first, second = records(whole.out), records(parts.out)
    assert [r["step"] for r in second] == list(range(1, 9))
    assert [r["loss"] for r in first] == [r["loss"] for r in second]
    one, two = (torch.load(state_path(c.out), weights_only=True)["tensors"] for c in (whole, parts))
    assert all(torch.equal(one[name], two[name]) for name in one)


def make_pool(shards: ShardSet, rank: int = 0, world: int = 1, **changes: Any) -> ShardPool:
    options = {"image_hw": (8, 8), "size": 4, "views": 3, "fresh": 0.9, "even_view_prob": 0.5, "seed": 5, **changes}
    return ShardPool(shards, PoolOptions(rank=rank, world=world, **options), CPU)


@pytest.mark.parametrize("options", [{}, {"size": 100}, {"fresh": 5.0}, {"size": 100, "views": 9}])
def test_pool_is_a_function_of_the_step(many: Path, options: dict[str, Any]) -> None:
    """Sliding, holding everything, several new shards a step, holding everything for good."""
    shards = find_shards(str(many))
    walked = make_pool(shards, **options)
    for step in range(24):
        drawn = walked.draw(step, 3, COUNT, stream=1)
        assert len(walked.held) <= (7 if "size" in options else 2)
    jumped = make_pool(shards, **options)
    posed = jumped.draw(23, 3, COUNT, stream=1)
    assert torch.equal(drawn.images, posed.images) and torch.equal(drawn.cameras.c2w, posed.cameras.c2w)
    assert posed.images.shape == (3, 4, 3, 8, 8) and posed.images.dtype == torch.uint8
    assert bool(jumped.ahead) == (options.get("views") != 9)  # nothing new can come of shards that are whole in memory
    assert all(
        torch.equal(one, two)
        for one, two in zip(walked.held[max(walked.held)].images, jumped.held[max(jumped.held)].images)
    )


def test_two_ranks_share_an_epoch(many: Path) -> None:
    shards = find_shards(str(many))
    for options in ({}, {"size": 100}):
        pools = [make_pool(shards, rank, 2, **options) for rank in range(2)]
        epochs = 4
        seen = [[pool.place(number) for number in range(7 * epochs // 2)] for pool in pools]
        if options:  # each holds its own for good
            assert not set(seen[0]) & set(seen[1]) and set(seen[0]) | set(seen[1]) == set(range(7))
        else:  # every shard once an epoch, in another order
            together = [place for pair in zip(*seen) for place in pair]
            assert together == [place for epoch in range(epochs) for place in shard_order(7, 5, epoch)]
    assert shard_order(7, 5, 0) != shard_order(7, 5, 1) != shard_order(7, 6, 1)


def test_fewer_shards_than_ranks_are_split_by_scenes(many: Path, tmp_path: Path) -> None:
    one = ShardSet(find_shards(str(many)).urls[:1])
    pools = [make_pool(one, rank, 2) for rank in range(2)]
    for pool in pools:
        pool.advance(0)
        assert [len(loaded.images) for loaded in pool.held.values()] == [1]
    third = make_pool(one, 2, 3)
    with pytest.raises(NVSError, match="no scene of two views or more for process 2 of 3"):
        third.advance(0)


def test_a_broken_shard_ends_the_run_in_one_line(many: Path, tmp_path: Path) -> None:
    data = Path(find_shards(str(many)).urls[0]).read_bytes()
    (tmp_path / "shard.tar").write_bytes(data[: len(data) // 3])
    source = TrainSource(tiny_config(tmp_path, data={"sources": {str(tmp_path / "shard.tar"): 1}}).plan, 0, 0, 1, CPU)
    with pytest.raises(NVSError, match="cut short"):
        source.prepare(0, (8, 8), 2)
