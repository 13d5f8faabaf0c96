"""The Triton kernels against their references: on a GPU, and anywhere in Triton's interpreter (a child process)."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data_tools.procedural import ambient, draws, shapes
from data_tools.procedural import source as source_module
from data_tools.procedural.draws import hash_table


def _recorded(scenes: int) -> dict[str, list[tuple[tuple, torch.Tensor]]]:
    """Arguments and results of the references while a mixed batch is made on the CPU."""
    calls: dict[str, list] = {}
    places = [
        (source_module, "shade_pixels"),
        (ambient, "sky_share"),
        (shapes, "surface_of"),
        (draws, "hash_table"),
    ]
    originals = [getattr(module, name) for module, name in places]

    def spy(name, original):
        def call(*arguments):
            result = original(*arguments)
            calls.setdefault(name, []).append((arguments, result))
            return result

        return call

    for (module, name), original in zip(places, originals, strict=True):
        setattr(module, name, spy(name, original))
    try:
        source = source_module.ProceduralSource("cpu", seed=3)
        source.batch(range(4, 4 + scenes), 2, (12, 20), (["object", "room", "outdoor"] * scenes)[:scenes])
    finally:
        for (module, name), original in zip(places, originals, strict=True):
            setattr(module, name, original)
    return calls


def check_kernels(device: str, scenes: int) -> None:
    """Raise AssertionError unless every kernel gives what its reference gave on the CPU."""
    from data_tools.procedural import draws_triton, mesh_triton, shade_triton

    if device == "cpu":  # the interpreter takes a fixed time for each program
        mesh_triton._SKY_BLOCK = mesh_triton._SURFACE_BLOCK = 2**15
        shade_triton._BLOCK = 256
    kernels = {
        "shade_pixels": shade_triton.shade_pixels_triton, "sky_share": mesh_triton.sky_triton,
        "surface_of": mesh_triton.surface_triton, "hash_table": draws_triton.table_triton,
    }  # fmt: skip
    calls = _recorded(scenes)
    for name, kernel in kernels.items():
        assert calls[name]
        for arguments, want in calls[name]:
            got = kernel(*(a.to(device) if isinstance(a, torch.Tensor) else a for a in arguments)).cpu()
            assert got.shape == want.shape and got.dtype == want.dtype, name
            difference = (got.float() - want.float()).abs()
            if name == "hash_table":
                assert torch.equal(got, want)
            elif name == "shade_pixels":
                # A mip level or shadow tap may fall to the other side by rounding, on a GPU.
                assert (difference > 1).float().mean() < (0 if device == "cpu" else 1e-3) + 1e-9
                white = (want == 255).all(1)
                assert white.any() and torch.equal(white, (got == 255).all(1))
            else:
                assert (difference > 1e-3).float().mean() < 1e-4, name


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
def test_kernels_in_the_interpreter():
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": root}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")
def test_kernels_on_a_gpu():
    check_kernels("cuda", 6)


def test_hash_is_spread():
    table = hash_table(torch.arange(64), 7, 256)
    assert 0.0 <= table.min() and table.max() < 1.0
    assert abs(table.mean() - 0.5) < 0.01
    assert len(table.unique()) > 16_000


if __name__ == "__main__":
    check_kernels("cpu", 3)
