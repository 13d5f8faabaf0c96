"""Options and start of the web server; `app.py` calls `main`."""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_tools.readers.isolated import warm
from nvs_app.bundled import bundled
from nvs_app.cli.common import add_model_options, load_renderer, positive_float, positive_int
from nvs_app.errors import NVSError
from nvs_app.web.services.threads import run_in_fresh_thread

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def build_parser() -> argparse.ArgumentParser:
    """The options of `python app.py`."""
    parser = argparse.ArgumentParser(prog="python app.py", description="The web page: drop photos, orbit the scene.")
    parser.add_argument(
        "--scene",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="offer this scene too, before the bundled ones (may be given again)",
    )
    parser.add_argument(
        "--context", type=positive_int, default=8, metavar="N", help="input views of the examples (default: 8)"
    )
    add_model_options(parser)
    server = parser.add_argument_group("server")
    server.add_argument("--host", default=LOOPBACK[0], help="address (default: 127.0.0.1, only this machine)")
    server.add_argument("--port", type=positive_int, default=7860, help="port (default: 7860)")
    server.add_argument("--share", action="store_true", help="also open a public address through gradio's servers")
    server.add_argument(
        "--auth", metavar="USER:PASSWORD", default=os.environ.get("NVS_AUTH"),
        help="ask visitors for this name and password; other users of this machine see it: rather the environment's "
        "NVS_AUTH, or --auth-file",
    )  # fmt: skip
    server.add_argument("--auth-file", type=Path, metavar="FILE", help="the same from the first line of a file")
    server.add_argument(
        "--embed",
        nargs="?",
        const="*",
        metavar="ORIGINS",
        help='let pages of these origins ("https://a.org https://b.org"; all unless given) show /?embed=1 in a frame',
    )
    server.add_argument("--root-path", metavar="PATH", help="path prefix (or whole address) behind a reverse proxy")
    server.add_argument(
        "--keep", type=Path, metavar="DIR", help="let visitors keep encoded scenes in this folder, also over restarts"
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--keep-mb", type=positive_int, default=32768, metavar="MB",
        help="kept scenes of all visitors, a quarter of it of each; the oldest goes first (default: 32768)",
    )  # fmt: skip
    limits.add_argument(
        "--visitors", type=positive_int, default=64, metavar="N", help="visits at the same time (default: 64)"
    )
    limits.add_argument(
        "--visitors-per-address", type=positive_int, default=16, metavar="N",
        help="of them from one address (default: 16; behind a proxy that hides addresses, as many as --visitors)",
    )  # fmt: skip
    limits.add_argument(
        "--idle-minutes", type=positive_float, default=30, metavar="M", help="an idle visit ends (default: 30)"
    )
    limits.add_argument(
        "--upload-mb", type=positive_int, default=1024, metavar="MB", help="size of an upload (default: 1024)"
    )
    limits.add_argument(
        "--visit-mb", type=positive_int, default=4096, metavar="MB", help="files of one visit (default: 4096)"
    )
    limits.add_argument(
        "--state-mb", type=positive_int, default=2048, metavar="MB",
        help="encoded scenes in memory; more go to disk (default: 2048)",
    )  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serves the page until interrupted. Returns 2 after a mistake, told in one line on stderr."""
    args = build_parser().parse_args(argv)
    # A service manager ends the server like Ctrl-C does, so that visitors' files go with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return serve(args)
    except NVSError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def serve(args: argparse.Namespace) -> int:
    """Loads the checkpoint, builds the page and serves it; the first scene is encoded meanwhile."""
    args.auth = _auth(args)
    _check_port(args.host, args.port)
    # Before gradio is imported: nothing is sent anywhere.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    warm()
    renderer = run_in_fresh_thread(lambda: load_renderer(args))

    from nvs_app.web.app_state import AppState
    from nvs_app.web.services.kept_limits import KeptLimits
    from nvs_app.web.services.opening import find_examples
    from nvs_app.web.sessions import MIB, SessionLimits

    limits = SessionLimits(
        sessions=args.visitors,
        address_sessions=args.visitors_per_address,
        address_sockets=args.visitors_per_address * 3 // 2,
        idle_seconds=60 * args.idle_minutes,
        upload_bytes=args.upload_mb * MIB,
        session_bytes=args.visit_mb * MIB,
    )
    examples = find_examples(bundled("examples"), args.scene)
    app_state = AppState(renderer, examples, args.context, limits, args.state_mb * MIB, args.keep)
    app_state.kept_limits = KeptLimits(args.keep_mb * MIB // 4, args.keep_mb * MIB)
    try:
        _serve(app_state, args)
    finally:
        app_state.close()
    return 0


def _auth(args: argparse.Namespace) -> str | None:
    """USER:PASSWORD, from wherever it was given; empty is none."""
    text, where = args.auth, "--auth"
    if args.auth_file is not None:
        where = f"--auth-file {args.auth_file}"
        try:
            text = args.auth_file.read_text(encoding="utf-8").splitlines()[:1]
        except (OSError, UnicodeDecodeError) as error:
            raise NVSError(f"{where}: cannot be read ({getattr(error, 'strerror', None) or 'no text'})") from error
        text = text[0].strip() if text else ":"
    if text and not all(text.partition(":")[::2]):
        raise NVSError(f"{where}: expected USER:PASSWORD")
    return text or None


def _check_port(host: str, port: int) -> None:
    """Says at once what gradio finds out after half a minute."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except (OSError, OverflowError) as error:
            raise NVSError(f"--port {port}: cannot listen there ({error}); choose another --port") from error


