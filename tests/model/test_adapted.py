"""Adapted weights in scene files: what strangers may put there, and older files."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from nvs_app.errors import NVSError
from nvs_app.model.adapted import AdaptedWeights
from nvs_app.model.config import LaCTConfig
from nvs_app.model.lact import LaCT
from nvs_app.model.state import ADAPTED_FORMAT, FORMAT, FastWeights, SceneState

CONFIG = LaCTConfig(dim=32, blocks=1, attention_head_dim=16)
UP = "blocks.0.mlp.up.weight"


def state(adapted: AdaptedWeights | None = None) -> SceneState:
    weights = FastWeights(torch.ones(1, 1, 32, 64), torch.ones(1, 1, 64, 32), torch.ones(1, 1, 32, 64))
    return SceneState([weights], adapted=adapted)


def pair(rank: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(128, rank).half(), torch.ones(rank, 32).half()


def test_files_without_are_of_the_first_format(tmp_path) -> None:
    """Which older versions read; a file with adapted weights they refuse."""
    for kept, format in ((None, FORMAT), (AdaptedWeights(low_rank={UP: pair()}), ADAPTED_FORMAT)):
        path = state(kept).save(tmp_path / "scene.safetensors")
        with safe_open(path, framework="pt") as file:
            assert file.metadata()["format"] == format
        loaded = SceneState.load(path).adapted
        assert (loaded is None) == (kept is None)
    assert torch.equal(loaded.low_rank[UP][1], pair()[1]) and not loaded.full


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({f"adapted.up.{UP}": pair()[0]}, "without its other half"),
        ({f"adapted.up.{UP}": pair()[0], f"adapted.down.{UP}": pair(3)[1]}, "its other half"),
        ({f"adapted.up.{UP}": pair(65)[0], f"adapted.down.{UP}": pair(65)[1]}, "has rank 65, expected 1 to 64"),
        ({"adapted.full.a": torch.ones(2)}, "is torch.float32, expected torch.float16"),
        ({"adapted.full.a": torch.full((2,), torch.nan).half()}, "not finite"),
        ({"adapted.full..a": torch.ones(2).half()}, "which no state has"),
        ({"adapted.other.a": torch.ones(2).half()}, "which no state has"),
        ({"adapted.full.a": torch.zeros(2**24 + 1).half()}, "more than 32 MiB"),
        (
            {f"adapted.full.{UP}": torch.ones(128, 32).half()}
            | {f"adapted.up.{UP}": pair()[0], f"adapted.down.{UP}": pair()[1]},
            "is there twice",
        ),
    ],
)
def test_what_a_stranger_writes_is_checked(more: dict, said: str, tmp_path) -> None:
    path = tmp_path / "scene.safetensors"
    save_file(state().tensors() | more, path, {"format": ADAPTED_FORMAT, "meta": json.dumps({})})
    with pytest.raises(NVSError, match=said) as error:
        SceneState.load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrong",
    [
        AdaptedWeights({"blocks.9.mlp.up.weight": torch.ones(128, 32).half()}),
        AdaptedWeights({"card": torch.ones(1).half()}),
        AdaptedWeights({"output_norm.weight": torch.ones(31).half()}),
        AdaptedWeights(low_rank={UP: (torch.ones(128, 2).half(), torch.ones(2, 31).half())}),
    ],
)
def test_what_fits_no_weight_is_refused(wrong: AdaptedWeights) -> None:
    with pytest.raises(NVSError, match="fit no weight of this checkpoint"):
        wrong.applied_to(LaCT(CONFIG))


def test_small_differences_survive_rounding() -> None:
    """Added to weights that were rounded already, half of them would be lost."""
    exact = LaCT(CONFIG).requires_grad_(False)
    rounded = exact.with_own_modules()
    rounded.output_linear.weight = torch.nn.Parameter(exact.output_linear.weight.bfloat16(), requires_grad=False)
    size = exact.output_linear.weight.abs() * 1e-3  # a quarter of what bfloat16 tells apart
    applied = AdaptedWeights({"output_linear.weight": size.half()}).applied_to(rounded, exact)
    assert applied.output_linear.weight.dtype == torch.bfloat16
    gained = (applied.output_linear.weight.float() - rounded.output_linear.weight.float()).sum() / size.sum()
    assert 0.8 < gained < 1.2
