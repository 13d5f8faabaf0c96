"""Options and start of the web server; `app.py` calls `main`."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from nvs_app.cli_common import add_model_options, load_renderer, positive_int, trained_image_hw
from nvs_app.errors import NVSError

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


def build_parser() -> argparse.ArgumentParser:
    """The options of `python app.py`."""
    parser = argparse.ArgumentParser(prog="python app.py", description="The web page: pick a scene, orbit around it.")
    parser.add_argument(
        "--scene",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="offer this scene too, before the bundled ones (may be given again)",
    )
    parser.add_argument("--context", type=positive_int, default=8, metavar="N", help="input views (default: 8)")
    add_model_options(parser)
    server = parser.add_argument_group("server")
    server.add_argument("--host", default=LOOPBACK[0], help="address (default: 127.0.0.1, only this machine)")
    server.add_argument("--port", type=positive_int, default=7860, help="port (default: 7860)")
    server.add_argument("--share", action="store_true", help="also open a public address through gradio's servers")
    server.add_argument("--auth", metavar="USER:PASSWORD", help="ask visitors for this name and password")
    server.add_argument("--root-path", metavar="PATH", help="path prefix behind a reverse proxy")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Serves the page until interrupted. Returns 2 after a mistake, told in one line on stderr."""
    args = build_parser().parse_args(argv)
    try:
        return serve(args)
    except NVSError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def serve(args: argparse.Namespace) -> int:
    """Loads the checkpoint, builds the page and serves it; the first scene is encoded meanwhile."""
    if args.auth is not None and not all(args.auth.partition(":")[::2]):
        raise NVSError("--auth: expected USER:PASSWORD")
    # Before gradio is imported: nothing is sent anywhere.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    from nvs_app.web.page import build_page, launch_options
    from nvs_app.web.studio import Studio, find_examples

    renderer = load_renderer(args)
    studio = Studio(renderer, trained_image_hw(renderer), args.context)
    examples = find_examples(EXAMPLES, args.scene)
    # Others must not read this machine's folders.
    local = args.host in LOOPBACK and not args.share
    page = build_page(studio, examples, allow_paths=local)
    try:
        page.launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share,
            auth=tuple(args.auth.split(":", 1)) if args.auth else None,
            root_path=args.root_path,
            prevent_thread_lock=True,
            **launch_options(),
        )
    except OSError as error:
        raise NVSError(f"--port {args.port}: cannot listen there ({error}); choose another --port") from error
    # Not a daemon: a thread that is killed inside a matrix product takes the whole process down with an abort.
    for path in list(examples.values())[:1]:
        threading.Thread(target=studio.prepare, args=(path,)).start()
    print(f"The page is at {page.local_url} (Ctrl-C stops it)", flush=True)
    if page.share_url:
        print(f"and at {page.share_url}", flush=True)
    page.block_thread()
    return 0
