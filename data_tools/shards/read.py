"""Training shards: tars in the WebDataset layout, one sample a scene, read as a stream of scenes.

    shards = find_shards("https://host/set/shard-{000000..000127}.tar")     # or a glob, a folder, an index.json
    for scene in read_shard(shards.urls[0]): scene.load([0, 5], (128, 128))

A sample is `KEY.cameras.json` and the images that it lists, `KEY.000.jpg`, `KEY.001.jpg`, ...:

    {"name": "chair", "files": ["000.jpg", ...], "names": ["images/left.png", ...], "split": ["train", null, ...],
     "image_hw": [[h, w], ...], "fxfycxcy": [[fx, fy, cx, cy], ...], "c2w": [[4 rows of 4], ...]}

c2w has OpenCV axes, intrinsics are pixels of the stored image with the first pixel's centre at (0.5, 0.5).
`python -m data_tools shards` writes such tars and an index.json that lists them.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import torch

from data_tools.shards.tar_stream import is_http, members, read_all, shown
from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import LARGEST
from nvs_app.scenes.images import image_size
from nvs_app.scenes.scene import SPLITS, Scene

FORMAT = "nvs-shards"
INDEX = "index.json"
CAMERAS = "cameras.json"
IMAGES = ("jpg", "jpeg", "png", "webp")
MAX_SHARDS = 1_000_000
MAX_INDEX_BYTES = 1 << 30
MAX_CAMERAS_BYTES = 16 << 20
MAX_SCENE_BYTES = 4 << 30


@dataclass(frozen=True)
class ShardSet:
    """Shards in their order.

    Attributes:
        urls: paths or http(s) addresses.
        scenes: how many scenes a shard holds on average, None where no index tells.
    """

    urls: tuple[str, ...]
    scenes: float | None = None


def is_shards(url: str) -> bool:
    """Whether --data.sources names shards rather than a scene: `shards:...`, a .tar, or an index.json of shards."""
    if url.startswith("shards:") or is_http(url) or url.endswith(".tar"):
        return True
    path = Path(url)
    index = path / INDEX if path.is_dir() else path
    if index.name != INDEX or not index.is_file():
        return False
    with index.open("rb") as file:  # other formats have an index.json too; the writer puts "format" first
        return f'"{FORMAT}"'.encode() in file.read(200)


def find_shards(pattern: str) -> ShardSet:
    """The shards that a pattern names.

    Args:
        pattern: after an optional "shards:", a path or http(s) address of a .tar or an index.json, with braces
            ({000..127} or {a,b}) and, for paths, * and ?; or a folder with an index.json or .tar files.

    Raises:
        NVSError: nothing there, too many, or a malformed index.
    """
    pattern = pattern.removeprefix("shards:")
    urls: list[str] = []
    counts: list[float] = []
    for each in expand_braces(pattern):
        path = Path(each)
        if not is_http(each) and path.is_dir():
            found = [str(path / INDEX)] if (path / INDEX).is_file() else [str(p) for p in sorted(path.glob("*.tar"))]
        elif is_http(each) or path.is_file():
            found = [each]
        else:
            found = sorted(glob.glob(each, recursive=True))
        for url in found:
            if url.partition("?")[0].endswith(".json"):
                listed, scenes = _read_index(url)
                urls += listed
                counts += scenes
            else:
                urls.append(url)
    if not urls:
        raise NVSError(f"--data.sources {shown(pattern)}: no shards there, expected .tar files or their {INDEX}")
    return ShardSet(tuple(urls), sum(counts) / len(counts) if len(counts) == len(urls) else None)


def expand_braces(pattern: str) -> list[str]:
    """`a-{00..02}.tar` -> a-00.tar, a-01.tar, a-02.tar; `{x,y}` too. Raises NVSError beyond a million."""
    match = re.search(r"\{(?:(\d{1,12})\.\.(\d{1,12})|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    first, last, listed = match.groups()
    if listed is None and int(last) - int(first) >= MAX_SHARDS:
        raise NVSError(f"--data.sources {shown(pattern)}: names more than {MAX_SHARDS} shards")
    choices = (
        listed.split(",")
        if listed is not None
        else [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    )
    rest = expand_braces(pattern[match.end() :])
    if len(choices) * len(rest) > MAX_SHARDS:
        raise NVSError(f"--data.sources {shown(pattern)}: names more than {MAX_SHARDS} shards")
    return [pattern[: match.start()] + choice + tail for choice in choices for tail in rest]


def load_object(url: str, data: bytes) -> dict[str, Any]:
    """A JSON object from a stranger's file. Raises NVSError."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise NVSError(f"{shown(url)}: not valid JSON ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise NVSError(f"{shown(url)}: expected a JSON object")
    return content


def _read_index(url: str) -> tuple[list[str], list[float]]:
    """The addresses of the shards of an index, and their numbers of scenes."""
    content = load_object(url, read_all(url, MAX_INDEX_BYTES))
    shards = content.get("shards")
    if content.get("format") != FORMAT or not isinstance(shards, list):
        raise NVSError(f'{shown(url)}: not an index of shards, expected "format": "{FORMAT}" and a list "shards"')
    urls, counts = [], []
    for number, shard in enumerate(shards):
        name, scenes = (shard.get("file"), shard.get("scenes")) if isinstance(shard, dict) else (None, None)
        # A plain name: an index from elsewhere must not make this machine read other files or hosts.
        if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*\.tar", name) or not isinstance(scenes, int):
            raise NVSError(f"{shown(url)}: shard {number} is malformed, expected a file NAME.tar and its scenes")
        urls.append(urljoin(url, name) if is_http(url) else str(Path(url).parent / name))
        counts.append(float(scenes))
    return urls, counts


