"""On a machine with an NVIDIA GPU: PyTorch on CUDA beside the other targets, and two identical artifacts.

Prints the table and the ratios, which must be 1 within 1 %, and writes `benchmarks/results/gpu-NAME.json` with the
GPU's name and all versions.
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

from resnet50 import shorten, write_images

from modelwright.cli.printing import close_progress, open_progress, print_document
from modelwright.core.artifact import open_artifact
from modelwright.harness import compare
from modelwright.harness.effort import get_effort
from modelwright.harness.measuring import measure_artifacts
from modelwright.harness.runner import MeasureSettings
from modelwright.harness.statistics import estimate_ratio, round_log_ratios
from modelwright.profiles import detect_host

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def main() -> None:
    """Builds, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--baseline", default="torch-fp32")
    parser.add_argument("--target", action="append", help="default: all that suit the machine")
    parser.add_argument("--cuda-graph", action="store_true")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    host = detect_host()
    if not host.accelerators:
        sys.exit("there is no NVIDIA GPU here")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        write_images(Path(folder) / "images.npz", 64)
        progress = open_progress()
        try:
            document = compare(
                f"{HERE / 'networks.py'}:create_resnet50",
                samples=Path(folder) / "images.npz",
                out=out,
                targets=arguments.target,
                baseline=arguments.baseline,
                effort=arguments.effort,
                batch=arguments.batch,
                cuda_graph=arguments.cuda_graph,
                progress=progress,
            )
        finally:
            close_progress(progress)
        print_document(document, as_json=False)
        on_gpu = [row["target"] for row in document["measurements"] if row.get("device") == "cuda"]
        twins = {name: measure_twins(out / "artifacts" / name, arguments) for name in on_gpu[:2]}
    for name, ratios in twins.items():
        print(f"two identical {name}: {ratios}")
    name = re.sub(r"[^a-z0-9]+", "-", host.accelerators[0].name.lower()).strip("-")
    arguments.results.mkdir(exist_ok=True)
    path = arguments.results / f"gpu-{name}{'-graph' if arguments.cuda_graph else ''}-batch{arguments.batch}.json"
    path.write_text(json.dumps({**shorten(document), "two identical artifacts": twins}, indent=1) + "\n")
    print(path)


def measure_twins(directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the ratio of an artifact to a copy of itself: end to end, and of the computation alone."""
    copy = directory.with_name(f"{directory.name}-copy")
    shutil.copytree(directory, copy)
    host = detect_host()
    settings = MeasureSettings(
        effort=get_effort(arguments.effort), batch=arguments.batch, cuda_graph=arguments.cuda_graph
    )
    both = {"a": open_artifact(directory), "b": open_artifact(copy)}
    measured = measure_artifacts(both, settings, host, host, samples=None).by_name
    ratios: dict[str, Any] = {}
    for figure in ("latencies_ms", "compute_latencies_ms"):
        rounds = [{i: getattr(w, figure) for i, w in measured[key].windows.items()} for key in "ab"]
        ratios[figure] = estimate_ratio(round_log_ratios(*rounds))
    return ratios


if __name__ == "__main__":
    main()
