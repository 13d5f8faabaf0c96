"""The process that runs pycolmap: `python -m data_tools.structure_from_motion.worker WORK`, started by `job`.

A process of its own, because the library ends the process on errors of its C++ parts, and because a kill is the
only sure way to cancel it. WORK/job.json says what to do; progress goes to stdout, one JSON object a line. Features
and matches are kept in WORK/database.db image by image and pair by pair, so that a second run goes on where
the first one was stopped. The result is WORK/result.json and WORK/model.npz.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.structure_from_motion.pairs import choose_pairs, word_histograms

IMAGES_A_CALL = 4
PAIRS_A_CALL = 60
PEAK = 0.003  # SIFT's contrast threshold: below the default of 0.0067, for soft toys and plain walls
ENLARGE_BELOW = 1100  # pixels; smaller images are searched at twice their size too, larger ones have enough
PREVIEW = "preview.json"  # what the mapper has so far: {"cameras": [n][12], "points": [m][6]}, see `preview`
PREVIEW_POINTS = 1500
SEED = 1  # of everything drawn at random
RELIABLE = 30  # points that a camera must see: with 22 of them one was a quarter of the extent of a capture off
CLOSE_PAIRS = 150  # compared a second time at most


def main(arguments: list[str]) -> int:
    """Runs the job of the work folder."""
    work = Path(arguments[0])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    Worker(work, json.loads((work / "job.json").read_text(encoding="utf-8"))).run()
    return 0


def _end_with_parent() -> None:
    """The parent holds the other end of stdin: when it is gone, however it ended, so is this process."""
    sys.stdin.read()
    os._exit(1)


class Worker:
    """Features, matches, mapping."""

    def __init__(self, work: Path, job: dict[str, Any]):
        import pycolmap

        pycolmap.logging.minloglevel = 2
        self.colmap = pycolmap
        self.work, self.job = work, job
        self.names: list[str] = job["names"]
        self.database = work / "database.db"
        self.threads = int(job["threads"])
        self.seconds: dict[str, float] = {}
        self.weak: dict[str, int] = {}

    def run(self) -> None:
        """All stages, and the result."""
        for stage in ("features", "matches", "cameras"):
            start = time.perf_counter()
            getattr(self, stage)()
            self.seconds[stage] = round(time.perf_counter() - start, 2)
        self.result()

    def emit(self, stage: str, fraction: float, message: str) -> None:
        """One line of progress."""
        print(json.dumps({"stage": stage, "fraction": round(fraction, 4), "message": message}), flush=True)

    def features(self) -> None:
        """SIFT features of every image that has none yet; images of one camera share its intrinsics."""
        colmap, total = self.colmap, len(self.names)
        camera_ids = self._cameras()
        with colmap.Database.open(self.database) as database:
            done = {image.name for image in database.read_all_images()}
        options = colmap.FeatureExtractionOptions()
        options.num_threads = self.threads
        options.max_image_size = 4096  # the images have their final size already
        options.sift.max_num_features = int(self.job["max_features"])
        options.sift.peak_threshold = PEAK
        options.sift.first_octave = -1 if self.job["longer_side"] < ENLARGE_BELOW else 0
        self.emit("features", len(done) / total, f"{len(done)} of {total} photos")
        for number, camera_id in enumerate(camera_ids):
            reader = colmap.ImageReaderOptions()
            reader.existing_camera_id = camera_id
            own = [n for n, camera in zip(self.names, self.job["camera_of"]) if camera == number and n not in done]
            for first in range(0, len(own), IMAGES_A_CALL):
                names = own[first : first + IMAGES_A_CALL]
                colmap.extract_features(
                    self.database,
                    self.work / "images",
                    image_names=names,
                    reader_options=reader,
                    extraction_options=options,
                    device=colmap.Device.cpu,
                )
                done.update(names)
                self.emit("features", len(done) / total, f"{len(done)} of {total} photos")

    def _cameras(self) -> list[int]:
        """The database's ids of the job's cameras, written on the first run."""
        colmap = self.colmap
        with colmap.Database.open(self.database) as database:
            there = sorted(camera.camera_id for camera in database.read_all_cameras())
            for camera in self.job["cameras"][len(there) :]:
                height, width = camera["image_hw"]
                params = [camera["focal"], width / 2, height / 2, 0.0]
                made = colmap.Camera(model="SIMPLE_RADIAL", width=width, height=height, params=params)
                made.has_prior_focal_length = camera["has_focal"]
                there.append(database.write_camera(made))
        return there

    def matches(self) -> None:
        """Compares the chosen pairs; those in the database already cost nothing."""
        colmap = self.colmap
        with colmap.Database.open(self.database) as database:
            ids = {image.name: image.image_id for image in database.read_all_images()}
            words = None
            if len(self.names) > 30:
                kept = [database.read_descriptors(ids[name]) for name in self.names if name in ids]
                words = word_histograms([np.asarray(getattr(d, "data", d)) for d in kept])
        names = [name for name in self.names if name in ids]
        chosen, strategy = choose_pairs(len(names), bool(self.job["ordered"]), words)
        self.strategy = f"{strategy}, {len(chosen)} pairs"
        with colmap.Database.open(self.database) as database:
            todo = [
                (names[i], names[j])
                for i, j in chosen
                if not database.exists_two_view_geometry(ids[names[i]], ids[names[j]])
            ]
        done = len(chosen) - len(todo)
        self.emit("matches", done / max(1, len(chosen)), f"{done} of {len(chosen)} pairs ({strategy})")
        for first in range(0, len(todo), PAIRS_A_CALL):
            part = todo[first : first + PAIRS_A_CALL]
            self._match(part)
            done += len(part)
            self.emit("matches", done / len(chosen), f"{done} of {len(chosen)} pairs ({strategy})")

    def _match(self, pairs: list[tuple[str, str]], closely: bool = False) -> None:
        """Compares pairs that the database does not have; closely: a second search along the epipolar lines."""
        colmap = self.colmap
        options = colmap.FeatureMatchingOptions()
        options.num_threads = self.threads
        if closely:
            options.guided_matching = True
            options.sift.max_ratio = 0.85
        verification = colmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = SEED
        pairing = colmap.ImportedPairingOptions()
        pairing.match_list_path = self.work / "pairs.txt"
        (self.work / "pairs.txt").write_text("".join(f"{a} {b}\n" for a, b in pairs), encoding="utf-8")
        colmap.match_image_pairs(
            self.database,
            matching_options=options,
            pairing_options=pairing,
            verification_options=verification,
            device=colmap.Device.cpu,
        )

    def cameras(self) -> None:
        """The mapper; again with lower demands where it leaves photos out or, with few photos, finds nothing."""
        self.model = self._map(careful=True)
        left_out = self._left_out()
        if not left_out:
            return
        if len(left_out) <= len(self.names) // 2:
            self._look_closely(left_out)
        again = self._map(careful=False)
        kept = 0 if self.model is None else self.model.num_reg_images()
        if again is not None and again.num_reg_images() > kept:
            self.model = again

    def _left_out(self) -> list[str]:
        model = self.model
        there = set() if model is None else {image.name for image in model.images.values() if image.has_pose}
        return [name for name in self.names if name not in there]

    def _look_closely(self, left_out: list[str]) -> None:
        """Compares the photos left out with all that they have something in common with, once more and closely."""
        colmap = self.colmap
        with colmap.Database.open(self.database) as database:
            ids = {image.image_id: image.name for image in database.read_all_images()}
            pairs: list[tuple[str, str]] = []
            for key, count in zip(*database.read_num_matches()):
                one, two = colmap.pair_id_to_image_pair(key)
                if count >= 15 and not {ids[one], ids[two]}.isdisjoint(left_out) and len(pairs) < CLOSE_PAIRS:
                    pairs.append((ids[one], ids[two]))
                    database.delete_matches(one, two)
                    database.delete_two_view_geometry(one, two)
        self.emit("cameras", 0.95, f"{len(left_out)} photos left out, looking at them again")
        self._match(pairs, closely=True)

    def _map(self, careful: bool):
        colmap, total = self.colmap, len(self.names)
        options = colmap.IncrementalPipelineOptions()
        options.num_threads = self.threads
        options.random_seed = SEED
        options.min_model_size = 3
        options.max_num_models = 5
        options.extract_colors = True
        if not careful:
            options.mapper.init_min_num_inliers = 50
            options.mapper.init_min_tri_angle = 6.0
            options.mapper.abs_pose_min_num_inliers = 20
            options.mapper.max_reg_trials = 6
        count = 2
        snapshots = self.work / "snapshots"
        shutil.rmtree(snapshots, ignore_errors=True)
        snapshots.mkdir()
        options.snapshot_path, options.snapshot_frames_freq = snapshots, 1 + total // 30

        def registered() -> None:
            nonlocal count
            count += 1
            shown = min(count, total)
            self.preview(snapshots)
            self.emit("cameras", 0.95 * shown / total, f"{shown} of {total} cameras placed")

        self.emit("cameras", 0.0, "looking for a pair to begin with")
        target = self.work / ("sparse" if careful else "sparse_relaxed")
        target.mkdir(exist_ok=True)
        # The global mapper of this library gives wrong geometry on small captures.
        models = colmap.incremental_mapping(
            self.database, self.work / "images", target, options=options, next_image_callback=registered
        )
        return max(models.values(), key=lambda m: (m.num_reg_images(), m.num_points3D()), default=None)

    def preview(self, snapshots: Path) -> None:
        """Writes the mapper's newest snapshot as JSON and removes it: cameras as the upper three rows of c2w (OpenCV
        axes), points as x, y, z, red, green, blue, in the mapper's own frame."""
        found = sorted(path for path in snapshots.iterdir() if path.is_dir())
        if not found:
            return
        try:
            model = self.colmap.Reconstruction(found[-1])
        except (ValueError, RuntimeError, OSError):  # still being written
            return
        poses = [image.cam_from_world().inverse().matrix() for image in model.images.values() if image.has_pose]
        points = list(model.points3D.values())
        points = points[:: 1 + len(points) // PREVIEW_POINTS]
        content = {
            "cameras": [np.round(pose, 4).flatten().tolist() for pose in poses],
            "points": [[*(round(float(x), 4) for x in p.xyz), *map(int, p.color)] for p in points],
        }
        temporary = self.work / f"{PREVIEW}.tmp"
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, self.work / PREVIEW)
        for folder in found:
            shutil.rmtree(folder, ignore_errors=True)

    def result(self) -> None:
        """Statistics of every photo, and the best model as arrays."""
        colmap = self.colmap
        best_pair = dict.fromkeys(self.names, 0)
        raw_pair = dict.fromkeys(self.names, 0)
        with colmap.Database.open(self.database) as database:
            ids = {image.image_id: image.name for image in database.read_all_images()}
            features = {name: database.num_keypoints_for_image(number) for number, name in ids.items()}
            for into, (keys, counts) in (
                (raw_pair, database.read_num_matches()),
                (best_pair, database.read_two_view_geometry_num_inliers()),
            ):
                for key, count in zip(keys, counts):
                    for number in colmap.pair_id_to_image_pair(key):
                        into[ids[number]] = max(into[ids[number]], count)
        model = self.model
        arrays: dict[str, Any] = {}
        registered: list[str] = []
        if model is not None:
            arrays, registered = self._arrays(model)
        temporary = self.work / "model.tmp.npz"
        np.savez(temporary, **arrays)
        os.replace(temporary, self.work / "model.npz")
        content = {
            "registered": registered,
            "weak": self.weak,
            "features": {name: features.get(name, 0) for name in self.names},
            "best_pair": best_pair,
            "raw_pair": raw_pair,
            "points": 0 if model is None else model.num_points3D(),
            "reprojection_error": None if model is None else model.compute_mean_reprojection_error(),
            "strategy": self.strategy,
            "seconds": self.seconds,
        }
        (self.work / "result.json").write_text(json.dumps(content), encoding="utf-8")

    def _arrays(self, model) -> tuple[dict[str, Any], list[str]]:
        """c2w (OpenCV axes), f, cx, cy, k of the registered images in the order of the job, and the points.

        Cameras that rest on too few points are left out: they are often wrong.
        """
        images = {image.name: image for image in model.images.values() if image.has_pose}
        self.weak = {name: n for name, image in images.items() if (n := image.num_points3D) < RELIABLE}
        images = {name: image for name, image in images.items() if name not in self.weak}
        names = [name for name in self.names if name in images]
        c2w, lens = np.tile(np.eye(4), (len(names), 1, 1)), np.zeros((len(names), 4))
        for row, name in enumerate(names):
            pose = images[name].cam_from_world()
            c2w[row, :3] = pose.inverse().matrix()
            lens[row] = model.cameras[images[name].camera_id].params
        points = list(model.points3D.values())
        arrays = {
            "c2w": c2w,
            "lens": lens,
            "xyz": np.array([p.xyz for p in points]).reshape(-1, 3),
            "rgb": np.array([p.color for p in points], dtype=np.uint8).reshape(-1, 3),
            "track": np.array([p.track.length() for p in points]),
        }
        return arrays, names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
