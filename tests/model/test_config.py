"""What configurations are read from."""

from __future__ import annotations

from nvs_app.model.config import LaCTConfig


def test_names_of_older_checkpoints_are_read() -> None:
    old = {"dim": 64, "blocks": 2, "key_length": 2.0, "patch_values": True, "fast_start": "shared"}
    config = LaCTConfig.from_dict(old)
    assert (config.qk_scale, config.value_patch_skip, config.share_initial_weights) == (2.0, True, True)
    assert not LaCTConfig.from_dict({**old, "fast_start": "own"}).share_initial_weights
    assert LaCTConfig.from_dict(config.to_dict()) == config
