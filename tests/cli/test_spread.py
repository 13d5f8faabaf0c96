"""`render` and `eval` as tasks of a cluster (one that works in this process), and an `eval` that was stopped."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

from cli_scenes import caller, figures, images, write_scenes

from nvs_app.cli.spread import _KEPT
from nvs_app.evaluation import evaluate
from nvs_app.evaluation.metrics import LPIPS


class Error(Exception):
    """What the cluster raises."""


def cluster() -> SimpleNamespace:
    """What `on_ray` uses of ray; tasks and answers go through pickle, as they do there."""

    def remote(function):
        def options(name, **bounds):
            assert bounds == {"num_cpus": 1, "num_gpus": 0, "max_retries": 3} and name.endswith("_task")
            return SimpleNamespace(remote=lambda *words: pickle.dumps((function, words)))

        return SimpleNamespace(options=options)

    def get(reference):
        function, words = pickle.loads(reference)
        return pickle.loads(pickle.dumps(function(*words)))

    return SimpleNamespace(
        init=lambda **_: None, shutdown=lambda: None, remote=remote, get=get,
        cluster_resources=lambda: {"CPU": 1.0}, wait=lambda references, **_: (references[-1:], references[:-1]),
        exceptions=SimpleNamespace(RayTaskError=Error, RayError=Error),
    )  # fmt: skip


def test_a_cluster_renders_and_measures_what_one_process_does(tmp_path: Path, capsys, monkeypatch) -> None:
    write_scenes(tmp_path)
    here = caller(tmp_path, capsys, monkeypatch)
    monkeypatch.setitem(sys.modules, "ray", cluster())
    scenes = [tmp_path / name for name in ("one", "two", "broken")]
    words = ("render", *scenes, "--frames", 1, "--context", 3, "--device", "cpu", "--out")
    here(*words, tmp_path / "alone", code=2)
    _, err = here(*words, tmp_path / "there", "--ray", "local", code=2)
    assert "error: broken: " in err
    alone, there = (images(tmp_path / out) for out in ("alone", "there"))
    assert there == alone and len(alone) == 2
    assert here(*words, tmp_path / "there", "--ray", "local", code=2)[0].count("skipped") == 2
    assert not list((tmp_path / "there").glob(".*.token"))

    looked: list[str | None] = []
    monkeypatch.setattr(LPIPS, "find", looked.append)
    words = ("eval", *scenes, "--context", 3, "--image-hw", 32, 32, "--device", "cpu", "--json")
    here(*words, tmp_path / "there.json", "--ray", "local", code=2)
    assert looked == [None], "a worker reads the weights of LPIPS once for all its scenes"
    _KEPT.clear()

    # Stopped at the second scene, and started again: the first one is not measured again.
    measure, done = evaluate.evaluate_scene, []

    def stopped(renderer, scene, *rest, **options):
        if len(done) == 1:
            done.append("stop")
            raise KeyboardInterrupt
        done.append(scene.name)
        return measure(renderer, scene, *rest, **options)

    monkeypatch.setattr(evaluate, "evaluate_scene", stopped)
    here(*words, tmp_path / "alone.json", code=130)
    here(*words, tmp_path / "alone.json", code=2)
    assert done == ["one", "stop", "two"]
    assert figures(tmp_path / "there.json") == figures(tmp_path / "alone.json")
