"""What the server writes into the page: values in the templates of ui/. Every text in them is escaped."""

from __future__ import annotations

from nvs_app.web.services.encoding import Plan
from nvs_app.web.services.gathering import PHOTOS, SCENE, SHOWN, VIDEO, Piece, Tray
from nvs_app.web.services.machine import seconds_words
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.services.truth import ComparedView, Comparison, image_uri, legend_uri
from nvs_app.web.services.uploads import FEWEST
from nvs_app.web.ui import escaped, fill


def problem_html(words: str) -> str:
    """A sentence about what went wrong."""
    return f"<p class='nvs-problem-line' role='alert'>{escaped(words)}</p>"


def note_html(words: str, small: bool = False) -> str:
    """A sentence; nothing for no words."""
    return f"<p class='nvs-note{' nvs-small' * small}' role='status'>{escaped(words)}</p>" if words else ""


def counted(count: int, what: str = "photo") -> str:
    """As in "1 photo" and "20 photos"."""
    return f"{count} {what}{'' if count == 1 else 's'}"


def photos_html(tray: Tray | None, plan: Plan | None) -> str:
    """The grid of what was brought, with the button that starts; empty where nothing is looked at."""
    if tray is None or not tray.open or not tray.pieces:
        return ""
    broken = len(tray.pieces) - len(tray.good)
    # What needs a look comes first: a small screen shows no more than the first few.
    tiles = sorted(enumerate(tray.pieces), key=lambda numbered: not numbered[1].problem)
    return fill(
        "photos.html",
        title=_title(tray),
        facts=f"{broken} cannot be used" if broken else "",
        said_html=note_html(tray.said),
        tiles_html="".join(_tile(piece, index < SHOWN) for index, piece in tiles),
        go_html=_go(tray, plan),
    )


def _title(tray: Tray) -> str:
    names = {SCENE: counted(tray.count, "view") + " with cameras", VIDEO: "Your video"}
    return names.get(tray.kind) or counted(tray.count)


def _tile(piece: Piece, shown: bool) -> str:
    uri = piece.thumbnail if shown else ""
    inside = counted(piece.count, "view" if piece.kind == SCENE else "frame" if piece.kind == VIDEO else "photo")
    return fill(
        "photo_tile.html",
        state="nvs-bad" if piece.problem else "",
        image_html=f"<img src='{uri}' alt='' draggable='false'>" if uri else "",
        name=piece.name,
        words=inside if piece.kind in (PHOTOS, SCENE, VIDEO) and not piece.problem else "",
        problem_html=f"<em role='alert'>{escaped(piece.problem)}</em>" if piece.problem else "",
        choices_html="".join(
            fill("scene_choice.html", name=name, key=f"{piece.key}:{number}")
            for number, name in enumerate(piece.choices)
        ),
        key=piece.key,
    )


def _go(tray: Tray, plan: Plan | None) -> str:
    if plan is None:
        if tray.kind != PHOTOS:
            return "<p>Nothing of this can be reconstructed. Add photos, a video, or a scene with cameras.</p>"
        more = FEWEST - tray.count
        words = f"{more} more at least, all of the same thing from different sides; 20 to 60 are best."
        return f"<p>{words if more > 0 else ''}</p>"
    if plan.estimate.problems:
        return "".join(problem_html(problem) for problem in plan.estimate.problems)
    few = tray.kind == PHOTOS and tray.count < 12
    noted = plan.source.notes
    more = f" ({len(noted) - 2} more notes under Advanced.)" if len(noted) > 2 else ""
    note = " ".join(("20 to 60 photos are best." if few else "", *(f"{note}." for note in noted[:2]), more)).strip()
    return fill("photos_go.html", label=action(plan), time=took(plan), note=note)


def action(plan: Plan) -> str:
    """What the button does: "Reconstruct 20 photos"."""
    if plan.source.frames_in_video is not None:
        return "Reconstruct the video"
    if plan.source.scene is not None:
        return f"Reconstruct from {counted(plan.estimate.views, 'view')}"
    return f"Reconstruct {counted(plan.source.available)}"


def took(plan: Plan) -> str:
    """How long it takes: "about 25 s"."""
    return f"about {seconds_words(plan.estimate.total_seconds)}"


