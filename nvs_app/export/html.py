"""Splats as one HTML file that shows them by itself, from the disk too: nothing comes from outside.

    write_html(Path("chair.html"), splats, cameras, background=(1, 1, 1), title="chair")

The viewer is gsplat.js 1.2.9 (MIT, `viewer/gsplat-LICENSE`, the file of its npm package without the link to its source
map) and a script of this project's.
"""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from string import Template
from typing import Any

from nvs_app.atomic_io import write_whole
from nvs_app.errors import NVSError
from nvs_app.export.files import splat_bytes
from nvs_app.export.splats import Splats
from nvs_app.geometry.cameras import Cameras, vertical_fov
from nvs_app.geometry.layout import covered_views
from nvs_app.geometry.paths import focus_point

FOLDER = Path(__file__).parent / "viewer"
MOST = 1_500_000
"""Splats in one page: 48 MB of numbers, 64 MB of text."""
# A page that comes from the disk may start classic workers only, and the library's are modules. What it starts them
# with is replaced for it alone: names of its module.
_CLASSIC_WORKERS = """
const Worker = class extends window.Worker {
  constructor(url, options) { super(url, { ...options, type: "classic" }); }
};
const Blob = class extends window.Blob {
  constructor(parts, options) {
    const text = (part) => typeof part === "string" ? part : new TextDecoder().decode(part);
    super(parts.map((part) => text(part).replaceAll("import.meta.url", "self.location.href")), options);
  }
};
"""
_EXPORT = re.compile(r"export \{([^}]*)\};?\s*$")


def viewer_script() -> str:
    """The library and the viewer as the text of one module, which leaves `window.nvsSplats`."""
    library, found = _EXPORT.subn(_as_object, (FOLDER / "gsplat.js").read_text("utf-8"))
    assert found == 1
    return _CLASSIC_WORKERS + library + (FOLDER / "splat_view.js").read_text("utf-8")


def first_look(cameras: Cameras, background: tuple[float, float, float] | None) -> dict[str, Any]:
    """What the viewer must know besides the splats: where the context cameras [v] let it start, and their scale."""
    c2w = cameras.c2w.float().cpu()
    focus = focus_point(c2w)
    away = (c2w[:, :3, 3] - focus).norm(dim=-1)
    return {
        "c2w": c2w[0].flatten().tolist(),
        "fov": float(vertical_fov(cameras[:1].to("cpu"))[0]),
        "focus": focus.tolist(),
        "up": covered_views(c2w).up.tolist(),
        "radius": float(away.median().clamp_min(1e-6)),
        "background": None if background is None else list(background),
    }


def write_html(path: Path, splats: Splats, look: dict[str, Any], title: str) -> Path:
    """Writes the page. look: from `first_look`. Raises NVSError for more than MOST splats."""
    if len(splats) > MOST:
        raise NVSError(f"{path.name}: {len(splats)} splats, at most {MOST} fit in one page; ask for fewer")
    text = Template((FOLDER / "page.html").read_text("utf-8")).substitute(
        title=html.escape(title),
        license=(FOLDER / "gsplat-LICENSE").read_text("utf-8"),
        data=base64.b64encode(splat_bytes(splats)).decode(),
        start=json.dumps(look),
        script=viewer_script(),
    )
    write_whole(path, text)
    return path


def _as_object(found: re.Match) -> str:
    """`export { a as A, b as B };` as an object of these names."""
    pairs = (part.split(" as ") for part in found[1].split(","))
    return "const gsplat = {" + ", ".join(f"{public.strip()}: {own.strip()}" for own, public in pairs) + "};\n"
