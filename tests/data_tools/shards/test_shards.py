"""Scenes -> shards -> scenes: the writer, the reader, and tars over http."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.cli import main
from data_tools.readers import open_scene
from data_tools.shards import tar_stream
from data_tools.shards.read import expand_braces, find_shards, is_shards, read_shard
from data_tools.shards.write import ShardOptions, list_scenes, write_shards
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import look_at
from nvs_app.scenes.scene import Scene


def make_scene(folder: Path, views: int = 3, hw: tuple[int, int] = (12, 16), seed: int = 0) -> Path:
    """A scene of random colours, JPEG and PNG."""
    generator = np.random.default_rng(seed)
    images = folder.with_name(f".{folder.name}")
    images.mkdir(parents=True)
    paths = []
    for view in range(views):
        paths.append(images / f"{view}.{'jpg' if view % 2 else 'png'}")
        colour = generator.integers(0, 256, 3, dtype=np.uint8)
        Image.fromarray(np.broadcast_to(colour, (*hw, 3)).copy()).save(paths[-1])
    eye = torch.randn(views, 3, generator=torch.Generator().manual_seed(seed)) + torch.tensor([0.0, 0.0, 5.0])
    c2w = look_at(eye, torch.zeros(views, 3), torch.tensor([0.0, 1.0, 0.0]).expand(views, 3))
    intrinsics = torch.tensor([20.0, 21.0, hw[1] / 2 + 1, hw[0] / 2]).expand(views, 4)
    sizes = torch.tensor(hw).expand(views, 2)
    scene = Scene(folder.name, images, paths, c2w, intrinsics, sizes, ["train", *[None] * (views - 1)])
    return scene.save(folder)


@pytest.fixture
def captures(tmp_path: Path) -> Path:
    """Five scenes in a folder, of which the third is broken."""
    folder = tmp_path / "captures"
    for number in range(5):
        make_scene(folder / f"scene.{number}", seed=number)
    file = folder / "scene.2" / "transforms.json"
    file.write_text(file.read_text()[:200])
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_written_and_read_again(captures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["shards", str(captures), str(out), "--scenes-per-shard", "2"]) == 1
    printed = capsys.readouterr()
    assert printed.out.strip().endswith("4 scenes, 12 views in 2 shards, 1 scenes left out")
    assert "scene.2: left out: " in printed.err
    index = json.loads((out / "index.json").read_text())
    assert index["complete"] and [shard["scenes"] for shard in index["shards"]] == [2, 2]
    assert [Path(entry["scene"]).name for entry in index["skipped"]] == ["scene.2"]
    assert is_shards(str(out)) and is_shards(str(out / "index.json")) and not is_shards(str(captures / "scene.0"))
    shards = find_shards(str(out))
    assert shards.scenes == 2.0
    scenes = [scene for place in shards.urls for scene in read_shard(place)]
    assert [scene.name for scene in scenes] == ["scene.0", "scene.1", "scene.3", "scene.4"]
    for scene in scenes:
        source = open_scene(captures / scene.name)
        assert torch.equal(scene.c2w, source.c2w) and torch.equal(scene.fxfycxcy, source.fxfycxcy)
        assert torch.equal(scene.load().images, source.load().images)  # the same bytes
        assert scene.split == source.split
    with tarfile.open(shards.urls[0]) as tar:  # as WebDataset wants it: grouped, one key a sample, no dots in keys
        names = tar.getnames()
    assert names[:4] == [f"00000000-scene_0.{end}" for end in ("cameras.json", "000.png", "001.jpg", "002.png")]


def test_images_and_cameras_are_resized_together(tmp_path: Path) -> None:
    source = open_scene(make_scene(tmp_path / "scene", hw=(24, 40)))
    for options, hw in ((ShardOptions(image_hw=(8, 8)), (8, 8)), (ShardOptions(max_side=20, quality=0), (12, 20))):
        out = tmp_path / str(options.max_side)
        write_shards([tmp_path / "scene"], out, options)
        [scene] = read_shard(find_shards(str(out)).urls[0])
        wanted = source.load(None, hw)
        assert torch.allclose(scene.load().cameras.fxfycxcy, wanted.cameras.fxfycxcy, atol=1e-5)
        assert (scene.load().images - wanted.images).abs().max() < (0.02 if options.quality else 0.003)
    write_shards([tmp_path / "scene"], tmp_path / "few", ShardOptions(max_views=2))
    assert len(next(read_shard(str(tmp_path / "few" / "shard-000000.tar")))) == 2
    for wrong in ({"quality": 101}, {"max_views": 1}, {"image_hw": (8, 8), "max_side": 3}, {"shard_mib": -1}):
        with pytest.raises(NVSError, match="^shards: "):
            ShardOptions(**wrong)


def test_goes_on_where_it_was_stopped(captures: Path, tmp_path: Path) -> None:
    options = ShardOptions(scenes_per_shard=1, image_hw=(8, 8))
    write_shards([captures], tmp_path / "whole", options)

    def stop(done: int, total: int, text: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    out = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        write_shards([captures], out, options, stop)
    assert sorted(contents(out)) == ["index.json", "shard-000000.tar", "shard-000001.tar"]
    seen: list[int] = []
    written = write_shards([captures], out, options, lambda done, total, text: seen.append(done))
    assert seen[0] == 2 and written.present == 2 and written.scenes == 4 and len(written.skipped) == 1
    assert contents(out) == contents(tmp_path / "whole")
    (out / "shard-000001.tar").write_bytes(b"cut")  # written again, with what follows
    assert write_shards([captures], out, options).present == 1
    assert contents(out) == contents(tmp_path / "whole")
    assert write_shards([captures], out, options).present == 4
    with pytest.raises(NVSError, match="other options"):
        write_shards([captures], out)
    with pytest.raises(NVSError, match="other scenes"):
        write_shards([captures / "scene.0"], out, options)
    shutil.copy(out / "shard-000000.tar", tmp_path)
    with pytest.raises(NVSError, match=r"holds \.tar files"):
        write_shards([captures], tmp_path, options)


def test_a_killed_process_leaves_whole_shards(captures: Path, tmp_path: Path) -> None:
    """Killed while it writes the third shard."""
    code = (
        "import os, sys; from data_tools.shards.write import *\n"
        "def stop(done, total, text):\n    if done == 4: os._exit(9)\n"
        "write_shards([sys.argv[1]], sys.argv[2], ShardOptions(scenes_per_shard=1), stop)"
    )
    out, repo = tmp_path / "out", Path(__file__).resolve().parents[3]
    assert subprocess.run([sys.executable, "-c", code, str(captures), str(out)], cwd=repo, check=False).returncode == 9
    assert (out / ".shard-000002.tar.tmp").exists()
    assert write_shards([captures], out, ShardOptions(scenes_per_shard=1)).present == 2
    write_shards([captures], tmp_path / "whole", ShardOptions(scenes_per_shard=1))
    assert contents(out) == contents(tmp_path / "whole")


def test_sources(captures: Path, tmp_path: Path) -> None:
    (captures / "notes.txt").write_text("no scene")
    (captures / "empty").mkdir()
    names = [Path(reference).name for reference in list_scenes([captures / "scene.4", captures])]
    assert names == ["scene.4", "empty", "scene.0", "scene.1", "scene.2", "scene.3"]
    for wrong in (tmp_path / "none", captures / "empty"):
        with pytest.raises(NVSError):
            list_scenes([wrong])
    with pytest.raises(NVSError, match="none of 1 scenes"):
        write_shards([captures / "scene.2"], tmp_path / "out")


def test_patterns(tmp_path: Path) -> None:
    assert expand_braces("a{08..10}-{x,y}") == ["a08-x", "a08-y", "a09-x", "a09-y", "a10-x", "a10-y"]
    for name in ("b", "a"):
        (tmp_path / f"{name}.tar").touch()
    for pattern in ("*.tar", "{a,b}.tar", ""):
        assert [Path(place).name for place in find_shards(f"shards:{tmp_path}/{pattern}").urls] == ["a.tar", "b.tar"]
    for wrong in (f"{tmp_path}/c*.tar", "x{0..99999999999}", "{00..99}{00..99}{00..99}{00..99}"):
        with pytest.raises(NVSError, match="^--data"):
            find_shards(wrong)
    for name in ("../a.tar", "/etc/a.tar", "http://elsewhere/a.tar", "a.txt"):
        text = json.dumps({"format": "nvs-shards", "shards": [{"file": name, "scenes": 1}]})
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(NVSError, match="shard 0 is malformed"):
            find_shards(str(tmp_path))


# ------------------------------------------------------------------ http


class Handler(BaseHTTPRequestHandler):
    """Serves a folder; loses the connection after `drop` bytes of the first `drops` .tar files, knows ranges or not."""

    root: Path
    drop = 0
    drops = 1_000_000
    ranges = True
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(f"{self.path} {self.headers.get('Range')}")
        path = self.root / self.path.lstrip("/").partition("?")[0]
        if not path.is_file():
            self.send_error(404)
            return
        data, start = path.read_bytes(), 0
        if self.ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        dropped = self.drop and path.suffix == ".tar" and len(self.asked) <= self.drops
        end = start + self.drop if dropped else len(data)
        self.wfile.write(data[start:end])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[Handler]]]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(tar_stream.time, "sleep", lambda seconds: None)
    handler = type("Own", (Handler,), {"root": tmp_path / "out", "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_address[1]}", handler
        running.shutdown()


def test_over_http(captures: Path, tmp_path: Path, server: tuple[str, type[Handler]]) -> None:
    address, handler = server
    write_shards([captures], tmp_path / "out", ShardOptions(scenes_per_shard=2))
    local = [s.c2w for place in find_shards(str(tmp_path / "out")).urls for s in read_shard(place)]

    def check(pattern: str) -> None:
        found = [s.c2w for place in find_shards(pattern).urls for s in read_shard(place)]
        assert len(found) == 4 and all(torch.equal(one, two) for one, two in zip(local, found))

    check(f"{address}/index.json")
    check(f"shards:{address}/shard-{{000000..000001}}.tar?key=1")
    handler.drop = 3000  # every answer breaks off; the next goes on
    check(f"{address}/index.json")
    assert "/shard-000000.tar bytes=3000-" in handler.asked
    handler.ranges, handler.drops = False, len(handler.asked) + 1
    assert len(list(read_shard(f"{address}/shard-000000.tar"))) == 2
    with pytest.raises(NVSError, match="^http://127.*/none.tar: cannot be read .*404") as caught:
        list(read_shard(f"{address}/none.tar?key=secret"))
    assert "secret" not in str(caught.value)
    handler.drop, handler.drops = 1, 1_000_000  # no end to it: refused after some attempts, in one line
    with pytest.raises(NVSError, match="connection lost|IncompleteRead"):
        list(read_shard(f"{address}/shard-000000.tar"))
