"""The messages of the viewer's socket, in both directions: what each holds, and the one parser of what pages send.

Requests (JSON text):

| type    | fields                                                                     | answer                       |
|---------|----------------------------------------------------------------------------|------------------------------|
| `frame` | `c2w`, `fov`, `hw`, `output`, `format`, `quality`, `quick`, `auto`, `small` | a frame, or `dropped`        |
| `point` | `c2w`, `fov`, `hw`, `at`: the surface under that place of the view         | `point`, or `dropped`        |
| `view`  | `index`: where the capture's camera of that number stands                  | `view`                       |
| `path`  | `spec`: a path as `services.videos.Videos.path` takes it                   | `path`, or `dropped`         |
| `stage` | `hw`: pixels of the screen that show frames; `side`: chosen shorter side   | `plan`                       |
| `ping`  |                                                                            |                              |

Answers bear the request's `id`, a whole number or a short text. `dropped`: a newer request of its kind took its place.
A request that is wrong is answered by `error`, one line.

Messages (JSON text, but for frames):

| type      | fields                                                                                               |
|-----------|------------------------------------------------------------------------------------------------------|
| a frame   | bytes: 4 of length (little-endian), so many of JSON (`FrameHeader`), then the image                  |
| `scene`   | `revision`, `plan` and what `LoadedScene.for_viewer` says: another scene is there                    |
| `plan`    | `plan`: sizes to ask for, see `services.frame_plan`; also when it changes, to who has told a stage   |
| `view`, `path`, `point` | answers                                                                                |
| `dropped`, `error`      | no answer                                                                              |
| `notice`  | `words` over the image, of work that a new scene waits for                                           |
| `work`    | `stage`, `words`, `share`, `left`: how far the reconstruction is                                      |
| `worked`  | `problem`, `words`: it is done, or why it is not                                                      |
| `sparse`  | `cameras`, `points`: what structure from motion has found so far                                      |
| `capture` | what lies over the view: the capture's cameras, points; see `services.capture` |
| `ended`   | `message`: the visit is over, or goes on in another tab                                              |
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from nvs_app.errors import NVSError
from nvs_app.geometry.cameras import Cameras
from nvs_app.web.services.viewpoint import camera_from_page

Id = int | str | None
OUTPUTS = ("image", "depth", "coverage")
FORMATS = ("jpeg", "png")
QUALITIES = (1, 100)
MAX_PIXELS = 16384  # of a side of a screen


# -- what pages ask


@dataclass(frozen=True)
class FrameRequest:
    """A view to render. camera: [1]. quality: of a JPEG. quick: rendered less closely, see `Renderer.stream`. auto: the
    page asks by itself, no hand does. small: an image beside the view, which frames of the view do not replace."""

    id: Id
    camera: Cameras
    output: str = "image"
    format: str = "jpeg"
    quality: int = 85
    quick: bool = False
    auto: bool = False
    small: bool = False


@dataclass(frozen=True)
class PointRequest:
    """The surface under a place (right, down, each 0 to 1) of what a camera [1] sees."""

    id: Id
    camera: Cameras
    at: tuple[float, float]


@dataclass(frozen=True)
class ViewRequest:
    """Where a camera of the capture stands."""

    id: Id
    index: int


@dataclass(frozen=True)
class PathRequest:
    """A path's cameras; `spec` is checked by who makes them."""

    id: Id
    spec: Any


@dataclass(frozen=True)
class StageRequest:
    """Where frames are shown: size (height, width) in the screen's pixels, and the chosen shorter side at rest."""

    id: Id
    hw: tuple[int, int]
    side: int | None = None


@dataclass(frozen=True)
class Ping:
    """Nothing, so that the connection stays open."""

    id: Id = None


Request = FrameRequest | PointRequest | ViewRequest | PathRequest | StageRequest | Ping


class BadRequest(NVSError):
    """A message that cannot be understood. id: of the request, where it could be read."""

    def __init__(self, words: str, id: Id = None):
        super().__init__(words)
        self.id = id


