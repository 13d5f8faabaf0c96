"""How the command lines speak: a mistake is one line on stderr and exit code 2, and an interrupt is no traceback."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FrameType
from typing import Any, NoReturn

from nvs_app.errors import NVSError

# What a wrong path, a missing permission or a full disk raises; any other OSError is worth a traceback.
_PATHS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_USERS = _PATHS | {errno.ENOSPC, errno.EROFS, errno.EDQUOT}
# OpenCV writes to stderr by itself; what is wrong with a file is said by us, once.
_SILENT_CODECS = {"OPENCV_LOG_LEVEL": "SILENT"}


class Parser(argparse.ArgumentParser):
    """An argparse parser that tells a mistake in one line, without the whole usage before it, and what was meant."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As argparse's, but what a command does not know is told by the command itself, not by the parser above it.
        It is told before what is missing."""
        self._words = list(sys.argv[1:] if args is None else args)
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            option = next((word for word in unknown if word.startswith("-")), None)
            if option is None:
                self.error(f"unexpected {' '.join(map(repr, unknown))}")
            self.error(self._unknown(option))
        return found, unknown

    def _unknown(self, option: str) -> str:
        name = option.partition("=")[0]
        return f"unknown option {name}{did_you_mean(name, self._option_string_actions)}"

    def error(self, message: str) -> NoReturn:
        """Exit code 2."""
        if message.startswith("the following arguments are required"):
            names = [word.partition("=")[0] for word in self._words if word.startswith("--")]
            # argparse takes the beginnings of options, too.
            strange = [name for name in names if not any(o.startswith(name) for o in self._option_string_actions)]
            message = self._unknown(strange[0]) if strange else message
        wrong = re.search(r"invalid choice: '?(.*?)'? \(choose from (.*)\)", message)
        if wrong:
            message += did_you_mean(wrong[1], [choice.strip("' ") for choice in wrong[2].split(",")])
        self.exit(2, f"error: {message} (`{self.prog} --help` shows what there is)\n")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean --frames?`, or nothing where no known word is like it."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def run_cli(work: Callable[[], int | None], command: str) -> int:
    """Runs a command and returns its exit code; mistakes of the user become one line.

    command: what was asked for, for the message about a package that is not installed.
    """
    for name, level in _SILENT_CODECS.items():
        os.environ.setdefault(name, level)
    try:
        return int(work() or 0)
    except NVSError as error:
        return _told(error.told)
    except ModuleNotFoundError as error:
        # A package that this machine lacks is the user's to install; a module of ours that is missing is a bug.
        if error.name is None or error.name.split(".")[0] in ("nvs_app", "data_tools"):
            raise
        return _told(f"{command}: the package {error.name!r} is not installed; run pip install -r requirements.txt")
    except Terminated:
        print("terminated", file=sys.stderr)
        return 143
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `... | head` closed our stdout: not an error, but Python would print one while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _USERS:
            raise
        return _told(f"{error.filename or command}: {error.strerror}")


class Terminated(KeyboardInterrupt):
    """SIGTERM came, see `raise_on_sigterm`."""


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """SIGTERM raises `Terminated` in the block, as Ctrl-C raises KeyboardInterrupt: what is half written is removed."""

    def handle(number: int, frame: FrameType | None) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def whole_number(least: int) -> Callable[[str], int]:
    """argparse type: an integer of `least` or more."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if number < least:
            raise argparse.ArgumentTypeError(f"{text}: expected a whole number of {least} or more")
        return number

    return parse


def _told(message: str) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2
