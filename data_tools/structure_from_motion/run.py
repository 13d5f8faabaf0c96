"""One run from images without cameras to a scene, stage by stage, resumable: see `photos`."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from data_tools.readers import located
from data_tools.readers.archives import extract, is_archive
from data_tools.readers.fields import first_few
from data_tools.readers.isolated import ProcessLimits
from data_tools.structure_from_motion.job import (
    ADVICE,
    Cancelled,
    ProgressCallback,
    SfMResult,
    WorkerFailed,
    run_sfm,
)
from data_tools.structure_from_motion.photo_files import find_photos, refuse_depth_maps, scene_root
from data_tools.structure_from_motion.prepare import Photo, prepare_photos
from data_tools.structure_from_motion.report import PhotoOptions, PhotoReport, camera_words, input_key
from data_tools.structure_from_motion.scene import write_scene
from data_tools.structure_from_motion.video import choose_frames, is_video, write_frames
from nvs_app.atomic_io import only_one, write_whole
from nvs_app.errors import NVSError, Refusal

WORK = ".sfm"
MAX_PHOTOS = 2000  # beyond this the run takes days
RESULTS = (
    "images",
    "sparse.ply",
    "report.json",
    "transforms.json",
)  # in the order in which they are moved out


def reconstruct(
    inputs: Sequence[str | Path],
    output: str | Path,
    options: PhotoOptions | None = None,
    progress: ProgressCallback | None = None,
    cancelled: Callable[[], bool] | None = None,
    apart: ProcessLimits | None = None,
) -> PhotoReport:
    """Find the cameras of images and write a scene.

    Args:
        inputs: folders, image files and archives of images, or one video.
        output: the scene's folder: absent, empty, or left by a run that was stopped. Where the same input is
            finished already, its report is returned at once.
        options: see :class:`PhotoOptions`.
        progress: called with (stage, fraction of the stage, message), always from the calling thread.
        cancelled: asked often; True stops within a second.
        apart: photos are decoded in child processes within these limits, see `readers.isolated`; None: in this one.

    Raises:
        NVSError: nothing usable in the input, or no cameras could be found; one line says what was seen and what
            would help. Nothing is left behind.
        Cancelled: the work so far is kept for the next call.
    """
    paths, output = [Path(path) for path in inputs], Path(output)
    options = options or PhotoOptions()
    key = input_key(paths, options)
    if (output / "transforms.json").exists():
        return _finished(output, key)
    work = output / WORK
    if output.exists() and (not output.is_dir() or any(path.name != WORK for path in output.iterdir())):
        if not (work / "done").exists():
            raise NVSError(f"{output}: exists and is not empty; choose another folder or remove it")
    run = _Run(paths, output, options, key, progress or (lambda *_: None), cancelled or (lambda: False), apart)
    with only_one(work, "lock"):
        try:
            return run.go()
        except (Cancelled, WorkerFailed):
            raise
        except NVSError:
            # The same input would fail alike: nothing here is worth keeping.
            shutil.rmtree(work, ignore_errors=True)
            if output.is_dir() and not any(output.iterdir()):
                output.rmdir()
            raise


@dataclass
class _Run:
    """One call of :func:`reconstruct`, stage by stage; each stage leaves a file that says it is done."""

    paths: list[Path]
    output: Path
    options: PhotoOptions
    key: str
    progress: ProgressCallback
    cancelled: Callable[[], bool]
    apart: ProcessLimits | None

    def __post_init__(self) -> None:
        self.work = self.output / WORK
        self.label = self.paths[0].name + (f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else "")
        self.seconds: dict[str, float] = {}
        self.roots: list[Path] = []
        self.notes: list[str] = []
        self.stage, self.started = "", time.perf_counter()

    def go(self) -> PhotoReport:
        note = self.work / "key"
        if not note.is_file() or note.read_text(encoding="utf-8") != self.key:
            for path in self.work.iterdir():  # of another input, or of a folder that was changed meanwhile
                if path.name != "lock":
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            note.write_text(self.key, encoding="utf-8")
        images, ordered = self.gather()
        photos, skipped = self.prepare(images)
        if wide := [photo.source for photo in photos if photo.image_hw[1] == 2 * photo.image_hw[0]]:
            what = "twice as wide as high, as 360-degree panoramas are; cut them into perspective views if they are"
            self.notes = [*self.notes, f"{len(wide)} photos are {what} ({first_few(wide)})"]
        if len(photos) < 3:
            also = f" ({len(skipped)} files are no images that can be read)" if skipped else ""
            first = f"; {next(iter(skipped.items()))[0]}: {next(iter(skipped.values()))}" if skipped else ""
            raise NVSError(
                f"{self.label}: {len(photos)} photos{also}, three is the least{first}; {ADVICE}", Refusal.NO_PHOTO
            )
        self.tell("features", 0.0, "starting")
        result = run_sfm(photos, self.work, ordered, self.label, self.tell, self.cancelled)
        return self.write(result, photos, skipped)

    def tell(self, stage: str, fraction: float, message: str) -> None:
        """Progress to the caller, time to the report, and the chance to stop."""
        now = time.perf_counter()
        if stage != self.stage:
            if self.stage:
                self.seconds[self.stage] = round(now - self.started, 2)
            self.stage, self.started = stage, now
        self.progress(stage, min(1.0, max(0.0, fraction)), message)
        if self.cancelled():
            raise Cancelled(f"{self.label}: cancelled; start it again to go on from here")

    def gather(self) -> tuple[list[Path], bool]:
        """All image files, and whether they follow each other in time."""
        found: list[Path] = []
        for number, path in enumerate(self.paths):
            if is_archive(path):
                folder = self.work / "uploads" / str(number)
                self.tell("unpack", number / len(self.paths), path.name)
                found.append(scene_root(folder if folder.is_dir() else extract(path, folder)))
            else:
                found.append(path)
        for folder in found:
            if folder.is_dir():
                located(folder)  # several scenes: refused, never mixed
        videos = [path for path in found if is_video(path)]
        videos += [p for f in found if f.is_dir() for p in sorted(f.rglob("*")) if is_video(p)]
        self.roots = found
        photos = find_photos([path for path in found if not is_video(path)], self.options.masks)
        images, self.notes = photos.images, photos.left_out
        if videos and not images:
            if len(videos) > 1:
                raise NVSError(f"{self.label}: {len(videos)} videos; give one, or take frames of them first")
            return self.frames(videos[0]), True
        if len(images) > MAX_PHOTOS:
            raise NVSError(f"{self.label}: {len(images)} photos, {MAX_PHOTOS} at most; take every second or third")
        if not images:
            raise NVSError(
                f"{self.label}: no images found (JPEG, PNG, WebP, HEIC) and no video; {ADVICE}", Refusal.NO_PHOTO
            )
        refuse_depth_maps(images, self.label)
        return images, False

    def frames(self, video: Path) -> list[Path]:
        """The chosen frames of a video as files."""
        folder, done = self.work / "frames", self.work / "frames.json"
        if not done.is_file():
            chosen = choose_frames(
                video,
                self.options.frames,
                lambda part: self.tell("frames", 0.7 * part, "looking for sharp frames"),
            )
            notes: list[str] = []
            tick = lambda part: self.tell("frames", 0.7 + 0.3 * part, "writing frames")  # noqa: E731
            write_frames(video, chosen, folder, tick, notes.append)
            _write_json(done, {"notes": [f"{video.name}: {note}" for note in notes]})
        self.notes = json.loads(done.read_text(encoding="utf-8"))["notes"]
        return sorted(folder.glob("*.jpg"))

    def prepare(self, images: list[Path]) -> tuple[list[Photo], dict[str, str]]:
        """Upright copies under the work folder."""
        note, total = self.work / "photos.json", len(images)
        if note.is_file():
            kept = json.loads(note.read_text(encoding="utf-8"))
            return [Photo.from_json(values) for values in kept["photos"]], kept["skipped"]
        size = self.options.max_size or (1600 if total <= 80 else 1200 if total <= 200 else 1000)
        self.tell("photos", 0.0, f"0 of {total} photos read")
        photos, skipped = prepare_photos(
            images,
            self.work,
            size,
            self.options.masks,
            lambda done: self.tell("photos", done / total, f"{done} of {total} photos read"),
            self.roots,
            self.apart,
        )
        _write_json(note, {"photos": [photo.to_json() for photo in photos], "skipped": skipped})
        return photos, skipped

    def write(self, result: SfMResult, photos: list[Photo], skipped: dict[str, str]) -> PhotoReport:
        """The scene, under the work folder first; then moved out, transforms.json last."""
        folder, count = self.work / "scene", len(result.registered)
        self.tell("scene", 0.0, "undistorting")
        shutil.rmtree(folder, ignore_errors=True)
        name = self.output.resolve().name
        write_scene(
            result,
            photos,
            self.work,
            folder,
            name,
            lambda n: self.tell("scene", n / count, f"{n} of {count} images"),
        )
        self.tell("done", 1.0, f"{count} of {len(photos)} photos have cameras")
        source = {photo.name: photo.source for photo in photos}
        report = PhotoReport(
            folder=str(self.output),
            registered=[source[name] for name in result.registered],
            unregistered={source[name]: why for name, why in result.unregistered.items()},
            skipped=skipped,
            points=len(result.xyz),
            reprojection_error=round(result.reprojection_error, 4),
            strategy=result.strategy,
            cameras=camera_words(photos),
            seconds=self.seconds,
            key=self.key,
            notes=self.notes,
        )
        _write_json(folder / "report.json", asdict(report))
        (self.work / "done").touch()  # from here on a stop leaves parts outside that are ours
        for part in RESULTS:
            target = self.output / part
            shutil.rmtree(target, ignore_errors=True) if part == "images" else None
            os.replace(folder / part, target)
        shutil.rmtree(self.work, ignore_errors=True)
        return report


def _finished(output: Path, key: str) -> PhotoReport:
    try:
        report = PhotoReport(**json.loads((output / "report.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        report = None
    if report is None or report.key != key:
        raise NVSError(f"{output}: holds a scene of another input; choose another folder or remove it")
    return replace(report, folder=str(output))


def _write_json(path: Path, content: dict) -> None:
    write_whole(path, json.dumps(content, indent=1) + "\n")
