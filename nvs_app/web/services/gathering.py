"""The photos that a visitor has brought and not yet taken away again: uploads add to them, each is judged alone.

    tray = Tray()
    tray = tray.add([look(path, workdir) for path in uploads])
    tray.source(workdir)            # what can be reconstructed, or None; a file that is broken never counts
    tray.without(tray.pieces[0].key)

Photos and archives of photos come together. A scene with cameras, or a video, stands alone.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from data_tools.readers import SeveralScenes
from data_tools.readers.archives import Limits, is_archive, open_image
from data_tools.readers.isolated import isolated
from data_tools.readers.video_frames import open_video
from data_tools.structure_from_motion.photo_files import check_photo, find_images, is_image_name
from data_tools.structure_from_motion.video import is_video
from nvs_app.errors import NVSError
from nvs_app.scenes.images import BROKEN, data_uri
from nvs_app.web.services.uploads import FEWEST, SceneInput, inspect, videos_in

PHOTO, PHOTOS, VIDEO, SCENE = "photo", "photos", "video", "scene"
LONGEST = 144  # pixels of a thumbnail
MOST_CHOICES = 24  # scenes of one archive that are offered
SHOWN = 240  # thumbnails; the photos beyond are listed by name


@dataclass(frozen=True)
class Piece:
    """One file that was brought.

    Attributes:
        key: names it in the page. path: where it lies; of an archive, of the archive itself. name: as it was called.
        kind: PHOTO, PHOTOS (an archive or folder of them), VIDEO or SCENE (with cameras); "" for what is none.
        count: photos or views in it. digest: of its content.
        thumbnail: a small JPEG as data URI, or empty. problem: why it is not used, one sentence; empty where it is.
        choices: the scenes in it, where it holds several and one must be chosen. scene: the one that was.
    """

    key: str
    path: Path
    name: str
    kind: str = ""
    count: int = 1
    digest: str = ""
    thumbnail: str = ""
    problem: str = ""
    choices: tuple[str, ...] = ()
    scene: str = ""


@dataclass(frozen=True)
class Tray:
    """All that was brought, in its order. said: what became of the last upload where it did not simply add; open:
    whether it is what is looked at, and what will be reconstructed."""

    pieces: tuple[Piece, ...] = ()
    said: str = ""
    open: bool = True

    @property
    def good(self) -> list[Piece]:
        """Those that are used."""
        return [piece for piece in self.pieces if not piece.problem]

    @property
    def count(self) -> int:
        """Photos, or views, of those that are used."""
        return sum(piece.count for piece in self.good)

    @property
    def kind(self) -> str:
        """PHOTOS, VIDEO or SCENE; "" where nothing can be used."""
        kinds = {piece.kind for piece in self.good}
        return PHOTOS if kinds & {PHOTO, PHOTOS} else next(iter(kinds), "")

    def add(self, pieces: Sequence[Piece]) -> Tray:
        """With more. Photos come to the photos before; a video or a scene with cameras begins anew where no photos
        would be lost by it, and is told to stand alone where they would."""
        tray, said, known = replace(self, said="", open=True), "", 0
        for piece in pieces:
            if piece.digest and piece.digest in {other.digest for other in tray.pieces}:
                known += 1
                said = f"{piece.name} is there already." if known == 1 else f"{known} of these are there already."
                continue
            if not piece.problem and tray.kind and not {piece.kind, tray.kind} <= {PHOTO, PHOTOS}:
                if tray.kind == PHOTOS:
                    what = "a video" if piece.kind == VIDEO else "a scene with cameras of its own"
                    piece = replace(piece, problem=f"{what}: it stands alone; clear the photos first")
                else:
                    said = f"{tray.good[0].name} made room for {piece.name}: a {tray.kind} stands alone."
                    tray = Tray()
            tray = replace(tray, pieces=(*tray.pieces, piece))
        return replace(tray, said=said)

    def without(self, key: str) -> Tray:
        """With one piece less."""
        return Tray(tuple(piece for piece in self.pieces if piece.key != key))

    def replaced(self, piece: Piece) -> Tray:
        """With a piece in the place of the one that has its key."""
        return replace(self, pieces=tuple(piece if piece.key == own.key else own for own in self.pieces), said="")

    def source(self, workdir: Path, limits: Limits | None = None) -> SceneInput | None:
        """What can be reconstructed of the pieces that are used; None where they are too few, or the tray is closed.

        Raises NVSError as `uploads.inspect` does."""
        good = self.good
        if not self.open or not good or (self.kind == PHOTOS and self.count < FEWEST):
            return None
        paths, chosen = [piece.path for piece in good], good[0].scene or None
        source = isolated(inspect, paths, workdir, limits, None, FEWEST, chosen, what=good[0].name)
        if self.kind == SCENE or (self.kind == VIDEO and len(good) == 1):
            return source
        label = Path(good[0].name).stem if len(good) == 1 else f"{source.available} photos"
        return replace(source, label=label)


def look(
    path: Path, workdir: Path, name: str = "", limits: Limits | None = None, pixels: int = 10**8, scene: str = ""
) -> Piece:
    """Judges one upload; what is wrong with it is its `problem`, and no error.

    Args:
        path: of the file. workdir: archives are unpacked into it. name: what people call it; the file's unless given.
        limits: of an archive. pixels: of one image, at most. scene: which one, of several.
    """
    name = name or path.name
    piece = Piece(secrets.token_hex(6), path, name, scene=scene)
    try:
        if path.stat().st_size == 0:
            raise NVSError("the file is empty")
        piece = replace(piece, digest=_digest(path))
        if is_image_name(path) and not is_archive(path):
            height, width = check_photo(path)
            if height * width > pixels:
                raise NVSError(f"{width}×{height} pixels, {pixels // 1_000_000} megapixels at most")
            return replace(piece, kind=PHOTO, thumbnail=thumbnail(path))
        source = inspect([path], workdir, limits, fewest=1, key=scene or None)
        kind = SCENE if source.scene is not None else VIDEO if source.frames_in_video is not None else PHOTOS
        return replace(piece, kind=kind, count=source.available, thumbnail=_first(source))
    except SeveralScenes as error:
        more = f"; the first {MOST_CHOICES} are" if len(error.choices) > MOST_CHOICES else ""
        problem = f"holds {len(error.choices)} scenes: choose one{more} [{error.code}]"
        return replace(piece, problem=problem, choices=error.choices[:MOST_CHOICES])
    except NVSError as error:
        return replace(piece, problem=_plain(error.told, path, workdir))
    except OSError as error:
        return replace(piece, problem=error.strerror or "it cannot be read")


def failed(path: Path, problem: str) -> Piece:
    """An upload that nothing can be said of but that reading it came to an end."""
    return Piece(secrets.token_hex(6), path, path.name, problem=_plain(problem, path, path.parent))


def thumbnail(path: Path) -> str:
    """A small JPEG of a photo as data URI. Raises NVSError for one that cannot be decoded."""
    try:
        with open_image(path) as image:
            image.draft("RGB", (2 * LONGEST, 2 * LONGEST))
            image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX, reducing_gap=2.0)
            return _uri(image.convert("RGB"))
    except BROKEN as error:
        raise NVSError("the image is damaged and cannot be read to its end") from error


def _first(source: SceneInput) -> str:
    """A thumbnail of the first image; empty where there is none that can be read. Of a video, its first frame:
    raises NVSError where that cannot be decoded."""
    if source.frames_in_video is not None:
        return _uri(Image.fromarray(_first_frame(videos_in(source.paths)[0])))
    try:
        if source.scene is not None:
            return "" if source.scene.encoded else thumbnail(source.scene.image_paths[0])
        found = find_images([path for path in source.paths if not is_video(path)])
        return thumbnail(found[0]) if found else ""
    except (NVSError, *BROKEN, IndexError):
        return ""


def _first_frame(path: Path) -> np.ndarray:
    with open_video(path) as video:
        return next(iter(video)).rgb()


def _uri(image: Image.Image) -> str:
    image.thumbnail((LONGEST, LONGEST), Image.Resampling.BOX)
    return data_uri(image, quality=60)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(words: str, path: Path, workdir: Path) -> str:
    """An error's sentence without folders of this machine and without the name, which stands beside it."""
    words = " ".join(words.replace(f"{path.parent}/", "").replace(f"{workdir}/", "").split())
    for name in (path.name, path.name.split(".")[0]):
        words = words.removeprefix(f"{name}: ")
    return words