def parse(text: str, longest: int) -> Request:
    """The request that a page has sent. longest: pixels allowed for a side of a frame.

    Raises BadRequest with one line: no JSON object, an unknown type, a field of another type, NaN, out of its range."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the message could not be read") from error
    if not isinstance(values, dict):
        raise BadRequest("expected a JSON object")
    kind, number = values.get("type"), _id(values)
    try:
        if not isinstance(kind, str) or kind not in _READERS:
            raise NVSError(f"message type {_shown(kind)}: unknown, expected one of {', '.join(_READERS)}")
        return _READERS[kind](number, values, longest)
    except NVSError as error:
        raise BadRequest(" ".join(str(error).split()), number) from error


def _frame(number: Id, values: dict[str, Any], longest: int) -> FrameRequest:
    return FrameRequest(
        number,
        camera_from_page(values, longest),
        _choice(values, "output", OUTPUTS),
        _choice(values, "format", FORMATS),
        round(_number("frame: quality", values.get("quality", 85), *QUALITIES)),
        *(_flag(values, name) for name in ("quick", "auto", "small")),
    )


def _point(number: Id, values: dict[str, Any], longest: int) -> PointRequest:
    camera, at = camera_from_page(values, longest), values.get("at")
    if not isinstance(at, list) or len(at) != 2:
        raise NVSError("point: at is not [right, down], two numbers from 0 to 1")
    right, down = (_number("point: at", place, 0, 1) for place in at)
    return PointRequest(number, camera, (right, down))


def _view(number: Id, values: dict[str, Any], longest: int) -> ViewRequest:
    return ViewRequest(number, _whole("view: index", values.get("index"), 0, 1 << 31))


def _path(number: Id, values: dict[str, Any], longest: int) -> PathRequest:
    return PathRequest(number, values.get("spec"))


def _stage(number: Id, values: dict[str, Any], longest: int) -> StageRequest:
    hw, side = values.get("hw"), values.get("side")
    if not isinstance(hw, list) or len(hw) != 2:
        raise NVSError("stage: hw is not [height, width]")
    height, width = (_whole("stage: hw", length, 1, MAX_PIXELS) for length in hw)
    chosen = None if side is None else _whole("stage: side", side, 1, MAX_PIXELS)
    return StageRequest(number, (height, width), chosen)


def _ping(number: Id, values: dict[str, Any], longest: int) -> Ping:
    return Ping(number)


_READERS: dict[str, Callable[[Id, dict[str, Any], int], Request]] = {
    "frame": _frame,
    "point": _point,
    "view": _view,
    "path": _path,
    "stage": _stage,
    "ping": _ping,
}


def _id(values: dict[str, Any]) -> Id:
    """The number that an answer bears: whole or a short text. Anything else is not sent back."""
    number = values.get("id")
    if isinstance(number, str):
        return number if len(number) <= 64 and number.isprintable() else None
    return number if type(number) is int and abs(number) < 2**53 else None


def _choice(values: dict[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = values.get(name, known[0])
    if not isinstance(value, str) or value not in known:
        raise NVSError(f"frame: {name} is {_shown(value)}, expected one of {', '.join(known)}")
    return value


def _flag(values: dict[str, Any], name: str) -> bool:
    value = values.get(name, False)
    if not isinstance(value, bool):
        raise NVSError(f"frame: {name} is {_shown(value)}, expected true or false")
    return value


def _number(name: str, value: Any, low: float | int, high: float | int) -> float:
    # NaN compares false; integers can be too large for a float.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise NVSError(f"{name} is {_shown(value)}, expected a number from {low} to {high}")
    return float(value)


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise NVSError(f"{name} is {_shown(value)}, expected a whole number from {low} to {high}")
    return value


def _shown(value: Any) -> str:
    """A value as a message may repeat it: short, whatever it is."""
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20:
        return "a huge number"  # writing it out may take long, or be refused
    return ascii(value)[:40]


# -- what the server says


@dataclass(frozen=True)
class Message:
    """Something that the server sends as JSON: its type, and its fields."""

    type: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"type": self.type, **{entry.name: getattr(self, entry.name) for entry in fields(self)}}


@dataclass(frozen=True)
class SceneMessage(Message):
    """Another scene is there. scene: see `LoadedScene.for_viewer`; its entries stand beside the others."""

    type = "scene"
    revision: int
    scene: dict[str, Any]
    plan: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"type": self.type, "revision": self.revision, **self.scene, "plan": self.plan}


@dataclass(frozen=True)
class PlanMessage(Message):
    """What the page asks for from now on; None while there is no scene."""

    type = "plan"
    id: Id
    plan: dict[str, Any] | None


@dataclass(frozen=True)
class ViewMessage(Message):
    """A camera of the capture: c2w row by row, vertical field of view in degrees."""

    type = "view"
    id: Id
    c2w: list[float]
    fov: float


@dataclass(frozen=True)
class PathMessage(Message):
    """The cameras of a path, {"c2w", "fov"} each, and its keyframes where it has any."""

    type = "path"
    id: Id
    views: list[dict[str, Any]]
    fps: float
    timeline: dict[str, Any] | None


@dataclass(frozen=True)
class PointMessage(Message):
    """The point of the surface, in the scene's frame, and its depth; None where no surface is."""

    type = "point"
    id: Id
    point: list[float] | None
    depth: float | None


