"""What may lie on the server between an upload and the event of the page that takes it.

gradio's own route counts uploads against no limit and keeps what was cut short; `upload_route` comes in its place.
Each owner (a browser's cookie and login; of programs, their address) has a folder of its own and a quota, as has each
address and the whole server, and the disk keeps some space. What an event takes is moved away at once; a file that
nobody takes goes minutes after the last upload of its owner, one that was not received whole at once.
"""

from __future__ import annotations

import os
import secrets
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MIB = 1 << 20
BLOCK = 4096  # what the smallest file takes


@dataclass(frozen=True)
class UploadLimits:
    """What may lie on the server before an event of the page takes it.

    Attributes:
        request_bytes, request_files: of one upload.
        owner_bytes, address_bytes, all_bytes: unclaimed at the same time.
        owner_requests, all_requests: uploads beside each other.
        free_bytes: that the disk keeps free.
        unclaimed_seconds: after the owner's last upload, until what was not taken goes.
        silent_seconds: without a byte, until an upload is given up. request_seconds: of one upload.
    """

    request_bytes: int = 1024 * MIB
    request_files: int = 1000
    owner_bytes: int = 1100 * MIB
    address_bytes: int = 2200 * MIB
    all_bytes: int = 8192 * MIB
    owner_requests: int = 8
    all_requests: int = 64
    free_bytes: int = 1024 * MIB
    unclaimed_seconds: float | int = 300
    silent_seconds: float | int = 60
    request_seconds: float | int = 3600

    @staticmethod
    def of(upload_bytes: int) -> UploadLimits:
        """The limits that go with a size of one upload."""
        whole = upload_bytes + upload_bytes // 16 + MIB  # with what the form itself takes
        return UploadLimits(whole, owner_bytes=whole, address_bytes=2 * whole, all_bytes=8 * whole)


class Refused(Exception):
    """An upload that is not taken: HTTP status and words."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status, self.words = status, words


@dataclass
class Owner:
    """Whose uploads lie in a folder."""

    folder: Path
    address: str
    bytes: int = 0
    requests: int = 0
    active: float = field(default_factory=time.monotonic)


class UploadStore:
    """All uploads that no event has taken yet.

    Args:
        root: gradio's folder, which it lets events read from.
        limits: see :class:`UploadLimits`.
    """

    def __init__(self, root: Path, limits: UploadLimits | None = None):
        self.cache, self.root, self.limits = root, root / "uploads", limits or UploadLimits()
        self.progress: dict[str, list[Any]] = {}  # of an upload's number: name, bytes since it was told, done
        self._owners: dict[str, Owner] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        threading.Thread(target=self._sweep_often, name="uploads", daemon=True).start()

    def begin(self, key: str, address: str, declared: int) -> Owner:
        """An upload begins. Raises Refused."""
        with self._lock:
            owner = self._owners.get(key)
            if owner is None:
                owner = self._owners[key] = Owner(self.root / secrets.token_hex(16), address)
            if not owner.requests:
                owner.bytes = _used(owner.folder)
            if owner.requests >= self.limits.owner_requests:
                raise Refused(429, "Too many uploads at once; wait for the others")
            if sum(other.requests for other in self._owners.values()) >= self.limits.all_requests:
                raise Refused(503, "Too many uploads just now; try again in a minute")
            self._check(owner, declared)
            owner.requests += 1
            owner.active = time.monotonic()
        return owner

    def count(self, owner: Owner, more: int) -> None:
        """So many bytes are about to be written. Raises Refused."""
        with self._lock:
            self._check(owner, more)
            owner.bytes += more
            owner.active = time.monotonic()

    def end(self, owner: Owner) -> None:
        """An upload has ended, well or not."""
        with self._lock:
            owner.requests -= 1
            owner.active = time.monotonic()
            if not owner.requests:
                owner.bytes = _used(owner.folder)

    def _check(self, owner: Owner, more: int) -> None:
        limits = self.limits
        if more > limits.request_bytes or owner.bytes + more > limits.owner_bytes:
            raise Refused(413, f"More than {limits.request_bytes // MIB} MB at once; send fewer or smaller files")
        here = sum(other.bytes for other in self._owners.values() if other.address == owner.address)
        everything = sum(other.bytes for other in self._owners.values())
        if here + more > limits.address_bytes or everything + more > limits.all_bytes:
            raise Refused(503, "Other uploads fill the server just now; try again in some minutes")
        self.root.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(self.root).free - more < limits.free_bytes:
            raise Refused(507, "The server's disk is full; try again later")

    def sweep(self) -> None:
        """Removes what nobody took in time, and the empty files and folders that claimed uploads leave."""
        now = time.monotonic()
        with self._lock:
            for key, owner in list(self._owners.items()):
                if owner.requests:
                    continue
                if now - owner.active > self.limits.unclaimed_seconds:
                    shutil.rmtree(owner.folder, ignore_errors=True)
                    del self._owners[key]
                else:
                    owner.bytes = _used(owner.folder)
        old = time.time() - 60
        for left in self.cache.glob("tmp*"):  # gradio makes an empty file for each that an event takes
            try:
                if left.is_file() and left.stat().st_size == 0 and left.stat().st_mtime < old:
                    left.unlink()
            except FileNotFoundError:
                continue

    def close(self) -> None:
        """Ends the sweeping; the folder goes with gradio's."""
        self._stop.set()

    def _sweep_often(self) -> None:
        while not self._stop.wait(min(30.0, self.limits.unclaimed_seconds / 4)):
            self.sweep()


def _used(folder: Path) -> int:
    """Bytes of all files below a folder; those that a visit holds too (a second link) are its own."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(parent, name))
            except FileNotFoundError:
                continue
            total += max(BLOCK, found.st_size) if found.st_nlink == 1 else 0
    return total
