"""What a visitor brings becomes a scene: uploads within limits, an estimate before the work, encoding with progress.

The steps of the page: `receive` (looks at what was brought), `plan` (what it will take), `encode` (does it, step by
step), `cancel`. Examples go the same way, so that they too can be encoded with more views or another size.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_tools.readers.archives import Limits as ArchiveLimits
from data_tools.readers.isolated import ProcessLimits, isolated
from data_tools.structure_from_motion.photo_files import is_image_name
from nvs_app.errors import NVSError
from nvs_app.rendering.renderer import Renderer
from nvs_app.web.app_state import AppState
from nvs_app.web.protocol import NoticeMessage
from nvs_app.web.services.estimate import (
    Estimate,
    ThroughputEstimator,
    context_split,
    estimate,
    most_views,
    sizes_for,
)
from nvs_app.web.services.gathering import Piece, Tray, failed, look
from nvs_app.web.services.jobs import Job
from nvs_app.web.services.opening import LoadedScene, open_scene_for_viewing, open_state
from nvs_app.web.services.progress import Preview, Progress
from nvs_app.web.services.uploads import SceneInput, inspect
from nvs_app.web.sessions import MIB, Session


@dataclass(frozen=True)
class Plan:
    """What a visitor is about to encode: the source, and what it will take."""

    source: SceneInput
    estimate: Estimate
    sizes: list[tuple[str, str]]
    most: int


class Encoding:
    """Uploads and encodings of all visitors."""

    def __init__(self, app_state: AppState):
        self.app_state = app_state
        self._paces: dict[int, ThroughputEstimator] = {}

    def renderer(self, session: Session) -> Renderer:
        """The one that the visitor has chosen in the tab of models."""
        return self.app_state.renderer(*session.model)

    def receive(self, session: Session, files: Sequence[str | Path]) -> Plan | LoadedScene:
        """Takes one upload as the whole input; of a state file, the scene it opens.

        Raises NVSError: too many, too large, or nothing that can become a scene; the files are gone then."""
        with session.arriving:
            folder, moved, total = self._take(session, files)
            try:
                opened = self._state(session, moved)
                if opened is not None:
                    return opened
                empty = next((path.name for path in moved if path.stat().st_size == 0), None)
                if empty is not None:
                    raise NVSError(f"{empty}: the file is empty")
                unpacking, within = self._archive_limits(session, total), process_limits(total)
                source = isolated(inspect, moved, folder / "unpacked", unpacking, limits=within, what=moved[0].name)
                self._check_pixels(source, session.limits.upload_pixels)
            except (NVSError, OSError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                raise NVSError(str(error).replace(f"{folder}/", ""), getattr(error, "code", "")) from error
            session.source, session.tray = source, None
            return self.plan(session)

    def gather(self, session: Session, files: Sequence[str | Path]) -> LoadedScene | None:
        """Adds an upload to what was brought before; a state file opens at once, and is returned as a scene.

        Raises NVSError where the upload is too large altogether; a file that is no photo is told in the tray."""
        with session.arriving:
            folder, moved, total = self._take(session, files)
            opened = self._state(session, moved)
            if opened is not None:
                return opened
            limits, unpacked = self._archive_limits(session, total), session.folder / "unpacked"
            archives = threading.Lock()  # one after the other: together they would fill more than each may

            def judged(path: Path) -> Piece:
                pixels, within = session.limits.upload_pixels, process_limits(path.stat().st_size)
                with contextlib.nullcontext() if is_image_name(path) else archives:
                    try:
                        return isolated(look, path, unpacked, path.name, limits, pixels, limits=within, what=path.name)
                    except NVSError as error:  # the child came to an end
                        return failed(path, error.told)

            session.tell(NoticeMessage(f"Reading {len(moved)} file{'s' * (len(moved) != 1)} …"))
            try:
                with ThreadPoolExecutor(4) as pool:
                    pieces = list(pool.map(judged, moved))
            finally:
                session.tell(NoticeMessage(""))
            try:
                session.room("what is in the upload")
            except NVSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self.use(session, (session.tray or Tray()).add(pieces))
            return None

    def choose(self, session: Session, key: str, number: int) -> None:
        """Takes one of the scenes of a piece that holds several; nothing where there is no such piece any more."""
        with session.arriving:
            tray = session.tray or Tray()
            piece = next((p for p in tray.pieces if p.key == key and 0 <= number < len(p.choices)), None)
            if piece is None:
                return
            unpacked, limits = session.folder / "unpacked", self._archive_limits(session, 0)
            within, scene = process_limits(piece.path.stat().st_size), piece.choices[number]
            args = (piece.path, unpacked, piece.name, limits, session.limits.upload_pixels, scene)
            chosen = isolated(look, *args, limits=within, what=piece.name)
            self.use(session, tray.replaced(replace(chosen, key=key, choices=piece.choices)))

    def use(self, session: Session, tray: Tray) -> None:
        """Makes a tray the visitor's, and what can be reconstructed of it the source; of one that is closed, what the
        shown scene was made of."""
        session.tray, session.source = tray, None
        if not tray.open:
            opened = session.scene
            session.source = source_of(opened) if opened is not None and opened.scene is not None else None
            return
        try:
            session.source = tray.source(session.folder / "unpacked", self._archive_limits(session, 0))
        except NVSError as error:
            words = error.told.replace(f"{session.folder}/", "")
            session.tray = replace(tray, said=words[0].upper() + words[1:])

    def put_away(self, session: Session) -> None:
        """Closes the tray: the shown scene is what is encoded again."""
        self.use(session, replace(session.tray or Tray(), said="", open=False))

    def _take(self, session: Session, files: Sequence[str | Path]) -> tuple[Path, list[Path], int]:
        """Moves an upload into a folder of the visit: (folder, files, bytes). Raises NVSError beyond the limits."""
        limits, paths = session.limits, [Path(file) for file in files]
        if not paths:
            raise NVSError("Nothing was uploaded.")
        if len(paths) > limits.upload_files:
            raise NVSError(f"{len(paths)} files: {limits.upload_files} at most; send them as one zip, or fewer")
        try:
            total = sum(path.stat().st_size for path in paths)
        except FileNotFoundError as error:
            raise NVSError("The upload is not there any more; send it again.") from error
        if total > limits.upload_bytes:
            raise NVSError(f"{total // MIB} MB: {limits.upload_bytes // MIB} MB at most in one upload")
        self._make_room(session)
        session.room("upload", total)
        folder = session.new_folder("upload")
        return folder, [_moved(path, folder) for path in paths], total

    def _state(self, session: Session, moved: list[Path]) -> LoadedScene | None:
        if len(moved) != 1 or moved[0].suffix.lower() != ".safetensors":
            return None
        opened = open_state(moved[0], self.renderer(session), self.app_state.states, moved[0].stem[:60])
        self.app_state.show(session, opened)
        self.put_away(session)
        return opened

    def bring_example(self, session: Session, name: str) -> LoadedScene:
        """Opens an example and makes it the source of further encodings."""
        shown = -1

        def tell(stage: str, fraction: float, words: str) -> None:
            nonlocal shown
            done = int(10 * fraction) if stage == "encode" else 0
            if done != shown:
                shown = done
                session.tell(NoticeMessage(f"Encoding {name} … {10 * done} %"))

        session.tell(NoticeMessage(f"Opening {name} …"))
        try:
            opened = self.app_state.example(name, self.renderer(session), tell)
        except NVSError:
            session.tell(NoticeMessage(""))
            raise
        source = source_of(opened)
        throughput = self.throughput(self.renderer(session))
        if not throughput.measured and opened.split is not None:  # the first estimate is no guess, then
            count = len(opened.split.context)
            planned = estimate(source, opened.renderer, throughput, count, opened.image_hw)
            throughput.encoded(planned.flops, opened.seconds)
        self.app_state.show(session, opened)
        self.put_away(session)
        return opened

    def plan(self, session: Session, views: int | None = None, size: str | None = None) -> Plan:
        """What encoding the source will take with so many views of this size ("256x256": width, height)."""
        source = session.source
        if source is None:
            raise NVSError("There is nothing to encode: upload photos or open an example first.")
        renderer = self.renderer(session)
        sizes = [(label, f"{hw[1]}x{hw[0]}") for label, hw in sizes_for(source, renderer)]
        image_hw = parse_size(size) if size else None
        wanted = estimate(source, renderer, self.throughput(renderer), views, image_hw)
        return Plan(source, wanted, sizes, most_views(source, renderer, wanted.image_hw))

    def encode(self, session: Session, views: int | None = None, size: str | None = None) -> Job:
        """Puts the encoding into the row; a visitor's older one is cancelled. The job's result is the scene."""
        plan = self.plan(session, views, size)
        if plan.estimate.problems:
            raise NVSError(plan.estimate.problems[0])
        if plan.estimate.views > session.limits.context_views:
            raise NVSError(f"{plan.estimate.views} views: {session.limits.context_views} at most on this server")
        renderer, source, tray = self.renderer(session), plan.source, session.tray
        workdir = session.folder / "work"

        def work(job: Job) -> LoadedScene:
            preview = Preview(source.preview_file(workdir))

            def tell(stage: str, fraction: float, words: str) -> None:
                found = preview.fresh() if stage == "cameras" else None
                if found is not None:
                    session.tell(found)
                job.report(stage, fraction, words)

            scene, report = source.open(workdir, tell, job.cancelled)
            scene = replace(scene, name=plan.source.label)
            job.report("read", 0.0)
            if report is not None:
                self.throughput(renderer).reconstructed(plan.estimate.seconds, report.seconds)
            wanted = plan.estimate.views
            split = context_split(scene, min(wanted, len(scene)), hold_out=wanted < source.available)
            opened = open_scene_for_viewing(
                scene,
                split,
                renderer,
                self.app_state.states,
                plan.estimate.image_hw,
                job.report,
                unregistered={Path(name).name: why for name, why in (report.unregistered if report else {}).items()},
            )
            self.throughput(renderer).encoded(plan.estimate.flops, opened.seconds)
            self.app_state.show(session, opened)  # here, so that it is there also when the page was closed meanwhile
            if session.tray is tray:  # nothing was brought meanwhile
                self.put_away(session)
            return opened

        return self.app_state.begin(session, work, Progress(plan.estimate.seconds))

    def throughput(self, renderer: Renderer) -> ThroughputEstimator:
        """How fast a renderer is, as far as it is known."""
        return self._paces.setdefault(id(renderer), ThroughputEstimator(renderer))

    @staticmethod
    def _archive_limits(session: Session, packed: int) -> ArchiveLimits:
        most = session.limits.session_bytes - packed
        return ArchiveLimits(files=20 * session.limits.upload_files, total_bytes=most, file_bytes=most)

    def _make_room(self, session: Session) -> None:
        """Files of scenes that are not looked at any more make room for new ones."""
        used = [session.scene.scene.root] if session.scene is not None and session.scene.scene is not None else []
        if session.source is not None:
            used += list(session.source.paths)
        used += [piece.path for piece in session.tray.pieces] if session.tray is not None else []
        if session.job is not None and not session.job.done:
            return
        for folder in session.folder.glob("upload-*"):
            if not any(path.is_relative_to(folder) for path in used):
                shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _check_pixels(source: SceneInput, most: int) -> None:
        for height, width in source.image_hws:
            if height * width > most:
                raise NVSError(
                    f"{source.label}: an image of {width}×{height} pixels, {most // 1_000_000} megapixels at most"
                )


def source_of(opened: LoadedScene) -> SceneInput:
    """What an opened scene was made of, to encode it otherwise."""
    assert opened.scene is not None
    return SceneInput.of(opened.scene, opened.name)


def parse_size(text: str) -> tuple[int, int]:
    """A text such as 320x240 (width, height) as image_hw."""
    found = re.fullmatch(r"\s*(\d{1,4})\s*[x×]\s*(\d{1,4})\s*", text or "")
    if not found:
        raise NVSError(f"size {text!r}: expected WIDTHxHEIGHT as in 256x256")
    return int(found[2]), int(found[1])


def process_limits(total: int) -> ProcessLimits:
    """What reading an upload of `total` bytes may take."""
    return ProcessLimits(cpu_seconds=60 + total // (5 * MIB), wall_seconds=300 + total // MIB)


def _moved(path: Path, folder: Path) -> Path:
    """Moves an upload under a harmless name."""
    stem = re.sub(r"[^\w.-]+", "_", path.name).lstrip(".-")[-120:] or "upload"
    target = folder / stem
    number = 1
    while target.exists():
        target = folder / f"{number}_{stem}"
        number += 1
    if re.fullmatch(r"[0-9a-f]{64}", path.parent.name):  # gradio's digest: one file for all who upload the same
        try:
            os.link(path, target)
        except OSError:  # another file system
            shutil.copyfile(path, target)
    else:
        shutil.move(path, target)
    return target


def facts(opened: LoadedScene) -> dict[str, Any]:
    """What is known of a scene, as plain values."""
    context = list(opened.split.context) if opened.split else []
    return {
        "name": opened.name,
        "views": len(opened.cameras),
        "context": context,
        "held_out": list(opened.split.target) if opened.split else [],
        "image_hw": list(opened.image_hw),
        "encode_seconds": round(opened.seconds, 3),
        "checkpoint": str(opened.renderer.card.get("name", "")),
        "device": str(opened.renderer.device),
        **opened.viewpoint.for_page(),
    }
