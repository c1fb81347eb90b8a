"""ResNet-50's shape against ONNX Runtime FP32: one thread, batch 1, all targets interleaved.

Prints the table and writes `benchmarks/results/resnet50-MACHINE.json`.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from models.images import make_images

from modelwright.cli.printing import close_progress, open_progress, print_comparison
from modelwright.harness import compare
from modelwright.harness.results.file import encode_results

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Builds, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--target", action="append")
    parser.add_argument("--out", type=Path, help="keep the artifacts here")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="folder for resnet50-MACHINE.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder) / "images.npz"
        np.savez(samples, image=make_images(48))
        progress = open_progress()
        try:
            comparison = compare(
                f"{HERE / 'networks.py'}:create_resnet50",
                samples=samples,
                out=arguments.out or Path(folder) / "out",
                targets=arguments.target,
                effort=arguments.effort,
                progress=progress,
            )
        finally:
            close_progress(progress)
    print_comparison(comparison, as_json=False)
    device = re.sub(r"[^a-z0-9]+", "-", comparison.environment.device.lower()).strip("-")
    path = arguments.results / f"resnet50-{device}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(shorten(encode_results(comparison)), indent=1) + "\n")
    print(path)


def shorten(document: Mapping[str, Any]) -> dict[str, Any]:
    """Drops what is long or of one machine, and says nothing about speed."""
    long = ("window_median_ms", "recipe", "fidelity", "rounds")
    rows = [{k: v for k, v in row.items() if k not in long} for row in document["measurements"]]
    # Paths are of one machine and say nothing to another.
    source = {**document["source"], "path": "benchmarks/networks.py:create_resnet50"}
    samples = {
        part: {**value, "path": "models/images.py"} if isinstance(value, dict) else value
        for part, value in document["samples"].items()
    }
    return {**document, "measurements": rows, "source": source, "samples": samples}


if __name__ == "__main__":
    main()
