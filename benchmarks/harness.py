"""Is the harness right? Its p50 against a bare loop around the same session, and two identical artifacts.

The bare loop runs in a process of its own, in turns with the harness, because the machine drifts.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from modelwright import examples
from modelwright.core.records.artifact import open_artifact
from modelwright.core.records.codec import encode
from modelwright.harness.building import build_targets
from modelwright.harness.results.statistics import estimate_ratio, round_log_ratios
from modelwright.harness.run.effort import Effort, get_effort
from modelwright.harness.run.interleave import Window, interleave
from modelwright.harness.run.measure_artifacts import measure_artifacts
from modelwright.harness.run.runner import ArtifactRunner, MeasureSettings
from modelwright.profiles import detect_host

RESULTS = Path(__file__).resolve().parent / "results"
BARE = """
import json, sys, time
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
feeds = [{"image": x} for x in np.load(sys.argv[2])["input:image"][:8]]
for line in sys.stdin:
    end, took, turn = time.perf_counter() + float(line), [], 0
    warm = time.perf_counter() + 0.1 * float(line)
    while time.perf_counter() < warm:
        session.run(None, feeds[turn % len(feeds)]); turn += 1
    while time.perf_counter() < end:
        start = time.perf_counter()
        session.run(None, feeds[turn % len(feeds)])
        took.append(1e3 * (time.perf_counter() - start)); turn += 1
    print(json.dumps(took), flush=True)
"""


class BareLoop:
    """A loop that anyone would write, taking its turns."""

    name = "bare loop"

    def __init__(self, model: Path, reference: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", BARE, str(model), str(reference)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run_window(self, window_s: float) -> Window:
        """Takes a turn."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{window_s}\n")
        self._process.stdin.flush()
        took = json.loads(self._process.stdout.readline())
        return Window(latencies_ms=took, inferences=len(took), elapsed_s=sum(took) / 1e3)

    def close(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Prints both figures and writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for harness.json")
    arguments = parser.parse_args()
    effort = get_effort(arguments.effort)
    digits = Path(next(iter(examples.__path__))) / "digits"
    host = detect_host()
    figures: dict[str, object] = {"effort": effort.name, "machine": host.to_dict()["cpu_model"], "cores": host.cores}
    with tempfile.TemporaryDirectory() as folder:
        built = build_targets(
            f"{digits / 'model.py'}:create_model",
            samples=digits / "samples.npz",
            out=Path(folder),
            targets=["ort-fp32", "ort-int8"],
        )
        figures["harness p50 / bare loop p50"] = against_bare_loop(built.artifacts["ort-fp32"].directory, effort)
        for name in ("ort-fp32", "ort-int8"):
            first = built.artifacts[name].directory
            second = first.with_name(f"{name}-copy")
            shutil.copytree(first, second)
            both = {"a": open_artifact(first), "b": open_artifact(second)}
            result = measure_artifacts(both, MeasureSettings(effort=effort), host, host, samples=None).by_name
            rounds = [{i: w.latencies_ms for i, w in result[key].windows.items()} for key in "ab"]
            launches = {i: w.launch for i, w in result["a"].windows.items()}
            figures[f"two identical {name}"] = encode(estimate_ratio(round_log_ratios(*rounds), launches))
    for name, value in figures.items():
        print(f"{name}: {value}")
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / "harness.json").write_text(json.dumps(figures, indent=1) + "\n")


def against_bare_loop(directory: Path, effort: Effort) -> dict[str, object]:
    """Returns the ratio harness / bare loop with its interval, and both medians in milliseconds."""
    artifact = open_artifact(directory)
    assert artifact.reference_path is not None
    runner = ArtifactRunner("harness", artifact, MeasureSettings(effort=effort))
    bare = BareLoop(artifact.model_path, artifact.reference_path)
    try:
        runner.open(None)
        series = interleave([runner, bare], effort, seed=0)
    finally:
        runner.close()
        bare.close()
    rounds = {name: {i: w.latencies_ms for i, w in own.windows.items()} for name, own in series.items()}
    medians = {name: statistics.median(v for w in own.values() for v in w) for name, own in rounds.items()}
    return {
        "ratio": encode(estimate_ratio(round_log_ratios(rounds["harness"], rounds["bare loop"]), {})),
        "p50_ms": medians,
    }


if __name__ == "__main__":
    main()
