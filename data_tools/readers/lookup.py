"""Image files found by the names that a camera file gives them, which are often those of another machine.

    files = ImageFiles(root, base)      # nothing is read yet
    files.expect(names)                 # all that will be asked for: no file is given to two names
    files.find("C:\\data\\chair\\images\\001.JPG")      # root/images/001.jpg, or why there is none

A name is looked for as it is, from ``base``; then, in an index of the image files below ``root``, in other letter case
or Unicode form, with another suffix, in a copy made smaller (``images_2/``), by the longest end of its path, and as
written in another encoding. Only a unique match is taken, and each way is told in a note. Nothing outside of ``root``
is looked at, and no link that leads there is followed. Names hold bytes that are no UTF-8 as lone surrogates, as
Python's own file names do.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from nvs_app.errors import Refusal

# Of scenes whose camera file leaves the suffix out.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".PNG", ".JPG", ".JPEG")
IMAGES = re.compile(r"\.(png|jpe?g|webp|hei[cf]|tiff?|bmp|avif|gif|jp2|ppm|pgm|tga)$", re.IGNORECASE)
# Folders whose images are no photos; a camera file that names one of them exactly gets it all the same.
NO_PHOTOS = re.compile(
    r"(depths?|depth[_-]?maps?|conf(idence)?|masks?|.*_masks|normals?|semantics?|segmentation|thumbnails?)",
    re.IGNORECASE,
)
SMALLER = (2, 4, 8)
SPLITS = ("train", "val", "test", "valid", "validation", "eval")
MOST_FILES = 200_000  # of an index
ENCODINGS = ("utf-8", "cp1252", "gbk", "cp932", "cp949", "big5", "cp1251", "cp437")
# What each way of finding is called in a note.
WAYS = {
    "form": "in other letter case or Unicode form",
    "suffix": "with another suffix",
    "smaller": "",
    "end": "by the end of the path",
    "encoding": "as written in another encoding",
}

Missing = tuple[str, str]
"""Why there is no image: a few words, and a code."""


class ImageFiles:
    """The image files of one scene, see the module."""

    def __init__(self, root: Path, base: Path):
        """root: what is found lies inside. base: where names start; inside ``root``."""
        self.root, self.base = Path(os.path.realpath(root)), Path(os.path.realpath(base))
        self._found: dict[str, Path | Missing] = {}
        self._ways: dict[str, list[tuple[str, str]]] = defaultdict(list)

    def find(self, name: str) -> Path | Missing:
        """The file, its links resolved, or why there is none."""
        if name not in self._found:
            self.expect([name])
        return self._found[name]

    def expect(self, names: Iterable[str]) -> None:
        """Looks for all of these names together, so that one file is not taken for two of them."""
        new = [name for name in dict.fromkeys(names) if name not in self._found]
        self._found.update({name: found for name in new if (found := self._exact(name)) is not None})
        ways: dict[str, Callable[[str], set[str]]] = {
            "form": self._by_form,
            "suffix": self._by_suffix,
            "smaller": self._smaller,
            "end": self._by_end,
            "encoding": self._by_encoding,
        }
        for way, look in ways.items():
            taken = {path for path in self._found.values() if isinstance(path, Path)}
            fits = {name: [f for f in sorted(look(name)) if self.index[f] not in taken] for name in self._open(new)}
            if way == "end":
                fits = self._by_folders(fits)
            wanted = Counter(files[0] for files in fits.values() if len(files) == 1)
            for name, files in fits.items():
                if len(files) == 1 and wanted[files[0]] == 1:
                    self._found[name] = self.index[files[0]]
                    self._ways[way].append((name, files[0]))
                elif files:
                    several = f"{files[0]} and {files[1]} fit" if len(files) > 1 else f"{files[0]} fits others as well"
                    self._found[name] = (f"the image file does not exist, and {several}", Refusal.NO_IMAGE)
        for name in self._open(new):
            outside = self._relative(name) is None
            why = (
                "leads out of the scene's folder; copy the image into it"
                if outside
                else "the image file does not exist"
            )
            self._found[name] = (f"file_path {why}" if outside else why, Refusal.NO_IMAGE)

    def notes(self) -> Iterator[str]:
        """A line for each way in which files were found whose names are not exactly those asked for."""
        for way, found in self._ways.items():
            folder = found[0][1].rpartition("/")[0]
            if way == "smaller":
                yield f"images missing in images/ read from {folder.split('/')[-1]}/, intrinsics scaled to them"
            else:
                shown = f"{one_line(found[0][0], 80)} is {one_line(found[0][1], 80)}"
                plural = "s" * (len(found) > 1)
                yield f"{len(found)} image{plural} found {WAYS[way]} ({shown}{', ...' * (len(found) > 1)})"

    def folders_of(self, name: str) -> set[str]:
        """The folders below the root, smaller copies aside, in which a file of this very name or path lies."""
        if not self._relative(name) or self._relative(name) == ".":
            return set()
        last = name.replace("\\", "/")
        found = {
            path[: -len(last)].rstrip("/")
            for path in self._last.get(ends(name)[-1], set())
            if f"/{path}".endswith(f"/{last}")
        }
        return {folder for folder in found if not re.fullmatch(r"(.*/)?images_[248]", folder)}

    @cached_property
    def index(self) -> dict[str, Path]:
        """Image files below the root: path from there with forward slashes -> the file, its links resolved."""
        found: dict[str, Path] = {}
        left, folders = MOST_FILES, [(self.root, "")]
        while folders and left > 0:
            folder, front = folders.pop()
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:
                continue
            left -= len(entries)
            names = {entry.name for entry in entries}
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    copy = any(entry.name == f"images_{factor}" for factor in SMALLER) and "images" in names
                    if not NO_PHOTOS.fullmatch(entry.name) and not copy:
                        folders.append((Path(entry.path), f"{front}{entry.name}/"))
                elif is_file(entry) and (IMAGES.search(entry.name) or "." not in entry.name):
                    real = Path(os.path.realpath(entry.path))
                    if real.is_relative_to(self.root):
                        found[front + entry.name] = real
        return found

    def _open(self, names: list[str]) -> list[str]:
        return [name for name in names if name not in self._found]

    def _exact(self, name: str) -> Path | Missing | None:
        """The file of this very name, or with a suffix where it has none; None where there is nothing."""
        if "\0" in name:
            return "the image's name holds a zero byte", Refusal.BROKEN_FILE
        for spelled in dict.fromkeys((name, name.replace("\\", "/"))):
            for suffix in ("", *SUFFIXES):
                at = self._relative(spelled + suffix)
                if at is None:
                    break
                path = Path(os.path.realpath(self.root / at))
                try:
                    if not path.is_relative_to(self.root):  # by a link: no file of this machine is shown
                        return "file_path leads out of the scene's folder; copy the image into it", Refusal.LEADS_OUT
                    if path.is_file():
                        return path
                    if path.exists() and not path.is_dir():  # a pipe, whose reading would never end
                        return f"{path.name} is no file", Refusal.BROKEN_FILE
                except OSError:  # a name too long for the file system
                    return None
        return None

    def _relative(self, name: str) -> str | None:
        """The path from the root; None where it leads out of it."""
        whole = os.path.normpath(self.base / name.replace("\\", "/"))
        return os.path.relpath(whole, self.root) if Path(whole).is_relative_to(self.root) else None

    # The ways; each gives the paths in the index that fit a name.

    def _by_form(self, name: str) -> set[str]:
        at = self._relative(name)
        return set() if at is None else self._forms.get(folded(at), set())

    def _by_suffix(self, name: str) -> set[str]:
        at = self._relative(name)
        return set() if at is None else self._stems.get(stem(folded(at)), set())

    def _smaller(self, name: str) -> set[str]:
        at = self._relative(name)
        parts = [] if at is None else at.split("/")
        if "images" not in parts[:-1]:
            return set()
        front, back = parts[: parts.index("images")], parts[parts.index("images") + 1 :]
        for factor in SMALLER:
            wanted = folded("/".join([*front, f"images_{factor}", *back]))
            if found := self._forms.get(wanted) or self._stems.get(stem(wanted)):
                return found
        return set()

    def _by_end(self, name: str) -> set[str]:
        parts = ends(name)
        if not parts:
            return set()
        return longest(parts, self._last.get(parts[-1], set())) or longest(
            [*parts[:-1], stem(parts[-1])], self._last_stem.get(stem(parts[-1]), set()), stem
        )

    def _by_folders(self, fits: dict[str, list[str]]) -> dict[str, list[str]]:
        """Of the files that fit by the end of the path those in the one folder that holds most names of a listed
        folder. None where that folder is itself there: what it lacks is absent, and not some file elsewhere."""
        elsewhere = {name for name, _ in self._ways.get("end", [])}
        there = {parent(n) for n, found in self._found.items() if isinstance(found, Path) and n not in elsewhere}
        votes: dict[str, Counter[str]] = defaultdict(Counter)
        for name, files in fits.items():
            votes[parent(name)].update({parent(file) for file in files})
        kept: dict[str, list[str]] = {}
        for name, files in fits.items():
            held = votes[parent(name)]
            most = max(held.values(), default=0)
            files = [f for f in files if held[parent(f)] == most and not {splits(name), splits(f)} - {"", splits(name)}]
            kept[name] = [] if parent(name) in there else files
        return kept

    def _by_encoding(self, name: str) -> set[str]:
        if name.isascii():
            return set()
        last = os.path.basename(name.replace("\\", "/"))
        own, at = readings(last), self._relative(name)
        found = {path for path, others in self._readings.items() if own & others}
        beside = {path for path in found if at is not None and parent(path) == parent(at)}
        return beside or found

    @cached_property
    def _forms(self) -> dict[str, set[str]]:
        return grouped(self.index, folded)

    @cached_property
    def _stems(self) -> dict[str, set[str]]:
        return grouped(self.index, lambda path: stem(folded(path)))

    @cached_property
    def _last(self) -> dict[str, set[str]]:
        return grouped(self.index, lambda path: folded(path).rpartition("/")[2])

    @cached_property
    def _last_stem(self) -> dict[str, set[str]]:
        return grouped(self.index, lambda path: stem(folded(path).rpartition("/")[2]))

    @cached_property
    def _readings(self) -> dict[str, set[str]]:
        return {path: readings(os.path.basename(path)) for path in self.index if not path.isascii()}


def is_file(entry: os.DirEntry[str]) -> bool:
    """A regular file, or a link to one; a link that runs in a circle is none."""
    try:
        return entry.is_file()
    except OSError:
        return False


def folded(path: str) -> str:
    """A path as it compares: one Unicode form, one letter case, forward slashes."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path.replace("\\", "/")).casefold())