@dataclass(frozen=True)
class DroppedMessage(Message):
    """A newer request of its kind took its place."""

    type = "dropped"
    id: Id


@dataclass(frozen=True)
class ErrorMessage(Message):
    """Why there is no answer, one line."""

    type = "error"
    id: Id
    message: str


@dataclass(frozen=True)
class NoticeMessage(Message):
    """Words over the image, of work that a new scene waits for; empty: none."""

    type = "notice"
    words: str


@dataclass(frozen=True)
class WorkMessage(Message):
    """How far a reconstruction is. share: of the whole, 0 to 1; left: the time left, in words."""

    type = "work"
    stage: str
    words: str = ""
    share: float = 0.0
    left: str = ""


@dataclass(frozen=True)
class WorkedMessage(Message):
    """A reconstruction has ended. problem: what went wrong; words: what else there is to say. Neither: it is done."""

    type = "worked"
    problem: str = ""
    words: str = ""


@dataclass(frozen=True)
class SparseMessage(Message):
    """What structure from motion has found so far, in its own frame: cameras [n][12] (rows of c2w), points [m][6]
    (place, and colour from 0 to 255)."""

    type = "sparse"
    cameras: list[list[float]]
    points: list[list[float]]


@dataclass(frozen=True)
class CaptureMessage(Message):
    """The capture of the scene of this revision, see `services.capture`."""

    type = "capture"
    revision: int
    views: list[dict[str, Any]]
    points: list[list[float]]


@dataclass(frozen=True)
class EndedMessage(Message):
    """The visit is over, or goes on in another tab."""

    type = "ended"
    message: str


@dataclass(frozen=True)
class FrameHeader:
    """What stands before a frame's image. Times in milliseconds: of the model, of waiting for a turn, of packing the
    image, of all. facts: what else its output tells (see `services.surfaces`), beside the others."""

    id: Id
    revision: int
    hw: tuple[int, int]
    output: str
    format: str
    model_ms: float
    wait_ms: float
    pack_ms: float
    server_ms: float
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "facts"}
        rounded = {name: round(value, 3) if name.endswith("_ms") else value for name, value in values.items()}
        return {**rounded, **self.facts}


def pack(header: FrameHeader, data: bytes) -> bytes:
    """Header and image as one message."""
    text = json.dumps(header.to_dict()).encode()
    return struct.pack("<I", len(text)) + text + data


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The header's values and the image of a frame, for programs that ask as the page does."""
    (length,) = struct.unpack_from("<I", message)
    return json.loads(message[4 : 4 + length]), message[4 + length :]
