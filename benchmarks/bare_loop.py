"""The loop that anyone would write around ONNX Runtime, in a process of its own, taking turns like an artifact."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from modelwright.harness.run.interleave import Window

LOOP = """
import json, sys, time
import numpy as np, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
(name,) = (one.name for one in session.get_inputs())
feeds = [{name: x} for x in np.load(sys.argv[2])[f"input:{name}"][:8]]
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
    """A session of ONNX Runtime and nothing else; see `interleave.Runner`.

    Args:
        name: That its results go under.
        model: With one input.
        reference: The inputs packed with an artifact.
    """

    def __init__(self, name: str, model: Path, reference: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", LOOP, str(model), str(reference)],
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
