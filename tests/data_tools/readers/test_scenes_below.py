"""Scenes below a folder or in an archive: one is opened, of several one is asked for, on the command line too."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import pytest
from known_camera import check_rays, image
from scene_writers import blender, nerfstudio, write

from data_tools import cli
from data_tools.readers import SeveralScenes, holds_scene, open_scene
from data_tools.structure_from_motion.photos import open_input
from nvs_app.errors import NVSError, Refusal


def zipped(folder: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder))
    return file


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """A folder as data sets come: scenes in folders, a text and a picture beside them."""
    blender(tmp_path / "data/nerf/lego")
    nerfstudio(tmp_path / "data/nerf/real/fern")
    write(tmp_path / "data/README.txt", "words")
    image(tmp_path / "data/nerf/preview.jpg")
    return tmp_path / "data"


def test_one_scene_somewhere_below(several: Path) -> None:
    shutil.rmtree(several / "nerf/lego")
    scene = open_scene(several)
    check_rays(scene, cx=8.0, cy=6.0)
    assert scene.notes[0] == "scene found in nerf/real/fern/" and scene.name == "fern"
    archive = zipped(several, several.parent / "up.zip")
    for _ in range(2):  # unpacked, and from what was unpacked
        assert open_input(archive, several.parent / "work").name == "fern"


def test_several_scenes_are_named(several: Path, capsys) -> None:
    archive = zipped(several, several.parent / "up.zip")
    for opened in (lambda: open_scene(several), lambda: open_input(archive, several.parent / "work")):
        with pytest.raises(SeveralScenes, match=r"holds 2 scenes \(fern, lego\); name one, --scene NAME") as caught:
            opened()
        assert caught.value.choices == ("fern", "lego") and caught.value.code == Refusal.SEVERAL_SCENES
    assert open_scene(several, key="lego").name == open_scene(f"{several}#lego").name == "lego"
    assert open_input(archive, several.parent / "work", key="fern").name == "fern"
    assert open_input(f"{archive}#lego", several.parent / "work").name == "lego"
    with pytest.raises(SeveralScenes, match=r"no scene chair among its 2 \(fern, lego\)"):
        open_scene(several, key="chair")
    # The command line.
    out = several.parent / "out"
    assert cli.main(["convert", str(several), str(out / "one"), "--scene", "chair"]) == 2
    assert capsys.readouterr().err.strip().endswith("[several-scenes]")
    assert cli.main(["convert", str(several), str(out / "one"), "--scene", "lego"]) == 0
    assert cli.main(["convert", str(several), str(out / "all")]) == 0
    assert sorted(path.name for path in (out / "all").iterdir()) == ["fern", "lego"]
    assert cli.main(["photos", str(archive), str(out / "mixed")]) == 2 and not (out / "mixed").exists()
    assert "holds 2 scenes (fern, lego)" in capsys.readouterr().err


def test_scenes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for place in ("a/scene", "b/scene"):
        nerfstudio(tmp_path / place)
    assert len(open_scene(tmp_path, key="a_scene")) == 1
    with pytest.raises(SeveralScenes, match=r"\(a_scene, b_scene\)"):
        open_scene(tmp_path)


def test_photos_with_a_scene_made_of_them_are_photos(tmp_path: Path) -> None:
    nerfstudio(tmp_path / "result")
    for number in range(3):
        image(tmp_path / f"{number}.jpg")
    assert not holds_scene(tmp_path)
    with pytest.raises(NVSError, match="3 images but no scene found") as caught:
        open_scene(tmp_path)
    assert caught.value.code == Refusal.NO_SCENE
    for number in range(3):
        os.renames(tmp_path / f"{number}.jpg", tmp_path / f"photos/{number}.jpg")
    assert holds_scene(tmp_path)
    write(tmp_path / "result/report.json", "{}")  # our own result
    assert not holds_scene(tmp_path)


def test_nothing_is_followed_out_of_the_folder(tmp_path: Path) -> None:
    nerfstudio(tmp_path / "out/scene")
    (tmp_path / "up").mkdir()
    (tmp_path / "up/linked").symlink_to(tmp_path / "out")
    assert not holds_scene(tmp_path / "up")
