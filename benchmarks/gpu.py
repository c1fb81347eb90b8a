"""On a machine with an NVIDIA GPU: PyTorch on CUDA beside ONNX Runtime on the CPU, and two identical artifacts.

Prints the table and the ratios of the identical ones, which must be 1 within 1 %, and writes
`benchmarks/results/gpu-NAME.json` with the GPU's name and all versions.

Two identical artifacts are measured eagerly and as CUDA graphs. Eagerly a small batch is bound by the host, which
queues operators more slowly than the GPU computes them: then the ratio tells how alike two Python processes run. As a
graph it is bound by the GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from models.images import make_images
from resnet50 import shorten

from modelwright.cli.printing import close_progress, open_progress, print_comparison
from modelwright.core.records.artifact import open_artifact
from modelwright.core.records.codec import encode
from modelwright.harness import compare
from modelwright.harness.building import build_targets
from modelwright.harness.results.file import encode_results
from modelwright.harness.results.statistics import estimate_ratio, round_log_ratios
from modelwright.harness.run.effort import Effort, get_effort
from modelwright.harness.run.measure_artifacts import Measured, measure_artifacts
from modelwright.harness.run.runner import MeasureSettings
from modelwright.profiles import Profile, detect_host
from modelwright.targets.table import suiting_targets

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
TWINS = ("torch-fp32", "torch-fp16")
TWIN_EFFORT = Effort(name="twins", launches=5, rounds=10, window_s=0.2)
"""50 rounds, with which the ratio of two equal artifacts scatters by 0.2 % even on a shared CPU."""
TOLERANCE = 0.01


def main() -> None:
    """Builds, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--baseline", default="torch-fp32")
    parser.add_argument("--target", action="append", help="default: PyTorch's, and ort-fp32 on the CPU")
    parser.add_argument("--cuda-graph", action="store_true", help="of the comparison")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--part", choices=("all", "comparison", "twins"), default="all")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    host = detect_host()
    if not host.accelerators:
        sys.exit("there is no NVIDIA GPU here")
    record: dict[str, Any] = {"gpu": host.accelerators[0].name}
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "images.npz"
        np.savez(samples, image=make_images(64))
        if arguments.part != "twins":
            record |= shorten(measure_comparison(host, samples, Path(folder) / "comparison", arguments))
        if arguments.part != "comparison":
            record["two identical artifacts"] = measure_all_twins(
                host, samples, Path(folder) / "twins", arguments.batch
            )
    path = arguments.results / f"{name_result(host, arguments)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(path)


def measure_comparison(host: Profile, samples: Path, out: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Prints and returns the comparison."""
    names = [name for name in suiting_targets(host.machine()) if name.startswith("torch-")]
    progress = open_progress()
    try:
        comparison = compare(
            f"{HERE / 'networks.py'}:create_resnet50",
            samples=samples,
            out=out,
            targets=arguments.target or [*names, "ort-fp32"],
            baseline=arguments.baseline,
            effort=get_effort(arguments.effort).name,
            batch=arguments.batch,
            cuda_graph=arguments.cuda_graph,
            progress=progress,
        )
    finally:
        close_progress(progress)
    print_comparison(comparison, as_json=False)
    return encode_results(comparison)


def measure_all_twins(host: Profile, samples: Path, out: Path, batch: int) -> list[dict[str, Any]]:
    """Returns the ratios of artifacts to copies of themselves, eagerly and as CUDA graphs."""
    built = build_targets(f"{HERE / 'networks.py'}:create_resnet50", samples=samples, out=out, targets=TWINS)
    if built.absent:
        sys.exit(f"{built.absent[0].target} cannot be built: {built.absent[0].error.message}")
    records = []
    for name in TWINS:
        for cuda_graph in (False, True):
            records.append(measure_twins(host, out / name, batch=batch, cuda_graph=cuda_graph))
            print(json.dumps({key: value for key, value in records[-1].items() if key != "gpu"}), flush=True)
    return records


def measure_twins(host: Profile, directory: Path, *, batch: int, cuda_graph: bool) -> dict[str, Any]:
    """Returns the ratio of an artifact to a copy of itself: end to end, and of the computation alone."""
    copy = directory.with_name(f"{directory.name}-copy")
    if not copy.exists():
        shutil.copytree(directory, copy)
    settings = MeasureSettings(effort=TWIN_EFFORT, batch=batch, device="cuda", cuda_graph=cuda_graph)
    both = {"first": open_artifact(directory), "second": open_artifact(copy)}
    measured = measure_artifacts(both, settings, host, host, samples=None, meter_gpu=False).by_name
    for result in measured.values():
        if result.failure is not None:
            sys.exit(f"{directory.name} {result.name}: {result.failure.message}")
    first, second = measured["first"], measured["second"]
    return {
        "target": directory.name,
        "cuda_graph": cuda_graph,
        "batch": batch,
        "end to end": compare_figure(first, second, "latencies_ms"),
        "computation": compare_figure(first, second, "compute_latencies_ms"),
        "gpu": [encode(result.on_gpu.observed) for result in (first, second) if result.on_gpu is not None],
    }


def compare_figure(first: Measured, second: Measured, figure: str) -> dict[str, Any] | None:
    """Returns the ratio of the second to the first with its interval, and whether it is 1 within the tolerance."""
    rounds = [{i: getattr(w, figure) for i, w in result.windows.items()} for result in (first, second)]
    launches = {index: window.launch for index, window in first.windows.items()}
    ratio = estimate_ratio(round_log_ratios(*rounds), launches)
    return None if ratio is None else {**encode(ratio), "within 1 %": abs(ratio.ratio - 1) <= TOLERANCE}


def name_result(host: Profile, arguments: argparse.Namespace) -> str:
    """Returns the name of the file of results: one for each way to measure."""
    gpu = re.sub(r"[^a-z0-9]+", "-", host.accelerators[0].name.lower()).strip("-")
    part = "" if arguments.part == "all" else f"-{arguments.part}"
    return f"gpu-{gpu}{'-graph' if arguments.cuda_graph else ''}-batch{arguments.batch}{part}"


if __name__ == "__main__":
    main()
