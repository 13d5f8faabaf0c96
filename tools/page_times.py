"""What a visitor waits for, in one visit: page open to first frame; click on Reconstruct to the first picture of the
new scene, and from "Ready" to it; the time that was promised beside the time taken.

    .venv/bin/python tools/page_times.py PHOTOS             # a folder of photos; the first 20 are brought
    .venv/bin/python tools/page_times.py PHOTOS --address http://127.0.0.1:7860  # a server that runs, also an older one

Starts the application itself unless given an address. Exit code 1 where a time is missed: a second after "Ready", or an
estimate that is off by more than 40 %.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import sys
import time
from pathlib import Path

from page_pictures import ROOT, a_browser

UNITS = {"s": 1.0, "minutes": 60.0, "hours": 3600.0}
AFTER_READY, OFF = 1.0, 0.4  # seconds; share of the time taken
# Milliseconds at which things are first seen; revision: of the scene that was there before the click.
WATCH = """() => {
  const seen = window.seen = { revision: nvs.viewer.scene?.revision ?? 0 };
  const once = (name) => { seen[name] ??= performance.now(); };
  document.addEventListener('nvs-message', ({ detail }) => { if (detail.type === 'worked') once('ready'); });
  const look = () => {
    const { scene, shown } = nvs.viewer;
    if (document.querySelector('#nvs-progress')?.textContent.includes('Ready')) once('ready');
    if (scene?.revision > seen.revision && shown?.header.revision === scene.revision) once('picture');
    if (!seen.picture || !seen.ready) setTimeout(look, 20);
  };
  once('click'); look();
}"""
PLANNED = "(words) => [...document.querySelectorAll('.nvs-go, #nvs-plan')].some((e) => e.textContent.includes(words))"


def promised(words: str) -> float:
    """Seconds in all that "about 25 s" and "about 2 minutes" of a text promise."""
    return sum(float(n) * UNITS[unit] for n, unit in re.findall(r"about ([\d.]+) (s|minutes|hours)\b", words))


def visit(browser, address: str, photos: list[Path]) -> bool:
    """Prints the times of a visit; whether all are as they should be."""
    from serving import opened, wait

    start = time.perf_counter()
    page = opened(browser, address, reduced_motion="reduce")
    first = time.perf_counter() - start
    print(f"page open to first frame        {first:6.1f} s", flush=True)
    page.set_input_files("#nvs-upload input[type=file]", [str(path) for path in photos])
    page.wait_for_function(PLANNED, arg=f"{len(photos)} photos", timeout=120_000)
    go = page.locator(".nvs-go")
    go = go if go.count() else page.locator("#nvs-encode")  # before there were photos over the viewer
    words = go.inner_text()
    said = promised(words) or promised(page.inner_text("#nvs-plan"))
    page.evaluate(WATCH)
    go.click()
    wait(page, "window.seen.picture && window.seen.ready", 900)
    seen = {name: value / 1000 for name, value in page.evaluate("window.seen").items()}
    page.context.close()
    took, after = seen["picture"] - seen["click"], max(0.0, seen["picture"] - seen["ready"])
    off = said / took - 1
    print(f"click to first picture          {took:6.1f} s of {len(photos)} photos")
    print(f'"Ready" to first picture        {after:6.2f} s')
    print(f"promised                        {said:6.1f} s, {off:+.0%} of the time taken")
    return after < AFTER_READY and abs(off) <= OFF


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="folder of photos")
    parser.add_argument("--count", type=int, default=20, help="how many of them are brought")
    parser.add_argument("--address", help="of a server that runs already")
    words = parser.parse_args()
    photos = sorted(path for path in words.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(photos) < words.count:
        parser.error(f"{words.photos}: {len(photos)} photos, {words.count} are asked for: see --count")
    from serving import serving

    served = contextlib.nullcontext(words.address.rstrip("/")) if words.address else serving(ROOT / "checkpoints")
    with served as address, a_browser() as browser:
        good = visit(browser, address, photos[: words.count])
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
