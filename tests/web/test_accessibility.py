"""The page for those who go by keyboard or by a screen reader: Chromium's accessibility tree, and the focus' way."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import advanced

# Roles that a screen reader announces by their name; those that may take the focus need one whatever their role.
NAMED = {
    "application", "dialog", "image", "img", "meter", "progressbar", "radiogroup", "region", "tabpanel", "toolbar",
    "alertdialog", "navigation",
}  # fmt: skip
COLUMNS = ["nvs-header", "nvs-scenes", "nvs-middle", "nvs-tools"]
STOP = f"""() => {{
  const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
  if (at === document.body) return null;
  const seen = style.outlineStyle !== 'none' || style.boxShadow !== 'none';
  const words = (at.getAttribute('aria-label') || at.textContent || at.id || at.tagName).trim().slice(0, 40);
  return {{ column: {COLUMNS}.findIndex((id) => at.closest('#' + id)), words, seen,
    side: Math.min(box.height, box.width) }}; }}"""


def unnamed(page) -> list[str]:
    """Nodes of the accessibility tree that lack a name and need one, as they begin in the document."""
    line = page.context.new_cdp_session(page)
    found = []
    for node in line.send("Accessibility.getFullAXTree")["nodes"]:
        if node["ignored"] or node.get("name", {}).get("value", "").strip():
            continue
        role = node["role"]["value"]
        focusable = any(p["name"] == "focusable" and p["value"].get("value") for p in node.get("properties", ()))
        if role in NAMED or (focusable and role != "RootWebArea"):
            element = line.send("DOM.resolveNode", {"backendNodeId": node["backendDOMNodeId"]})["object"]["objectId"]
            asked = {
                "objectId": element,
                "functionDeclaration": "function () { return this.outerHTML?.slice(0, 99); }",
            }
            found.append(f"{role} {line.send('Runtime.callFunctionOn', asked)['result'].get('value')}")
    line.detach()
    return found


@pytest.mark.browser
def test_a_screen_reader_finds_a_name_for_everything(page, photos: list[Path], tmp_path: Path) -> None:
    for tab in ("Cameras", "Path", "Export", "Model", "Compare"):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("tabpanel", name=tab).wait_for()
        assert unnamed(page) == [], tab
    advanced(page)
    page.click("[data-nvs=cameras]")
    assert unnamed(page) == []
    page.click("[data-nvs-help] >> nth=0")
    page.get_by_role("dialog", name="Keys and gestures").wait_for()
    assert unnamed(page) == []
    page.keyboard.press("Escape")
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    page.set_input_files("#nvs-upload input[type=file]", [str(path) for path in (*photos, tmp_path / "bad.jpg")])
    page.locator(".nvs-bad").wait_for()
    assert unnamed(page) == []
    page.evaluate("document.querySelector('.nvs-tile button').removeAttribute('aria-label')")
    page.evaluate("document.querySelector('.nvs-tile button').textContent = ''")
    page.evaluate("document.querySelector('.nvs-tile button').title = ''")
    assert len(unnamed(page)) == 1  # it would be found


@pytest.mark.browser
def test_tab_goes_through_the_columns_in_their_order(page) -> None:
    """From the header over examples and viewer to the tools, once each; every stop shows that it has the focus."""
    page.evaluate("nvs.viewer.hand(); document.activeElement.blur()")
    stops = []
    for _ in range(120):
        page.keyboard.press("Tab")
        stop = page.evaluate(STOP)
        if stop is None:
            break
        stops.append(stop)
    columns = [stop["column"] for stop in stops]
    assert columns == sorted(columns) and set(columns) == set(range(len(COLUMNS))), stops
    words = [stop["words"] for stop in stops]
    assert any(word.startswith("Rendered view of") for word in words) and "Model" in words and len(stops) > 30
    assert [stop["words"] for stop in stops if not stop["seen"]] == []
    assert [stop for stop in stops if stop["column"] == 0 and stop["side"] < 24] == []
    page.set_viewport_size({"width": 390, "height": 844})  # there the viewer is above the examples
    page.locator("#nvs-header button").last.focus()
    page.keyboard.press("Tab")
    assert page.evaluate(STOP)["column"] == COLUMNS.index("nvs-middle")
