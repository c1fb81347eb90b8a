"""Loading and running models in ONNX Runtime on the CPU, and reading back what really ran."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError
from modelwright.core.process.child import run_in_child
from modelwright.core.records.signature import Signature
from modelwright.core.scratch import scratch_directory
from modelwright.targets.contract import Feeds, RunSettings, Session
from modelwright.targets.graphs.run import blame, open_file, session_options
from modelwright.targets.options import Value
from modelwright.targets.ort.settings import apply_settings, read_settings
from modelwright.targets.readiness import require_import

Array = npt.NDArray[Any]

PROFILE_TIMEOUT_S = 600.0
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
        self._session = open_file(path, settings, MeasurementInvalidError, prepare_options(settings))
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

    def share(self) -> Session:
        """Returns this one: ONNX Runtime's sessions take calls from several threads."""
        return self

    def describe_execution(self) -> dict[str, Any]:
        """Profiles one inference in a child process, so that the timed session's speed and memory stay as they are."""
        if self._feeds is None:
            return {}
        with scratch_directory() as folder:
            for number, array in enumerate(self._feeds.values()):
                np.save(Path(folder) / f"{number}.npy", array)
            request = {"folder": folder, "model": str(self._path), "names": list(self._feeds)}
            try:
                operators = run_in_child(
                    "modelwright.targets.ort.session:profile_in_child",
                    {**request, "threads": self._settings.threads, "options": dict(self._settings.options)},
                    purpose="profiling an inference",
                    crash_error=MeasurementInvalidError,
                    timeout_s=PROFILE_TIMEOUT_S,
                )
            except ModelwrightError as error:
                reason = "\n".join(filter(None, (error.message, error.detail)))
                return {"precision": None, "source": "profile failed", "reason": reason[-500:]}
        return {
            **count_nodes(operators),
            "operators": operators,
            "threads": self._settings.threads,
            "spinning": self._settings.threads > 1 and bool(self._settings.options.get("spinning", True)),
            "device": "cpu",
            **({"settings": self._read_settings()} if self._settings.options else {}),
            "source": f"profile of onnxruntime {require_import('onnxruntime', 'ort-run').__version__}",
        }

    def _read_settings(self) -> dict[str, str]:
        return read_settings(self._session.get_session_options(), self._settings.options)

    def close(self) -> None:
        """Frees the model."""
        self._session = None


def count_nodes(operators: Mapping[str, int]) -> dict[str, Any]:
    """Returns the precision that the nodes which multiply ran in, `mixed` where some differ, and how many ran in which.

    Args:
        operators: Operator -> nodes that ran.
    """
    integer = sum(n for name, n in operators.items() if name in _INTEGER_COMPUTE)
    floating = sum(n for name, n in operators.items() if name in _FLOAT_COMPUTE)
    return {
        "precision": "fp32" if integer == 0 else "mixed" if floating else "int8",
        "compute_nodes": {"int8": integer, "fp32": floating},
        "integer_nodes": sum(
            n for name, n in operators.items() if name in _INTEGER_COMPUTE or name.startswith("QLinear")
        ),
        "float_compute_nodes": floating,
    }


def prepare_options(settings: RunSettings) -> Any:
    """Returns a session's options, set as chosen.

    Raises:
        BadInputError: The runtime has no such setting, or it takes no such value.
    """
    options = session_options(settings)
    apply_settings(options, settings.options)
    return options


def profile_in_child(
    folder: str, model: str, names: Sequence[str], threads: int, options: Mapping[str, Value]
) -> dict[str, int]:
    """Runs one inference under the profiler and counts the nodes that ran, by operator.

    Args:
        folder: Holds the inputs, `0.npy` and so on in the order of their names; the profile goes there too.
        model: The model's file.
        names: Of the inputs.
        threads: Intra-operator threads.
        options: Settings that are not at their defaults.
    """
    feeds = {name: np.load(Path(folder) / f"{number}.npy") for number, name in enumerate(names)}
    prepared = prepare_options(RunSettings(threads=threads, options=options))
    prepared.enable_profiling = True
    prepared.profile_file_prefix = str(Path(folder) / "profile")
    ort = require_import("onnxruntime", "ort-run")
    session = ort.InferenceSession(model, prepared, providers=["CPUExecutionProvider"])
    session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = {
        event["name"]: event["args"]["op_name"]
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    return dict(Counter(nodes.values()).most_common())