def _key(name: str) -> tuple[str, str]:
    """KEY and extension as WebDataset cuts them: at the first dot of the last part."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension


def _wanted(name: str) -> bool:
    extension = _key(name)[1].lower()
    return extension == CAMERAS or extension.rpartition(".")[2] in IMAGES


def read_shard(url: str, on_fault: Callable[[str], None] | None = None) -> Iterator[Scene]:
    """The scenes of a shard, in order, with their images as encoded bytes.

    Args:
        url: path or http(s) address of a tar.
        on_fault: told in one line of a malformed sample, which is then left out; without it that is an error.

    Raises:
        NVSError: the tar cannot be read or is malformed as a whole (see ``tar_stream.members``), or a sample is.
    """
    key, total = "", 0
    files: dict[str, bytes] = {}
    # Members of other kinds (labels, captions) do not end a sample; a member without a key cannot start one.
    for name, data in members(url, _wanted):
        own, extension = _key(name)
        if own != key:
            yield from _scene(url, key, files, on_fault)
            key, files, total = own, {}, 0
        if data is None:
            continue
        total += len(data)
        if extension in files or total > MAX_SCENE_BYTES:
            what = "twice" if extension in files else f"after more than {MAX_SCENE_BYTES >> 30} GiB of one scene"
            raise NVSError(f"{shown(url)}: {shown(name)} is there {what}")
        files[extension] = data
    yield from _scene(url, key, files, on_fault)


def _scene(url: str, key: str, files: dict[str, bytes], on_fault: Callable[[str], None] | None) -> Iterator[Scene]:
    if not files:
        return
    label = f"{shown(url)}: {shown(key)}"
    try:
        yield decode_sample(label, key, files)
    except NVSError as error:
        if on_fault is None:
            raise
        on_fault(str(error))


def decode_sample(label: str, key: str, files: dict[str, bytes]) -> Scene:
    """A scene from a sample's members by extension. Raises NVSError for anything malformed."""
    data = files.get(CAMERAS)
    if data is None or len(data) > MAX_CAMERAS_BYTES:
        raise NVSError(f"{label}: no {CAMERAS} (of at most {MAX_CAMERAS_BYTES >> 20} MiB) beside its images")
    content = load_object(f"{label}.{CAMERAS}", data)
    listed = content.get("files")
    if not isinstance(listed, list) or not listed or not all(isinstance(name, str) for name in listed):
        raise NVSError(f"{label}: files is no list of names")
    n = len(listed)
    c2w = _numbers(label, content, "c2w", (n, 4, 4))
    fxfycxcy = _numbers(label, content, "fxfycxcy", (n, 4))
    image_hws = _numbers(label, content, "image_hw", (n, 2))
    rotation = c2w[:, :3, :3]
    skew = np.abs(rotation @ rotation.transpose(0, 2, 1) - np.eye(3)).max()
    if skew > 1e-3 or (np.linalg.det(rotation) < 0).any() or np.abs(c2w[:, 3] - [0, 0, 0, 1]).max() > 1e-6:
        raise NVSError(f"{label}: c2w holds a matrix that is no rigid motion")
    if (fxfycxcy[:, :2] <= 1e-9).any():
        raise NVSError(f"{label}: fxfycxcy holds a focal length that is not positive")
    encoded = []
    for index, name in enumerate(listed):
        if name not in files or name == CAMERAS:
            raise NVSError(f"{label}: the image {shown(name)} is missing")
        height, width = image_size(Path(name), f"{label}.{shown(name)}", files[name])
        if (height, width) != tuple(image_hws[index]):
            raise NVSError(f"{label}.{shown(name)}: {width}x{height}, but its camera is of another size")
        encoded.append(files[name])
    split = content.get("split")
    split = split if isinstance(split, list) and len(split) == n else [None] * n
    name = content.get("name")
    return Scene(
        name=shown(name if isinstance(name, str) and name else key),
        root=Path(),
        image_paths=[Path(name) for name in listed],
        c2w=torch.from_numpy(c2w),
        fxfycxcy=torch.from_numpy(fxfycxcy.astype(np.float32)),
        image_hws=torch.from_numpy(image_hws.astype(np.int64)),
        split=[value if value in SPLITS else None for value in split],
        encoded=tuple(encoded),
    )


def _numbers(label: str, content: dict[str, Any], name: str, shape: tuple[int, ...]) -> np.ndarray:
    try:
        values = np.asarray(content.get(name))
    except ValueError:
        values = np.empty(0)  # rows of unequal length
    if values.dtype.kind not in "iuf" or values.shape != shape:
        raise NVSError(f"{label}: {name} is not of shape {list(shape)}, numbers alone")
    values = values.astype(np.float64)
    if not (np.abs(values) < LARGEST).all():  # NaN too
        raise NVSError(f"{label}: {name} holds a number that is not finite")
    return values
