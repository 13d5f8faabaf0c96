"""`python -m data_tools convert`: what it prints, what it writes, what it refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from data_tools.cli import main
from data_tools.readers import FORMATS, open_scene

sys.path.insert(0, str(Path(__file__).parent / "readers"))
from known_camera import check_rays, image
from test_formats import chunk_entry, llff
from test_hostile import WRITERS


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main(["convert", *map(str, arguments)])
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_every_format_is_recognised_and_written(tmp_path, capsys, name) -> None:
    source = WRITERS[name][0](tmp_path / "in")
    code, out, err = run(capsys, source, tmp_path / "out")
    assert (code, err) == (0, "")
    assert out.startswith(f"{source}: {name} ({FORMATS[name].expects})\n")
    assert f"1 of 1 views kept (16x12) -> {tmp_path / 'out'}" in out
    before, after = open_scene(source), open_scene(tmp_path / "out", "nerfstudio")
    torch.testing.assert_close(after.c2w, before.c2w)
    torch.testing.assert_close(after.fxfycxcy, before.fxfycxcy)
    assert torch.equal(after.load().images, before.load().images)
    assert all(f"note: {note}" in out for note in before.notes)


def test_max_views_notes_and_lens(tmp_path, capsys) -> None:
    folder = llff(tmp_path / "in", "images_4", count=6, size=(4, 3))
    code, out, _ = run(capsys, folder, tmp_path / "out", "--max-views", 4)
    assert code == 0 and len(open_scene(tmp_path / "out")) == 4
    assert "note: images/ is absent: images read from images_4/" in out
    assert "4 of 6 views kept (4x3), 2 skipped: --max-views 4, evenly spread" in out
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(folder), str(tmp_path / "x"), "--max-views", "0"])
    assert caught.value.code == 2


def test_formats_beside_each_other(tmp_path, capsys) -> None:
    folder = WRITERS["colmap"][0](tmp_path / "in")
    row = np.load(llff(tmp_path / "other", count=1) / "poses_bounds.npy")
    np.save(folder / "poses_bounds.npy", row)
    code, out, _ = run(capsys, folder, tmp_path / "a")
    assert code == 0 and "in: note: read as colmap; the folder also holds llff" in out
    code, out, _ = run(capsys, folder, tmp_path / "b", "--format", "llff")
    assert code == 0 and ": llff (poses_bounds.npy)" in out
    check_rays(open_scene(tmp_path / "b"), fy=20.0, cx=8.0, cy=6.0)


def test_many_scenes_resume_and_skip(tmp_path, capsys) -> None:
    broken = {**chunk_entry("bad"), "cameras": torch.zeros(2, 18)}
    file = tmp_path / "000000.torch"
    torch.save([chunk_entry("aa"), broken, chunk_entry("cc", 3)], file)
    code, out, _ = run(capsys, file, tmp_path / "out", "--max-views", 2)
    assert code == 1 and "3 scenes, each into its own folder" in out
    assert "bad: skipped: " in out and "2 scenes written, 0 there already, 1 skipped" in out
    assert len(open_scene(tmp_path / "out/cc")) == 2 and not (tmp_path / "out/bad").exists()
    code, out, _ = run(capsys, file, tmp_path / "out")
    assert code == 1 and "0 scenes written, 2 there already, 1 skipped" in out
    for arguments in ((f"{file}#cc", tmp_path / "one"), (file, tmp_path / "two", "--scene", "cc")):
        code, out, _ = run(capsys, *arguments)
        assert code == 0 and "cc: 3 of 3 views kept" in out
    torch.save([broken, {**broken, "key": "worse"}], file)
    code, _, err = run(capsys, file, tmp_path / "none")
    assert code == 2 and "none of its 2 scenes could be converted" in err


def test_mistakes_are_one_line_and_exit_2(tmp_path, capsys) -> None:
    folder = WRITERS["nerfstudio"][0](tmp_path / "in")
    image(tmp_path / "photos/a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello\n")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/transforms.json").write_text(json.dumps({"frames": []}))
    for arguments, message in (
        ((tmp_path / "nothing", tmp_path / "o"), "no such file or folder"),
        ((tmp_path / "empty", tmp_path / "o"), "no scene found, looked for transforms.json"),
        (
            (tmp_path / "photos", tmp_path / "o"),
            "1 images but no scene found; recover their cameras first with",
        ),
        ((tmp_path / "text.txt", tmp_path / "o"), "not a scene, expected a folder or"),
        ((tmp_path / "bad", tmp_path / "o"), "frames is empty"),
        ((folder, tmp_path / "photos"), "exists and is not empty; choose another folder or remove it"),
        ((folder, tmp_path / "text.txt"), "exists and is not empty"),
        (
            (folder, tmp_path / "o", "--format", "llff"),
            "no scene of the format llff, looked for poses_bounds.npy",
        ),
        ((folder, tmp_path / "o", "--scene", "x"), "nerfstudio holds one scene, so no #x"),
        ((folder, tmp_path / "text.txt/o"), "Not a directory|File exists"),
    ):
        code, _, err = run(capsys, *arguments)
        assert code == 2 and err.count("\n") == 1 and err.startswith("error: ")
        assert any(part in err for part in message.split("|")), err
        assert not (tmp_path / "o").exists()
