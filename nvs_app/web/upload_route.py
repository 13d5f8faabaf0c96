"""Uploads as they come in, instead of at gradio's own route: written to the owner's folder within his limits."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import parse_qs

from gradio_client.utils import strip_invalid_filename_characters
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse

from nvs_app.errors import whole_characters
from nvs_app.web.access import COOKIE, owner_of
from nvs_app.web.headers import login
from nvs_app.web.upload_limits import BLOCK, Owner, Refused, UploadStore

FIELDS = 64 << 10  # bytes of an upload that belong to no file
DRAINED = 16 << 20  # read and thrown away after a refusal, so that a browser sees the answer


class UploadRoute:
    """ASGI layer that answers gradio's upload routes, inside `headers.Door`."""

    def __init__(self, app: Callable, store: UploadStore, prefix: str = ""):
        self.app, self.store, self.prefix = app, store, prefix

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        path = scope.get("path", "").removeprefix(self.prefix).rstrip("/")
        if scope["type"] == "http" and path == "/gradio_api/upload":
            await (await self._upload(scope, receive))(scope, receive, send)
        elif scope["type"] == "http" and path == "/gradio_api/upload_progress":
            events = self._progress(_upload_id(scope), receive)
            await StreamingResponse(events, media_type="text/event-stream")(scope, _never, send)
        else:
            await self.app(scope, receive, send)

    async def _upload(self, scope: dict, receive: Callable) -> Any:
        headers, connection = Headers(scope=scope), HTTPConnection(scope)
        kind, options = parse_options_header(headers.get("content-type", ""))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            return PlainTextResponse("Expected multipart/form-data", 400)
        declared = headers.get("content-length", "0")
        address = connection.client.host if connection.client else ""
        key = owner_of(connection.cookies, login(connection)[0])
        if COOKIE not in connection.cookies:
            key = f"{key} {address}"
        number, request = _upload_id(scope), None
        try:
            owner = self.store.begin(key, address, int(declared) if declared.isdigit() else 0)
            try:
                request = _Request(self.store, owner, options[b"boundary"], number)
                return JSONResponse(await request.read(receive))
            except BaseException:
                if request is not None:
                    request.discard()
                raise
            finally:
                self.store.progress.pop(number, None)
                self.store.end(owner)
        except Refused as refused:
            await _drain(receive)
            return PlainTextResponse(refused.words, refused.status)
        except OSError as error:
            return PlainTextResponse(f"The upload could not be kept ({error.strerror})", 507)

    async def _progress(self, number: str, receive: Callable) -> AsyncIterator[str]:
        """What gradio's field for files shows while it waits."""
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            for _ in range(60):
                if number in self.store.progress or gone.done():
                    break
                await asyncio.sleep(0.05)
            while number in self.store.progress and not gone.done():
                state = self.store.progress[number]
                if state[1]:
                    message = {"msg": "update", "orig_name": state[0], "chunk_size": state[1]}
                    state[1] = 0
                    yield f"data: {json.dumps(message)}\n\n"
                await asyncio.sleep(0.1)
            yield 'data: {"msg": "done"}\n\n'
        finally:
            gone.cancel()


class _Request:
    """One upload that comes in."""

    def __init__(self, store: UploadStore, owner: Owner, boundary: bytes, number: str):
        self.store, self.owner, self.number = store, owner, number
        self.made: list[Path] = []
        self.file: IO[bytes] | None = None
        self.header, self.value, self.disposition = b"", b"", b""
        self.fields, self.is_file = 0, False
        self.steps: list[tuple[str, Any]] = []  # what the parser found in the part of the body at hand
        names = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
        )
        self.parser = MultipartParser(boundary, {f"on_{name}": getattr(self, f"_{name}") for name in names})  # type: ignore[arg-type]

    async def read(self, receive: Callable) -> list[str]:
        """The paths of the files. Raises Refused."""
        limits, more = self.store.limits, True
        until = time.monotonic() + limits.request_seconds
        while more:
            try:
                message = await asyncio.wait_for(receive(), limits.silent_seconds)
            except TimeoutError:
                raise Refused(408, "Nothing came for too long") from None
            if message["type"] == "http.disconnect":
                raise Refused(400, "Cut short")
            if time.monotonic() > until:
                raise Refused(408, "The upload took too long")
            body, more = message.get("body", b""), message.get("more_body", False)
            try:
                self.parser.write(body)
                if not more:
                    self.parser.finalize()
            except (FormParserError, ValueError) as error:
                raise Refused(400, "Not a form that can be read") from error
            if self.steps:
                steps, self.steps = self.steps, []
                await asyncio.to_thread(self._follow, steps)
        if self.file is not None or not self.made:
            raise Refused(400, "Cut short" if self.made else "No file")
        return [str(path) for path in self.made]

    def discard(self) -> None:
        """Removes what came."""
        if self.file is not None:
            self.file.close()
        for path in self.made:
            shutil.rmtree(path.parent, ignore_errors=True)

    def _follow(self, steps: list[tuple[str, Any]]) -> None:
        for kind, value in steps:
            if kind == "open":
                if len(self.made) >= self.store.limits.request_files:
                    raise Refused(413, f"More than {self.store.limits.request_files} files; send them as one zip")
                self.store.count(self.owner, BLOCK)
                folder = self.owner.folder / secrets.token_hex(16)
                folder.mkdir(parents=True, mode=0o700)
                self.made.append(folder / value)
                self.file = self.made[-1].open("xb")
                if self.number:
                    self.store.progress[self.number] = [value, 0, False]
            elif kind == "data":
                assert self.file is not None
                self.store.count(self.owner, len(value))
                self.file.write(value)
                if self.number in self.store.progress:
                    self.store.progress[self.number][1] += len(value)
            elif self.file is not None:
                self.file.close()
                self.file = None

    # -- the parser's calls, in the event loop: nothing is written here

    def _part_begin(self) -> None:
        self.disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]
        self._field(end - start)

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]
        self._field(end - start)

    def _header_end(self) -> None:
        if self.header.lower() == b"content-disposition":
            self.disposition = self.value
        self.header, self.value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self.disposition)
        self.is_file = b"filename" in options
        self.fields = 0
        if self.is_file:
            name = options[b"filename"].decode("utf-8", "replace").replace("\\", "/").rsplit("/", 1)[-1]
            name = strip_invalid_filename_characters(whole_characters(name), 200).lstrip(".")
            self.steps.append(("open", name or "upload"))

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self.is_file:
            self.steps.append(("data", data[start:end]))
        else:
            self._field(end - start)

    def _part_end(self) -> None:
        if self.is_file:
            self.steps.append(("close", None))

    def _field(self, count: int) -> None:
        self.fields += count
        if self.fields > FIELDS:
            raise Refused(413, "A field of the form is too long")


def _upload_id(scope: dict) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get("upload_id", [""])[0][:100]


async def _drain(receive: Callable) -> None:
    read = 0
    try:
        while read < DRAINED:
            message = await asyncio.wait_for(receive(), 2)
            read += len(message.get("body", b""))
            if not message.get("more_body"):
                return
    except TimeoutError:
        return


async def _disconnected(receive: Callable) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _never() -> dict:
    await asyncio.Event().wait()
    raise AssertionError
