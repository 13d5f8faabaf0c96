"""Opening scenes: one module a format, each ``read(path) -> Scene``; :func:`open_scene` tells them apart by looking.

    scene = open_scene("captures/chair")                # the format is recognised
    scene = open_scene("chunks/000000.torch#5aca87f")   # one of the many scenes of a file
    for scene in open_scenes("chunks"): ...             # all of them

name            what is looked for                             who makes it
nerfstudio      transforms.json                                nerfstudio, instant-ngp, Polycam, Record3D, DL3DV
lact            opencv_cameras.json                            LaCT, Long-LRM
blender         transforms_{train,val,test}.json               NeRF synthetic
colmap          sparse/0, sparse/ or the folder: cameras.bin   COLMAP (.bin and .txt), GLOMAP, mip-NeRF 360
                and images.bin, or .txt
llff            poses_bounds.npy                               LLFF
co3d            frame_annotations.jgz                          CO3D; a scene is CATEGORY#SEQUENCE
pixelsplat      *.torch                                        pixelSplat's chunks of RealEstate10K, ACID; FILE#KEY
mvsnet          cams/*_cam.txt                                 MVSNet, DTU, BlendedMVS
bundler         bundle.out and list.txt                        Bundler, VisualSFM, 1DSfM
frame_poses     *.pose.txt, or pose/*.txt beside color/        7-Scenes, ScanNet and their like
polycam         keyframes/corrected_cameras or cameras         Polycam's raw export
record3d        metadata or metadata.json with poses and K     Record3D's RGBD frames, unpacked .r3d
realestate10k   KEY.txt whose first line is an address         RealEstate10K, with local frames or video

A folder that holds several is read by the first of this list that can, and the scene's notes tell of the others:
COLMAP comes before LLFF because it knows the lens's distortion. All scenes come out with OpenCV axes and pinhole
intrinsics in pixels of the stored images; what was assumed or left out stands in ``scene.notes``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from data_tools.readers import (
    blender,
    bundler,
    co3d,
    colmap,
    frame_poses,
    lact,
    llff,
    mvsnet,
    nerfstudio,
    phone_scans,
    pixelsplat,
    re10k,
)
from data_tools.readers.below import SeveralScenes, scenes_below
from data_tools.readers.fields import first_few, images_in, kept_within
from data_tools.readers.json_files import load_json
from data_tools.readers.lookup import one_line
from nvs_app.errors import NVSError, Refusal, coded
from nvs_app.scenes.scene import Scene

__all__ = ["FORMATS", "Format", "SeveralScenes", "holds_scene", "located", "open_scene", "open_scenes", "recognise",
           "scene_keys", "split_key"]  # fmt: skip


@dataclass(frozen=True)
class Format:
    """How scenes of one kind are found and read.

    Attributes:
        name: for ``--format``.
        expects: what is looked for, for people.
        recognise: whether it is there; reads little.
        read: path -> Scene; path, key -> Scene where ``keys`` is given.
        keys: the names of the scenes at a path that may hold many.
    """

    name: str
    expects: str
    recognise: Callable[[Path], bool]
    read: Callable[..., Scene]
    keys: Callable[[Path], list[str]] | None = None


def _json_kind(path: Path) -> str:
    """The format of a .json file of any name, by its content; empty where it is none."""
    content = load_json(path)
    frames = content.get("frames") if isinstance(content, dict) else content
    first = frames[0] if isinstance(frames, list) and frames else None
    if isinstance(first, dict) and "w2c" in first:
        return "lact"
    if isinstance(content, dict) and "frames" in content:
        return "blender" if path.stem in blender.STEMS else "nerfstudio"
    return ""


def _is_json(name: str, path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".json" and _json_kind(path) == name


FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format(
            "nerfstudio",
            "transforms.json",
            lambda path: _is_json("nerfstudio", path) or (path.is_dir() and nerfstudio.find(path) is not None),
            nerfstudio.read,
        ),
        Format(
            "lact",
            "opencv_cameras.json",
            lambda path: _is_json("lact", path) or (path / "opencv_cameras.json").is_file(),
            lact.read,
        ),
        Format(
            "blender",
            "transforms_train.json (or _val, _test)",
            lambda path: _is_json("blender", path) or bool(blender.files(path)),
            blender.read,
        ),
        Format("colmap", "sparse/0/images.bin (or .txt)", lambda path: bool(colmap.find(path)), colmap.read),
        Format("llff", "poses_bounds.npy", llff.recognise, llff.read),
        Format("co3d", "frame_annotations.jgz", co3d.recognise, co3d.read, co3d.keys),
        Format("pixelsplat", "*.torch", pixelsplat.recognise, pixelsplat.read, pixelsplat.keys),
        Format("mvsnet", "cams/*_cam.txt", mvsnet.recognise, mvsnet.read),
        Format("bundler", "bundle.out", bundler.recognise, bundler.read),
        Format("frame_poses", "*.pose.txt or pose/*.txt", frame_poses.recognise, frame_poses.read),
        Format("polycam", "keyframes/cameras/*.json", phone_scans.recognise_polycam, phone_scans.read_polycam),
        Format("record3d", "metadata with poses", phone_scans.recognise_record3d, phone_scans.read_record3d),
        Format("realestate10k", "a RealEstate10K .txt", re10k.recognise, re10k.read, re10k.keys),
    )
}


def recognise(path: str | Path, name: str | None = None) -> list[Format]:
    """The formats that ``path`` holds, the one to read first.

    Args:
        path: a scene's folder, or a camera file.
        name: take this format alone (``--format``).

    Raises:
        NVSError: nothing is there, nothing known is there, or not the format named.
    """
    path = Path(path)
    if name is not None and name not in FORMATS:
        raise NVSError(f"format {name} is not known, expected one of {', '.join(FORMATS)}")
    if not path.exists():
        raise NVSError(f"{path}: no such file or folder", Refusal.NO_SCENE)
    found = [form for form in FORMATS.values() if name in (None, form.name) and form.recognise(path)]
    if not found and name in (None, "nerfstudio") and nerfstudio.find_other(path) is not None:
        found = [FORMATS["nerfstudio"]]
    if found:
        return found
    if name is not None:
        raise NVSError(f"{path}: no scene of the format {name}, looked for {FORMATS[name].expects}", Refusal.NO_SCENE)
    if path.is_file():
        if path.suffix.lower() == ".json":
            raise NVSError(
                f'{path}: not a camera file, looked for "frames" with transform_matrix or w2c', Refusal.NO_SCENE
            )
        raise NVSError(
            f"{path}: not a scene, expected a folder or a .json file of cameras, images.bin, poses_bounds.npy,"
            " frame_annotations.jgz, a .torch chunk, bundle.out or a RealEstate10K .txt",
            Refusal.NO_SCENE,
        )
    looked = ", ".join(form.expects for form in FORMATS.values())
    count = len(images_in(path)) or len(images_in(path / "images"))
    if count:
        raise NVSError(
            f"{path}: {count} images but no scene found; recover their cameras first with"
            f" `python -m data_tools photos` (looked for {looked})",
            Refusal.NO_SCENE,
        )
    raise NVSError(f"{path}: no scene found, looked for {looked}", Refusal.NO_SCENE)


def holds_scene(path: Path) -> bool:
    """Whether there is a scene of a known format at ``path`` or, of a folder, anywhere below it."""
    return _is_scene(path) or (path.is_dir() and bool(scenes_below(path, _is_scene)))


def _is_scene(path: Path) -> bool:
    try:
        return any(form.recognise(path) for form in FORMATS.values()) or nerfstudio.find_other(path) is not None
    except SeveralScenes:
        return True  # which one is meant is asked when it is opened


def located(path: Path, key: str | None = None) -> tuple[Path, str | None]:
    """Where a scene lies that ``path`` or a folder below it holds, and the key that is left to tell which one of it.

    Raises:
        SeveralScenes: the folders below hold several, and ``key`` names none of them.
    """
    found = {} if not path.is_dir() or _is_scene(path) else scenes_below(path, _is_scene)
    if key in found:
        return found[str(key)], None
    if len(found) > 1:
        names = one_line(first_few(list(found), 12))
        what = f"holds {len(found)} scenes" if key is None else f"no scene {key} among its {len(found)}"
        raise SeveralScenes(f"{path}: {what} ({names}); name one, --scene NAME", tuple(found))
    return next(iter(found.values()), path), key


def scene_keys(path: str | Path, name: str | None = None) -> list[str]:
    """The keys of the scenes at ``path``: ``open_scene(f"{path}#{key}")``. Empty for a format of one scene a path."""
    form = recognise(path, name)[0]
    return form.keys(Path(path)) if form.keys else []


@coded(Refusal.BROKEN_FILE)
def open_scene(path: str | Path, name: str | None = None, key: str | None = None, within: Path | None = None) -> Scene:
    """Open a scene of any known format.

    Args:
        path: a scene folder, its camera file, or a folder that has a scene anywhere below; ``PATH#KEY`` names one
            scene of a path that holds many.
        name: the format, where it should not be recognised by looking.
        key: the scene, as after ``#``.
        within: no image outside of this folder is taken, whatever the camera file says.

    Raises:
        NVSError: nothing known is there, or the camera file is malformed, or it holds many scenes and none is
            named; one line says what and where.
    """
    path, key = split_key(path, key)
    try:
        with kept_within(within):
            inner, key = located(path, key)
            scene = _open(inner, name, key)
        if inner != path:
            where = f"scene found in {inner.relative_to(path).as_posix()}/"
            scene = replace(scene, notes=(where, *scene.notes))
        return scene
    except OSError as error:
        reason = error.strerror or error
        raise NVSError(f"{error.filename or path}: cannot be read ({reason})", Refusal.BROKEN_FILE) from error


def _open(path: Path, name: str | None, key: str | None) -> Scene:
    forms = recognise(path, name)
    form, failed = forms[0], ""
    if form.keys is None:
        if key is not None:
            raise NVSError(f"{path}: {form.name} holds one scene, so no #{key}")
        try:
            scene = form.read(path)
        except NVSError as error:
            others = [other for other in forms[1:] if other.keys is None]
            if error.code not in ("", Refusal.BROKEN_FILE, Refusal.NO_IMAGE, Refusal.NO_POSE) or not others:
                raise
            try:
                scene = others[0].read(path)
            except NVSError:
                raise error from None
            form, failed = others[0], f", which cannot be read ({one_line(str(error), 160)})"
    else:
        keys = form.keys(path)
        if key is None and len(keys) != 1:
            shown = one_line(", ".join(keys[:5]) + (", ..." if len(keys) > 5 else ""))
            raise NVSError(
                f"{path}: holds {len(keys)} scenes, name one as {path.name}#KEY ({shown})", Refusal.SEVERAL_SCENES
            )
        if key is not None and key not in keys:
            raise NVSError(f"{path}: no scene {key} among its {len(keys)}")
        scene = form.read(path, key)
    if len(forms) > 1:
        rest = ", ".join(other.name for other in forms if other is not form)
        note = f"read as {form.name}; the folder also holds {rest}{failed}"
        scene = replace(scene, notes=(*scene.notes, note))
    return scene


def open_scenes(path: str | Path, name: str | None = None) -> Iterator[Scene]:
    """All scenes at ``path``, one after the other: one, or those of a chunk, a category or a folder of them."""
    path, key = split_key(path, None)
    keys: list[str | None] = [key]
    if key is None:
        keys = [*scene_keys(path, name)] or [None]
    for each in keys:
        yield open_scene(path, name, each)


def split_key(path: str | Path, key: str | None) -> tuple[Path, str | None]:
    """PATH#KEY taken apart; a file or folder whose own name has a # wins."""
    whole = Path(path)
    if key is not None or "#" not in str(path) or whole.exists():
        return whole, key
    front, _, back = str(path).rpartition("#")
    return Path(front), back or None
