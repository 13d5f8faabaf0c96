"""What is drawn: textures the right way round, up is up, materials, alpha, light, cameras."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asset_files as files
import numpy as np
import pytest

from data_tools.assets.cameras import asset_cameras
from data_tools.readers import open_scene

Look = Callable[..., np.ndarray]
RED, GREEN, BLUE, YELLOW = (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0)


def hue(pixel: np.ndarray) -> tuple[int, ...]:
    """Which of the channels are bright."""
    assert pixel[3] == 1.0
    return tuple(int(value > 0.5) for value in pixel[:3])


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    """Hues of the four quarters: top left, top right, bottom left, bottom right."""
    low, high = 24, 40
    return [hue(image[y, x]) for y in (low, high) for x in (low, high)]


def dark(image: np.ndarray) -> np.ndarray:
    return image[..., :3].max(-1) < 0.5


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_embedded_texture_is_upright(look: Look, kind: str) -> None:
    data = files.textured_glb(files.quarters(), kind)
    for eye in (
        (0, -2, 0),
        (2, 0, 0),
        (0, 2, 0),
        (-2, 0, 0),
    ):  # glTF's front +z is -y here; upright from all sides
        assert corners(look(data, eye)) == [RED, GREEN, BLUE, YELLOW]


def test_external_texture_and_buffer(look: Look, tmp_path: Path) -> None:
    assert corners(look(files.external_gltf(tmp_path / "a"))) == [RED, GREEN, BLUE, YELLOW]


def test_data_uri(look: Look, tmp_path: Path) -> None:
    builder = files.Builder()
    files.add_box(
        builder, builder.material(pbrMetallicRoughness={"baseColorFactor": [0, 0, 1, 1], "metallicFactor": 0})
    )
    (tmp_path / "a.gltf").write_bytes(builder.gltf())
    assert hue(look(tmp_path / "a.gltf")[32, 32]) == BLUE


def test_obj_with_mtl_looks_like_the_glb(look: Look, tmp_path: Path) -> None:
    image = look(files.obj_mtl(tmp_path / "o"))
    top, foot = image[26:36, 22:42], image[44, 32]
    assert dark(top).any() and foot[:3].std() < 0.01 and 0.2 < foot[0] < 0.6
    # The cube alone, as GLB and as OBJ: the same image.
    positions, _, _, uvs = files.box()
    text = [
        *("v {} {} {}".format(*p) for p in positions),
        *(f"vt {u} {1 - v}" for u, v in uvs),
        "usemtl paint",
    ]
    text += [f"f {i}/{i} {i + 3}/{i + 3} {i + 2}/{i + 2} {i + 1}/{i + 1}" for i in range(1, 25, 4)]
    (tmp_path / "o" / "cube.obj").write_text("\n".join(["mtllib thing.mtl", *text]))
    glb, obj = (
        look(files.textured_glb(), (1.0, -2.0, 0.7)),
        look(tmp_path / "o" / "cube.obj", (1.0, -2.0, 0.7)),
    )
    assert np.abs(glb - obj).mean() < 0.01


def test_up_is_up_and_parts_keep_their_materials(look: Look) -> None:
    image = look(files.multi_material_glb(), (0, -2.4, 0.5))
    rows = {
        name: np.argwhere([[p[3] == 1 and hue(p) == h for p in row] for row in image])[:, 0].mean()
        for name, h in (("back", GREEN), ("seat", RED))
    }
    assert rows["back"] + 6 < rows["seat"] < 40
    legs = image[38:60]
    assert ((legs[..., 2] > legs[..., 0] + 0.1) & (legs[..., 3] == 1)).sum() > 10


def test_vertex_colours(look: Look) -> None:
    data = files.vertex_colour_glb()
    image = look(data)
    assert image[18, 32, 1] > image[46, 32, 1] + 0.3  # green follows y, which is up
    assert image[32, 46, 0] > image[32, 18, 0] + 0.3  # red follows x
    assert image[32, 32, 2] > 0.85 > look(data, (0, 2, 0))[32, 32, 2]  # blue follows z, towards the front


def test_masked_blended_and_culled(look: Look) -> None:
    data = files.alpha_glb()
    front = look(data, (0, -2.0, 0))
    assert front[..., 3].min() == 0.0
    behind = look(data, (0, 2.0, 0))
    mixed = (behind[..., 3] == 1.0) & (behind[..., 2] > 0.5) & (behind[..., 0] > 0.5)
    assert mixed.sum() > 100  # orange, seen through the blue pane
    top_of_pane = look(data, (0, 1.2, 1.6))
    half = np.abs(top_of_pane[..., 3] - 0.75) < 0.02  # a thin box: two layers of a half
    assert half.sum() > 20  # the pane alone, before nothing
    colour = top_of_pane[half][:, :3].mean(0)
    assert colour[2] > 0.8 and colour[0] < 0.5  # straight alpha: the pane's own colour, not mixed with black

    builder = files.Builder()
    positions, faces, normals, _ = files.box()
    builder.primitive(positions, faces[:, ::-1], None, NORMAL=-normals)  # inside out
    inside_out = builder.glb()
    assert look(inside_out)[32, 32, 3] == 1.0
    assert look(inside_out, cull=True)[32, 32, 3] == 1.0  # the far side's inner face
    front_only = files.Builder()
    front_only.primitive(positions, faces[8:10])
    assert (
        look(front_only.glb(), cull=True)[..., 3].max(),
        look(front_only.glb(), (0, 2, 0))[32, 32, 3],
    ) == (1.0, 1.0)
    assert look(front_only.glb(), (0, 2, 0), cull=True)[..., 3].max() == 0.0


def test_light_is_uniform_and_unlit_is_as_stored(look: Look) -> None:
    points, faces = files.ball(32, 64)
    builder = files.Builder()
    grey = builder.material(pbrMetallicRoughness={"baseColorFactor": [0.214, 0.214, 0.214, 1], "metallicFactor": 0})
    builder.primitive(points, faces, grey, NORMAL=points.astype(np.float32))
    data = builder.glb()
    means = [look(data, eye)[26:38, 26:38, 0].mean() for eye in ((0, -2, 0), (2, 0, 0), (0, 0, 2), (0, 0, -2))]
    assert max(means) - min(means) < 0.01
    assert 0.4 < means[0] < 0.6
    assert np.allclose(look(data, unlit=True)[26:38, 26:38, :3], 0.5, atol=0.01)  # 0.214 linear is 0.5 in sRGB


def test_a_white_metal_and_a_white_wall_are_white(look: Look) -> None:
    for metallic in (0.0, 1.0):
        for roughness in (0.1, 0.5, 1.0):
            builder = files.Builder()
            pbr = {"metallicFactor": metallic, "roughnessFactor": roughness}
            files.add_box(builder, builder.material(pbrMetallicRoughness=pbr))
            value = look(builder.glb(), (0.9, -1.7, 0.8))[32, 32, :3].mean()
            assert 0.7 < value <= 1.0, (metallic, roughness)


def textured(uvs: np.ndarray, sampler: dict[str, int] | None = None, **info: Any) -> bytes:
    """A cube with quarters() and other texture coordinates."""
    builder = files.Builder()
    builder.content["samplers"] = [sampler or {}]
    texture = builder.image(files.png(files.quarters()))
    builder.content["textures"][texture]["sampler"] = 0
    pbr = {"baseColorTexture": {"index": texture, **info}, "metallicFactor": 0}
    positions, faces, normals, own = files.box()
    sets = {"TEXCOORD_0": own, "TEXCOORD_1": uvs} if info.get("texCoord") else {"TEXCOORD_0": uvs}
    builder.primitive(positions, faces, builder.material(pbrMetallicRoughness=pbr), NORMAL=normals, **sets)
    return builder.glb()


def test_uv_sets_transforms_and_wrapping(look: Look) -> None:
    uvs = files.box()[3]
    assert corners(look(textured(1 - uvs, texCoord=1))) == [YELLOW, BLUE, GREEN, RED]
    moved = {"KHR_texture_transform": {"offset": [0.5, 0.0]}}
    assert corners(look(textured(uvs, extensions=moved))) == [GREEN, RED, YELLOW, BLUE]
    turned = {"KHR_texture_transform": {"rotation": math.pi / 2, "offset": [0.0, 1.0]}}
    assert corners(look(textured(uvs, extensions=turned))) == [BLUE, RED, YELLOW, GREEN]
    # One unit to the right: repeated the same, mirrored the other way round, clamped the right border.
    assert corners(look(textured(uvs + np.float32([1, 0])))) == [RED, GREEN, BLUE, YELLOW]
    mirrored = {"wrapS": 33648, "wrapT": 33648}
    assert corners(look(textured(uvs + np.float32([1, 0]), mirrored))) == [GREEN, RED, YELLOW, BLUE]
    clamped = {"wrapS": 33071, "wrapT": 33071}
    assert corners(look(textured(uvs + np.float32([1, 0]), clamped))) == [GREEN, GREEN, YELLOW, YELLOW]


def test_normal_map_turns_the_surface(look: Look) -> None:
    """On a surface turned 30 degrees off an axis, a map that turns it back lights it as along the axis: dimmer.

    Red tilts to the right of the image, green to its top.
    """
    s, c = math.sin(math.radians(15)), math.cos(math.radians(15))
    plus, minus, flat = 191, 64, 128
    for rotation, back, further in (
        ([0, s, 0, c], (minus, flat, 238), (plus, flat, 238)),  # turned to the right
        ([s, 0, 0, c], (flat, plus, 238), (flat, minus, 238)),  # turned down
    ):
        values = []
        for texel in (back, further):
            builder = files.Builder()
            texture = builder.image(files.png(np.full((4, 4, 3), texel, np.uint8)))
            pbr = {"metallicFactor": 0.0, "baseColorFactor": [0.5, 0.5, 0.5, 1]}
            files.add_box(
                builder,
                builder.material(normalTexture={"index": texture}, pbrMetallicRoughness=pbr),
                (1, 1, 0.01),
            )
            builder.content["nodes"][0]["rotation"] = rotation
            values.append(look(builder.glb())[32, 32, 0])
        assert values[0] + 0.03 < values[1]


def test_skin_stands_at_its_joints(look: Look) -> None:
    image = look(files.skinned_glb())
    rows, columns = np.argwhere(image[..., 3] > 0.5).T
    assert np.ptp(rows) > 2.5 * np.ptp(columns)  # lying in the bind pose, upright by its joints


def test_node_transforms_scale_and_mirror(look: Look) -> None:
    builder = files.Builder()
    files.add_box(builder, builder.material(pbrMetallicRoughness={"metallicFactor": 0.0}))
    half = 0.5**0.5
    builder.content["nodes"] = [
        {"children": [1], "rotation": [0, 0, half, half]},
        {"mesh": 0, "scale": [-4, 1, 1], "translation": [9, 9, 9]},
    ]
    rows, columns = np.argwhere(look(builder.glb(), cull=True)[..., 3] > 0.5).T
    assert np.ptp(rows) > 2.5 * np.ptp(columns)  # long in x, turned to y


def test_strips_fans_and_morphs(look: Look) -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
    for mode, order in ((5, [0, 1, 2, 3]), (6, [0, 1, 3, 2])):
        builder = files.Builder()
        builder.primitive(square, np.array(order))["mode"] = mode
        assert (look(builder.glb())[24:40, 24:40, 3] == 1).all()
    builder = files.Builder()
    primitive = builder.primitive(square, np.array([0, 1, 2, 1, 3, 2]))
    primitive["targets"] = [{"POSITION": builder.array(square * np.float32([0, 3, 0]))}]
    builder.content["meshes"][0]["weights"] = [1.0]
    rows, columns = np.argwhere(look(builder.glb())[..., 3] > 0.5).T
    assert np.ptp(rows) > 3 * np.ptp(columns)


def test_quantised_and_sparse_positions(look: Look) -> None:
    positions, faces, _, _ = files.box()
    builder = files.Builder()
    builder.content["extensionsRequired"] = ["KHR_mesh_quantization"]
    small = builder.array((positions * 254).astype(np.int16))
    zeros = builder.array(np.zeros((24, 3), np.float32))
    builder.primitive(positions, faces)["attributes"]["POSITION"] = small
    whole = look(builder.glb())
    rows = {"bufferView": builder.view(np.arange(24, dtype=np.uint16).tobytes()), "componentType": 5123}
    new = {"bufferView": builder.view(positions.astype(np.float32).tobytes())}
    builder.content["accessors"][zeros]["sparse"] = {"count": 24, "indices": rows, "values": new}
    builder.content["meshes"][0]["primitives"][0]["attributes"]["POSITION"] = zeros
    assert np.array_equal(whole, look(builder.glb())) and whole[32, 32, 3] == 1


def test_draco(look: Look) -> None:
    """Decoded by DracoPy: like the same ball, uncompressed."""
    points, faces = files.ball()
    builder = files.Builder()
    builder.primitive(points, faces)
    compressed, plain = look(files.draco_glb()), look(builder.glb())
    assert (np.abs(compressed[..., 3] - plain[..., 3]) > 0.5).mean() < 0.01
    assert dark(compressed)[compressed[..., 3] == 1].mean() > 0.1  # its image is there


def test_cameras_follow_the_protocol() -> None:
    arguments = ("a/chair.glb", 200, (1.7, 3.0), (30.0, 70.0), (48, 64))
    c2w, fxfycxcy = asset_cameras(0, *arguments)
    eye, forward = c2w[:, :3, 3], c2w[:, :3, 2]
    distance = np.linalg.norm(eye, axis=1)
    assert distance.min() >= 1.7 and distance.max() <= 3.0 and distance.std() > 0.3
    assert np.allclose(forward, -eye / distance[:, None])
    assert np.allclose(c2w[:, :3, :3].transpose(0, 2, 1) @ c2w[:, :3, :3], np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(c2w[:, :3, :3]), 1.0)
    assert np.allclose(c2w[:, 2, 0], 0.0) and (c2w[:, 2, 1] < 0).all()  # right is level, down points down
    assert abs((eye / distance[:, None]).mean(0)).max() < 0.15  # from all sides
    fov = 2 * math.degrees(math.atan(24 / fxfycxcy[0]))
    assert 30 <= fov <= 70 and fxfycxcy[2:].tolist() == [32, 24]
    more, _ = asset_cameras(0, "a/chair.glb", 300, *arguments[2:])
    assert np.array_equal(more[:200], c2w)
    for other in (asset_cameras(1, *arguments), asset_cameras(0, "b.glb", *arguments[1:])):
        assert not np.allclose(other[0], c2w)
    fixed = asset_cameras(3, "x", 1, (2.0, 2.0), (50.0, 50.0), (48, 64))
    assert math.isclose(fixed[1][0], 24 / math.tan(math.radians(25))) and math.isclose(
        np.linalg.norm(fixed[0][0][:3, 3]), 2
    )


def test_scene_opens_and_its_cameras_fit_its_images(renderer: Any, task: Any, tmp_path: Path) -> None:
    """A small red box away from the centre of a black frame is where its camera projects it."""
    from data_tools.assets.render_task import render_asset

    builder = files.Builder()
    for colour, size, centre in (
        ((1, 0, 0, 1), 0.12, (0.44, 0.24, 0.14)),
        ((0, 0, 0, 1), 0.02, (-0.49, -0.4, -0.45)),
    ):
        pbr = {"baseColorFactor": list(colour), "metallicFactor": 0}
        files.add_box(builder, builder.material(pbrMetallicRoughness=pbr), (size,) * 3, centre)
    (tmp_path / "a.glb").write_bytes(builder.glb())
    job = task(tmp_path / "a.glb", views=6, fov=(50.0, 50.0))
    answer = render_asset(job, renderer)
    assert (answer["status"], answer["views"], answer["error"]) == ("rendered", 6, "")
    scene = open_scene(tmp_path / "out" / "a")
    posed = scene.load()
    assert tuple(posed.images.shape) == (6, 3, 64, 64) and posed.images[:, :, 0, 0].min() == 1.0  # on white
    centre = (np.array([0.44, 0.24, 0.14]) - answer["centre"]) * answer["scale"]
    world = np.array([centre[0], -centre[2], centre[1], 1.0])
    for image, c2w, (fx, fy, cx, cy) in zip(posed.images, scene.c2w.double().numpy(), scene.fxfycxcy.tolist()):
        x, y, z = (np.linalg.inv(c2w) @ world)[:3]
        red = np.argwhere(((image[0] > 0.5) & (image[1] < 0.4)).numpy())
        seen = red.mean(0) + 0.5
        assert np.abs(seen - [fy * y / z + cy, fx * x / z + cx]).max() < 2.0


def test_any_number_of_uv_sets(look: Look) -> None:
    """Five textures on five sets, each of which is right on its own set only: the base colour's, set 7, is upright."""
    builder = files.Builder()
    picture = builder.image(files.png(files.quarters()))
    white = builder.image(files.png(np.full((4, 4, 3), 255, np.uint8)))
    corner = np.full((8, 8, 3), 255, np.uint8)
    corner[:4, :4] = 0
    emission = builder.image(files.png(corner))
    positions, faces, normals, uvs = files.box()
    material = builder.material(
        pbrMetallicRoughness={"baseColorTexture": {"index": picture, "texCoord": 7}, "metallicFactor": 0,
                              "metallicRoughnessTexture": {"index": white, "texCoord": 1}},
        occlusionTexture={"index": white, "texCoord": 2}, emissiveTexture={"index": emission, "texCoord": 4},
        normalTexture={"index": builder.image(files.png(np.full((4, 4, 3), (128, 128, 255), np.uint8))), "texCoord": 3},
        emissiveFactor=[1, 1, 1],
    )  # fmt: skip
    sets = {f"TEXCOORD_{number}": uvs * 0 + 0.9 for number in (0, 1, 2, 3)}
    # Emission everywhere but in the corner that shows red when it is turned around: bottom right.
    sets |= {"TEXCOORD_4": 1 - uvs, "TEXCOORD_7": uvs}
    builder.primitive(positions, faces, material, NORMAL=normals, **sets)
    assert corners(look(builder.glb()))[3] == YELLOW
    assert look(builder.glb())[20, 20, :3].min() > 0.95


