"""Modules that moved still open under their former names, for one release."""

from __future__ import annotations

import importlib

import pytest


@pytest.mark.parametrize(
    ("former", "name", "now", "called"),
    [
        ("data_tools.archives", "extract", "data_tools.readers.archives", "extract"),
        ("data_tools.photos", "has_cameras", "data_tools.readers", "holds_scene"),
        ("data_tools.photos", "scene_root", "data_tools.structure_from_motion.photo_files", "scene_root"),
        ("data_tools.sfm_prepare", "find_pictures", "data_tools.structure_from_motion.photo_files", "find_images"),
        ("data_tools.video", "choose_frames", "data_tools.structure_from_motion.video", "choose_frames"),
        ("data_tools.video", "write_frames", "data_tools.structure_from_motion.video", "write_frames"),
        ("data_tools.objaverse.asset", "BASE", "data_tools.assets.asset", "BASE"),
        ("data_tools.objaverse.gltf", "read_gltf", "data_tools.assets.gltf", "read_gltf"),
        ("nvs_app.engine.film", "FilmWriter", "nvs_app.rendering.video", "VideoWriter"),
        ("nvs_app.web.intake", "inspect", "nvs_app.web.services.uploads", "inspect"),
    ],
)
def test_former_names(former: str, name: str, now: str, called: str) -> None:
    there = getattr(importlib.import_module(former), name)
    assert there is getattr(importlib.import_module(now), called)
