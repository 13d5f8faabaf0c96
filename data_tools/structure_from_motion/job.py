"""Structure from motion over prepared photos: starts the worker process, follows it, stops it.

    result = run_sfm(photos, work, ordered=False, report=print_progress)

Everything of the C++ library happens in `worker`. Here: the job, progress, cancelling, and words for what went
wrong.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from data_tools.structure_from_motion.prepare import Photo
from nvs_app.errors import NVSError, Refusal
from nvs_app.machine import cores

ProgressCallback = Callable[[str, float, str], None]
"""Called with a stage (``unpack``, ``frames``, ``photos``, ``features``, ``matches``, ``cameras``, ``scene``), the
fraction done in [0, 1] and a few words."""

FEW_FEATURES = 150
FEW_MATCHES = 30
ADVICE = (
    "take 20 to 60 sharp photos of something that holds still and has texture, in small steps around it, each"
    " showing most of what the one before shows"
)
WORKER = (sys.executable, "-m", "data_tools.structure_from_motion.worker")


class Cancelled(NVSError):
    """The caller asked to stop; what was done so far is kept and used when the same input is opened again."""


class WorkerFailed(NVSError):
    """The worker process ended by itself: a fault of the library or of the machine, not of the photos."""


@dataclass(frozen=True)
class SfMResult:
    """What structure from motion found.

    Attributes:
        registered: names of the photos with a camera, in the order given.
        c2w: float64 [n, 4, 4], OpenCV axes, arbitrary frame and scale.
        lens: float64 [n, 4]: focal length, cx, cy in prepared pixels, radial distortion k1.
        xyz, rgb, track: sparse points [m, 3], uint8 [m, 3], the number of photos each is seen in [m].
        unregistered: photo name -> why.
        reprojection_error: mean, pixels.
        strategy: how pairs were chosen. seconds: of each stage.
    """

    registered: list[str]
    c2w: np.ndarray
    lens: np.ndarray
    xyz: np.ndarray
    rgb: np.ndarray
    track: np.ndarray
    unregistered: dict[str, str]
    reprojection_error: float
    strategy: str
    seconds: dict[str, float]


def run_sfm(
    photos: Sequence[Photo],
    work: Path,
    ordered: bool,
    label: str,
    report: ProgressCallback,
    cancelled: Callable[[], bool],
) -> SfMResult:
    """Find the cameras of photos that lie under ``work/images``.

    Args:
        photos: at least three.
        work: where job, database and result are kept; a second call with the same photos resumes.
        ordered: consecutive photos were taken consecutively.
        label: what errors call the input.
        report: see :data:`ProgressCallback`; whatever it raises stops the worker.
        cancelled: asked several times a second.

    Raises:
        NVSError: no cameras could be found; one line says what was seen and what would help.
        Cancelled: ``cancelled`` said so.
        WorkerFailed: the library ended its process.
    """
    _write_job(photos, work, ordered)
    _follow(work, label, report, cancelled)
    found = json.loads((work / "result.json").read_text(encoding="utf-8"))
    explained = {p.name: _reason(p, found) for p in photos if p.name not in set(found["registered"])}
    if len(found["registered"]) < 3 or found["points"] < 40:
        raise NVSError(f"{label}: {_failure(photos, found)}; {ADVICE}", Refusal.NO_POSE)
    with np.load(work / "model.npz", allow_pickle=False) as arrays:
        model = {key: arrays[key] for key in arrays.files}
    return SfMResult(
        registered=found["registered"],
        unregistered=explained,
        reprojection_error=found["reprojection_error"],
        strategy=found["strategy"],
        seconds=found["seconds"],
        **model,
    )


def _write_job(photos: Sequence[Photo], work: Path, ordered: bool) -> None:
    cameras: dict[int, Photo] = {}
    for photo in photos:
        cameras.setdefault(photo.camera, photo)
    numbers = {camera: number for number, camera in enumerate(cameras)}
    count = len(photos)
    job = {
        "names": [photo.name for photo in photos],
        "camera_of": [numbers[photo.camera] for photo in photos],
        "cameras": [
            {"image_hw": photo.image_hw, "focal": photo.focal, "has_focal": photo.has_focal}
            for photo in cameras.values()
        ],
        "ordered": ordered,
        "longer_side": max(max(photo.image_hw) for photo in photos),
        # Comparing two photos costs the product of their numbers of features.
        "max_features": 4096 if count <= 80 else 3072 if count <= 200 else 2048,
        "threads": min(16, cores()),
    }
    (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
    (work / "result.json").unlink(missing_ok=True)


def _follow(work: Path, label: str, report: ProgressCallback, cancelled: Callable[[], bool]) -> None:
    """Runs the worker to its end; kills it on cancel, Ctrl-C or any other exception."""
    with (work / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [*WORKER, str(work.resolve())],
            stdin=subprocess.PIPE,  # its end tells the worker that we are gone
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=Path(__file__).resolve().parents[2],
            env={**os.environ, "OMP_NUM_THREADS": str(cores())},
            start_new_session=True,  # Ctrl-C comes to us; we end the worker
        )
    lines: queue.Queue[bytes | None] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    try:
        while True:
            if cancelled():
                raise Cancelled(f"{label}: cancelled; start it again to go on from here")
            try:
                line = lines.get(timeout=0.2)
            except queue.Empty:
                continue
            if line is None:
                break
            message = _parse(line)
            if message is not None:
                report(message["stage"], float(message["fraction"]), message["message"])
        code = process.wait()
    finally:
        _end(process)
    if code != 0 or not (work / "result.json").is_file():
        raise WorkerFailed(f"{label}: structure from motion stopped ({_last_words(work, code)})")


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        message = json.loads(line)
    except ValueError:
        return None
    return message if isinstance(message, dict) and "stage" in message else None


def _end(process: subprocess.Popen) -> None:
    if process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _last_words(work: Path, code: int) -> str:
    lines = (work / "worker.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if any("No module named 'pycolmap'" in line for line in lines):
        return "the package pycolmap is not installed; run pip install -r requirements.txt"
    words = lines[-1].strip()[:160] if lines else "no message"
    return f"exit code {code}: {words}; the log is {work / 'worker.log'}"


def _reason(photo: Photo, found: dict[str, Any]) -> str:
    """Why a photo has no camera."""
    features, best = found["features"][photo.name], found["best_pair"][photo.name]
    fault = f", {photo.fault}" if photo.fault else ""
    if features < FEW_FEATURES:
        return f"too few features ({features}{fault})"
    if photo.name in found["weak"]:
        return f"placed on {found['weak'][photo.name]} points only, too few to trust{fault}"
    if best < FEW_MATCHES:
        return f"too few matches (at most {best} with another photo{fault})"
    return f"left out by the mapper (at most {best} matches with another photo, unlike the rest{fault})"


def _failure(photos: Sequence[Photo], found: dict[str, Any]) -> str:
    """One clause: what was found in photos that gave no cameras."""
    names = [photo.name for photo in photos]
    features = median(found["features"][name] for name in names)
    raw = median(found["raw_pair"][name] for name in names)
    best = median(found["best_pair"][name] for name in names)
    blurred = sum(photo.fault == "blurred" for photo in photos)
    empty = sum(photo.fault == "nothing to see" for photo in photos)
    placed = f"no cameras found, {len(found['registered'])} of {len(photos)} photos fit together"
    if empty * 2 >= len(photos):
        return f"{placed}: {empty} are of one colour"
    if blurred * 2 >= len(photos):
        return f"{placed}: {blurred} are blurred"
    if features < FEW_FEATURES:
        return f"{placed}: little texture, {features:.0f} features in a photo"
    if raw >= 2 * FEW_MATCHES and best < 0.3 * raw:
        return (
            f"{placed}: the same details are seen ({raw:.0f} matches in a pair) but only {best:.0f} agree on one"
            " motion, so the subject or its surroundings moved"
        )
    if best < FEW_MATCHES:
        return f"{placed}: little in common, at most {best:.0f} matches between two photos (30 are needed)"
    return f"{placed} although pairs match ({best:.0f}): too little parallax, the camera hardly moved"