def _serve(app_state, args: argparse.Namespace) -> None:
    # gradio puts uploads and downloads there; the folder goes with the visits'.
    os.environ["GRADIO_TEMP_DIR"] = str(app_state.root / "gradio")
    import uvicorn
    from gradio import http_server

    from nvs_app.web.page import build_page, launch_options
    from nvs_app.web.upload_limits import UploadLimits, UploadStore

    # Deflating JPEG frames takes time and gains nothing; gradio hands no such option on.
    http_server.uvicorn.Config = functools.partial(uvicorn.Config, ws_per_message_deflate=False)  # type: ignore[misc]
    page = build_page(app_state)
    uploads = UploadStore(app_state.root / "gradio", UploadLimits.of(app_state.limits.upload_bytes))
    try:
        page.launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share,
            auth=tuple(args.auth.split(":", 1)) if args.auth else None,
            root_path=args.root_path,
            prevent_thread_lock=True,
            max_file_size=app_state.limits.upload_bytes,
            app_kwargs=app_options(app_state, uploads, args.root_path, args.embed),
            **launch_options(),
        )
    except OSError as error:
        raise NVSError(f"--port {args.port}: cannot listen there ({error}); choose another --port") from error
    # Not a daemon: a thread that is killed inside a matrix product takes the whole process down with an abort.
    threading.Thread(target=_prepare, args=(app_state,), name="first example").start()
    print(f"The page is at {page.local_url} (Ctrl-C stops it)", flush=True)
    if page.share_url:
        print(f"and at {page.share_url}", flush=True)
    try:
        page.block_thread()
    finally:
        uploads.close()


def app_options(app_state, uploads, root_path: str | None = None, embed: str | None = None) -> dict[str, Any]:
    """What gradio's application is made with: our routes, the layers around all of them, and the door around these."""
    from starlette.middleware import Middleware

    from nvs_app.web.access import VisitorCookie, routes
    from nvs_app.web.headers import Door, prefix_of
    from nvs_app.web.upload_route import UploadRoute

    public = root_path if root_path and "//" in root_path else None
    prefix = prefix_of(root_path)

    @contextlib.asynccontextmanager
    async def with_door(app):
        # gradio puts layers of its own around those it is given; one of them lets other sites' pages ask.
        app.middleware_stack = Door(app.middleware_stack, public, prefix, embed)
        yield

    layers = [Middleware(UploadRoute, store=uploads, prefix=prefix), Middleware(VisitorCookie)]
    return {"routes": routes(app_state, public), "middleware": layers, "lifespan": with_door}


def _prepare(app_state) -> None:
    """Encodes the first example before anybody asks; a mistake is told again to whoever opens it."""
    for name in list(app_state.examples)[:1]:
        try:
            app_state.example(name)
        except NVSError as error:
            print(f"error: {error}", file=sys.stderr)
