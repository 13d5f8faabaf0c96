"""The mean of two checkpoints of one run: `python -m nvs_app weights average A B --share 0.5 --out NAME`.

Weights that one run passed through, say before and after it went on to larger images, lie in one basin, and their
mean often serves both ends better than either (Wortsman et al., "Model soups", arXiv 2203.05482).
"""

from __future__ import annotations

from pathlib import Path

from nvs_app.errors import NVSError
from nvs_app.model.checkpoint import Dtype, load_checkpoint, save_checkpoint


def average_checkpoints(first: str, second: str, out: Path, share: float = 0.5, dtype: Dtype = "bfloat16") -> Path:
    """Write (1 - share) * first + share * second.

    Args:
        first, second: names or folders of checkpoints of one configuration; the card is the second's.
        out: folder to write.
        share: weight of the second, in [0, 1].
        dtype: storage type of matrices.
    Raises:
        NVSError: configurations differ, or the share is out of range.
    """
    if not 0 <= share <= 1:
        raise NVSError(f"--share {share}: expected a number from 0 to 1")
    one, two = load_checkpoint(first), load_checkpoint(second)
    if one.config != two.config:
        raise NVSError(f"{first} and {second}: networks of different configurations have no mean")
    ours, theirs = one.state_dict(), two.state_dict()
    mixed = {name: (1 - share) * ours[name] + share * value for name, value in theirs.items()}
    # What was said of the second alone does not hold for the mean.
    card = {key: value for key, value in two.card.items() if key not in ("name", "hash", "held_out_psnr")}
    card["average_of"] = [
        {"hash": model.card["hash"], "share": part} for model, part in ((one, 1 - share), (two, share))
    ]
    return save_checkpoint(out, mixed, two.config, card, dtype)
