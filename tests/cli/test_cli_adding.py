"""`render --add-views` and `--stream`: more photos in a scene file, films read bit by bit."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nvs_app.model.state import SceneState, context_cameras


def test_views_are_added_to_a_scene_file(folder: Path, here, tmp_path: Path) -> None:
    file, scene = tmp_path / "scene.safetensors", folder / "one"
    words = ("--checkpoint", "detailed", "--frames", 1, "--image-hw", 32, 32, "--path", "capture")
    here("render", scene, *words, "--state", file, "--context-views", "0,2", "--out", tmp_path / "two")
    shutil.copy(file, tmp_path / "other.safetensors")
    for how, kept in (("exact", file), ("fast", tmp_path / "other.safetensors")):
        added = ("--state", kept, "--add-views", "2,3,5", "--add-how", how)
        out, err = here("render", scene, *words, *added, "--out", tmp_path / how)
        assert f"2 views added ({how})" in out and "has 1 of these 3 views already" in err
        assert len(context_cameras(SceneState.load(kept))) == 4
        out, err = here("render", scene, *words, *added, "--out", tmp_path / how)
        assert "skipped" in out and "has 3 of these 3" in err  # nothing is written twice
    pictures = {(tmp_path / name / "00000.png").read_bytes() for name in ("two", "exact", "fast")}
    assert len(pictures) == 3
    _, err = here("render", scene, *words, "--state", file, "--add-views", "6", "--out", tmp_path / "x", code=2)
    assert "--add-views 6: one has 6 views, counted from 0" in err
    _, err = here("render", scene, *words, "--add-views", "1", "--out", tmp_path / "x", code=2)
    assert "into a --state FILE that is there" in err


def test_a_film_is_read_bit_by_bit(folder: Path, here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nvs_app.scenes.scene import Scene

    read, load = [], Scene.load

    def loaded(scene, indices=None, image_hw=None):
        read.append(list(indices))
        return load(scene, indices, image_hw)

    monkeypatch.setattr(Scene, "load", loaded)
    monkeypatch.setattr("nvs_app.cli.adding.CHUNK", 4)
    words = ("--checkpoint", "detailed", "--frames", 1, "--image-hw", 32, 32, "--stream", "--out", tmp_path / "out")
    state = ("--state", tmp_path / "scene.safetensors")
    out, _ = here("render", folder / "one", *words, *state)
    assert read == [[0, 1, 2, 3], [4, 5]] and "encoded 6 views" in out
    out, _ = here("render", folder / "one", *words, *state)
    assert "skipped" in out and len(read) == 2
