"""Where the fast weights and the cameras of a `render` job come from, and the folder it fills (see `render`)."""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nvs_app.adaptation.adapt import asked_before
from nvs_app.atomic_io import remove_left
from nvs_app.cli.adapting import adapt_scene
from nvs_app.cli.adding import encoded_stream, with_views
from nvs_app.cli.common import stage
from nvs_app.errors import NVSError, reading
from nvs_app.geometry import paths
from nvs_app.geometry.cameras import Cameras, crop_resize_cameras, vertical_fov, with_vertical_fov
from nvs_app.geometry.normalize import SimilarityTransform
from nvs_app.geometry.sway import sway
from nvs_app.model.state import SceneState, context_cameras
from nvs_app.rendering.depth_files import NOTES_FILE, DepthFolder, depth_files, depth_video
from nvs_app.rendering.inputs import photos_of
from nvs_app.rendering.plan import RenderPlan, photos_hw
from nvs_app.rendering.renderer import Renderer
from nvs_app.rendering.video import save_png
from nvs_app.rendering.video_record import read_record
from nvs_app.rendering.views import RenderedViews
from nvs_app.scenes.camera_path import read_camera_path
from nvs_app.scenes.digest import files_digest, scene_digest
from nvs_app.scenes.nerfstudio_frame import read_frame, to_scene
from nvs_app.scenes.posed import PosedImages
from nvs_app.scenes.scene import Scene
from nvs_app.scenes.views import choose_views, default_views

PATHS = ("orbit", "sway", "spiral", "capture")
DEFAULT_FRAMES = 96  # four seconds, as a path made in the page
STREAMED = "streamed"  # in a state's notes: `Source.key` of what was read
MADE_OF = "made_of"  # in a record: `StateSource.made_of`
SETTINGS_FILE = "render.json"  # beside the images of a folder: what they were rendered with


class StateSource:
    """Where the fast weights of a job come from: an existing --state file, or photos that are encoded when, and
    only when, something is to be rendered."""

    def __init__(self, renderer: Renderer, file: Path | None, scene: Scene | None, args: argparse.Namespace):
        """file: that of --state."""
        self.renderer, self.file, self.scene = renderer, file, scene
        self.state: SceneState | None = None
        self.adapt: float = args.adapt or 0.0
        self.stream: bool = args.stream
        self.context: list[int] = []
        trained = renderer.train_image_hw
        self.context_hw: tuple[int, int] = tuple(args.context_hw or trained)
        if file is not None and file.is_file():
            self.state = SceneState.load(file)
            self.words = f"state from {file}"
            if args.add_views is not None and scene is not None:
                before = self.state
                self.state, self.words = with_views(renderer, before, scene, args.add_views, args.add_how, file)
                if self.state is not before:
                    self._save(self.state)
            if renderer.detail and not self.detail:
                print(f"note: {file}: encoded without a detail head, rendered by LaCT alone", file=sys.stderr)
        elif scene is None:
            raise NVSError(f"--state {file}: not there, and no SCENE to encode")
        else:
            self.context = choose_context(scene, args)
            if self.stream:
                self.context = sorted(self.context)
            self.words = ""
            if renderer.detail and args.context_hw is None:
                stored = [(int(h), int(w)) for h, w in scene.image_hws[self.context].tolist()]
                self.context_hw = photos_hw(stored, tuple(args.image_hw or trained))

    @functools.cached_property
    def posed(self) -> PosedImages:
        """The input views, read once. Raises NVSError."""
        assert self.scene is not None
        return self.scene.load(self.context, self.context_hw)

    def photos(self) -> str:
        """A digest of the input views' pixels; of the fast weights where a state does not remember it."""
        if self.state is None and self.stream:
            assert self.scene is not None
            return files_digest(self.scene, self.context)
        if self.state is None:
            pixels = (self.posed.images * 255).round().to(torch.uint8)
            return hashlib.sha256(pixels.numpy().tobytes()).hexdigest()[:16]
        weights = self.state.fast_weights[0].w1.float().cpu().contiguous()
        return self.state.meta.get("photos") or hashlib.sha256(weights.numpy().tobytes()).hexdigest()[:16]

    def key(self) -> str:
        """A digest of the input views and of how they are read, the same whether the state is read or is still to be
        encoded."""
        values: list[Any] | None
        if self.state is not None and STREAMED in self.state.meta:  # not all that was read is kept
            return self.state.meta[STREAMED]
        if self.state is not None:
            remembered = context_cameras(self.state)
            if remembered is None:
                values = None
            else:
                plan = self.renderer.plan_encode(remembered.image_hw, detail=self.state.context is not None)
                values = [plan.render_hw, plan.lact_hw, plan.detail, remembered.c2w.tolist()]
        else:
            assert self.scene is not None
            plan = self.renderer.plan_encode(self.context_hw)
            values = [plan.render_hw, plan.lact_hw, plan.detail, self.scene.c2w[self.context].tolist()]
        return hashlib.sha256(json.dumps([values, self.photos()]).encode()).hexdigest()[:16]

    def made_of(self) -> str:
        """A digest of the input's files and cameras, which tells without reading photos that they are as they were;
        empty where it cannot tell."""
        if self.state is not None or self.scene is None or self.scene.encoded:
            return ""
        plan = self.renderer.plan_encode(self.context_hw)
        values = [plan.render_hw, plan.lact_hw, plan.detail, self.stream, scene_digest(self.scene.subset(self.context))]
        return hashlib.sha256(repr(values).encode()).hexdigest()[:16]

    def plan(self, image_hw: tuple[int, int]) -> RenderPlan:
        """At which sizes views of `image_hw` are rendered."""
        return self.renderer.plan_render(image_hw, self.state)

    def settings(self, image_hw: tuple[int, int]) -> dict[str, int | bool | str]:
        """How views of `image_hw` are rendered, see `Renderer.settings`."""
        values = self.renderer.settings() if self.detail else {"detail": False}
        return {**values, "plan": self.plan(image_hw).words}

    @property
    def adapted_for(self) -> float:
        """Seconds for which the scene is, or will be, adapted at most."""
        return max(self.adapt, 0.0 if self.state is None else asked_before(self.state))

    @property
    def detail(self) -> bool:
        """Whether the detail head renders: a state that was encoded without it has nothing for it to look at."""
        return self.renderer.detail and (self.state is None or self.state.context is not None)

    def encoded(self) -> SceneState:
        """The state; encodes it, adapts it and saves it on the first call, as far as it was not."""
        made = self.state is None
        if self.state is None:
            height, width = self.context_hw
            views = f"{len(self.context)} views of {height}x{width}"
            photos, key = self.photos(), self.key()
            start = time.perf_counter()
            if self.stream:
                assert self.scene is not None
                state = encoded_stream(self.renderer, self.scene, self.context, self.context_hw)
            else:
                with stage(f"encoding {views}") as tell:
                    state = self.renderer.encode(self.posed, progress=tell)
            self.words = f"encoded {views} in {time.perf_counter() - start:.1f} s"
            self.state = replace(
                state, meta={**state.meta, "photos": photos, **({STREAMED: key} if self.stream else {})}
            )
        if made:
            self._save(self.state)
        if self.adapt > asked_before(self.state):
            name = self.scene.name if self.scene is not None else str(self.file)
            found = adapt_scene(self.renderer, self._input(self.state), self.state, self.adapt, name)
            self.state, self.words = found.state, f"{self.words}, {found.words}"
            self._save(self.state)
        return self.state

    def _input(self, state: SceneState) -> PosedImages:
        """The views that a state was encoded from. Raises NVSError where it does not hold them."""
        if self.context and not self.stream:
            return self.posed
        photos = photos_of(state)
        if photos is None:
            raise NVSError(f"--adapt: {self.file} holds no photos; leave the file out and give SCENE")
        return photos

    def _save(self, state: SceneState) -> None:
        if self.file is None:
            return
        try:
            if self.file.parent.is_dir():
                remove_left(self.file.parent, f".{self.file.name[:200]}.", ".tmp")
            state.save(self.file)
        except OSError as error:
            raise NVSError(f"--state {self.file}: not written ({error.strerror or error})") from error


