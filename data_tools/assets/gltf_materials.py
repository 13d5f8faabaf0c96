"""Materials and textures of a glTF file.

Source: Khronos glTF 2.0 specification, 3.8 (textures) and 3.9 (materials), and the extensions named below.
"""

from __future__ import annotations

import math
from typing import Any

from data_tools.assets.asset import BASE, EMISSIVE, METAL_ROUGH, NORMAL, OCCLUSION, Material, TextureUse
from data_tools.assets.gltf_data import Buffers, item, numbers
from data_tools.assets.images import TextureImages
from nvs_app.errors import NVSError

WRAPS = (10497, 33071, 33648)
SLOTS = ("base colour texture", "metallic-roughness texture", "normal map", "occlusion map", "emissive texture")
READ = ("EXT_texture_webp", "EXT_texture_avif")
MOST_SETS = 64  # numbers beyond are nonsense


class GltfMaterials:
    """The materials of one file, each read at the first use, with the images that they need."""

    def __init__(self, content: dict[str, Any], buffers: Buffers, images: TextureImages, notes: list[str]) -> None:
        self.content, self.buffers, self.images, self.notes = content, buffers, images, notes
        self.known: dict[int | None, Material] = {None: Material()}

    def get(self, index: int | None) -> Material:
        """Material ``index``; the default one for None."""
        if index not in self.known:
            self.known[index] = self.read(item(self.content, "materials", index))
        return self.known[index]

    def read(self, values: dict[str, Any]) -> Material:
        extensions = values.get("extensions") or {}
        pbr = values.get("pbrMetallicRoughness") or {}
        textures: dict[int, TextureUse] = {}

        def texture(slot: int, owner: dict[str, Any], name: str) -> dict[str, Any]:
            info = owner.get(name)
            if info is None:
                return {}
            if not isinstance(info, dict):
                raise NVSError(f"malformed glTF: {name} is no object")
            use = self.use(info, SLOTS[slot])
            if use is None:
                return {}
            textures[slot] = use
            return info

        base = numbers(pbr, "baseColorFactor", (1.0, 1.0, 1.0, 1.0))
        (metallic,), (roughness,) = (
            numbers(pbr, "metallicFactor", (1.0,)),
            numbers(pbr, "roughnessFactor", (1.0,)),
        )
        gloss = extensions.get("KHR_materials_pbrSpecularGlossiness")
        if gloss and not pbr:
            base, metallic = numbers(gloss, "diffuseFactor", (1.0, 1.0, 1.0, 1.0)), 0.0
            roughness = 1.0 - numbers(gloss, "glossinessFactor", (1.0,))[0]
            texture(BASE, gloss, "diffuseTexture")
            if "specularGlossinessTexture" in gloss:
                roughness = 0.6  # what the texture would say is not looked at
                self.notes.append("specular-glossiness textures are left out")
        else:
            texture(BASE, pbr, "baseColorTexture")
            texture(METAL_ROUGH, pbr, "metallicRoughnessTexture")
        normal = texture(NORMAL, values, "normalTexture")
        occlusion = texture(OCCLUSION, values, "occlusionTexture")
        texture(EMISSIVE, values, "emissiveTexture")
        strength = numbers(extensions.get("KHR_materials_emissive_strength") or {}, "emissiveStrength", (1.0,))[0]
        emissive = numbers(values, "emissiveFactor", (0.0, 0.0, 0.0))
        mode = values.get("alphaMode", "OPAQUE")
        if mode not in ("OPAQUE", "MASK", "BLEND"):
            raise NVSError(f"malformed glTF: alphaMode is {str(mode)[:40]}, expected OPAQUE, MASK or BLEND")
        return Material(
            (base[0], base[1], base[2], base[3]),
            metallic,
            roughness,
            (emissive[0] * strength, emissive[1] * strength, emissive[2] * strength),
            numbers(normal, "scale", (1.0,))[0],
            numbers(occlusion, "strength", (1.0,))[0],
            mode,
            numbers(values, "alphaCutoff", (0.5,))[0],
            values.get("doubleSided") is True,
            "KHR_materials_unlit" in extensions,
            textures,
        )

    def use(self, info: dict[str, Any], name: str) -> TextureUse | None:
        """One use of a texture: its image, UV set, transform (KHR_texture_transform) and sampler; None, and a note,
        where it has no image or a UV set that cannot be."""
        index = info.get("index")
        if (values := self.there("textures", index)) is None:
            self.notes.append(f"{name} left out: texture {str(index)[:20]} does not exist")
            return None
        sampler = item(self.content, "samplers", values["sampler"]) if "sampler" in values else {}
        wrap = tuple(sampler.get(name, 10497) for name in ("wrapS", "wrapT"))
        moved = (info.get("extensions") or {}).get("KHR_texture_transform") or {}
        uv_set = moved.get("texCoord", info.get("texCoord", 0))
        if type(uv_set) is not int or not 0 <= uv_set < MOST_SETS:
            self.notes.append(f"{name} left out: its UV set is {str(uv_set)[:20]!r}, expected 0, 1, 2 ...")
            return None
        source = self.source(values)
        image_values = None if source is None else self.there("images", source)
        if image_values is None or not {"uri", "bufferView"} & image_values.keys():
            what = "no image" if source is None else f"image {str(source)[:20]}, which is empty or does not exist"
            self.notes.append(f"{name} left out: texture {index} has {what}")
            return None
        if any(value not in WRAPS for value in wrap):
            raise NVSError("malformed glTF: a sampler with an unknown wrap mode")
        (du, dv), (su, sv) = numbers(moved, "offset", (0.0, 0.0)), numbers(moved, "scale", (1.0, 1.0))
        (angle,) = numbers(moved, "rotation", (0.0,))
        c, s = math.cos(angle), math.sin(angle)
        transform = (c * su, s * sv, du, -s * su, c * sv, dv, 0.0, 0.0, 1.0)
        image = self.image(source)
        return TextureUse(image, uv_set, transform, (wrap[0], wrap[1]), sampler.get("magFilter") == 9728)

    def there(self, name: str, index: Any) -> dict[str, Any] | None:
        """``content[name][index]``; None where there is none."""
        try:
            return item(self.content, name, index)
        except NVSError:
            return None

    def source(self, values: dict[str, Any]) -> Any:
        """The number of a texture's image; None where it names none."""
        extensions = values.get("extensions") or {}
        for found in (*(extensions.get(name) or {} for name in READ), values):
            if found.get("source") is not None:
                return found["source"]
        others = [name for name, found in extensions.items() if isinstance(found, dict) and "source" in found]
        if others:
            raise NVSError(f"a texture whose only image is of {', '.join(others)[:80]}, which is not supported")
        return None

    def image(self, index: Any) -> int:
        values = item(self.content, "images", index)
        if "uri" in values:
            uri = values["uri"]
            label = f"image {index}" if str(uri)[:5].lower() == "data:" else str(uri)[:80]
            return self.images.add(index, self.buffers.uri(uri), label)
        data, _ = self.buffers.view(values.get("bufferView"))
        return self.images.add(index, bytes(data), f"image {index}")
