"""Photographs the page in every state that a visitor meets, at four widths, light and dark, for whoever changes it to
look at; `--docs` writes the pictures of docs/ instead.

    .venv/bin/python tools/page_pictures.py OUT                      # OUT/STATE-WIDTH-light.png, ...
    .venv/bin/python tools/page_pictures.py OUT --only path --widths 390 --schemes dark
    .venv/bin/python tools/page_pictures.py docs --docs              # page.jpg, path.jpg, phone.jpg

Starts the application itself (with examples/, the bundled checkpoint and a folder of its own for kept scenes) unless
given an address, and asks for playwright and /usr/bin/chromium, as the tests do.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "web"))
WIDTHS = {1440: 900, 1024: 768, 768: 1024, 390: 844}
PHONE = 390
DESK = sorted((ROOT / "examples" / "room_desk" / "images").glob("*.jpg"))
TABS = ("Compare", "Cameras", "Path", "Export", "Model")
# What the page is told is kept from it, so that it stays as it is.
HOLD = """for (const name of ['nvs-message', 'nvs-scene', 'nvs-frame'])
  addEventListener(name, (event) => event.stopImmediatePropagation(), true);"""
WORKS = "!document.querySelector('[data-nvs=work]').hidden"


class Walk:
    """A visit that goes from state to state; `photograph(name)` is called in each."""

    def __init__(self, page, wait: Callable, photograph: Callable[..., None], wanted: set[str]) -> None:
        self.page, self.wait, self.photograph, self.wanted = page, wait, photograph, wanted

    def all(self) -> None:
        """Every state, each by its own method; they build on one another only where they say so."""
        for state in (self.start, self.help, self.tabs, self.fly, self.beyond, self.cameras, self.path, self.share):
            state()
        for state in (self.beside, self.photos, self.errors, self.reconstructing, self.cancelled, self.embed):
            state()

    def asks(self, *names: str) -> bool:
        return not self.wanted or any(wanted in name for name in names for wanted in self.wanted)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()
        self.wait(self.page, "!document.querySelector('.nvs-stale')", 120)
        if name == "Cameras":
            self.page.locator("#nvs-plot .js-plotly-plot").wait_for(timeout=120_000)
        self.page.wait_for_timeout(800)

    def start(self) -> None:
        self.wait(self.page, "document.querySelector('#nvs-truth img')", 120)
        self.photograph("start")

    def help(self) -> None:
        self.page.locator("#nvs-header [data-nvs-help]").click()
        self.photograph("help", full_page=False)
        self.page.keyboard.press("Escape")

    def tabs(self) -> None:
        for name in TABS:
            if self.asks(f"tab-{name.lower()}"):
                self.tab(name)
                self.photograph(f"tab-{name.lower()}")
        self.tab("Compare")

    def fly(self) -> None:
        fly = self.page.locator("[data-nvs=fly]")
        if fly.is_visible():  # for fingers only
            fly.click()
            self.photograph("fly")
            fly.click()

    def beyond(self) -> None:
        self.page.evaluate("nvs.viewer.hand(); nvs.viewer.view.dolly(3.5); nvs.viewer.move()")
        self.page.wait_for_timeout(2500)
        self.photograph("beyond")
        self.page.click("[data-nvs=beyond-back]")

    def cameras(self) -> None:
        self.page.evaluate("nvs.viewer.view.dolly(1.9); nvs.viewer.move()")
        for name in ("cameras", "details"):
            self.page.evaluate(f"document.querySelector('[data-nvs={name}]').click()")
        self.page.wait_for_timeout(3000)
        self.photograph("cameras-over")
        for name in ("cameras", "details", "reset"):
            self.page.evaluate(f"document.querySelector('[data-nvs={name}]').click()")

    def path(self) -> None:
        if not self.asks("path", "path-film"):
            return
        self.tab("Path")
        for turn in (-0.5, 0.35, 0.35):
            self.page.evaluate(f"nvs.viewer.hand(); nvs.viewer.view.orbit({turn}, 0.08); nvs.viewer.move()")
            self.page.wait_for_timeout(2500)
            self.page.click("[data-path=add]")
        self.photograph("path")
        for name, value in (("fps", "6"), ("seconds", "1")):
            self.page.locator(f"[data-path={name}]").fill(value)
            self.page.locator(f"[data-path={name}]").press("Tab")
        self.page.select_option("[data-path=side]", "128")
        self.page.click("#nvs-video")
        self.page.locator("#nvs-player").wait_for(timeout=120_000)
        self.page.wait_for_timeout(1000)
        self.photograph("path-film")

    def share(self) -> None:
        if not self.asks("share"):
            return
        self.tab("Export")
        self.page.click("#nvs-take-keep")
        self.wait(self.page, "document.querySelector('#nvs-kept input').value", 60)
        self.page.click("#nvs-share")
        self.page.locator("[data-nvs=shared-link]").wait_for(timeout=20_000)
        self.photograph("share")

    def beside(self) -> None:
        if not self.asks("side-by-side"):
            return
        self.tab("Compare")
        self.page.click("#nvs-hold")
        self.page.wait_for_timeout(1500)
        self.page.locator("#nvs-advanced > button").click()
        self.page.locator("#nvs-views input[type=number]").fill("5")
        self.page.locator("#nvs-views input[type=number]").press("Enter")
        self.page.locator("#nvs-plan").get_by_text("5 used").first.wait_for(timeout=20_000)
        self.page.click("#nvs-encode")
        self.page.locator("[data-nvs=beside]").get_by_text("5 input views").wait_for(timeout=120_000)
        self.page.wait_for_timeout(3000)
        self.photograph("side-by-side")
        self.page.click("#nvs-release")

    def photos(self) -> None:
        if not self.asks("photos", "errors", "reconstructing"):
            return
        self.bring()
        self.photograph("photos")

    def bring(self) -> None:
        self.page.set_input_files("#nvs-upload input[type=file]", [str(path) for path in DESK[:8]])
        self.page.locator(".nvs-go").wait_for(timeout=30_000)

    def errors(self) -> None:
        if not self.asks("errors"):
            return
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "broken photo.jpg").write_bytes(b"no image")
            (Path(folder) / "holiday.zip").write_bytes(b"PK\x03\x04 this is no archive")
            files = [str(path) for path in sorted(Path(folder).iterdir())]
            self.page.set_input_files("#nvs-upload input[type=file]", files)
            self.page.locator(".nvs-bad").nth(1).wait_for(timeout=20_000)
        self.photograph("errors")

    def reconstructing(self) -> None:
        if not self.asks("reconstructing"):
            return
        self.page.click(".nvs-go")
        self.wait(self.page, f"{WORKS} && document.querySelector('[data-nvs=work] canvas')", 300)
        self.page.evaluate(HOLD)  # it would be over before all its pictures are taken
        self.photograph("reconstructing")
        self.page.reload()
        self.wait(self.page, f"window.nvs?.viewer?.shown && !({WORKS})", 300)

    def cancelled(self) -> None:
        if not self.asks("cancelled"):
            return
        if not self.page.locator(".nvs-go").is_visible():  # what was reconstructed is put away
            self.bring()
        self.page.click(".nvs-go")
        self.page.locator("[data-nvs=work-cancel]").click()
        self.wait(self.page, "!document.querySelector('[data-nvs=work-close]').hidden", 60)
        self.photograph("cancelled")
        self.page.locator("[data-nvs=work-close]").click()

    def embed(self) -> None:
        if self.page.locator("[data-photos=clear]").is_visible():
            self.page.click("[data-photos=clear]")
        self.page.goto(self.page.url.split("?")[0] + "?embed=1")
        self.wait(self.page, "window.nvs?.viewer?.shown", 60)
        self.page.wait_for_timeout(2000)
        self.photograph("embed")


def walk(browser, address: str, out: Path, widths: list[int], schemes: list[str], wanted: set[str]) -> None:
    """All states in one visit: at each, the window takes each of the widths. A phone is a visit of its own."""
    from serving import opened, wait

    phone = widths == [PHONE]
    options = {"has_touch": True, "is_mobile": True} if phone else {}
    size = {"width": widths[0], "height": WIDTHS[widths[0]]}
    page = opened(browser, address, viewport=size, color_scheme="light", reduced_motion="reduce", **options)

    def photograph(name: str, full_page: bool = True) -> None:
        if wanted and not any(part in name for part in wanted):
            return
        for width in widths:
            page.set_viewport_size({"width": width, "height": WIDTHS[width]})
            for scheme in schemes:
                page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", scheme == "dark")
                page.evaluate("scrollTo(0, 0)")
                page.wait_for_timeout(700)  # what fades, and a sharp view
                whole = full_page and not phone  # a picture of a whole page is taken without touch
                page.screenshot(path=out / f"{name}-{width}-{scheme}.png", full_page=whole, timeout=60_000)
                if phone and full_page:
                    page.evaluate("document.querySelector('#nvs-tools').scrollIntoView(); scrollBy(0, -480)")
                    page.wait_for_timeout(300)
                    page.screenshot(path=out / f"{name}-{width}-{scheme}-below.png", timeout=60_000)
        print(name, flush=True)

    Walk(page, wait, photograph, wanted).all()
    page.context.close()


def pictures_of_docs(browser, address: str, out: Path) -> None:
    """page.jpg, path.jpg (dark) and phone.jpg, as docs/web_page.md shows them."""
    from serving import opened, wait

    def save(page, name: str) -> None:
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(1500)
        page.screenshot(path=out / "shot.png", timeout=60_000)
        with Image.open(out / "shot.png") as picture:
            picture.convert("RGB").save(out / f"{name}.jpg", quality=84, optimize=True)
        (out / "shot.png").unlink()

    desk = {"path": "/?scene=room%20desk", "reduced_motion": "reduce"}
    for name, scheme in (("page", "light"), ("path", "dark")):
        page = opened(browser, address, color_scheme=scheme, **desk)
        visit = Walk(page, wait, lambda *_, **__: None, set())
        visit.start()
        if name == "path":
            visit.path()
        save(page, name)
        page.context.close()
    size = {"viewport": {"width": PHONE, "height": 844}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    page = opened(browser, address, color_scheme="light", **desk, **size)
    Walk(page, wait, lambda *_, **__: None, set()).start()
    save(page, "phone")
    page.context.close()


@contextlib.contextmanager
def a_browser() -> Iterator:
    from playwright.sync_api import sync_playwright
    from serving import CHROMIUM, FLAGS

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the pictures")
    parser.add_argument("--widths", type=int, nargs="+", default=list(WIDTHS), choices=list(WIDTHS))
    parser.add_argument("--schemes", nargs="+", default=["light", "dark"], choices=["light", "dark"])
    parser.add_argument("--only", nargs="+", default=[], metavar="STATE", help="states with one of these in the name")
    parser.add_argument("--docs", action="store_true", help="the pictures of docs/ instead")
    parser.add_argument("--address", help="of a server that runs already, with --keep and the bundled examples")
    words = parser.parse_args()
    words.out.mkdir(parents=True, exist_ok=True)
    from serving import serving

    with tempfile.TemporaryDirectory() as keep:
        started = serving(ROOT / "checkpoints", "--keep", keep)
        with contextlib.nullcontext(words.address) if words.address else started as address, a_browser() as browser:
            if words.docs:
                pictures_of_docs(browser, address, words.out)
            else:
                wide = [width for width in words.widths if width != PHONE]
                for widths in (wide, [PHONE] if PHONE in words.widths else []):
                    if widths:
                        walk(browser, address, words.out, widths, words.schemes, set(words.only))


if __name__ == "__main__":
    main()