def parent(path: str) -> str:
    """The folder of a path, as :func:`ends` gives it; empty where it has none."""
    return "/".join(ends(path)[:-1])


def splits(path: str) -> str:
    """The split that the folders of a path name, as ``train``; empty where they name none."""
    return "/".join(part for part in ends(path)[:-1] if part in SPLITS)


def stem(path: str) -> str:
    """Without the suffix of an image."""
    return IMAGES.sub("", path)


def ends(name: str) -> list[str]:
    """The folded parts of a path of any system, without drive, ``.`` and ``..``."""
    parts = folded(name).split("/")
    return [part for part in parts if part not in ("", ".", "..") and not re.fullmatch("[a-z]:", part)]


def longest(parts: list[str], paths: set[str], last: Callable[[str], str] = str) -> set[str]:
    """The paths that agree with most of the last parts; ``last`` is applied to their file's name."""
    agree: dict[str, int] = {}
    for path in paths:
        own = folded(path).split("/")
        own[-1] = last(own[-1])
        same = 0
        while same < min(len(own), len(parts)) and own[-1 - same] == parts[-1 - same]:
            same += 1
        agree[path] = same
    most = max(agree.values(), default=0)
    return {path for path, same in agree.items() if same == most > 0}


def readings(name: str) -> set[str]:
    """What a file's name may have been: its bytes, or those it was made of by a wrong decoding, in other encodings."""
    found = {stem(folded(name))}
    raw: set[bytes] = {name.encode("utf-8", "surrogateescape")}
    for wrong in ("cp437", "cp1252", "latin-1"):
        try:
            raw.add(name.encode(wrong))
        except UnicodeEncodeError:
            continue
    for data in raw:
        for encoding in ENCODINGS:
            try:
                found.add(stem(folded(data.decode(encoding))))
            except UnicodeDecodeError:
                continue
    return found


def natural(text: str) -> list[Any]:
    """A sort key that puts ``frame_2`` before ``frame_10``: texts and numbers by turns."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", text))]


def grouped(paths: Iterable[str], key: Callable[[str], str]) -> dict[str, set[str]]:
    """The paths of each key."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        found[key(path)].add(path)
    return found


def one_line(text: str, longest: int = 300) -> str:
    """``text`` from a stranger's file as part of a message: one line, printable, not too long."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= longest else f"{text[: longest // 2]}...{text[-longest // 2 :]}"
