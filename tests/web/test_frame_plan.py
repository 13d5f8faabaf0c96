"""The sizes that the viewer asks for: decided by the server, sent with the scene and whenever they change."""

from __future__ import annotations

from dataclasses import replace

import pytest
from lines import answer, connect, visit
from starlette.testclient import TestClient

from nvs_app.errors import NVSError
from nvs_app.web.app_state import AppState
from nvs_app.web.services.frame_plan import DRAG_MS, OFFERED, TURN_MS, FrameCost, Viewport, plan_frames
from nvs_app.web.services.viewpoint import camera_from_page
from nvs_app.web.sessions import SessionLimits


def costing(milliseconds: float | int, quick: float | int | None = None) -> FrameCost:
    """Of a frame of 256x256, measured often."""
    cost = FrameCost()
    for _ in range(40):
        cost.add((256, 256), float(milliseconds), False)
        cost.add((256, 256), float(milliseconds if quick is None else quick), True)
    return cost


@pytest.mark.parametrize("hw", [(600, 900), (900, 600), (100, 4000), (4000, 100), (1, 1)])
def test_frames_have_the_stages_shape_and_are_rendered_whole(app_state: AppState, hw: tuple[int, int]) -> None:
    opened = app_state.example("small scene")
    plan = plan_frames(opened, Viewport(hw, 256), SessionLimits(), costing(50))
    for frame in (plan.drag.hw, plan.turn.hw, plan.point, plan.most, *(step.hw for step in plan.rest)):
        assert app_state.renderer().plan_render(frame).render_hw == frame
        assert 96 <= min(frame) and max(frame) <= SessionLimits().frame_side
        wide = min(max(hw[1] / hw[0], 0.4), 2.5)
        assert max(frame) == SessionLimits().frame_side or abs(frame[1] - frame[0] * wide) <= 4 * max(1.0, wide)
    assert min(plan.rest[-1].hw) == plan.side == 256


def test_frames_that_must_come_soon_are_as_large_as_time_allows(app_state: AppState) -> None:
    opened, stage = app_state.example("small scene"), Viewport((512, 512), 512)
    unknown = plan_frames(opened, stage, SessionLimits(), FrameCost())
    assert min(unknown.drag.hw) == 128 and [step.hw for step in unknown.rest] == [(512, 512)]
    fast = plan_frames(opened, stage, SessionLimits(), costing(1))
    assert fast.drag.hw == fast.turn.hw == (512, 512) and not fast.drag.quick
    for milliseconds in (90, 150, 300):
        plan = plan_frames(opened, stage, SessionLimits(), costing(milliseconds))
        for step, most in ((plan.drag, DRAG_MS), (plan.turn, TURN_MS)):
            assert min(step.hw) == 128 or milliseconds * step.hw[0] ** 2 / 256**2 <= most
            assert step.quick and step.quality < plan.rest[-1].quality
        assert plan.turn.hw >= plan.drag.hw and not plan.rest[-1].quick
    assert [min(step.hw) for step in plan.rest] == [320, 512]  # the sharp frame is slow: a smaller one comes first
    assert min(plan_frames(opened, stage, SessionLimits(), costing(2000)).drag.hw) == 96
    # What quick frames cost decides while the hand moves, and not what sharp ones cost.
    assert min(plan_frames(opened, stage, SessionLimits(), costing(2000, quick=30)).drag.hw) > 256


def test_at_rest_no_finer_than_photos_and_screen_unless_chosen(app_state: AppState) -> None:
    opened = replace(app_state.example("small scene"), image_hw=(400, 500))
    for hw, side in (((900, 900), 256), ((300, 400), 256), ((100, 900), 128)):
        assert plan_frames(opened, Viewport(hw), SessionLimits(), FrameCost()).side == side
    assert plan_frames(opened, Viewport((100, 900), 512), SessionLimits(), FrameCost()).side == 512
    # A CPU renders no frame that would keep all others waiting for seconds, whatever is chosen.
    plan = plan_frames(opened, Viewport((900, 900), 1024), SessionLimits(), FrameCost())
    assert plan.side == 512 and 1024 not in plan.sides
    generous = SessionLimits(cpu_frame_pixels=1024**2)
    assert plan_frames(opened, Viewport((900, 900), 1024), generous, FrameCost()).sides == OFFERED


@pytest.mark.parametrize("wrong", [{"hw": (0, 5)}, {"hw": (5, 1 << 20)}, {"side": 100}, {"side": 10**400}])
def test_wrong_stages_are_refused(wrong: dict) -> None:
    with pytest.raises(NVSError, match="stage: "):
        Viewport(**wrong)


def test_the_page_is_told_with_the_scene_and_when_it_changes(
    app_state: AppState, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = FrameCost.add  # whatever this machine takes: it was fast
    monkeypatch.setattr(FrameCost, "add", lambda cost, hw, milliseconds, quick: add(cost, hw, 1.0, quick))
    session = visit(app_state)
    with connect(client, session.token) as socket:
        scene = answer(socket)
        assert scene["plan"]["side"] == 128 and scene["plan"]["rest"][-1]["hw"] == [128, 128]
        socket.send_json({"type": "stage", "id": "s", "hw": [300, 600], "side": 256})
        told = answer(socket)
        assert told["id"] == "s" and told["plan"]["rest"][-1] == {"hw": [256, 512], "quality": 92, "quick": False}
        page = {"type": "frame", "c2w": scene["c2w"], "fov": 40, **told["plan"]["rest"][-1]}
        socket.send_json({**page, "id": 1})
        kinds = [answer(socket), answer(socket)]  # the cost is known now: the plan has changed
        plan = next(message for message in kinds if isinstance(message, dict))
        assert plan["type"] == "plan" and plan["id"] is None and plan["plan"]["drag"]["hw"] == [256, 512]
        app_state.show(session, app_state.example("small scene"))
        assert answer(socket, "scene")["plan"]["stage"] == [300, 600]  # the stage is known still
        for wrong in ({"hw": [3]}, {"hw": "x"}, {"hw": [True, 5]}, {"hw": [300, 600], "side": 0.5}, {}):
            socket.send_json({"type": "stage", **wrong})
            assert answer(socket, "error")["message"].startswith("stage: ")


def test_a_frame_beyond_what_the_device_may_be_asked_is_refused(app_state: AppState, client: TestClient) -> None:
    session = visit(app_state)
    with connect(client, session.token) as socket:
        scene = answer(socket)
        page = {"type": "frame", "c2w": scene["c2w"], "fov": 40}
        socket.send_json({**page, "id": 1, "hw": [1024, 1024]})
        assert answer(socket)["message"] == (
            "camera: a frame of 1024x1024, expected 524288 pixels at most on this device"
        )
        assert camera_from_page({**page, "hw": [1024, 1024]}, 1024).image_hw == (1024, 1024)  # exports may be larger
