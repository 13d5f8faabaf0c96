"""What a visitor brings, looked at before any work starts: only headers of images are read.

source = inspect([upload], workdir)
source.available, source.image_hws           # views at most, and their sizes
scene, report = source.open(workdir, progress, cancelled)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from data_tools.readers import SeveralScenes, holds_scene, open_scene
from data_tools.readers.archives import Limits, extract, is_archive
from data_tools.readers.isolated import ProcessLimits
from data_tools.structure_from_motion.job import ProgressCallback
from data_tools.structure_from_motion.photo_files import (
    check_photo,
    find_photos,
    is_image_name,
    labels,
    refuse_depth_maps,
)
from data_tools.structure_from_motion.photos import PhotoOptions, PhotoReport, reconstruct, scene_root
from data_tools.structure_from_motion.report import input_key
from data_tools.structure_from_motion.run import MAX_PHOTOS, WORK
from data_tools.structure_from_motion.video import is_video, video_size
from data_tools.structure_from_motion.worker import PREVIEW
from nvs_app.errors import NVSError, Refusal, coded
from nvs_app.scenes.scene import Scene

FEWEST = 3  # photos that cameras are found from


@dataclass(frozen=True)
class SceneInput:
    """An input that can become a scene.

    Attributes:
        label: for people.
        paths: what is opened; archives are replaced by the folder that they were unpacked to.
        scene: the scene where the input has cameras; None where they are still to be found.
        image_hws: sizes (height, width) of the images as stored; of a video, of the frames that will be taken.
        skipped: files that look like images and are none -> why. left_out: a line for each kind of file left out.
        frames_in_video: number of frames of a video (0: the file does not tell), None where it is no video.
        options: of structure from motion.
    """

    label: str
    paths: tuple[Path, ...]
    scene: Scene | None
    image_hws: tuple[tuple[int, int], ...]
    skipped: dict[str, str] = field(default_factory=dict)
    frames_in_video: int | None = None
    options: PhotoOptions = PhotoOptions()
    left_out: tuple[str, ...] = ()

    @staticmethod
    def of(scene: Scene, label: str, paths: tuple[Path, ...] | None = None) -> SceneInput:
        """An opened scene with cameras."""
        hws = tuple((height, width) for height, width in scene.image_hws.tolist())
        return SceneInput(label, paths or (scene.root,), scene, hws)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, changed or left out, a line each."""
        return self.left_out if self.scene is None else self.scene.notes

    @property
    def available(self) -> int:
        """How many views there are at most."""
        return len(self.image_hws)

    @property
    def words(self) -> str:
        """What it is: "55 views with cameras"."""
        if self.scene is not None:
            return f"{self.available} views with cameras"
        if self.frames_in_video is not None:
            return f"a video, of which up to {self.available} frames are taken"
        return f"{self.available} photos without cameras"

    def open(
        self,
        workdir: Path,
        progress: ProgressCallback | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> tuple[Scene, PhotoReport | None]:
        """The scene; where cameras have to be found, also the report of how that went.

        workdir: where a scene made of photos is kept, under a name made of its content: a second call finds it. Photos
            are decoded in child processes, see `data_tools.readers.isolated`.
        progress, cancelled: as for `structure_from_motion.photos.reconstruct`. Raises NVSError, Cancelled as it does.
        """
        if self.scene is not None:
            return self.scene, None
        folder = self._folder(workdir)
        report = reconstruct(self.paths, folder, self.options, progress, cancelled, ProcessLimits())
        scene = open_scene(folder)
        return replace(scene, name=self.label, notes=(*scene.notes, *report.lines())), report

    def preview_file(self, workdir: Path) -> Path | None:
        """Where structure from motion writes what it has found so far, see `worker`; None with cameras."""
        return None if self.scene is not None else self._folder(workdir) / WORK / PREVIEW

    def _folder(self, workdir: Path) -> Path:
        return workdir / f"scene-{input_key(list(self.paths), self.options)[:12]}"


@coded(Refusal.NO_PHOTO)
def inspect(
    paths: Sequence[Path],
    workdir: Path,
    limits: Limits | None = None,
    options: PhotoOptions | None = None,
    fewest: int = FEWEST,
    key: str | None = None,
) -> SceneInput:
    """Looks at what was brought.

    Args:
        paths: one scene folder or file, one archive (of a scene, photos or a video), one video, one folder of
            photos, or several photos.
        workdir: archives are unpacked into it.
        limits: of an archive.
        options: of structure from motion, where it will be needed.
        fewest: photos without cameras that are accepted.
        key: which scene, where there are several.

    Raises:
        NVSError: nothing that can become a scene; one line says what was seen.
    """
    options = options or PhotoOptions()
    if not paths:
        raise NVSError("nothing was brought; give photos, a video, or a zip or folder of a scene")
    label = paths[0].name.split(".")[0] or paths[0].name
    label = f"{label} and {len(paths) - 1} more" if len(paths) > 1 else label
    opened = tuple(_unpacked(path, workdir, limits) for path in paths)
    if len(opened) == 1 and (opened[0].is_dir() or not is_image_name(opened[0])) and not is_video(opened[0]):
        path = opened[0]
        if holds_scene(path) or not path.is_dir():
            try:
                scene = open_scene(path, None, key, within=path if path.is_dir() else path.parent)
            except SeveralScenes as error:  # an archive is known by its own name
                raise SeveralScenes(str(error).replace(f"{path}: ", f"{label}: ", 1), error.choices) from error
            return SceneInput.of(scene, label, opened)
    if any(path.is_dir() and holds_scene(path) for path in opened):
        raise NVSError(f"{label}: a scene with cameras together with other files; bring one or the other")
    odd = [path.name for path in opened if path.is_file() and not is_video(path) and not is_image_name(path)]
    if odd:
        raise NVSError(f"{odd[0]}: neither an image nor a video nor an archive; leave it out")
    videos = videos_in(opened)
    photos = find_photos([path for path in opened if not is_video(path)])
    images = photos.images
    if videos and not images:
        return _of_video(label, opened, videos, options)
    hws: list[tuple[int, int]] = []
    skipped: dict[str, str] = {}
    if len(images) > MAX_PHOTOS:
        raise NVSError(f"{label}: {len(images)} photos, {MAX_PHOTOS} at most; take every second or third")
    refuse_depth_maps(images, label)
    for image, name in zip(images, labels(images, opened)):
        try:
            hws.append(check_photo(image, name))
        except NVSError as error:
            skipped[name] = str(error).split(": ", 1)[-1]
    if len(hws) < max(1, fewest):
        first = f"; {next(iter(skipped))}: {next(iter(skipped.values()))}" if skipped else ""
        raise NVSError(
            f"{label}: {len(hws)} photo{'' if len(hws) == 1 else 's'} that can be read{first}; cameras are found from "
            "three or more, 20 to 60 are best",
            Refusal.NO_PHOTO,
        )
    return SceneInput(label, opened, None, tuple(hws), skipped, options=options, left_out=tuple(photos.left_out))


def size_words(image_hws: Sequence[tuple[int, int]]) -> str:
    """The sizes of images, width first, the most common one first."""
    counted = Counter(image_hws).most_common()
    shown = ", ".join(f"{width}×{height}" for (height, width), _ in counted[:2])
    return shown + (f" and {len(counted) - 2} other sizes" if len(counted) > 2 else "")


def _unpacked(path: Path, workdir: Path, limits: Limits | None) -> Path:
    """The folder of an archive's content; anything else as it is."""
    if not is_archive(path) or holds_scene(path):  # a .torch chunk of scenes is a zip file too
        return path
    folder = workdir / f"unpacked-{input_key([path], PhotoOptions())[:12]}"
    if not folder.is_dir():
        extract(path, folder, limits)
    return scene_root(folder)


def videos_in(paths: Sequence[Path]) -> list[Path]:
    """The videos among files and in folders."""
    found = [path for path in paths if is_video(path)]
    for folder in (path for path in paths if path.is_dir()):
        found += sorted(p for p in folder.rglob("*") if is_video(p) and not p.is_symlink())
    return found


def _of_video(label: str, paths: tuple[Path, ...], videos: list[Path], options: PhotoOptions) -> SceneInput:
    if len(videos) > 1:
        raise NVSError(f"{label}: {len(videos)} videos; give one, or take frames of them first")
    frames, image_hw = video_size(videos[0])
    taken = min(options.frames, frames) if frames else options.frames
    if taken < 3:
        raise NVSError(f"{label}: a video of {frames} frames; cameras are found from three or more")
    return SceneInput(label, paths, None, (image_hw,) * taken, frames_in_video=frames, options=options)
