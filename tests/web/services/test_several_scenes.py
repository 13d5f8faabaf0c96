"""An archive of several scenes in the page: they are named, and one is chosen."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from nvs_app.errors import NVSError
from nvs_app.web.app_state import AppState
from nvs_app.web.markup import photos_html
from nvs_app.web.services.encoding import Encoding


def test_one_of_several_scenes_is_chosen(app_state: AppState, small_scene: Path, tmp_path: Path) -> None:
    def packed(file: Path) -> Path:
        with zipfile.ZipFile(file, "w") as archive:
            for path in (path for path in small_scene.rglob("*") if path.is_file()):
                for name in ("chair", "le<go"):
                    archive.write(path, f"set/{name}/{path.relative_to(small_scene)}")
            archive.writestr("set/README.txt", "words")
        return file

    encoding, session = Encoding(app_state), app_state.store.create("somebody")
    with pytest.raises(NVSError, match=r"^set: holds 2 scenes \(chair, le<go\)") as caught:
        encoding.receive(session, [packed(tmp_path / "set.zip")])
    assert caught.value.told.endswith(" [several-scenes]")
    encoding.gather(session, [packed(tmp_path / "set.zip")])
    (piece,) = session.tray.pieces
    assert session.source is None and piece.choices == ("chair", "le<go") and "choose one" in piece.problem
    shown = photos_html(session.tray, None)
    assert f'data-photos="scene" data-key="{piece.key}:1">le&lt;go</button>' in shown
    for key, number in (("none", 0), (piece.key, 2), (piece.key, -1)):
        encoding.choose(session, key, number)
        assert session.tray.pieces == (piece,)
    encoding.choose(session, piece.key, 1)
    assert session.tray.pieces[0].key == piece.key and not session.tray.pieces[0].problem
    assert session.source is not None and session.source.words == "6 views with cameras"
    assert session.source.scene.name == "le<go"
    plan = encoding.plan(session)
    assert ("Note", "scene found in set/le<go/") in plan.estimate.rows
    assert "scene found in set/le&lt;go/." in photos_html(session.tray, plan)
