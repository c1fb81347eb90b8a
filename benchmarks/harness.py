"""Is the harness right? Its p50 against a bare loop around the same session, and pairs whose true ratio is known.

20 comparisons at the effort of users: a copy of an artifact must be told from it at most once, one with 3 % more work
must be called slower at least 19 times. The bare loop runs in a process of its own, in turns with the harness, because
the machine drifts. Prints the counts, and writes `benchmarks/results/harness.json` after every part; on a quiet machine
it takes some 10 minutes, and never begins a comparison that would end after `--minutes`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bare_loop import BareLoop
from known_ratios import LAYERS, build_three, calibrate, compare_over_and_over, count_verdicts, relate

from modelwright import examples
from modelwright.core.records.artifact import Artifact, open_artifact
from modelwright.core.records.codec import encode
from modelwright.harness.building import build_targets
from modelwright.harness.results.statistics import SpeedRatio
from modelwright.harness.run.effort import Effort, get_effort
from modelwright.harness.run.interleave import Window, interleave
from modelwright.harness.run.runner import ArtifactRunner, MeasureSettings
from modelwright.profiles import detect_host

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> None:
    """Prints the figures and writes them to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--effort", default="standard")
    parser.add_argument("--comparisons", type=int, default=20)
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the network that is compared with one more")
    parser.add_argument("--minutes", type=float, default=12, help="for all of it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for harness.json")
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    effort, host = get_effort(arguments.effort), detect_host()
    figures: dict[str, Any] = {
        "effort": effort.name,
        "launches": effort.launches,
        "rounds": effort.total_rounds,
        "window_s": effort.window_s,
        "machine": host.cpu_model,
        "cores": host.cores,
        "virtual machine": host.virtual_machine,
    }
    with tempfile.TemporaryDirectory() as folder:
        figures["harness p50 / bare loop p50"] = against_bare_loop(build_digits(Path(folder) / "digits"), effort)
        _write(figures, arguments.results)
        artifacts = build_three(Path(folder), arguments.layers)
        confirmed = calibrate(artifacts, effort)
        if confirmed is None:
            raise SystemExit(f"the effort {effort.name} has too few rounds to calibrate by")
        more = f"one layer more than {arguments.layers}"
        figures[f"{more}, by bare loops"] = encode(confirmed)
        found: dict[str, list[SpeedRatio]] = {"copy": [], "slower": []}
        for ratios in compare_over_and_over(artifacts, effort, host, arguments.comparisons, deadline):
            for name, ratio in ratios.items():
                found[name].append(ratio)
            figures["a copy"] = count_verdicts(found["copy"], 1.0)
            figures[more] = count_verdicts(found["slower"], confirmed.ratio)
            _write(figures, arguments.results)
            print(f"{len(found['copy'])} of {arguments.comparisons}", flush=True)
    for name, value in figures.items():
        shown = {key: item for key, item in value.items() if key != "ratios"} if isinstance(value, dict) else value
        print(f"{name}: {shown}")


def _write(figures: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "harness.json").write_text(json.dumps(figures, indent=1) + "\n")


def build_digits(out: Path) -> Artifact:
    """Returns the embedded example as an artifact of ONNX Runtime."""
    digits = Path(next(iter(examples.__path__))) / "digits"
    built = build_targets(
        f"{digits / 'model.py'}:create_model", samples=digits / "samples.npz", out=out, targets=["ort-fp32"]
    )
    return open_artifact(built.artifacts["ort-fp32"].directory)


def against_bare_loop(artifact: Artifact, effort: Effort) -> dict[str, Any]:
    """Returns the ratio harness / bare loop with its interval over launches, and both medians in milliseconds."""
    assert artifact.reference_path is not None
    windows: dict[str, dict[int, Window]] = {"harness": {}, "bare loop": {}}
    runner = ArtifactRunner("harness", artifact, MeasureSettings(effort=effort))
    for launch in range(effort.launches):
        bare = BareLoop("bare loop", artifact.model_path, artifact.reference_path)
        try:
            runner.open(None)
            for name, series in interleave([runner, bare], effort, seed=0, launch=launch).items():
                windows[name] |= series.windows
        finally:
            runner.close()
            bare.close()
    medians = {
        name: statistics.median(value for window in own.values() for value in window.latencies_ms)
        for name, own in windows.items()
    }
    ratio = relate(windows, "bare loop", "harness")
    return {"ratio": None if ratio is None else encode(ratio.inverted), "p50_ms": medians}


if __name__ == "__main__":
    main()
