"""Checkpoint folders: shards, types, hashes, refusals; and the released format."""

import json
import subprocess
import sys

import pytest
import torch
from released_names import released_name

from nvs_app.cli import main
from nvs_app.errors import NVSError
from nvs_app.model import checkpoint
from nvs_app.model.config import LaCTConfig
from nvs_app.model.lact import LaCT
from nvs_app.model.pretrained import convert_released, our_name, read_released

CONFIG = LaCTConfig(dim=32, blocks=2, attention_head_dim=16)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return LaCT(CONFIG)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0), ("bfloat16", 2**-8), ("int8", 1 / 250)])
def test_round_trip(model, tmp_path, dtype, tolerance):
    folder = checkpoint.save_checkpoint(
        tmp_path / "one", model.state_dict(), CONFIG, {"data": "none"}, dtype, max_shard_bytes=20_000
    )
    assert len(list(folder.glob("*.safetensors"))) > 1
    (tmp_path / "plain").touch()
    assert {path.stat().st_mode for path in folder.iterdir()} == {(tmp_path / "plain").stat().st_mode}
    assert all(path.stat().st_size < 110_000 for path in folder.glob("*.safetensors"))
    loaded = checkpoint.load_checkpoint(folder)
    assert loaded.config == CONFIG and loaded.card["name"] == "one" and len(loaded.card["hash"]) == 64
    for name, value in model.state_dict().items():
        other = loaded.state_dict()[name]
        limit = tolerance * value.abs().amax(dim=-1, keepdim=True)
        assert ((value - other).abs() <= limit + 1e-9).all(), name


def test_replaced_only_when_whole_and_found_by_name(model, tmp_path, monkeypatch):
    monkeypatch.setenv("NVS_CHECKPOINTS", str(tmp_path))
    for _ in range(2):
        checkpoint.save_checkpoint(tmp_path / "a", model.state_dict(), CONFIG, {})
    assert checkpoint.list_checkpoints() == ["a"]
    assert checkpoint.load_checkpoint("a").card["normalization"] == "auto"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    with pytest.raises(NVSError, match=r"not found.*\(a\)"):
        checkpoint.load_checkpoint("b")


def test_average_of_two_checkpoints(model, tmp_path, capsys):
    torch.manual_seed(1)
    other = LaCT(CONFIG)
    for name, weights in (("a", model), ("b", other)):
        card = {"data": name, "held_out_psnr": {"a scene": 20.0}}
        checkpoint.save_checkpoint(tmp_path / name, weights.state_dict(), CONFIG, card)
    arguments = ["weights", "average", str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(tmp_path / "mean")]
    assert main([*arguments, "--share", "0.25", "--dtype", "float32"]) == 0
    mean = checkpoint.load_checkpoint(tmp_path / "mean")
    for name, value in mean.state_dict().items():
        expected = 0.75 * model.state_dict()[name] + 0.25 * other.state_dict()[name]
        torch.testing.assert_close(value, expected)
    assert mean.card["data"] == "b" and "held_out_psnr" not in mean.card
    assert [part["share"] for part in mean.card["average_of"]] == [0.75, 0.25]
    assert main([*arguments, "--share", "1.5"]) == 2
    assert "--share 1.5: expected" in capsys.readouterr().err
    deeper = LaCTConfig(dim=32, blocks=3, attention_head_dim=16)
    checkpoint.save_checkpoint(tmp_path / "b", LaCT(deeper).state_dict(), deeper, {})
    assert main(arguments) == 2
    assert "different configurations" in capsys.readouterr().err


def test_parameter_names_are_stable(model):
    names = {name.replace("blocks.1.", "blocks.0.") for name in model.state_dict()}
    assert {
        "patch_embed.weight",
        "blocks.0.fast.w0",
        "blocks.0.fast.to_lr.bias",
        "output_linear.weight",
    } <= names
    assert all(our_name(released_name(name)) == name for name in model.state_dict())


def test_damaged_checkpoints_are_refused_in_one_line(model, tmp_path):
    folder = checkpoint.save_checkpoint(tmp_path / "a", model.state_dict(), CONFIG, {})
    description = json.loads((folder / "config.json").read_text())
    shard = folder / description["shards"][0]
    content = shard.read_bytes()
    shard.write_bytes(content[:1000])
    with pytest.raises(NVSError, match="unreadable shard"):
        checkpoint.load_checkpoint(folder)
    shard.write_bytes(content)
    for change, message in (
        ({"format": "x"}, "format"),
        ({"shards": ["../a/model.safetensors"]}, "leaves the folder"),
        ({"model": {**description["model"], "blocks": 3}}, "do not fit"),
    ):
        (folder / "config.json").write_text(json.dumps({**description, **change}))
        with pytest.raises(NVSError, match=message):
            checkpoint.load_checkpoint(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(NVSError, match="not a checkpoint description"):
        checkpoint.load_checkpoint(folder)
    with pytest.raises(NVSError, match="do not fit the configuration"):
        checkpoint.save_checkpoint(tmp_path / "b", {"x": torch.zeros(1)}, CONFIG, {})


def write_released(model: LaCT, path) -> None:
    torch.save({"model": {released_name(name): value for name, value in model.state_dict().items()}}, path)


def test_released_file_converts(model, tmp_path):
    write_released(model, tmp_path / "some.pt")
    loaded = checkpoint.load_checkpoint(convert_released(tmp_path / "some.pt", tmp_path / "some"))
    assert loaded.config == CONFIG
    for name, value in model.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_released_files_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(NVSError, match="not a file of plain tensors"):
        read_released(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
    torch.save({"weights": {}}, tmp_path / "other.pt")
    with pytest.raises(NVSError, match='no "model"'):
        read_released(tmp_path / "other.pt")
    torch.save({"model": {"head.weight": torch.zeros(1)}}, tmp_path / "names.pt")
    with pytest.raises(NVSError, match="unknown parameters"):
        read_released(tmp_path / "names.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(NVSError, match="not a file of plain tensors"):
        read_released(tmp_path / "text.pt")


def test_loading_does_not_import_the_compiler():
    """It takes seconds, of each command and of the server's start."""
    code = (
        "import sys; from nvs_app.model.checkpoint import default_checkpoint, load_checkpoint\n"
        "load_checkpoint(default_checkpoint()); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.stdout == "False\n", done.stderr
