"""Published protocols of the field, a small file each: `find(name)`, `BENCHMARKS`.

    python -m nvs_app eval --benchmark re10k --data datasets/re10k/test --option index=evaluation_index_re10k.json
"""

from __future__ import annotations

from nvs_app.benchmarks.base import Benchmark
from nvs_app.benchmarks.dl3dv import DL3DV
from nvs_app.benchmarks.folder import Folder
from nvs_app.benchmarks.gso import GSO
from nvs_app.benchmarks.llff import LLFF
from nvs_app.benchmarks.mipnerf360 import MipNeRF360
from nvs_app.benchmarks.nerf_synthetic import NeRFSynthetic
from nvs_app.benchmarks.objaverse import Objaverse
from nvs_app.benchmarks.procedural import Procedural
from nvs_app.benchmarks.re10k import RealEstate10K
from nvs_app.errors import NVSError

__all__ = ["BENCHMARKS", "find"]

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        GSO(),
        RealEstate10K(),
        DL3DV(),
        NeRFSynthetic(),
        LLFF(),
        MipNeRF360(),
        Objaverse(),
        Folder(),
        Procedural(),
    )
}


def find(name: str) -> Benchmark:
    """The protocol of that name. Raises NVSError."""
    if name not in BENCHMARKS:
        raise NVSError(f"--benchmark {name}: unknown, expected one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
