"""The Triton kernels against their references in PyTorch: on a GPU, and on a CPU in Triton's interpreter.

Both in a child process: Triton reads its functions' sources, which the shape checks of conftest.py rewrite, and it
decides on its import whether it interprets.
"""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_triangles import random_triangles

from data_tools.procedural import rng, shadows, shapes
from data_tools.procedural import source as source_module
from data_tools.procedural.rasterize import rasterize_torch
from data_tools.procedural.rng import uniform_table


def _recorded(scenes: int) -> dict[str, list[tuple[tuple, torch.Tensor]]]:
    """Arguments and results of the references while a mixed batch is made on the CPU."""
    calls: dict[str, list] = {}
    places = [
        (source_module, "shade_pixels"),
        (shadows, "sky_visibility_torch"),
        (shapes, "surface_of"),
        (rng, "uniform_table"),
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
        source.batch(range(4, 4 + scenes), 2, (12, 20), (["object", "tabletop", "outdoor", "room"] * scenes)[:scenes])
    finally:
        for (module, name), original in zip(places, originals, strict=True):
            setattr(module, name, original)
    return calls


def _moved(value, device: str):
    if dataclasses.is_dataclass(value):
        return type(value)(*(tensor.to(device) for tensor in vars(value).values()))
    return value.to(device) if isinstance(value, torch.Tensor) else value


def check_kernels(device: str, scenes: int) -> None:
    """Raise AssertionError unless every kernel gives what its reference gave on the CPU."""
    from data_tools.procedural import mesh_triton, rasterize_triton, rng_triton, shade_triton

    if device == "cpu":  # the interpreter takes a fixed time for each program
        mesh_triton._SKY_BLOCK = mesh_triton._SURFACE_BLOCK = 2**15
        shade_triton._BLOCK = 256
    kernels = {
        "uniform_table": rng_triton.uniform_table_triton,
        "surface_of": mesh_triton.surface_triton,
        "sky_visibility_torch": mesh_triton.sky_visibility_triton,
        "rasterize": rasterize_triton.rasterize_triton,
        "shade_pixels": shade_triton.shade_pixels_triton,
    }
    problem = random_triangles(100)
    calls = {**_recorded(scenes), "rasterize": [(problem, rasterize_torch(*problem))]}
    for name, kernel in kernels.items():
        assert calls[name]
        for arguments, want in calls[name]:
            if device == "cpu" and name == "uniform_table" and want.numel() > 10_000:
                continue  # each number is drawn alike, and the interpreter takes minutes for a million
            got = kernel(*(_moved(value, device) for value in arguments)).cpu()
            assert got.shape == want.shape and got.dtype == want.dtype, name
            if name == "uniform_table":
                assert torch.equal(got, want)
                continue
            if name == "rasterize":
                # Where triangles meet, rounding decides which is seen.
                assert ((want & 0xFFFFFFFF) != (got & 0xFFFFFFFF)).float().mean() < 2e-3
                continue
            difference = (got.float() - want.float()).abs()
            if name == "shade_pixels":
                # A mip level or shadow tap may fall to the other side by rounding, on a GPU.
                assert (difference > 1).float().mean() < (0 if device == "cpu" else 1e-3) + 1e-9
                white = (want == 255).all(1)
                assert white.any() and torch.equal(white, (got == 255).all(1))
            else:
                assert (difference > 1e-3).float().mean() < 1e-4, name


def _run(device: str, scenes: int, **environment: str) -> None:
    # Beside what the path already says: libraries may lie in a folder of their own.
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, __file__, device, str(scenes)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_kernels_in_the_interpreter():
    pytest.importorskip("triton", reason="triton is not installed (make setup)")
    _run("cpu", 3, TRITON_INTERPRET="1")


@pytest.mark.gpu
def test_kernels_on_a_gpu():
    _run("cuda", 6)


def test_hash_is_spread():
    table = uniform_table(torch.arange(64), 7, 256)
    assert 0.0 <= table.min() and table.max() < 1.0
    assert abs(table.mean() - 0.5) < 0.01
    assert len(table.unique()) > 16_000


if __name__ == "__main__":
    check_kernels(sys.argv[1], int(sys.argv[2]))
