"""The FP32 reference: ONNX Runtime executing the exported model.

For child processes: a damaged file can end the process.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError, ToolchainMissingError

Array = npt.NDArray[Any]

INFERENCE_LIMIT_S = 300.0
"""Of one inference of the reference: a `Loop` that never ends would hold up the first of them for ever."""
_LOG_ERRORS_ONLY = 3

_OPERATOR_PATTERNS = (
    r"implementation for (?P<op>\S+?)\(\d+\) node with name '(?P<node>[^']*)'",
    r"No Op registered for (?P<op>\S+)",
    r"(?P<op>[\w.]*:?\w+)\(-?\d+\) is not a registered function/op",
    r"running (?P<op>\w+) node\. Name:'(?P<node>[^']*)'",
    r"Node \((?P<node>[^)]*)\) Op \((?P<op>\w+)\)",
    r"[Nn]ode:? ?\((?P<node>[^)]*)\)",
)
_CHANGING = ["WeightBiasQuantization"]
"""Of the basic level, what is not exact: a float bias between QuantizeLinear and DequantizeLinear is rounded to the
product of their scales, which cost 4 % of the outputs at weights of 3 and activations of 4 bits. Artifacts keep it:
without an integer bias ONNX Runtime computes a convolution in floats, which took 3.3 times as long, and with it 0.04 %
of outputs were another step at 8 bits. Their proof says what it costs."""


class ReferenceModel:
    """An ONNX model in ONNX Runtime, on the CPU, in FP32, with basic graph optimizations only.

    The basic level removes what is redundant and leaves the arithmetic as it is written in the model.

    Args:
        path: The model; external data lies next to it and is mapped.
        threads: Within one operator; 0 for all cores.
        config: Entries of the session's configuration.
        limit_s: Of one inference.

    Raises:
        BadInputError: ONNX Runtime refuses the model; names the operator and node where it says which.
        ToolchainMissingError: onnxruntime is absent or broken.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 0,
        config: Mapping[str, str] | None = None,
        limit_s: float = INFERENCE_LIMIT_S,
    ) -> None:
        self._runtime = runtime = import_runtime()
        self._limit_s = limit_s
        self.path = Path(path)
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.intra_op_num_threads = threads
        options.log_severity_level = _LOG_ERRORS_ONLY
        for key, value in (config or {}).items():
            options.add_session_config_entry(key, value)
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=_CHANGING
            )
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise self._explain(error, "ONNX Runtime cannot load it") from error
        self.output_names: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())

    @property
    def output_shapes(self) -> dict[str, list[int | str | None]]:
        """Output name -> shape as ONNX Runtime infers it; None or a name for a dynamic dimension."""
        return {value.name: list(value.shape) for value in self._session.get_outputs()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one inference.

        Args:
            feeds: Input name -> array in the signature's dtype and shape.

        Returns:
            Output name -> array, in the model's order.

        Raises:
            BadInputError: The model fails on this input, or does not come to an end; names the node.
        """
        try:
            with self._limited() as (options, ended):
                values = self._session.run(list(self.output_names), dict(feeds), options)
        except Exception as error:
            if ended.is_set():
                raise BadInputError(
                    f"{self.path}: one inference did not end within {self._limit_s:g} s and was stopped",
                    hint="a Loop whose condition never turns false does that: give it a trip count, and try the model "
                    "in ONNX Runtime first",
                ) from error
            shapes = ", ".join(f"{name} {value.dtype} {list(value.shape)}" for name, value in feeds.items())
            raise self._explain(error, f"it fails in ONNX Runtime on the input {shapes}") from error
        broken = [name for name, value in zip(self.output_names, values, strict=True) if not _is_tensor(value)]
        if broken:
            raise BadInputError(f"{self.path}: output {broken[0]} is not a tensor of numbers")
        return dict(zip(self.output_names, values, strict=True))

    @contextmanager
    def _limited(self) -> Iterator[tuple[Any, threading.Event]]:
        """Yields options that end an inference between two nodes when its time is over, and whether that happened."""
        options, ended = self._runtime.RunOptions(), threading.Event()

        def end() -> None:
            ended.set()
            options.terminate = True

        timer = threading.Timer(self._limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield options, ended
        finally:
            timer.cancel()

    def close(self) -> None:
        """Frees the session."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _explain(self, error: Exception, what: str) -> BadInputError:
        text = str(error).strip()
        place = name_operator(text) or _condense(text)
        hint = "export it again with operators and an opset that ONNX Runtime has" if "load" in what else None
        return BadInputError(f"{self.path}: {what}: {place}", hint=hint, detail=text[:2000])


def name_operator(text: str) -> str | None:
    """Returns which operator and node a message of ONNX Runtime blames: `operator com.example:Sorcery, node spell`."""
    for pattern in _OPERATOR_PATTERNS:
        match = re.search(pattern, text)
        if match:
            found = match.groupdict()
            parts = [f"{word} {found[key]}" for word, key in (("operator", "op"), ("node", "node")) if found.get(key)]
            if parts:
                return ", ".join(parts)
    return None


def _condense(text: str) -> str:
    """Returns the sentence of ONNX Runtime's message without its error numbers and source locations."""
    limit = re.search(r"Opset (\d+) is under development.*till opset (\d+)", text, re.DOTALL)
    if limit:
        return f"it has opset {limit[1]}, this version knows opsets up to {limit[2]}"
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from .*? failed:\s*", "", text)
    text = re.sub(r"^/\S+?:\d+ .*?\) ", "", text)
    return " ".join(text.split())[:300]


def _is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiubV"


def import_runtime() -> Any:
    """Imports ONNX Runtime.

    Raises:
        ToolchainMissingError: It is absent or broken.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise ToolchainMissingError(
            "Python package onnxruntime is not installed; it runs the FP32 reference",
            hint="pip install 'onnxruntime>=1.22'",
        ) from error
    except Exception as error:  # a vendor's import can raise anything
        raise ToolchainMissingError(
            "onnxruntime is installed but does not import",
            hint="reinstall it: pip install --force-reinstall onnxruntime",
            detail=str(error),
        ) from error
