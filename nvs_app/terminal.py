"""How the command lines speak: a mistake is one line on stderr and exit code 2, and an interrupt is no traceback."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from nvs_app.errors import NVSError

# What a wrong path, a missing permission or a full disk raises; any other OSError is worth a traceback.
_PATHS = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_USERS = _PATHS | {errno.ENOSPC, errno.EROFS, errno.EDQUOT}


class Parser(argparse.ArgumentParser):
    """An argparse parser that tells a mistake in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        """Exit code 2."""
        self.exit(2, f"error: {message} (`{self.prog} --help` shows what there is)\n")


def run_cli(work: Callable[[], int | None], command: str) -> int:
    """Runs a command and returns its exit code; mistakes of the user become one line.

    command: what was asked for, for the message about a package that is not installed.
    """
    try:
        return int(work() or 0)
    except NVSError as error:
        return _told(str(error))
    except ModuleNotFoundError as error:
        # A package that this machine lacks is the user's to install; a module of ours that is missing is a bug.
        if error.name is None or error.name.split(".")[0] in ("nvs_app", "data_tools"):
            raise
        return _told(f"{command}: the package {error.name!r} is not installed; run pip install -r requirements.txt")
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
