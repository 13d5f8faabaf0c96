"""Uploads within limits, and what is left of those that are refused."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_tools.structure_from_motion.job import Cancelled
from nvs_app.errors import NVSError
from nvs_app.model.state import SceneState
from nvs_app.web.app_state import AppState
from nvs_app.web.markup import plan_html
from nvs_app.web.services.encoding import Encoding, Plan, parse_size
from nvs_app.web.services.inspector import SceneInspector
from nvs_app.web.services.opening import LoadedScene
from nvs_app.web.services.videos import Videos
from nvs_app.web.sessions import Session, SessionLimits


@pytest.fixture
def encoding(app_state: AppState) -> Encoding:
    app_state.store.limits = SessionLimits(
        upload_files=4, upload_bytes=200_000, upload_pixels=10_000, session_bytes=400_000
    )
    return Encoding(app_state)


@pytest.fixture
def session(encoding: Encoding) -> Iterator[Session]:
    yield encoding.app_state.store.create("me")


def photo(path: Path, side: int = 40) -> Path:
    Image.fromarray(np.random.default_rng(side).integers(0, 255, (side, side, 3), np.uint8)).save(path)
    return path


def refused(encoding: Encoding, session: Session, files: list[Path], match: str) -> None:
    before = session.source
    with pytest.raises(NVSError, match=match) as caught:
        encoding.receive(session, files)
    assert str(session.folder) not in str(caught.value)
    assert session.source is before and not [p for p in session.folder.rglob("*") if p.is_file()]


def test_limits(encoding: Encoding, session: Session, tmp_path: Path) -> None:
    many = [photo(tmp_path / f"{i}.png") for i in range(5)]
    refused(encoding, session, many, "5 files: 4 at most")
    (tmp_path / "large.zip").write_bytes(b"0" * 200_001)
    refused(encoding, session, [tmp_path / "large.zip"], "0 MB: 0 MB at most")
    wide = [photo(tmp_path / f"wide {i}.jpg", 101) for i in range(3)]
    refused(encoding, session, wide, "101×101 pixels")
    (tmp_path / "empty.jpg").touch()
    refused(encoding, session, [tmp_path / "empty.jpg"], "empty.jpg: the file is empty")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("a.jpg", b"0" * 3_000_000)
    refused(encoding, session, [tmp_path / "bomb.zip"], "bomb.zip")
    with zipfile.ZipFile(tmp_path / "out.zip", "w") as packed:
        packed.writestr("../../out.jpg", b"0")
    refused(encoding, session, [tmp_path / "out.zip"], "out.zip")
    refused(encoding, session, [], "Nothing was uploaded")
    refused(encoding, session, [tmp_path / "gone.jpg"], "not there any more")


def test_a_scene_is_taken_planned_and_encoded(
    encoding: Encoding, session: Session, small_scene: Path, tmp_path: Path
) -> None:
    archive = shutil.make_archive(str(tmp_path / "..<b>odd name"), "zip", small_scene)
    plan = encoding.receive(session, [archive])
    assert isinstance(plan, Plan) and plan.source.available == 6 and not Path(archive).exists()
    assert "<b>odd" not in plan_html(plan)
    opened = encoding.encode(session, 2, "48x40").result()
    assert session.scene is opened and opened.image_hw == (40, 48) and len(opened.split.context) == 2
    assert opened.split.target and opened.cameras.image_hw == (40, 48)
    # The next one takes its place, and the state of the one before is forgotten.
    encoding.encode(session, 3, None).result()
    with pytest.raises(NVSError, match="gone"):
        encoding.app_state.state(opened)


def test_cancel_within_the_network(
    encoding: Encoding, session: Session, small_scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding.receive(session, [shutil.make_archive(str(tmp_path / "s"), "zip", small_scene)])
    fast = encoding.app_state.renderer().model.encode

    def encode(*arguments, progress, **named) -> SceneState:
        session.job.cancel()
        return fast(*arguments, progress=progress, **named)

    with monkeypatch.context() as patch:
        patch.setattr(encoding.app_state.renderer().model, "encode", encode)
        with pytest.raises(Cancelled):
            encoding.encode(session).result()
    assert session.scene is None and session.job.done
    assert encoding.encode(session).result() is session.scene


def test_state_files(encoding: Encoding, session: Session, tmp_path: Path) -> None:
    state = encoding.app_state.state(encoding.app_state.example("small scene"))
    good = state.save(tmp_path / "good.safetensors")
    encoding.app_state.store.limits = session.limits = SessionLimits()
    opened = encoding.receive(session, [good])
    assert isinstance(opened, LoadedScene) and opened.scene is None and opened.name == "good"
    assert torch.isfinite(encoding.app_state.frame(opened, opened.cameras[:1]).image).all()
    other = replace(state, meta={**state.meta, "checkpoint_hash": "1" * 64}).save(tmp_path / "other.safetensors")
    refused_here = pytest.raises(NVSError, match="use that checkpoint or encode the scene again")
    with refused_here:
        encoding.receive(session, [other])
    assert session.scene is opened
    (tmp_path / "bad.safetensors").write_bytes(b"0" * 100)
    with pytest.raises(NVSError, match="not a readable scene state"):
        encoding.receive(session, [tmp_path / "bad.safetensors"])


def test_sizes_are_read() -> None:
    assert parse_size("320x240") == (240, 320) == parse_size(" 320 × 240 ")
    for wrong in ("", "320", "0x-1", "99999x1", "axb"):
        with pytest.raises(NVSError, match="expected WIDTHxHEIGHT"):
            parse_size(wrong)


def test_comparing_twice_at_once_is_no_error(encoding: Encoding, session: Session) -> None:
    """As when somebody brings photos while the first comparison still runs."""
    encoding.bring_example(session, "small scene")
    inspector = SceneInspector(encoding.app_state, Videos(encoding.app_state))
    with ThreadPoolExecutor(4) as pool:
        tables = [future.result()[1] for future in [pool.submit(inspector.truth, session) for _ in range(4)]]
    assert all(table is tables[0] for table in tables)  # made once
