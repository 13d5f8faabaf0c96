"""The one exception of the library that a user's mistake raises, and the codes of what readers refuse."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

LONGEST = 1000  # characters of a message


class Refusal(StrEnum):
    """Why a reader refused what somebody brought; docs/captures.md says what helps for each."""

    NO_SCENE = "no-scene"
    SEVERAL_SCENES = "several-scenes"
    BROKEN_FILE = "broken-file"
    NO_IMAGE = "no-image"
    BAD_IMAGE = "bad-image"
    NO_POSE = "no-pose"
    BAD_POSE = "bad-pose"
    BAD_CAMERA = "bad-camera"
    LEADS_OUT = "leads-out"
    PANORAMA = "panorama"
    NO_PHOTO = "no-photo"


class NVSError(Exception):
    """A user's mistake, told in one line: where, what, and the remedy.

    The command line prints ``str(error)`` on one line and exits with status 2; the web application shows it
    in the page. Programming mistakes keep Python's own exceptions. What a stranger's file brings into a message can
    be sent anywhere: halves of characters are replaced, and the middle of a long text is left out.

    ``code`` is a :class:`Refusal` where a reader refused a file, else empty.

    Example: ``NVSError("scene/transforms.json: frame 12 (images/012.png): transform_matrix is 3x4, expected 4x4")``
    """

    def __init__(self, message: str = "", code: str = ""):
        text = whole_characters(message)
        super().__init__(text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 2 :]}")
        self.code = code

    @property
    def told(self) -> str:
        """The line as the command line and the page show it: the code, where there is one, stands at its end."""
        return f"{self} [{self.code}]" if self.code else str(self)


@contextmanager
def coded(code: Refusal) -> Iterator[None]:
    """Errors in the block, or in the function that this decorates, have a code: their own, else this one."""
    try:
        yield
    except NVSError as error:
        error.code = error.code or code
        raise


@contextmanager
def reading(what: object) -> Iterator[None]:
    """What the system refuses in the block is told of `what`: it cannot be read."""
    try:
        yield
    except OSError as error:
        raise NVSError(f"{what}: cannot be read ({error.strerror or error})") from error


@contextmanager
def writing(what: object) -> Iterator[None]:
    """What the system refuses in the block is told of `what`: it cannot be written."""
    try:
        yield
    except OSError as error:
        raise NVSError(f"{what}: cannot be written ({error.strerror or error})") from error


def first_line(error: BaseException, longest: int = LONGEST) -> str:
    """What an error of another library says, for a message of ours: its first line, its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:longest]


def whole_characters(text: str) -> str:
    """``text`` with a question mark for each lone surrogate, which no encoding can write."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
