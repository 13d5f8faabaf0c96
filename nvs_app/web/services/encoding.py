"""What a visitor brings becomes a scene: uploads within limits, an estimate before the work, encoding with progress.

The steps of the page: `receive` (looks at what was brought), `plan` (what it will take), `encode` (does it, step by
step), `cancel`. Examples go the same way, so that they too can be encoded with more views or another size.
"""

from __future__ import annotations

import html
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_tools.readers.archives import Limits as ArchiveLimits
from data_tools.readers.archives import check_image
from data_tools.readers.isolated import ProcessLimits, isolated
from data_tools.structure_from_motion.prepare import is_image_name
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
from nvs_app.web.services.jobs import Job, Step
from nvs_app.web.services.opening import LoadedScene, open_scene_for_viewing, open_state
from nvs_app.web.services.uploads import FEWEST, Source, inspect
from nvs_app.web.sessions import MIB, Session

STAGES = {
    "unpack": "Unpacking",
    "frames": "Choosing frames",
    "photos": "Reading photos",
    "features": "Finding features",
    "matches": "Matching",
    "cameras": "Finding cameras",
    "scene": "Writing the scene",
    "read": "Reading views",
    "encode": "Encoding",
}
OF_SCENES = ("read", "encode")


@dataclass(frozen=True)
class Plan:
    """What a visitor is about to encode: the source, and what it will take; `note`: how it came together."""

    source: Source
    estimate: Estimate
    sizes: list[tuple[str, str]]
    most: int
    note: str = ""


@dataclass(frozen=True)
class Gathered:
    """Photos that came one by one, still too few to find cameras from."""

    photos: int

    @property
    def words(self) -> str:
        """What is there and what is missing."""
        more = FEWEST - self.photos
        return (
            f"{self.photos} photo{'s' if self.photos > 1 else ''} so far. Take or paste {more} more at least, all of "
            "the same thing from different sides; 20 to 60 are best."
        )


