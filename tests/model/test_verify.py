"""Parity with the published model's recorded outputs, and the `weights` command as a child process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from released_names import released_name

from nvs_app.model.config import PRESETS
from nvs_app.model.lact import LaCT
from nvs_app.model.verify import verify

ROOT = Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.safetensors"))


def weights(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "nvs_app", "weights", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **(env or {})})


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_parity_with_the_published_model(path):
    for what, error, limit in verify(path):
        assert error <= limit, (what, error)


def test_verify_command_fails_when_a_weight_is_off(tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    good = weights("verify", str(GOLDEN[0]))
    assert good.returncode == 0 and good.stdout.count(" ok") == 7, good.stdout + good.stderr
    with safe_open(GOLDEN[0], "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    tensors["state_dict.blocks.0.module_list.1.f.c_proj.weight"] *= 1.5
    save_file(tensors, tmp_path / "off.safetensors", metadata)
    bad = weights("verify", str(tmp_path / "off.safetensors"))
    assert bad.returncode == 1 and "TOO LARGE" in bad.stdout


@pytest.mark.slow
def test_released_configuration_at_full_size(tmp_path):
    torch.manual_seed(0)
    model = LaCT(PRESETS["lact_l24_d768_ttt2x"])
    path = tmp_path / "scene_res256x256.pt"
    torch.save({"model": {released_name(n): p.detach().bfloat16() for n, p in model.named_parameters()}}, path)
    out = tmp_path / "converted"
    result = weights("convert", str(path), "--out", str(out), "--dtype", "bfloat16")
    assert result.returncode == 0, result.stderr
    from nvs_app.model.checkpoint import load_checkpoint

    loaded = load_checkpoint(out)
    assert loaded.config == PRESETS["lact_l24_d768_ttt2x"] and loaded.card["normalization"] == "scene"
    for name, value in model.state_dict().items():
        assert torch.equal(value.bfloat16().float(), loaded.state_dict()[name]), name
    info = weights("info", str(out))
    assert "blocks: 24" in info.stdout and "scene" in info.stdout


@pytest.mark.slow
def test_mistakes_get_one_line():
    unknown = weights("fetch", "nothing")
    assert unknown.returncode == 2 and unknown.stderr.count("\n") == 1 and "expected one of" in unknown.stderr
    # No network, or a machine that is told so: the same line, without the client's warnings of every retry.
    for told, endpoint in (("1", "https://hub.example"), ("0", "https://hub.invalid")):
        env = {"HF_HUB_OFFLINE": told, "HF_ENDPOINT": endpoint, "HF_HOME": "/nonexistent"}
        offline = weights("fetch", "obj_res256", env=env)
        assert offline.returncode == 2 and offline.stderr.count("\n") == 1, offline.stderr
        assert "could not be downloaded" in offline.stderr
    listing = weights("list")
    assert listing.returncode == 0 and "scene_res536x960" in listing.stdout
    missing = weights("info", "nothing")
    assert missing.returncode == 2 and "not found" in missing.stderr
