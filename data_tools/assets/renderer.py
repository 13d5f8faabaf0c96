"""Draws an asset with OpenGL 3.3 through EGL: no screen needed, on a GPU or on Mesa's software renderer.

    renderer = AssetRenderer((512, 512))
    with renderer.load(asset) as model:
        rgba = renderer.draw(model, c2w, fxfycxcy)      # uint8 [512, 512, 4], sRGB, straight alpha

moderngl, and not pyrender: three times as fast here, kept up, and pyrender's shader leaves out alpha masks, gets the
alpha of blended surfaces wrong and squares emission. 4 samples a pixel; textures with mipmaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from data_tools.assets.asset import Asset, Material, Part, TextureUse
from data_tools.assets.shaders import FRAGMENT, VERTEX
from nvs_app.errors import NVSError, first_line
from nvs_app.machine import cores

SRGB8_ALPHA8, MIRRORED, CLAMPED = 0x8C43, 33648, 33071
NAMES = ("base_map", "metal_rough_map", "normal_map", "occlusion_map", "emissive_map")
SRGB_SLOTS = (0, 4)
UV_NAMES = ("in_uv", "in_uv_b", "in_uv_c")  # two sets each
MODES = {"OPAQUE": 0, "MASK": 1, "BLEND": 2}


@dataclass
class _GpuPart:
    """A part on the device."""

    part: Part
    mode: str
    array: Any
    indices: Any
    textures: dict[int, Any]
    centres: np.ndarray | None  # of the triangles, of blended parts


class AssetRenderer:
    """One OpenGL context. Raises NVSError where there is no EGL or no OpenGL 3.3.

    Attributes:
        name: of the device, as OpenGL tells it.
    """

    def __init__(self, image_hw: tuple[int, int], device: int = 0) -> None:
        self.image_hw = image_hw
        self.context = _open_context(device)
        self.name = str(self.context.info["GL_RENDERER"])
        size = (image_hw[1], image_hw[0])
        samples = min(4, self.context.max_samples)
        try:
            if max(size) > self.context.info["GL_MAX_RENDERBUFFER_SIZE"]:
                raise NVSError(f"{size[0]}x{size[1]}: larger than {self.name} draws, choose a smaller --image-hw")
            self.target = self.context.framebuffer(
                self.context.renderbuffer(size, 4, samples=samples, dtype="f2"),
                self.context.depth_renderbuffer(size, samples=samples),
            )
            self.resolved = self.context.framebuffer(self.context.renderbuffer(size, 4, dtype="f2"))
            self.program = self.context.program(vertex_shader=VERTEX, fragment_shader=FRAGMENT)
        except self.context.error as error:
            raise NVSError(f"OpenGL on {self.name}: {first_line(error)}") from error
        for slot, name in enumerate(NAMES):
            self.set(name, slot)
        self.white = self.context.texture((1, 1), 4, b"\xff" * 4)
        ramp = np.arange(4096) / 4095.0
        encoded = np.where(ramp <= 0.0031308, ramp * 12.92, 1.055 * ramp ** (1 / 2.4) - 0.055)
        self.encode = (encoded * 255.0).round().astype(np.uint8)

    def set(self, name: str, value: Any) -> None:
        """A uniform; one that the driver found to be unused has no place."""
        if name in self.program:
            self.program[name].value = value

    @contextmanager
    def load(self, asset: Asset, unlit: bool = False, cull: bool = False) -> Iterator[list[_GpuPart]]:
        """The asset on the device, given back at the end of the block.

        Args:
            asset: normalised.
            unlit: show base colours as they are.
            cull: hide the back of surfaces that the file does not call double-sided; else both sides are drawn, as
                path tracers do.
        """
        self.unlit, self.cull = unlit, cull
        kept: list[Any] = []
        textures: dict[Any, Any] = {}
        try:
            drawn = [self._upload(part, asset, textures, kept) for part in asset.parts]
            yield sorted(drawn, key=lambda d: d.mode == "BLEND")
        finally:
            for thing in (*kept, *textures.values()):
                thing.release()

    def _upload(self, part: Part, asset: Asset, textures: dict[Any, Any], kept: list[Any]) -> _GpuPart:
        context, count = self.context, len(part.positions)
        columns = [
            part.positions,
            part.normals if part.normals is not None else np.zeros((count, 3), np.float32),
            part.colors if part.colors is not None else np.ones((count, 4), np.float32),
        ]
        uvs = part.uvs if part.uvs is not None else np.zeros((count, 2), np.float32)
        names = UV_NAMES[: -(-uvs.shape[1] // 4)]
        columns += [uvs, np.zeros((count, 4 * len(names) - uvs.shape[1]), np.float32)]
        vertices = context.buffer(np.concatenate(columns, axis=1, dtype=np.float32).tobytes())
        indices = context.buffer(part.faces.tobytes())
        array = context.vertex_array(
            self.program,
            [(vertices, "3f 3f 4f" + " 4f" * len(names), "in_position", "in_normal", "in_color", *names)],
            indices, skip_errors=True,
        )  # fmt: skip
        kept += [array, vertices, indices]
        mode = _alpha_mode(part, asset)
        used = {}
        for slot, use in part.material.textures.items():
            key = (use.image, slot in SRGB_SLOTS, use.wrap, use.nearest)
            if key not in textures:
                textures[key] = self._texture(asset.images[use.image], *key[1:])
            used[slot] = textures[key]
        centres = part.positions[part.faces].mean(axis=1) if mode == "BLEND" else None
        return _GpuPart(part, mode, array, indices, used, centres)

    def _texture(self, pixels: UInt8[np.ndarray, "h w 4"], srgb: bool, wrap: tuple[int, int], nearest: bool) -> Any:
        # moderngl knows repeat and clamp only: a mirrored repeat is a repeat of the image and its mirror image.
        for axis, mode in ((1, wrap[0]), (0, wrap[1])):
            if mode == MIRRORED:
                pixels = np.concatenate([pixels, np.flip(pixels, axis)], axis)
        context = self.context
        size = (pixels.shape[1], pixels.shape[0])
        extra = {"internal_format": SRGB8_ALPHA8} if srgb else {}
        texture = context.texture(size, 4, np.ascontiguousarray(pixels).tobytes(), **extra)
        texture.build_mipmaps()
        texture.filter = (
            (context.NEAREST, context.NEAREST) if nearest else (context.LINEAR_MIPMAP_LINEAR, context.LINEAR)
        )
        texture.repeat_x, texture.repeat_y = wrap[0] != CLAMPED, wrap[1] != CLAMPED
        return texture

    def draw(
        self, model: list[_GpuPart], c2w: Float64[np.ndarray, "4 4"], fxfycxcy: Float64[np.ndarray, "4"]
    ) -> UInt8[np.ndarray, "h w 4"]:
        """One view: sRGB with straight alpha; colour 0 where nothing is.

        Args:
            model: from :meth:`load`.
            c2w: OpenCV axes. fxfycxcy: in pixels of ``image_hw``.
        """
        context = self.context
        self.target.use()
        self.target.depth_mask = True
        self.target.clear(0.0, 0.0, 0.0, 0.0)
        context.enable(context.DEPTH_TEST)
        context.blend_func = context.ONE, context.ONE_MINUS_SRC_ALPHA
        matrix = _projection(fxfycxcy, self.image_hw, float(np.linalg.norm(c2w[:3, 3]))) @ np.linalg.inv(c2w)
        self.set("view_projection", tuple(matrix.T.ravel().tolist()))
        self.set("eye", tuple(c2w[:3, 3].tolist()))
        far_first = sorted(
            model,
            key=lambda d: (
                d.mode == "BLEND",
                0.0 if d.centres is None else -self._depth(d.centres, c2w).mean(),
            ),
        )
        for drawn in far_first:
            self._draw_part(drawn, c2w)
        context.copy_framebuffer(self.resolved, self.target)
        height, width = self.image_hw
        raw = np.frombuffer(self.resolved.read(components=4, dtype="f2"), np.float16)
        linear = raw.reshape(height, width, 4)[::-1].astype(np.float32)
        alpha = linear[..., 3:].clip(0.0, 1.0)
        colour = (linear[..., :3] / np.maximum(alpha, 1e-4)).clip(0.0, 1.0)
        rgba = np.empty((height, width, 4), np.uint8)
        rgba[..., :3] = self.encode[(colour * 4095.0 + 0.5).astype(np.uint16)]
        rgba[..., 3:] = (alpha * 255.0 + 0.5).astype(np.uint8)
        rgba[rgba[..., 3] == 0] = 0
        return rgba

    def _draw_part(self, drawn: _GpuPart, c2w: np.ndarray) -> None:
        context, material = self.context, drawn.part.material
        blended = drawn.mode == "BLEND"
        if drawn.centres is not None:
            order = np.argsort(-self._depth(drawn.centres, c2w), kind="stable")
            drawn.indices.write(np.ascontiguousarray(drawn.part.faces[order]).tobytes())
        (context.enable if blended else context.disable)(context.BLEND)
        hidden = self.cull and not material.double_sided
        (context.enable if hidden else context.disable)(context.CULL_FACE)
        self.target.depth_mask = not blended
        self._material(material, drawn)
        drawn.array.render(context.TRIANGLES)

    def _material(self, material: Material, drawn: _GpuPart) -> None:
        uses = [material.textures.get(slot) for slot in range(5)]
        for slot in range(5):
            drawn.textures.get(slot, self.white).use(slot)
        transforms = [_uv_matrix(use) for use in uses]
        self.set("has", [use is not None for use in uses])
        self.set("uv_set", [use.uv_set if use else 0 for use in uses])
        self.set("uv_transform", [tuple(transform.tolist()) for transform in transforms])
        self.set("unlit", self.unlit or material.unlit)
        self.set("has_normals", drawn.part.normals is not None)
        self.set("base_color", material.base_color)
        self.set("metallic_factor", material.metallic)
        self.set("roughness_factor", material.roughness)
        self.set("emissive_factor", material.emissive)
        self.set("normal_scale", material.normal_scale)
        self.set("occlusion_strength", material.occlusion_strength)
        self.set("alpha_mode", MODES[drawn.mode])
        self.set("alpha_cutoff", material.alpha_cutoff)

    @staticmethod
    def _depth(points: np.ndarray, c2w: np.ndarray) -> np.ndarray:
        return (points - c2w[:3, 3]) @ c2w[:3, 2]


def _uv_matrix(use: TextureUse | None) -> np.ndarray:
    """The 3x3 of texture coordinates, column by column as OpenGL takes it."""
    if use is None:
        return np.eye(3).ravel()
    matrix = np.reshape(use.transform, (3, 3)).copy()
    for row, mode in enumerate(use.wrap):
        if mode == MIRRORED:  # the image was doubled
            matrix[row] *= 0.5
    return matrix.T.ravel()


def _alpha_mode(part: Part, asset: Asset) -> str:
    """BLEND only where something is transparent: many exporters set it everywhere, and order then matters in vain."""
    material = part.material
    if material.alpha_mode != "BLEND":
        return material.alpha_mode
    base = material.textures.get(0)
    clear = material.base_color[3] < 1.0 or (part.colors is not None and bool((part.colors[:, 3] < 1.0).any()))
    clear = clear or (base is not None and bool((asset.images[base.image][:, :, 3] < 255).any()))
    return "BLEND" if clear else "OPAQUE"


def _projection(fxfycxcy: np.ndarray, image_hw: tuple[int, int], distance: float) -> np.ndarray:
    """OpenCV camera axes to OpenGL's clip space; near and far around the unit cube."""
    (fx, fy, cx, cy), (height, width) = fxfycxcy.tolist(), image_hw
    near, far = max(distance - 0.88, 0.01), distance + 0.88
    return np.array(
        [
            [2 * fx / width, 0.0, 2 * cx / width - 1.0, 0.0],
            [0.0, -2 * fy / height, 1.0 - 2 * cy / height, 0.0],
            [0.0, 0.0, (far + near) / (far - near), -2 * far * near / (far - near)],
            [0.0, 0.0, 1.0, 0.0],
        ]
    )


