"""Messages of the viewer's socket about a reconstruction, and about what it was made of; see `protocol`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nvs_app.web.protocol import Message


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
class BesideMessage(Message):
    """Another scene of the same capture is there to be shown beside the view: how each was made; empty: none is. held:
    whether a scene is kept for that, though it may be the one in view."""

    type = "beside"
    other: str
    own: str
    held: bool
