"""Strangers' files: each is refused with one line, and nothing outside of the asset's folder is read."""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asset_files as files
import numpy as np
import pytest
from PIL import Image

from data_tools.assets.render_task import RenderTask, render_asset

MakeTask = Callable[..., RenderTask]


@pytest.fixture
def refusal(renderer: Any, task: MakeTask, tmp_path: Path) -> Callable[..., str]:
    """The one line with which a file is refused; nothing is left behind."""

    def refuse(data: bytes, name: str = "bad.glb") -> str:
        path = tmp_path / name
        path.write_bytes(data)
        answer = render_asset(task(path, views=1), renderer)
        assert answer["status"] == "refused", answer
        assert answer["error"] and "\n" not in answer["error"] and len(answer["error"]) < 250
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
        return answer["error"]

    return refuse


KINDS = [
    "an empty file",
    "cut short",
    "neither a GLB nor JSON",
    "nested too deeply",
    "NaN or infinite",
    "no triangles",
    "leads out",
    "meshopt",
    "entries, at most",
    "expected a tree",
]


@pytest.mark.parametrize("kind", range(10))
def test_each_kind_of_corruption(refusal: Callable[..., str], kind: int) -> None:
    error = refusal(files.corrupt(files.textured_glb(), kind))
    assert KINDS[kind] in error or (kind == 3 and "JSON" in error)


def test_cut_at_every_place(refusal: Callable[..., str]) -> None:
    data = files.plain_glb()
    for length in range(0, len(data) - 1, 97):
        refusal(data[:length])


def test_random_bytes_in_the_json(renderer: Any, task: MakeTask, tmp_path: Path) -> None:
    """Whatever stands in the place of each value: an answer, never an exception."""
    data = files.textured_glb()
    size = struct.unpack_from("<I", data, 12)[0]
    original, binary = json.loads(data[20 : 20 + size]), data[28 + size :]
    random = np.random.default_rng(0)
    values = [None, -1, 10**12, 1e999, "x", [], {}, [None], {"a": 1}, True, 0.5, float("nan")]

    def spoil(thing: Any) -> None:
        while True:
            keys = list(thing) if isinstance(thing, dict) else list(range(len(thing)))
            key = keys[random.integers(len(keys))]
            inner = thing[key]
            if isinstance(inner, (dict, list)) and inner and random.random() < 0.85:
                thing = inner
                continue
            thing[key] = values[random.integers(len(values))]
            return

    refused = 0
    for number in range(150):
        content = json.loads(json.dumps(original))
        spoil(content)
        (tmp_path / f"{number}.glb").write_bytes(files.pack(content, binary))
        answer = render_asset(task(tmp_path / f"{number}.glb", views=1), renderer)
        assert answer["status"] in ("rendered", "refused")
        refused += answer["status"] == "refused"
    assert 50 < refused < 150


@pytest.mark.parametrize(
    "uri",
    [
        "../secret.png",
        "/etc/passwd",
        "file:///etc/passwd",
        "http://127.0.0.1/x.png",
        "a/../../secret.png",
        "%2e%2e/secret.png",
        "..\\secret.png",
        "link.png",
        "folder",
        "none.png",
        "pipe.png",
        "C:/x.png",
        "a\u0000b",
        "~/x.png",
    ],
)
def test_no_way_out_of_the_folder(refusal: Callable[..., str], tmp_path: Path, uri: str) -> None:
    (tmp_path / "asset" / "folder").mkdir(parents=True)
    (tmp_path / "asset" / "a").mkdir()
    (tmp_path / "secret.png").write_bytes(files.png(files.letter_f()))
    (tmp_path / "asset" / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(tmp_path / "asset" / "pipe.png")
    builder = files.Builder()
    builder.content["images"] = [{"uri": uri}]
    texture = builder.texture({"source": 0})
    files.add_box(builder, builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}}))
    error = refusal(builder.glb(), "asset/bad.glb")
    assert any(words in error for words in ("only files beside", "leads out", "no such file"))
    lines = ["mtllib m.mtl", "v 0 0 0", "v 1 0 0", "v 0 1 0", "vt 0 0", "usemtl m", "f 1/1 2/1 3/1"]
    (tmp_path / "asset" / "m.mtl").write_text(f"newmtl m\nmap_Kd {uri}\n")
    if uri.isprintable():
        assert refusal("\n".join(lines).encode(), "asset/bad.obj")
        lines[0] = f"mtllib {uri}"
        assert refusal("\n".join(lines).encode(), "asset/bad.obj")


def test_links_in_the_root_are_allowed(renderer: Any, task: MakeTask, tmp_path: Path) -> None:
    """The user named the folder above: ../textures inside of it is his."""
    path = files.external_gltf(tmp_path / "set" / "one")
    (tmp_path / "set" / "one" / "textures").rename(tmp_path / "set" / "textures")
    path.write_bytes(path.read_bytes().replace(b"textures/a%20", b"../textures/a%20"))
    job = task(path, views=1)
    assert render_asset(job, renderer)["status"] == "refused"
    inside = RenderTask(**{**vars(job), "root": str(tmp_path / "set")})
    assert render_asset(inside, renderer)["status"] == "rendered"