def _open_context(device: int) -> Any:
    """A context on the ``device``-th GPU, counted round, or in software where there is none."""
    import moderngl

    faults = []
    for index in _device_order(device):
        try:
            settings: dict[str, Any] = {"backend": "egl", "device_index": index}
            return moderngl.create_context(require=330, standalone=True, **settings)
        except Exception as error:  # noqa: BLE001  moderngl raises Exception and ImportError alike
            faults.append(first_line(error))
    raise NVSError(
        f"no OpenGL 3.3 through EGL ({faults[0]}); on Debian or Ubuntu: apt-get install libegl1 libgl1-mesa-dri"
    )


def _device_order(device: int) -> list[int]:
    """EGL device numbers to try: the GPUs, the wanted one first, then Mesa's software device."""
    import ctypes

    try:
        egl = ctypes.CDLL("libEGL.so.1")
        egl.eglGetProcAddress.restype = ctypes.c_void_p
        query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
        told = egl.eglGetProcAddress(b"eglQueryDeviceStringEXT")
        if not query or not told:
            return [0]
        devices, count = (ctypes.c_void_p * 64)(), ctypes.c_int(0)
        listed = ctypes.CFUNCTYPE(ctypes.c_uint, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(query)
        if not listed(64, devices, ctypes.byref(count)) or count.value < 1:
            return [0]
        text = ctypes.CFUNCTYPE(ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int)(told)
        software = [b"EGL_MESA_device_software" in (text(d, 0x3055) or b"") for d in devices[: count.value]]
    except (OSError, AttributeError):
        return [0]
    gpus = [index for index, soft in enumerate(software) if not soft]
    turned = gpus[device % len(gpus) :] + gpus[: device % len(gpus)] if gpus else []
    return turned + [index for index, soft in enumerate(software) if soft] or [0]


def thread_environment(workers: int) -> dict[str, str]:
    """Environment of a render worker: Mesa's software renderer shares the cores among the workers."""
    threads = str(max(1, cores() // max(1, workers)))
    return {"LP_NUM_THREADS": threads, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
