"""Loading and running models in ONNX Runtime on the CPU, and reading back what really ran."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.records.signature import Signature
from modelwright.targets.contract import Feeds, RunSettings, Session
from modelwright.targets.graphs.run import blame, open_file, session_options
from modelwright.targets.readiness import require_import

Array = npt.NDArray[Any]

_FLOAT_COMPUTE = frozenset(
    {"Attention", "Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gemm", "LSTM", "MatMul"}
    | {"MultiHeadAttention", "NhwcFusedConv", "RNN"}
)
_INTEGER_COMPUTE = frozenset(
    {"ConvInteger", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "MatMulInteger", "MatMulIntegerToFloat"}
    | {"QAttention", "QGemm", "QLinearConv", "QLinearMatMul"}
)


class OrtSession(Session):
    """A model loaded in ONNX Runtime."""

    def __init__(self, path: Path, signature: Signature, settings: RunSettings) -> None:
        self._path = path
        self._settings = settings
        self._names = [spec.name for spec in signature.outputs]
        self._session = open_file(path, settings, MeasurementInvalidError)
        self._feeds: Feeds | None = None

    def run(self, feeds: Feeds) -> dict[str, Array]:
        self._feeds = feeds
        try:
            return dict(zip(self._names, self._session.run(self._names, dict(feeds)), strict=True))
        except Exception as error:  # onnxruntime raises a class of its own for every status code
            raise MeasurementInvalidError(
                f"{self._path.name} failed in ONNX Runtime{blame(error)}", detail=str(error)
            ) from error

    def bind(self, feeds: Feeds) -> Callable[[], object]:
        self._feeds = feeds
        run, prepared = self._session.run, dict(feeds)
        return lambda: run(None, prepared)

    def describe_execution(self) -> dict[str, Any]:
        """Profiles one inference in a child process, so that the timed session's speed and memory stay as they are."""
        if self._feeds is None:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            for number, array in enumerate(self._feeds.values()):
                np.save(Path(folder) / f"{number}.npy", array)
            request = {"model": str(self._path), "names": list(self._feeds), "threads": self._settings.threads}
            (Path(folder) / "request.json").write_text(json.dumps(request))
            command = [sys.executable, "-m", "modelwright.targets.ort.session", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
            if done.returncode != 0:
                return {"precision": None, "source": "profile failed", "reason": done.stderr[-500:]}
            operators = json.loads(done.stdout.splitlines()[-1])
        integer = {name: n for name, n in operators.items() if name in _INTEGER_COMPUTE or name.startswith("QLinear")}
        computes = any(name in _INTEGER_COMPUTE for name in integer)
        return {
            "precision": "int8" if computes else "fp32",
            "integer_nodes": sum(integer.values()),
            "float_compute_nodes": sum(n for name, n in operators.items() if name in _FLOAT_COMPUTE),
            "operators": operators,
            "threads": self._settings.threads,
            "device": "cpu",
            "source": f"profile of onnxruntime {require_import('onnxruntime', 'ort-run').__version__}",
        }

    def close(self) -> None:
        """Frees the model."""
        self._session = None


def _profile_operators(folder: Path) -> dict[str, int]:
    """Runs one inference under the profiler and counts the nodes that ran, by operator."""
    request = json.loads((folder / "request.json").read_text())
    feeds = {name: np.load(folder / f"{number}.npy") for number, name in enumerate(request["names"])}
    options = session_options(RunSettings(threads=request["threads"]))
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    ort = require_import("onnxruntime", "ort-run")
    session = ort.InferenceSession(request["model"], options, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = {
        event["name"]: event["args"]["op_name"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    return dict(Counter(nodes.values()).most_common())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_profile_operators(Path(sys.argv[1]))) + "\n")
