"""Depth maps of many views, fused: what several views agree on is a surface, what some look through is none.

    surfels = fuse(views)

First the depth of each pixel becomes the mean of what all views say of the place, weighted by how sure each is. Then it
stays where `least` other views show a surface there, and no more of them look past it (as Schönberger et al. 2016 fuse
depth maps). Of the views that show a place, the one that sees it finest and surest gives its surfel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nvs_app.export.views import SurfaceViews
from nvs_app.geometry.cameras import Cameras, cross
from nvs_app.geometry.warp import plane_rays

TOLERANCE = 0.01
"""Depths that differ by a smaller share are of the same surface."""
LEAST = 2
"""Other views that must show a surface."""
NEIGHBOURS = 16  # other views that are asked, the ones with the nearest cameras
_WIDE = 0.05  # tolerance while depths are averaged
_ROUNDS = 2  # of averaging: what others say is averaged, too
_SAME = 0.02  # tolerance between views when one is chosen, at least: of two thin layers one would shine through
_THROUGH = 3.0  # tolerances behind a point, or standard deviations: who sees that far looks through it
_SUREST = 0.002  # uncertainty, at least: a pixel of a photo is about as wide
_JUMP = 0.05  # depths in a neighbourhood that differ by more lie on both sides of an edge
_STEEPEST = 2.5  # of a pixel's footprint: how many times longer than wide, at grazing angles
_NEAREST = 1e-3  # of the own depth: a point closer to the plane of another camera is not seen by it
_FINER = 1.05  # times the own resolution: less is the same


@dataclass(frozen=True)
class Surfels:
    """Small pieces of surface, n of them, in the scene's own frame; on one device.

    points: [n, 3]. colours: [n, 3] in [0, 1].
    across, down: [n, 3], the way on the surface from a pixel to its right and to its lower neighbour.
    agreeing: [n], other views that show the surface there. asked: [n], those that could have shown it.
    """

    points: Float[Tensor, "n 3"]
    colours: Float[Tensor, "n 3"]
    across: Float[Tensor, "n 3"]
    down: Float[Tensor, "n 3"]
    agreeing: Float[Tensor, " n"]
    asked: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, rows: Tensor | slice) -> Surfels:
        """Some of them."""
        return Surfels(**{name: value[rows] for name, value in vars(self).items()})

    @property
    def normals(self) -> Float[Tensor, "n 3"]:
        """Unit normals, towards the camera that saw them."""
        return F.normalize(cross(self.down, self.across), dim=-1)

    @staticmethod
    def cat(parts: list[Surfels]) -> Surfels:
        """One after another."""
        return Surfels(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})


@dataclass(frozen=True)
class Agreement:
    """What other views say of the pixels of one view, n of them.

    depth: [n], the mean of theirs and its own. agreeing, against, asked: [n], how many show the surface, look past it,
    and could have shown it. finer: [n], how many of those that agree see it finer.
    """

    depth: Float[Tensor, " n"]
    agreeing: Float[Tensor, " n"]
    against: Float[Tensor, " n"]
    asked: Float[Tensor, " n"]
    finer: Float[Tensor, " n"]


def fuse(
    views: SurfaceViews,
    least: int = LEAST,
    tolerance: float = TOLERANCE,
    fill: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Surfels:
    """Surfels of all views; a place has one, from the view that sees it best.

    least: other views that must agree, of few views fewer. tolerance: share of the depth.
    fill: keep also what hardly another view could show, for pictures without holes; such surfels have agreeing < least.
    progress: called with the share done so far; what it raises stops the work.
    """
    tell = progress or (lambda share: None)
    views = agreed(views, least, tolerance, fill, lambda share: tell(0.8 * share))
    near, found = neighbours(views.cameras), []
    for view in range(len(views)):
        rows, columns = views.depth[view].nonzero(as_tuple=True)
        surfels = view_surfels(views, view, rows, columns)
        said = ask(views, view, rows, columns, surfels, near[view], max(tolerance, _SAME))
        found.append(replace(surfels, agreeing=said.agreeing, asked=said.asked)[said.finer < 1])
        tell(0.8 + 0.2 * (view + 1) / len(views))
    return Surfels.cat(found)


def agreed(
    views: SurfaceViews,
    least: int = LEAST,
    tolerance: float = TOLERANCE,
    fill: bool = False,
    progress: Callable[[float], None] | None = None,
) -> SurfaceViews:
    """The views with the mean depth of all, 0 where not enough of them agree and beside edges; arguments as above."""
    near = neighbours(views.cameras)
    least = min(least, near.shape[1])
    views = replace(views, depth=views.depth * ~edges(views.depth))
    for turn in range(_ROUNDS + 1):
        last = turn == _ROUNDS
        depth = views.depth.clone()
        for view in range(len(views)):
            rows, columns = views.depth[view].nonzero(as_tuple=True)
            surfels = view_surfels(views, view, rows, columns)
            said = ask(views, view, rows, columns, surfels, near[view], tolerance if last else _WIDE)
            kept = (said.agreeing >= least) | (said.asked < least) & fill
            depth[view, rows, columns] = said.depth * (kept & (said.against <= said.agreeing) if last else 1)
            if progress is not None:
                progress((turn + (view + 1) / len(views)) / (_ROUNDS + 1))
        views = replace(views, depth=depth)
    return views


def edges(depth: Float[Tensor, "v h w"]) -> Bool[Tensor, "v h w"]:
    """Pixels beside which a much nearer or farther surface lies: their colours are of both."""
    known = depth[:, None] > 0
    nearest = -F.max_pool2d(torch.where(known, -depth[:, None], -torch.inf), 3, 1, 1)
    farthest = F.max_pool2d(depth[:, None], 3, 1, 1)
    return (known & (farthest > nearest * (1 + _JUMP)))[:, 0]


def view_surfels(views: SurfaceViews, view: int, rows: Tensor, columns: Tensor) -> Surfels:
    """A surfel for each of some pixels of a view, from its depth and the gradient of its depth; nobody agrees yet."""
    camera, depth = views.cameras[view], views.depth[view]
    rays = plane_rays(camera.fxfycxcy[None], camera.image_hw, camera.image_hw)[0][:, rows, columns].T
    z = depth[rows, columns][:, None]
    slope_x, slope_y = (part[rows, columns][:, None] for part in gradient(depth))
    fx, fy = camera.fxfycxcy[0], camera.fxfycxcy[1]
    zero = torch.zeros_like(z)
    # What is steeper may be an edge, whose slope would make a spike: it faces the camera.
    steep = (slope_x * fx).square() + (slope_y * fy).square() > z.square() * (_STEEPEST**2 - 1)
    across = torch.cat([z / fx, zero, zero], dim=-1) + rays * slope_x * ~steep
    down = torch.cat([zero, z / fy, zero], dim=-1) + rays * slope_y * ~steep
    turn, eye = camera.c2w[:3, :3].T, camera.c2w[:3, 3]
    nobody = torch.zeros_like(z[:, 0])
    return Surfels(
        (rays * z) @ turn + eye, views.images[view][:, rows, columns].T, across @ turn, down @ turn, nobody, nobody
    )  # fmt: skip


def gradient(depth: Float[Tensor, "h w"]) -> tuple[Float[Tensor, "h w"], Float[Tensor, "h w"]]:
    """How depth changes from a pixel to the next, along rows and along columns: of the differences to both sides the
    smaller one, so that an edge gives no slope; 0 where neither neighbour has a depth."""

    def along(values: Tensor) -> Tensor:  # of the last axis
        both = (values[:, 1:] > 0) & (values[:, :-1] > 0)
        step = torch.where(both, values[:, 1:] - values[:, :-1], float("inf"))
        after, before = F.pad(step, (0, 1), value=float("inf")), F.pad(step, (1, 0), value=float("inf"))
        smaller = torch.where(after.abs() < before.abs(), after, before)
        return torch.where(smaller.isfinite(), smaller, 0.0)

    return along(depth), along(depth.T).T


def ask(
    views: SurfaceViews,
    view: int,
    rows: Tensor,
    columns: Tensor,
    surfels: Surfels,
    others: Int[Tensor, " k"],
    tolerance: float,
) -> Agreement:
    """What `others` say of some pixels of a view, whose surfels these are."""
    cameras = views.cameras
    axis, eye = cameras.c2w[view, :3, 2], cameras.c2w[view, :3, 3]
    normals = surfels.normals
    depth = (surfels.points - eye) @ axis
    weight = views.uncertainty[view, rows, columns].clamp_min(_SUREST) ** -2
    own = weight * resolution(cameras[view], surfels.points, normals)
    total, weights = depth * weight, weight.clone()
    agreeing, against, asked, finer = (torch.zeros_like(depth) for _ in range(4))
    for other in others.tolist():
        place, z = project(cameras[other], surfels.points)
        inside = (z > _NEAREST * depth) & (place.abs() <= 1).all(dim=-1)
        shown = _sampled(views.depth[other], place, tolerance)
        unsure = lookup(views.uncertainty[other], place, "nearest").clamp_min(_SUREST)
        ratio = shown / z.clamp_min(1e-12) - 1
        empty = lookup(views.empty[other].float(), place, "nearest") > 0.5
        agrees = inside & (shown > 0) & (ratio.abs() < tolerance)
        past = inside & (empty | (ratio > _THROUGH * unsure.clamp_min(tolerance)))
        # Its point lies further along its ray by `ratio`; how deep that is for this view.
        sight = surfels.points - cameras.c2w[other, :3, 3]
        theirs = torch.where(agrees, unsure**-2, 0.0)
        total, weights = total + theirs * (depth + ratio * (sight @ axis)), weights + theirs
        agreeing, against, asked = agreeing + agrees, against + past, asked + (agrees | past)
        best = own * (_FINER if other > view else 1 / _FINER)
        finer = finer + (theirs * resolution(cameras[other], surfels.points, normals) > best)
    return Agreement(total / weights, agreeing, against, asked, finer)


def neighbours(cameras: Cameras, count: int = NEIGHBOURS) -> Int[Tensor, "v k"]:
    """The views with the nearest cameras, for each view at most `count` others, by position (in units of the mean
    distance between cameras) and direction (in radians)."""
    position, forward = cameras.c2w[:, :3, 3], cameras.c2w[:, :3, 2]
    distance = (position[:, None] - position).norm(dim=-1)
    angle = torch.acos((forward[:, None] * forward).sum(-1).clamp(-1, 1))
    cost = distance / distance.mean().clamp_min(1e-12) + angle
    cost.fill_diagonal_(float("inf"))
    return cost.argsort(dim=1)[:, : min(count, len(cameras) - 1)]


def project(camera: Cameras, points: Tensor) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
    """Where points lie in an image, in [-1, 1] as grid_sample takes it, and their z."""
    local = (points - camera.c2w[:3, 3]) @ camera.c2w[:3, :3]
    z = local[:, 2]
    focal, centre = camera.fxfycxcy[:2], camera.fxfycxcy[2:]
    size = centre.new_tensor([camera.image_hw[1], camera.image_hw[0]])
    return 2 * (local[:, :2] / z.clamp_min(1e-12)[:, None] * focal + centre) / size - 1, z


def resolution(camera: Cameras, points: Tensor, normals: Tensor) -> Float[Tensor, " n"]:
    """Pixels of a camera that a unit of surface area takes; 0 where it is seen from behind."""
    sight = camera.c2w[:3, 3] - points
    distance2 = sight.square().sum(-1).clamp_min(1e-24)
    cosine = (sight * normals).sum(-1) * distance2.rsqrt()
    return cosine.clamp_min(0) * camera.fxfycxcy[:2].prod() / distance2


def _sampled(depth: Tensor, place: Tensor, tolerance: float) -> Float[Tensor, " n"]:
    """Depth at places between pixels: interpolated on a surface, the nearest pixel's beside an edge."""
    nearest, smooth = lookup(depth, place, "nearest"), lookup(depth, place, "bilinear")
    return torch.where((smooth - nearest).abs() < tolerance * nearest, smooth, nearest)


def lookup(values: Tensor, place: Tensor, mode: str) -> Float[Tensor, "*c n"]:
    """Values [*c, h, w] at places [n, 2] of the image, as `project` has them; mode: "nearest" or "bilinear"."""
    maps = values.reshape(1, -1, *values.shape[-2:])
    found = F.grid_sample(maps, place[None, None], mode, padding_mode="border", align_corners=False)
    return found[0, :, 0].reshape(*values.shape[:-2], len(place))
