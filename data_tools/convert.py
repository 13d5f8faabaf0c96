"""Any scene with cameras -> a nerfstudio scene: ``transforms.json`` beside its images; or a COLMAP project.

    python -m data_tools convert captures/garden scenes/garden
    python -m data_tools convert chunks/000000.torch scenes --max-views 64     # every scene of the chunk
    python -m data_tools convert captures/garden colmap/garden --to colmap

The format is recognised by looking (``--format`` overrides); what was found, assumed and left out is printed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from data_tools.colmap_export import save_colmap
from data_tools.readers import FORMATS, SeveralScenes, located, open_scene, recognise, scene_keys, split_key
from nvs_app.errors import NVSError
from nvs_app.scenes.scene import Scene, check_empty
from nvs_app.scenes.views import spread_views

# What can be written, and the file that says that it is there.
WRITTEN = {"nerfstudio": "transforms.json", "colmap": "sparse/0/cameras.bin"}


@dataclass
class Converted:
    """What a conversion did.

    Attributes:
        written: scene folders made.
        present: scene folders that were there already (a conversion of many scenes was resumed).
        failed: the scenes that could not be converted, with the reason.
    """

    written: list[Path] = field(default_factory=list)
    present: list[Path] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def convert(
    source: str | Path,
    output: str | Path,
    name: str | None = None,
    key: str | None = None,
    max_views: int | None = None,
    to: str = "nerfstudio",
) -> Converted:
    """Convert one scene, or all scenes of a file or folder that holds many.

    Args:
        source: what :func:`data_tools.readers.open_scene` opens, or a path that holds many scenes.
        output: the scene's folder, absent or empty; of many scenes the folder of their folders, where those that
            are there already are kept (each is written whole or not at all, so a conversion resumes).
        name: the format, where it should not be recognised.
        key: one scene of many.
        max_views: keep at most so many views, evenly spread over positions and directions.
        to: what is written, "nerfstudio" or "colmap".

    Raises:
        NVSError: nothing was recognised, or the one scene cannot be converted.
    """
    output = Path(output)
    path, key = split_key(source, key)
    try:
        inner, _ = located(path, key)
        form = recognise(inner, name)[0]
        print(f"{inner}: {form.name} ({FORMATS[form.name].expects})")
        keys = scene_keys(inner, form.name) if key is None else []
    except SeveralScenes as several:
        if key is not None or not path.is_dir():
            raise
        keys = list(several.choices)
    done = Converted()
    if len(keys) < 2:
        check_empty(output)
        done.written.append(_convert_one(open_scene(path, name, key), output, max_views, to))
        return done
    print(f"{len(keys)} scenes, each into its own folder of {output}")
    for each in keys:
        folder = output / each
        if each.startswith(".") or any(character in each for character in "/\\\0"):
            done.failed[each] = "its key is no plain name"
            continue
        if (folder / WRITTEN[to]).is_file():
            done.present.append(folder)
            continue
        try:
            done.written.append(_convert_one(open_scene(path, name, each), folder, max_views, to))
        except NVSError as error:
            done.failed[each] = error.told
            print(f"{each}: skipped: {error.told}")
    print(f"{len(done.written)} scenes written, {len(done.present)} there already, {len(done.failed)} skipped")
    if not done.written and not done.present:
        raise NVSError(f"{path}: none of its {len(keys)} scenes could be converted")
    return done


def _convert_one(scene: Scene, output: Path, max_views: int | None, to: str) -> Path:
    for note in scene.notes:
        print(f"{scene.name}: note: {note}")
    total = len(scene)
    if max_views is not None and total > max_views:
        scene = scene.subset(sorted(spread_views(scene.c2w, max_views)))
    lenses = [lens for lens in scene.lenses if lens is not None]
    save_colmap(scene, output) if to == "colmap" else scene.save(output)
    sizes = sorted({(height, width) for height, width in scene.image_hws.tolist()})
    shown = ", ".join(f"{width}x{height}" for height, width in sizes[:3]) + (", ..." if len(sizes) > 3 else "")
    text = f"{scene.name}: {len(scene)} of {total} views kept ({shown})"
    if len(scene) < total:
        text += f", {total - len(scene)} skipped: --max-views {max_views}, evenly spread"
    if lenses:
        models = ", ".join(sorted({lens.model for lens in lenses}))
        text += f"; {len(lenses)} with lens distortion ({models})"
    print(f"{text} -> {output}")
    return output