def header_png(width: int, height: int) -> bytes:
    """A PNG whose header claims a size."""
    import zlib

    chunk = struct.pack(">4sIIBBBBB", b"IHDR", width, height, 8, 2, 0, 0, 0)
    head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    body = struct.pack(">4s", b"IDAT") + zlib.compress(b"\0" * 100)
    return head + struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (header_png(60_000, 60_000), "pixels"),
        (header_png(500, 500), "cannot be decoded"),
        (b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(100), "KTX2"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a PNG"),
        (files.png(files.letter_f(), "JPEG")[:300], "cannot be decoded"),
        (b"", "not a PNG"),
    ],
)
def test_images(refusal: Callable[..., str], data: bytes, words: str) -> None:
    builder = files.Builder()
    texture = builder.image(data)
    files.add_box(builder, builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}}))
    assert words in refusal(builder.glb())


def test_a_large_image_is_shrunk(renderer: Any, task: MakeTask, tmp_path: Path) -> None:
    from data_tools.assets.render_task import load_asset

    buffer = io.BytesIO()
    Image.new("L", (3000, 500), 200).save(buffer, "PNG")
    builder = files.Builder()
    texture = builder.image(buffer.getvalue())
    files.add_box(builder, builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}}))
    (tmp_path / "a.glb").write_bytes(builder.glb())
    _, asset = load_asset(task(tmp_path / "a.glb"), tmp_path / "a.glb")
    assert asset.images[0].shape == (171, 1024, 4)


@pytest.mark.parametrize("name", ["KHR_texture_basisu", "EXT_meshopt_compression", "X_something"])
def test_extensions_that_are_needed_and_unknown(refusal: Callable[..., str], name: str) -> None:
    builder = files.Builder()
    files.add_box(builder, None)
    builder.content["extensionsRequired"] = [name]
    assert name in refusal(builder.glb())


def test_meshopt_and_basisu_that_are_not_called_required(refusal: Callable[..., str]) -> None:
    builder = files.Builder()
    files.add_box(builder, None)
    builder.content["bufferViews"][0]["extensions"] = {"EXT_meshopt_compression": {"buffer": 0}}
    assert "meshopt" in refusal(builder.glb())
    builder = files.Builder()
    texture = builder.texture({"extensions": {"KHR_texture_basisu": {"source": 0}}})
    files.add_box(builder, builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}}))
    assert "KHR_texture_basisu" in refusal(builder.glb())


def test_damaged_draco(refusal: Callable[..., str]) -> None:
    data = bytearray(files.draco_glb())
    at = data.index(b"DRACO")
    data[at : at + 5] = b"OCARD"
    assert "Draco data cannot be decoded" in refusal(bytes(data))


def test_too_large_by_its_own_words(refusal: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand nodes that show the same mesh count a thousand times."""
    import data_tools.assets.gltf as gltf

    monkeypatch.setattr(gltf, "MAX_TRIANGLES", 5000)
    builder = files.Builder()
    files.add_box(builder, None)
    builder.content["nodes"] = [{"mesh": 0}] * 1000
    builder.content["scenes"] = [{"nodes": list(range(1000))}]
    assert "too large" in refusal(builder.glb())


def test_geometry(refusal: Callable[..., str]) -> None:
    positions, faces, _, _ = files.box()
    builder = files.Builder()
    builder.primitive(positions, faces + 20)
    assert "vertex" in refusal(builder.glb())
    builder = files.Builder()
    builder.primitive(positions * 0, faces)
    assert "longest side" in refusal(builder.glb())
    builder = files.Builder()
    builder.primitive(positions, faces)["mode"] = 1
    assert "no triangles" in refusal(builder.glb())
    builder = files.Builder()
    builder.primitive(positions, faces)
    builder.content["nodes"][0]["scale"] = [1e30, 1, 1]
    assert refusal(builder.glb())
    clear = files.Builder()
    clear.primitive(
        positions,
        faces,
        clear.material(alphaMode="BLEND", pbrMetallicRoughness={"baseColorFactor": [1, 1, 1, 0]}),
    )
    assert "nothing to see" in refusal(clear.glb())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "no triangles"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", ""),
        ("v a b c\nf 1 2 3\n", ""),
        ("f 1 2 3\n", ""),
        ("v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "NaN"),
        ("mtllib none.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "no such file"),
        ("\0\x01\x02" * 99, ""),
    ],
)
def test_obj(refusal: Callable[..., str], text: str, words: str) -> None:
    assert words in refusal(text.encode(), "bad.obj")


def test_files_that_are_none(renderer: Any, task: MakeTask, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.glb")
    (tmp_path / "folder.glb").mkdir()
    for name in ("pipe.glb", "folder.glb", "gone.glb"):
        answer = render_asset(task(tmp_path / name), renderer)
        assert answer["status"] == "refused" and answer["error"]