def brought_html(tray: Tray | None) -> str:
    """One line about photos that are put away; empty where there are none."""
    if tray is None or tray.open or not tray.pieces:
        return ""
    return fill("brought.html", words=_title(tray))


def plan_html(plan: Plan | None) -> str:
    """The estimate: a sentence, and a table for those who want it."""
    if plan is None:
        return note_html("Nothing to reconstruct yet.")
    found = plan.estimate
    skipped = ""
    if plan.source.skipped:
        name, why = next(iter(plan.source.skipped.items()))
        more = f" and {len(plan.source.skipped) - 1} more" if len(plan.source.skipped) > 1 else ""
        skipped = f"Left out: {name} ({why}){more}."
    none_left = "All are used: no photo is left to compare with." if found.views == found.available > 1 else ""
    rows = "".join(f"<tr><th scope='row'>{escaped(a)}</th><td>{escaped(b)}</td></tr>" for a, b in found.rows)
    return fill(
        "plan.html",
        title=plan.source.label,
        words=plan.source.words if found.problems else "",  # else the sentence says it
        problems_html="".join(problem_html(problem) for problem in found.problems),
        sentence_html="" if found.problems else f"<p class='nvs-sentence'>{escaped(found.sentence)}</p>",
        rows_html=rows,
        notes_html=note_html(skipped) + note_html(none_left, small=True),
    )


def inputs_html(opened: LoadedScene) -> str:
    """The input views, small; a click on one looks from there."""
    if not opened.context_jpegs or opened.split is None or opened.scene is None:
        return note_html(f"From a scene file: the photos are not here. {opened.sharpened}".rstrip())
    context = list(opened.split.context)
    names = [path.name for path in opened.scene.image_paths]
    images = "".join(fill("input.html", index=i, name=names[i], uri=u) for i, u in zip(context, opened.context_jpegs))
    seconds = f"{opened.seconds:.1f}\N{NO-BREAK SPACE}s"
    words = f"{len(context)} of {len(opened.cameras)} photos used, read in {seconds}."  # finding cameras is not in it
    if opened.name != counted(len(opened.cameras)):
        words = f"{opened.name}: {words}"
    if opened.unregistered:
        count = len(opened.unregistered)
        words += f" {counted(count)} {'has' if count == 1 else 'have'} no camera (see Cameras)."
    return fill("inputs.html", words=f"{words} {opened.sharpened}".rstrip(), images_html=images)


def unregistered_html(opened: LoadedScene) -> str:
    """Photos without a camera, and why."""
    if not opened.unregistered:
        return ""
    items = "".join(
        f"<li><b>{escaped(name)}</b> {escaped(why)}</li>" for name, why in sorted(opened.unregistered.items())
    )
    words = f"{counted(len(opened.unregistered))} without a camera"
    return f"<details class='nvs-note'><summary>{words}</summary><ul>{items}</ul></details>"


def meter_html(fraction: float, words: str, what: str = "Video") -> str:
    """A bar with words."""
    return fill("meter.html", percent=f"{100 * fraction:.0f}", what=what, words=words)


def compare_html(view: ComparedView | None, table: Comparison | None) -> str:
    """Rendering and photo under one slider, the error beside them, and the table."""
    if view is None or table is None:
        return note_html("This scene has no photo to compare with: it came as a scene file, or all photos were used.")
    *views, (mean, psnr, ssim) = table.rows
    rows = "".join(
        fill("compare_row.html", index=held.index, name=name, psnr=a, ssim=b)
        for held, (name, a, b) in zip(table.views, views)
    )
    rows += f"<tr><th scope='row'>{escaped(mean)}</th><td>{psnr}</td><td>{ssim}</td></tr>"
    photo, rendered, error = (image_uri(image, "JPEG") for image in (view.photo, view.rendered, view.error))
    return fill(
        "compare.html",
        photo=photo, rendered=rendered, error=error, legend=legend_uri(), index=view.index, rows_html=rows,
        psnr=f"{view.psnr:.2f}", ssim=f"{view.ssim:.3f}", top=f"{table.error_top:.2f}",
    )  # fmt: skip
