"""The socket's messages: what is wrong is one line that names the field, the rest is exactly what was sent."""

from __future__ import annotations

import json

import pytest

from nvs_app.web import protocol
from nvs_app.web.protocol import BadRequest, parse

VIEW = {"c2w": [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1], "fov": 40, "hw": [16, 24]}
FRAME = {"type": "frame", "id": 7, **VIEW}


def test_requests_are_read_as_they_were_sent() -> None:
    request = parse(json.dumps({**FRAME, "output": "depth", "format": "png", "quality": 60, "quick": True}), 64)
    assert isinstance(request, protocol.FrameRequest)
    assert (request.id, request.camera.image_hw, request.output, request.format) == (7, (16, 24), "depth", "png")
    assert (request.quality, request.quick, request.auto, request.small) == (60, True, False, False)
    bare = parse(json.dumps(FRAME), 64)
    assert isinstance(bare, protocol.FrameRequest)
    assert (bare.output, bare.format, bare.quality, bare.quick) == ("image", "jpeg", 85, False)
    point = parse(json.dumps({"type": "point", "id": "q1", **VIEW, "at": [0, 0.5]}), 64)
    assert isinstance(point, protocol.PointRequest) and point.at == (0.0, 0.5) and point.id == "q1"
    for text, expected in (
        ('{"type": "view", "id": 2, "index": 3}', protocol.ViewRequest(2, 3)),
        ('{"type": "path", "spec": {"preset": "orbit"}}', protocol.PathRequest(None, {"preset": "orbit"})),
        ('{"type": "stage", "hw": [300, 400], "side": 256}', protocol.StageRequest(None, (300, 400), 256)),
        ('{"type": "stage", "hw": [300, 400]}', protocol.StageRequest(None, (300, 400))),
        ('{"type": "ping"}', protocol.Ping()),
    ):
        assert parse(text, 64) == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"type": "nothing"}, "message type 'nothing': unknown, expected one of frame, point, view, path, stage, ping"),
        ({"type": 3}, "message type 3: unknown"),
        ({**FRAME, "output": "thermal"}, "frame: output is 'thermal', expected one of image, depth, coverage"),
        ({**FRAME, "output": ["depth"]}, "frame: output is a list"),
        ({**FRAME, "format": "gif"}, "frame: format is 'gif', expected one of jpeg, png"),
        ({**FRAME, "quality": float("nan")}, "frame: quality is nan, expected a number from 1 to 100"),
        ({**FRAME, "quality": 10**400}, "frame: quality is a huge number"),
        ({**FRAME, "quality": "high"}, "frame: quality is 'high'"),
        ({**FRAME, "quick": 1}, "frame: quick is 1, expected true or false"),
        ({**FRAME, "auto": None}, "frame: auto is None"),
        ({**FRAME, "hw": [16, 65]}, "camera: a frame of 16x65 pixels, expected sides from 16 to 64"),
        ({**FRAME, "fov": float("inf")}, "camera: fov is inf"),
        ({"type": "point", **VIEW, "at": [0.5, 1.5]}, "point: at is 1.5, expected a number from 0 to 1"),
        ({"type": "point", **VIEW, "at": 3}, "point: at is not [right, down]"),
        ({"type": "view", "index": True}, "view: index is True, expected a whole number"),
        ({"type": "view"}, "view: index is None"),
        ({"type": "stage", "hw": [0, 5]}, "stage: hw is 0, expected a whole number from 1 to 16384"),
        ({"type": "stage", "hw": [5.5, 5]}, "stage: hw is 5.5"),
        ({"type": "stage", "hw": [5, 5], "side": ""}, "stage: side is ''"),
    ],
)
def test_a_wrong_field_is_named_in_one_line(values: dict, said: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(json.dumps({"id": 5, **values}), 64)
    line = str(caught.value)
    assert line.startswith(said) and "\n" not in line and len(line) < 200
    assert caught.value.id == values.get("id", 5)


@pytest.mark.parametrize(
    ("number", "kept"),
    [(3, 3), ("q3", "q3"), ("x" * 65, None), (2**60, None), (True, None), ([1], None), (None, None), ("a\nb", None)],
)
def test_only_short_ids_are_sent_back(number: object, kept: object) -> None:
    assert parse(json.dumps({"type": "ping", "id": number}), 64).id == kept


def test_messages_are_plain_json_of_their_type() -> None:
    scene = protocol.SceneMessage(2, {"name": "desk", "fov": 40.0}, {"side": 256})
    assert scene.to_dict() == {"type": "scene", "revision": 2, "name": "desk", "fov": 40.0, "plan": {"side": 256}}
    assert protocol.ErrorMessage(4, "no").to_dict() == {"type": "error", "id": 4, "message": "no"}
    kinds = protocol.Message.__subclasses__()
    assert len({kind.type for kind in kinds}) == len(kinds) and all(kind.type for kind in kinds)
    header = protocol.FrameHeader(1, 2, (16, 24), "depth", "png", 1.23456, 0.0, 0.1, 1.5, {"range": [1.0, 2.0]})
    values, data = protocol.unpack(protocol.pack(header, b"image"))
    assert data == b"image" and values["model_ms"] == 1.235 and values["range"] == [1.0, 2.0]
    assert values["hw"] == [16, 24] and "facts" not in values