def choose_context(scene: Scene, args: argparse.Namespace) -> list[int]:
    """The input views: listed, or --context of them; all where the scene has no more, which is said."""
    count = len(scene)
    wanted = (count if args.stream else default_views(count)) if args.context is None else args.context
    if args.context_views is None and wanted >= count:
        if args.context is not None:
            print(
                f"note: --context {wanted}: {scene.name} has {count} views; all are input, none is held out",
                file=sys.stderr,
            )
        return list(range(count))
    return choose_views(scene, wanted, args.mode, args.seed, args.context_views, target=None).context


def path_frame(args: argparse.Namespace) -> SimilarityTransform | None:
    """The way from the scene's frame to that of --path-frame; None without the option."""
    if args.path_frame is None:
        return None
    if len(args.scenes) > 1:
        raise NVSError(f"--path-frame {args.path_frame}: the world of one scene, but {len(args.scenes)} are given")
    return read_frame(args.path_frame, Path(args.scenes[0]) if args.scenes else None)


def path_from_file(args: argparse.Namespace, frame: SimilarityTransform | None) -> tuple[Cameras, float]:
    """The cameras and the speed of a nerfstudio path, at the size that was asked for, in the scene's frame."""
    file = Path(args.path)
    if not file.is_file():
        raise NVSError(f"--path {args.path}: expected {', '.join(PATHS)} or a camera path file that exists")
    path = read_camera_path(file)
    if args.frames is not None and args.frames != len(path.cameras):
        raise NVSError(f"--frames {args.frames}: {file} has {len(path.cameras)} cameras of its own; leave --frames out")
    cameras = path.cameras if frame is None else to_scene(frame, path.cameras)
    # As in nerfstudio, the vertical field of view stays whatever the frame's shape.
    fov = vertical_fov(cameras) if args.fov is None else args.fov
    cameras = with_vertical_fov(cameras, fov, None if args.image_hw is None else tuple(args.image_hw))
    return cameras, args.fps or path.fps


