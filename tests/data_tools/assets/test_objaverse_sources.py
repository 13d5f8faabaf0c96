"""Which assets a run has: files, folders, lists, Objaverse uids, and the names of their scenes."""

from __future__ import annotations

import gzip
import json
import sys
import types
from pathlib import Path

import asset_files as files
import pytest

from data_tools.assets.render_task import RenderOptions
from data_tools.assets.run import render_assets
from data_tools.assets.sources import find_assets, make_tasks
from nvs_app.errors import NVSError

OPTIONS = RenderOptions(views=2, image_hw=(32, 32))


def test_inputs_and_names(tmp_path: Path) -> None:
    for name in (
        "one/chair.glb",
        "one/sub/chair.glb",
        "one/.hidden.glb",
        "one/chair.obj",
        "two/chair.glb",
        "one/ße#x.GLB",
        "one/note.txt",
        "out/old.glb",
        "one/.git/x.glb",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    out = tmp_path / "one" / "out"
    out.mkdir()
    (out / "x.glb").write_bytes(b"x")
    found = find_assets([str(tmp_path / "one"), str(tmp_path / "two"), str(tmp_path / "one" / "chair.glb")], out)
    assert [source.key for source in found] == [
        "chair.glb",
        "chair.obj",
        "ße#x.GLB",
        "sub/chair.glb",
        "two/chair.glb",
    ]
    names = [task.name for task in make_tasks(found, out, OPTIONS)]
    assert len({name.lower() for name in names}) == 5 and names[2:] == ["e_x", "sub__chair", "two__chair"]
    assert names[0].startswith("chair-") and all(name.replace("_", "").replace("-", "").isalnum() for name in names)

    (tmp_path / "list.txt").write_text("# mine\none/chair.glb\n\n  two/chair.glb\nmissing.glb\n")
    (tmp_path / "list.json").write_text(json.dumps(["one/chair.obj"]))
    (tmp_path / "map.json").write_text(json.dumps({"0" * 32: str(tmp_path / "two" / "chair.glb")}))
    lists = [str(tmp_path / name) for name in ("list.txt", "list.json", "map.json")]
    keys = [source.key for source in find_assets(lists, out)]
    assert keys == ["one/chair.glb", "two/chair.glb", "missing.glb", "one/chair.obj"]

    for text, words in (
        ("[1]", "a list of paths"),
        ("{", "not JSON"),
        ("[]", "empty list"),
        ('["x.exe"]', "neither"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(NVSError, match=words):
            find_assets([str(tmp_path / "bad.json")], out)
    for name, words in (
        ("none", "no such file"),
        ("two/../none", "no such file"),
        ("one/note.txt", "neither"),
        ("one/.git", "no .glb"),
        ("code.py", "expected a folder"),
    ):
        (tmp_path / "code.py").touch()
        (tmp_path / "one" / ".git" / "x.glb").unlink(missing_ok=True)
        with pytest.raises(NVSError, match=words):
            find_assets([str(tmp_path / name)], out)


def fake_objaverse(cache: Path, paths: dict[str, str]) -> str:
    """A package as version 0.1.7 has it: an index and objects in a cache, the rest from the network."""
    cache.mkdir()
    with gzip.open(cache / "object-paths.json.gz", "wt") as file:
        json.dump(paths, file)
    return f"""
import gzip, json, os, urllib.error
_VERSIONED_PATH = {str(cache)!r}
def _load_object_paths():
    path = os.path.join(_VERSIONED_PATH, "object-paths.json.gz")
    if not os.path.exists(path):
        raise urllib.error.URLError("no network here")
    return json.load(gzip.open(path))
def load_objects(uids, download_processes=1):
    found = {{}}
    for uid in uids:
        path = os.path.join(_VERSIONED_PATH, _load_object_paths()[uid])
        if not os.path.exists(path):
            if uid[0] == "c":
                raise urllib.error.URLError("no network here")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            open(path, "wb").write(open(_VERSIONED_PATH + "/served.glb", "rb").read())
            print("Downloaded 1 / 1 objects")
        found[uid] = path
    return found
"""


def test_objaverse_uids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in the cache, one to download, one that cannot be downloaded now."""
    uids = ["a" * 32, "b" * 32, "c" * 32]
    code = fake_objaverse(tmp_path / "cache", {uid: f"glbs/000-000/{uid}.glb" for uid in uids})
    (tmp_path / "cache" / "glbs" / "000-000").mkdir(parents=True)
    (tmp_path / "cache" / "glbs" / "000-000" / f"{uids[0]}.glb").write_bytes(files.plain_glb())
    (tmp_path / "cache" / "served.glb").write_bytes(files.textured_glb())
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "objaverse.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    module = types.ModuleType("objaverse")
    exec(code, module.__dict__)
    monkeypatch.setitem(sys.modules, "objaverse", module)
    (tmp_path / "uids.json").write_text(json.dumps({uid: {"name": "x"} for uid in uids[1:]}))

    report = render_assets([uids[0], str(tmp_path / "uids.json")], tmp_path / "out", OPTIONS)
    assert report.rendered == 2 and list(report.failed) == [f"{uids[2]}.glb"]
    assert "cannot be downloaded" in report.failed[f"{uids[2]}.glb"]
    assert (tmp_path / "out" / uids[1] / "transforms.json").is_file()
    again = render_assets([*uids], tmp_path / "out", OPTIONS)
    assert (again.present, len(again.failed), len(again.failed_before)) == (2, 1, 0)  # tried again

    with pytest.raises(NVSError, match="not in Objaverse's index"):
        find_assets(["d" * 32], tmp_path / "out")
    (tmp_path / "cache" / "object-paths.json.gz").unlink()
    with pytest.raises(NVSError, match=r"cannot be downloaded \(.*no network here.*\); connect") as refused:
        find_assets([uids[0]], tmp_path / "out")
    assert "\n" not in str(refused.value)