@pytest.mark.parametrize(
    ("texture", "info", "note"),
    [
        ({}, {}, "base colour texture left out: texture 1 has no image"),
        ({"source": 0}, {"texCoord": 3}, "base colour texture left out: its UV set 3 does not exist"),
        ({"source": 0}, {"texCoord": 1}, "its UV set 1 cannot be used (malformed glTF: TEXCOORD_1 is VEC3 of 5126"),
        ({"source": 0}, {"texCoord": -1}, "its UV set is '-1', expected 0, 1, 2 ..."),
        ({}, {"index": 7}, "base colour texture left out: texture 7 does not exist"),
        ({"source": 9}, {}, "texture 1 has image 9, which is empty or does not exist"),
        ({"source": 1}, {}, "texture 1 has image 1, which is empty or does not exist"),
        ({"extensions": {"EXT_texture_webp": {"source": 0}}, "source": 9}, {}, ""),
        ({"extensions": {"EXT_texture_webp": {}}, "source": 0}, {}, ""),
    ],
)
def test_textures_that_cannot_be_used(tmp_path: Path, texture: dict, info: dict, note: str) -> None:
    """They are left out and told; the base colour's factor shows."""
    from data_tools.assets.gltf import read_gltf

    builder = files.Builder()
    builder.image(files.png(files.quarters()))
    builder.content["images"].append({"name": "lost"})
    use = {"index": builder.texture(texture), **info}
    positions, faces, normals, uvs = files.box()
    material = builder.material(pbrMetallicRoughness={"baseColorTexture": use})
    builder.primitive(positions, faces, material, TEXCOORD_0=uvs, TEXCOORD_1=normals)
    asset = read_gltf(tmp_path / "a.glb", builder.glb(), tmp_path, 64)
    assert len(asset.parts[0].faces) == 12 and bool(asset.parts[0].material.textures) == (not note)
    assert [note in told for told in asset.notes] == ([True] if note else [])


def test_an_asset_on_the_globe_keeps_its_shape(look: Look) -> None:
    """A node in earth-centred coordinates, where float32 knows half metres."""
    images = []
    for place in (0.0, 4_194_411.3):
        builder = files.Builder()
        texture = builder.image(files.png(files.quarters()))
        files.add_box(builder, builder.material(pbrMetallicRoughness={"baseColorTexture": {"index": texture}}))
        builder.content["nodes"] = [{"children": [1], "translation": [place, 0.3 * place, -1.1 * place]}, {"mesh": 0}]
        images.append(look(builder.glb()))
    assert np.abs(images[0] - images[1]).max() < 0.02
