"""Two processes that encode one scene together hold, each, what one process alone finds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from two_encoders import encoded

from nvs_app.distributed import free_port
from nvs_app.model.state import SceneState


def test_two_processes_encode_what_one_does(tmp_path: Path) -> None:
    here = Path(__file__).parent
    port = str(free_port())
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common["PYTHONPATH"] = os.pathsep.join([str(here.parent.parent), str(here), str(here.parent)])
    command = [sys.executable, str(here / "two_encoders.py"), str(tmp_path)]
    processes = [subprocess.Popen(command, env={**common, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    alone = encoded(None)
    assert [process.wait(120) for process in processes] == [0, 0]
    for name, state in alone.items():
        first, second = (SceneState.load(tmp_path / f"{name}{rank}.safetensors").tensors() for rank in "01")
        whole = state.tensors()
        assert first.keys() == second.keys() == whole.keys()
        assert any(key.startswith("context.") for key in whole) == (name == "head")
        for key, value in whole.items():
            assert torch.equal(first[key], second[key]), (name, key)
            torch.testing.assert_close(first[key].float(), value.float(), rtol=1e-3, atol=2e-4, msg=f"{name} {key}")