def path_around(
    args: argparse.Namespace, scene: Scene | None, state: SceneState | None, image_hw: tuple[int, int]
) -> Cameras:
    """A path by name, from all cameras of the scene, or from those that the state remembers."""
    if scene is not None:
        cameras = scene.cameras(None, image_hw)
    else:
        remembered = None if state is None else context_cameras(state)
        if remembered is None:
            raise NVSError(f"--state {args.state}: it remembers no cameras; give SCENE, or --path FILE")
        cameras = crop_resize_cameras(remembered, image_hw)
    count = args.frames or DEFAULT_FRAMES
    path = sway(cameras, 0, count) if args.path == "sway" else getattr(paths, args.path)(cameras, count)
    return path if args.fov is None else with_vertical_fov(path, args.fov)


def settings(source: StateSource, cameras: Cameras, path: str, before: dict[str, Any] | None) -> dict[str, Any]:
    """What decides how the images of a job look. before: of what is there: where the input's files are as they were,
    their pixels are not read again."""
    card = source.renderer.card
    made_of = source.made_of()
    numbers = json.dumps([cameras.c2w.tolist(), cameras.fxfycxcy.tolist()]).encode()
    return {
        "checkpoint": card.get("name"),
        "checkpoint_hash": card.get("hash"),
        "context": before["context"] if before and made_of and before.get(MADE_OF) == made_of else source.key(),
        MADE_OF: made_of,
        "path": path,
        "cameras": hashlib.sha256(numbers).hexdigest()[:16],
        "frames": len(cameras),
        "image_hw": list(cameras.image_hw),
        "rendering": source.settings(cameras.image_hw),
        **({"adapted": source.adapted_for} if source.adapted_for else {}),
    }


def differing(found: Any, wanted: dict[str, Any]) -> str:
    """In what a record is of another job, in words; empty: it is of the same."""
    found = found if isinstance(found, dict) else {}
    return ", ".join(key for key in {**wanted, **found} if key != MADE_OF and found.get(key) != wanted.get(key))


def whole_video(out: Path, record: dict[str, Any], depth: bool, overwrite: bool) -> bool:
    """Whether a video, and with `depth` that of its depth, are there, made by the same job.

    Raises NVSError where a file of this name is of another job, or of another origin.
    """
    there = [] if overwrite else [path for path in (out, depth_video(out))[: 1 + depth] if path.is_file()]
    for path in there:
        with reading(f"--out {path}"):
            found = read_record(path)
        if found is None:
            raise NVSError(f"--out {path}: is there, and nothing says what of; use another name or --overwrite")
        if changed := differing(found, record):
            raise NVSError(f"--out {path}: is there, rendered with another {changed}; use another name or --overwrite")
    return len(there) == 1 + depth


class ImageFolder:
    """A folder of images 00000.png, 00001.png, ... and, with `depth`, of their depth maps."""

    def __init__(self, folder: Path, count: int, depth: DepthFolder | None = None):
        self.folder, self.count, self.depth = folder, count, depth
        self._there: set[str] = set()

    def missing(self, wanted: dict[str, Any], overwrite: bool) -> list[int]:
        """Numbers of the images still to render, from now on in the way that `wanted` notes.

        Raises NVSError when the folder holds images of another rendering, or images of this name that no rendering of
        ours left there.
        """
        folder, file = self.folder, self.folder / SETTINGS_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            remove_left(folder, "", ".tmp")
            found = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
            images = list(folder.glob("[0-9][0-9][0-9][0-9][0-9].png"))
            if not overwrite and found is None and images:
                raise NVSError(f"--out {folder}: holds images of another origin; use another folder or --overwrite")
            if not overwrite and found is not None and (changed := differing(found, wanted)):
                raise NVSError(f"--out {folder}: rendered with another {changed}; use another folder or --overwrite")
            maps = depth_files(folder)
            if overwrite and found is not None:
                # Ours, and perhaps more of them than the new path has.
                for path in (*images, *maps):
                    path.unlink()
                (folder / NOTES_FILE).unlink(missing_ok=True)
            self._there = set() if overwrite else {path.name for path in (*images, *maps)}
            if self.depth is not None:
                self.depth.start()
            file.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
        except (OSError, ValueError) as error:
            raise NVSError(f"--out {folder}: cannot be used ({error}); give another folder") from error
        return [index for index in range(self.count) if not self._whole(index)]

    def _whole(self, index: int) -> bool:
        image = f"{index:05d}.png" in self._there
        return image and (self.depth is None or self.depth.path(index).name in self._there)

    def save(self, index: int, part: Tensor | RenderedViews) -> None:
        """Writes what is missing of one view: its image [1, 3, H, W], and its depth map."""
        images = part.images if isinstance(part, RenderedViews) else part
        if f"{index:05d}.png" not in self._there:
            save_png(images[0], self.folder / f"{index:05d}.png")
        if self.depth is not None and isinstance(part, RenderedViews):
            self.depth.save(index, part)
