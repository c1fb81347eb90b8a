"""Does a comparison say what is so? Artifacts whose true ratio of speed is known, compared over and over.

Three networks of equal convolutions take turns in every comparison: one, a copy of it, and one with a layer more. The
copy is exactly as fast; the other is slower by its share of the work, 1 in 33, which bare loops confirm. Counted is
what users go by: the 95 % interval, and whether the verdict would call two of them different.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from bare_loop import BareLoop

from modelwright.core.records.artifact import Artifact, open_artifact
from modelwright.core.records.codec import encode
from modelwright.harness.building import build_targets
from modelwright.harness.results.statistics import SpeedRatio, estimate_ratio, round_log_ratios
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.interleave import Window, interleave
from modelwright.harness.run.measure_artifacts import measure_artifacts
from modelwright.harness.run.runner import MeasureSettings
from modelwright.profiles import Profile

LAYERS = 33
"""One more is 3.0 % more work."""
CHANNELS, SIZE = 32, 16
"""About 1 ms in all on a core of a server, with weights that fit its caches: the layers cost the time, nothing else."""


def write_network(path: Path, layers: int) -> None:
    """Writes so many equal convolutions in a row, each with weights of its own."""
    rng = np.random.default_rng(0)
    nodes, weights, name = [], [], "x"
    for index in range(layers):
        values = rng.normal(0, (CHANNELS * 9 / 2) ** -0.5, (CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(values, f"w{index}"))
        nodes.append(onnx.helper.make_node("Conv", [name, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        name = "y" if index == layers - 1 else f"r{index}"
        nodes.append(onnx.helper.make_node("Relu", [f"c{index}"], [name]))
    shape = ["batch", CHANNELS, SIZE, SIZE]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], weights)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)


def build_three(folder: Path, layers: int) -> dict[str, Artifact]:
    """Returns the network, its copy and the slower one, as artifacts of ONNX Runtime."""
    directories = {}
    for name, count in (("first", layers), ("slower", layers + 1)):
        model = folder / f"{name}.onnx"
        write_network(model, count)
        built = build_targets(model, samples="random:32", out=folder / name, targets=["ort-fp32"])
        directories[name] = built.artifacts["ort-fp32"].directory
    directories["copy"] = folder / "copy"
    shutil.copytree(directories["first"], directories["copy"])
    return {name: open_artifact(directory) for name, directory in directories.items()}


def compare_over_and_over(
    artifacts: Mapping[str, Artifact], effort: Effort, host: Profile, comparisons: int, deadline: float
) -> Iterator[dict[str, SpeedRatio]]:
    """Yields the ratio of each to the one called `first`, comparison after comparison, until the time is over.

    Args:
        artifacts: By name.
        effort: Of each comparison.
        host: This machine.
        comparisons: How many, at most.
        deadline: By `time.monotonic`; no comparison begins that would probably end later.
    """
    took_s = 0.0
    for number in range(comparisons):
        started = time.monotonic()
        if started + took_s > deadline:
            return
        settings = MeasureSettings(effort=effort, seed=number)
        measured = measure_artifacts(artifacts, settings, host, host, samples=None).by_name
        for name, result in measured.items():
            if result.failure is not None:
                raise SystemExit(f"{name}: {result.failure.message}")
        windows = {name: result.windows for name, result in measured.items()}
        yield {name: ratio for name in windows if name != "first" and (ratio := relate(windows, "first", name))}
        took_s = max(took_s, time.monotonic() - started)


def calibrate(artifacts: Mapping[str, Artifact], effort: Effort) -> SpeedRatio | None:
    """Returns the ratio of the slower network to the first by bare loops, launched as often as the effort says."""
    windows: dict[str, dict[int, Window]] = {"first": {}, "slower": {}}
    for launch in range(effort.launches):
        loops = []
        try:
            for name in windows:
                reference = artifacts[name].reference_path
                assert reference is not None
                loops.append(BareLoop(name, artifacts[name].model_path, reference))
            for name, series in interleave(loops, effort, seed=0, launch=launch).items():
                windows[name] |= series.windows
        finally:
            for loop in loops:
                loop.close()
    return relate(windows, "first", "slower")


def relate(windows: Mapping[str, Mapping[int, Window]], first: str, second: str) -> SpeedRatio | None:
    """Returns how many times as fast the second is as the first."""
    rounds = [{index: window.latencies_ms for index, window in windows[name].items()} for name in (first, second)]
    launches = {index: window.launch for index, window in windows[first].items()}
    return estimate_ratio(round_log_ratios(*rounds), launches)


def count_verdicts(ratios: Sequence[SpeedRatio], known: float) -> dict[str, Any]:
    """Counts what comparisons say of a pair whose true ratio is known.

    Args:
        ratios: Of the comparisons.
        known: The true ratio; 1 for two that are as fast.
    """
    errors = [abs(ratio.ratio / known - 1) for ratio in ratios]
    return {
        "comparisons": len(ratios),
        "known ratio": known,
        "called slower": sum(ratio.inverted.is_faster for ratio in ratios),
        "called faster": sum(ratio.is_faster for ratio in ratios),
        "interval excludes 1": sum(_excludes(ratio, 1.0) for ratio in ratios),
        "interval excludes the known ratio": sum(_excludes(ratio, known) for ratio in ratios),
        "median error": statistics.median(errors) if errors else None,
        "largest error": max(errors, default=None),
        "ratios": [encode(ratio) for ratio in ratios],
    }


def _excludes(ratio: SpeedRatio, value: float) -> bool:
    return ratio.ci95 is not None and not ratio.ci95[0] <= value <= ratio.ci95[1]