class Encoding:
    """Uploads and encodings of all visitors."""

    def __init__(self, app_state: AppState):
        self.app_state = app_state
        self._paces: dict[int, ThroughputEstimator] = {}

    def renderer(self, session: Session) -> Renderer:
        """The one that the visitor has chosen in the tab of models."""
        return self.app_state.renderer(*session.model)

    def receive(
        self, session: Session, files: Sequence[str | Path], join: bool = False
    ) -> Plan | LoadedScene | Gathered:
        """Takes uploads into the visit's folder and looks at them; of a state file, the scene it opens.

        join: one or two photos, as a phone's camera and the clipboard give them, come to the photos before.

        Raises NVSError: too many, too large, or nothing that can become a scene; the files are gone then."""
        with session.arriving:
            return self._receive(session, [Path(file) for file in files], join)

    def _receive(self, session: Session, paths: list[Path], join: bool) -> Plan | LoadedScene | Gathered:
        limits = session.limits
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
        try:
            moved = [_moved(path, folder) for path in paths]
            if len(moved) == 1 and moved[0].suffix.lower() == ".safetensors":
                opened = open_state(moved[0], self.renderer(session), self.app_state.states, moved[0].stem[:60])
                session.source = None
                self.app_state.show(session, opened)
                return opened
            earlier: list[Path] = []
            if join and len(moved) < FEWEST and all(map(is_image_name, moved)):
                for path in moved:
                    check_image(path)
                earlier = self._photos(session)
                moved = [*earlier, *moved]
                if len(moved) < FEWEST:
                    session.gathered = moved
                    return Gathered(len(moved))
            within = ProcessLimits(cpu_seconds=60 + total // (5 * MIB), wall_seconds=300 + total // MIB)
            unpacking = self._archive_limits(session, total)
            source = isolated(inspect, moved, folder / "unpacked", unpacking, limits=within, what=paths[0].name)
            self._check_pixels(source, limits.upload_pixels)
        except (NVSError, OSError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise NVSError(str(error).replace(f"{folder}/", "")) from error
        session.source, session.gathered = source, []
        note = "Came to the photos before. An upload of three or more starts anew." if len(earlier) >= FEWEST else ""
        return replace(self.plan(session), note=note)

    @staticmethod
    def _photos(session: Session) -> list[Path]:
        """The loose photos that a visitor has brought."""
        source = session.source
        if source is not None and source.scene is None and all(map(is_image_name, source.paths)):
            return list(source.paths)
        return session.gathered

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
        assert opened.scene is not None
        hws = tuple((height, width) for height, width in opened.scene.image_hws.tolist())
        session.source = Source(opened.name, (opened.scene.root,), opened.scene, hws)
        throughput = self.throughput(self.renderer(session))
        if not throughput.measured and opened.split is not None:  # the first estimate is no guess, then
            count = len(opened.split.context)
            throughput.encoded(
                estimate(session.source, opened.renderer, throughput, count, opened.image_hw), opened.seconds
            )
        self.app_state.show(session, opened)
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
        if session.job is not None:
            session.job.cancel()
        renderer, source = self.renderer(session), plan.source

        def work(job: Job) -> LoadedScene:
            scene, report = source.open(session.folder / "work", job.report, job.cancelled)
            scene = replace(scene, name=plan.source.label)
            job.report("read", 0.0)
            if report is not None:
                self.throughput(renderer).reconstructed(plan.estimate, report.seconds)
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
            self.throughput(renderer).encoded(plan.estimate, opened.seconds)
            self.app_state.show(session, opened)  # here, so that it is there also when the page was closed meanwhile
            return opened

        session.job = self.app_state.jobs.submit(work)
        return session.job

    def cancel(self, session: Session) -> bool:
        """Stops the visitor's encoding; False when there is none."""
        job = session.job
        if job is None or job.done:
            return False
        job.cancel()
        return True

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
        used += session.gathered
        if session.job is not None and not session.job.done:
            return
        for folder in session.folder.glob("upload-*"):
            if not any(path.is_relative_to(folder) for path in used):
                shutil.rmtree(folder, ignore_errors=True)

    @staticmethod
    def _check_pixels(source: Source, most: int) -> None:
        for height, width in source.image_hws:
            if height * width > most:
                raise NVSError(
                    f"{source.label}: an image of {width}×{height} pixels, {most // 1_000_000} megapixels at most"
                )


def parse_size(text: str) -> tuple[int, int]:
    """A text such as 320x240 (width, height) as image_hw."""
    found = re.fullmatch(r"\s*(\d{1,4})\s*[x×]\s*(\d{1,4})\s*", text or "")
    if not found:
        raise NVSError(f"size {text!r}: expected WIDTHxHEIGHT as in 256x256")
    return int(found[2]), int(found[1])


def plan_html(plan: Plan) -> str:
    """The estimate as a small table, problems on top."""
    found = plan.estimate
    problems = "".join(f"<p class='nvs-problem-line'>{html.escape(problem)}</p>" for problem in found.problems)
    skipped = ""
    if plan.source.skipped:
        name, why = next(iter(plan.source.skipped.items()))
        more = f" and {len(plan.source.skipped) - 1} more" if len(plan.source.skipped) > 1 else ""
        skipped = f"<p class='nvs-note'>Left out: {html.escape(name)} ({html.escape(why)}){more}.</p>"
    rows = "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in found.rows)
    words = html.escape(plan.source.words) if found.problems else ""  # else the sentence says it
    title = f"<p class='nvs-source'><b>{html.escape(plan.source.label)}</b> {words}</p>"
    sentence = "" if found.problems else f"<p class='nvs-sentence'>{html.escape(found.sentence)}</p>"
    details = f"<details><summary>In detail</summary><table class='nvs-table'>{rows}</table></details>"
    none_left = found.views == found.available > 1
    notes = (plan.note, "All are read: no photo is left to compare with." if none_left else "")
    note = "".join(f"<p class='nvs-note nvs-small'>{html.escape(words)}</p>" for words in notes if words)
    return f"<div class='nvs-plan'>{title}{problems}{sentence}{details}{skipped}{note}</div>"


def progress_html(steps: Iterator[Step], reconstructs: bool) -> Iterator[str]:
    """A bar and the list of stages, for each step of a job."""
    stages = [name for name in STAGES if reconstructs or name in OF_SCENES]
    for step in steps:
        if step.position:
            words = "1 other encoding is" if step.position == 1 else f"{step.position} other encodings are"
            yield f"<div class='nvs-progress' role='status'><p>Waiting: {words} before yours.</p></div>"
            continue
        shown = [name for name in stages if name not in ("unpack", "frames") or name == step.stage]
        here = shown.index(step.stage) if step.stage in shown else 0
        share = (here + step.fraction) / len(shown)
        items = "".join(
            f"<li class='{'done' if i < here else 'now' if i == here else ''}'>{STAGES[name]}</li>"
            for i, name in enumerate(shown)
        )
        detail = f"{STAGES.get(step.stage, 'Starting')} {html.escape(step.words)}".strip()
        yield (
            f"<div class='nvs-progress'><div class='nvs-meter' role='progressbar' aria-label='Encoding' "
            f"aria-valuemin='0' aria-valuemax='100' aria-valuenow='{100 * share:.0f}'>"
            f"<i style='width:{100 * share:.1f}%'></i></div>"
            f"<p role='status'><span>{detail}</span><span>{step.seconds:.0f} s</span></p><ol>{items}</ol></div>"
        )


def ready_html(opened: LoadedScene) -> str:
    """What was done."""
    lines = [f"<b>Ready.</b> Encoded in {opened.seconds:.1f} s."]
    if opened.unregistered:
        count = len(opened.unregistered)
        lines.append(f"{count} photo{' has' if count == 1 else 's have'} no camera (see Cameras).")
    return f"<div class='nvs-progress'><p role='status'><span>{' '.join(lines)}</span></p></div>"


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
    if target.stat().st_size == 0:
        raise NVSError(f"{target.name}: the file is empty")
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
