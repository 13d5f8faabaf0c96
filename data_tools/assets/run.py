"""Many assets -> many scenes: what is there already is skipped, what fails is logged, nothing is done twice.

    report = render_assets(["assets/", "list.txt"], "scenes", RenderOptions(views=32), workers=8)

OUT holds one folder a rendered asset (a nerfstudio scene, with ``asset.json``), ``log.jsonl`` with one line for each
answer, and ``run.json`` with the options. A scene folder is whole or absent; the log may lack the last lines of a run
that was killed, and the next run adds them from the folders.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from data_tools.assets.pool import run_pool
from data_tools.assets.render_task import PART, REFUSED, RENDERED, RenderOptions, RenderTask, finished
from data_tools.assets.sources import find_assets, make_tasks
from nvs_app.atomic_io import only_one, write_whole
from nvs_app.errors import NVSError

LOG, SETTINGS, LOCK = "log.jsonl", "run.json", ".lock"

RenderProgress = Callable[[int, int, dict[str, Any] | None], None]


@dataclass
class Report:
    """What a run did.

    Attributes:
        total: assets named.
        present: rendered by an earlier run.
        rendered, images: by this run. seconds: that it took.
        failed: asset -> reason, of this run.
        failed_before: asset -> reason, refused by an earlier run and not tried again.
        renderer: the OpenGL device, as it calls itself.
        notes: what was left out of the assets that were rendered.
    """

    total: int = 0
    present: int = 0
    rendered: int = 0
    images: int = 0
    seconds: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    failed_before: dict[str, str] = field(default_factory=dict)
    renderer: str = ""
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """For people."""
        rate = self.images / self.seconds if self.seconds > 0 else 0.0
        by = f" by {self.renderer}" if self.renderer else ""
        before = f", {len(self.failed_before)} failed before and not tried again" if self.failed_before else ""
        head = f"{self.total} assets: {self.rendered} rendered, {self.present} there already, {len(self.failed)} failed"
        lines = [head + before, f"{self.images} images in {self.seconds:.1f} s, {rate:.1f} images/s{by}"]
        return (
            lines
            + _counted([*self.failed.values(), *self.failed_before.values()], "reasons")
            + _counted([f"noted: {note}" for note in self.notes], "notes")
        )


def _counted(texts: list[str], what: str) -> list[str]:
    """How often each kind of text stands among many, the most common first; kinds differ in more than numbers, and
    are shown by their first text."""
    kinds: dict[str, list[str]] = {}
    for text in texts:
        kinds.setdefault(re.sub(r"\d+", "", text), []).append(text)
    common = sorted(kinds.values(), key=len, reverse=True)
    lines = []
    for same in common[:12]:
        shown = same[0] if len(same[0]) <= 100 else f"{same[0][:97]}..."
        lines.append(f"  {len(same):5d}  {shown}{' (and other numbers)' if len(set(same)) > 1 else ''}")
    if len(common) > 12:
        lines.append(f"  {sum(map(len, common[12:])):5d}  other {what}")
    return lines


def render_assets(
    inputs: Sequence[str],
    out: str | Path,
    options: RenderOptions | None = None,
    workers: int = 1,
    timeout: float = 300.0,
    ray: str | None = None,
    retry_failed: bool = False,
    progress: RenderProgress = lambda done, total, answer: None,
) -> Report:
    """Render assets, or go on rendering them.

    Args:
        inputs: see :func:`data_tools.assets.sources.find_assets`.
        out: folder of the scenes; absent, empty, or of an earlier run with the same options.
        options: see :class:`RenderOptions`.
        workers: processes; on Ray, how many assets at a time on a cluster that is started here.
        timeout: seconds an asset may take.
        ray: "local", "auto" or an address: render on a Ray cluster, whose machines must see the same files.
        retry_failed: try assets again that an earlier run refused.
        progress: called with (assets done, assets in all, an answer or None).

    Raises:
        NVSError: wrong inputs, OUT of another run, no OpenGL, a full disk.
    """
    options, out = options or RenderOptions(), Path(out)
    tasks = make_tasks(find_assets(inputs, out), out, options)
    try:
        with only_one(out, LOCK):
            _check_settings(out, options)
            _sweep(out)
            return _run(tasks, out, options, workers, timeout, ray, retry_failed, progress)
    except OSError as error:
        raise NVSError(f"{error.filename or out}: cannot be written ({error.strerror or error})") from error


def _run(
    tasks: list[RenderTask], out: Path, options: RenderOptions, workers: int, timeout: float, ray: str | None,
    retry_failed: bool, progress: RenderProgress,
) -> Report:  # fmt: skip
    report = Report(total=len(tasks))
    answers: Generator[dict[str, Any], None, None]
    logged = read_log(out / LOG)
    with _append(out / LOG) as log:
        waiting = _sort_out(tasks, out, logged, retry_failed, report, log)
        done = report.total - len(waiting)
        progress(done, report.total, None)
        started = time.perf_counter()
        if ray is not None and waiting:
            from data_tools.assets.ray_cluster import run_on_ray

            answers = run_on_ray(waiting, ray, workers, timeout, out)
        else:
            answers = run_pool(waiting, options.image_hw, max(1, min(workers, len(waiting))), timeout)
        try:
            for answer in answers:
                _log(log, answer)
                done += 1
                if answer["status"] == RENDERED:
                    report.rendered += 1
                    report.images += answer["views"]
                    report.renderer = answer.get("renderer", report.renderer)
                    report.notes += answer.get("notes") or []
                else:
                    report.failed[answer["asset"]] = answer["error"]
                progress(done, report.total, answer)
        finally:
            answers.close()
            report.seconds = time.perf_counter() - started
            _sweep(out)
    return report


def _sort_out(
    tasks: list[RenderTask],
    out: Path,
    logged: dict[str, dict[str, Any]],
    retry_failed: bool,
    report: Report,
    log: TextIO,
) -> list[RenderTask]:
    """The tasks that are still to do; counts the others."""
    waiting = []
    for task in tasks:
        record, before = finished(out / task.name), logged.get(task.key)
        if record is not None:
            if record.get("asset") != task.key:
                raise NVSError(
                    f"{out / task.name}: holds the asset {str(record.get('asset'))[:80]!r}, not {task.key!r};"
                    " choose another folder"
                )
            report.present += 1
            if before is None or before.get("status") != RENDERED:  # killed between the folder and the log
                _log(log, record)
        elif before is not None and before.get("status") == REFUSED and not retry_failed:
            report.failed_before[task.key] = str(before.get("error"))
        else:
            waiting.append(task)
    return waiting


def read_log(path: Path) -> dict[str, dict[str, Any]]:
    """Asset -> its last answer. A line that was cut by a kill is left out. Raises OSError."""
    answers: dict[str, dict[str, Any]] = {}
    if path.exists():
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    values = json.loads(line)
                    answers[str(values["asset"])] = values
    return answers


@contextmanager
def _append(path: Path) -> Iterator[TextIO]:
    """The log at its end, where a cut line gets its line break."""
    cut = False
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            cut = file.read(1) != b"\n"
    with path.open("a", encoding="utf-8", errors="backslashreplace") as log:
        if cut:
            log.write("\n")
        yield log


def _log(log: TextIO, answer: dict[str, Any]) -> None:
    first = {name: answer.get(name) for name in ("asset", "scene", "status", "seconds", "views", "error")}
    log.write(json.dumps({**first, **answer}) + "\n")
    log.flush()


def _check_settings(out: Path, options: RenderOptions) -> None:
    """OUT belongs to these options, or becomes theirs."""
    path = out / SETTINGS
    wanted = json.loads(json.dumps(asdict(options)))
    if path.exists():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["options"]
        except (ValueError, KeyError, TypeError) as error:
            raise NVSError(f"{path}: malformed; choose another folder") from error
        differ = [name for name in wanted if found.get(name) != wanted[name]]
        if differ:
            name = differ[0]
            raise NVSError(
                f"{out}: holds scenes with {name} {found.get(name)}, not {wanted[name]}; choose another folder"
            )
        return
    if any(entry.name != LOCK for entry in out.iterdir()):
        raise NVSError(f"{out}: exists and is not empty; choose another folder")
    write_whole(path, json.dumps({"options": wanted}, indent=1) + "\n")


def _sweep(out: Path) -> None:
    """Remove what killed workers left half-written."""
    for entry in out.glob(f".*{PART}"):
        shutil.rmtree(entry, ignore_errors=True)
