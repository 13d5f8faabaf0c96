"""Published protocols of the field, a small file each: `find(name)`, `BENCHMARKS`.

python -m nvs_app eval --benchmark re10k --data datasets/re10k/test --option index=evaluation_index_re10k.json
"""

from __future__ import annotations

from nvs_app.errors import NVSError
from nvs_app.evaluation.protocols.base import Benchmark
from nvs_app.evaluation.protocols.dl3dv import DL3DV
from nvs_app.evaluation.protocols.folder import Folder
from nvs_app.evaluation.protocols.gso import GSO
from nvs_app.evaluation.protocols.llff import LLFF
from nvs_app.evaluation.protocols.mipnerf360 import MipNeRF360
from nvs_app.evaluation.protocols.nerf_synthetic import NeRFSynthetic
from nvs_app.evaluation.protocols.objaverse import Objaverse
from nvs_app.evaluation.protocols.procedural import Procedural
from nvs_app.evaluation.protocols.re10k import RealEstate10K

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
