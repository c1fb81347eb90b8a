"""Candidates of OpenVINO's searches: run as they will ship, and with the float precision that serves them best."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.targets.contract import BuildRequest, Feeds, RunSettings
from modelwright.targets.openvino.branches import iterate_operators
from modelwright.targets.openvino.recipes import BF16_INSTRUCTION_SETS
from modelwright.targets.openvino.session import OpenvinoSession
from modelwright.targets.openvino.words import find_cause
from modelwright.targets.quantization.goal import Figures
from modelwright.targets.quantization.judge import Judge, Outputs
from modelwright.targets.quantization.quantizer import CandidateT, Quantizer
from modelwright.targets.quantization.search import Found

_LOOPS = frozenset({"Loop", "TensorIterator"})
NO_INT8_HINT = "openvino-fp32 and openvino-bf16 need no quantization; ort-int8 has another quantizer"


@dataclass(frozen=True, kw_only=True)
class RunnableModel:
    """A model and how to run it.

    Attributes:
        model: Of OpenVINO.
        options: Further properties to compile with.
        hint: `f32` or `bf16`: what float operations run in.
    """

    model: Any = field(repr=False)
    options: Mapping[str, str] = field(default_factory=dict)
    hint: str = "f32"


class OpenvinoQuantizer(Quantizer[CandidateT, RunnableModel]):
    """What the searches share: how a candidate is run."""

    def __init__(self, openvino: Any, model: Any, request: BuildRequest) -> None:
        self._openvino, self._model, self._request = openvino, model, request
        self._core = openvino.Core()

    @property
    def host_has_bf16(self) -> bool:
        return "BF16" in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")

    def identify(self, model: RunnableModel) -> str | None:
        options = repr((sorted(model.options.items()), model.hint))
        return hash_operators(model.model, hashlib.sha256(options.encode()))

    def as_shipped(self, model: Any) -> Any:
        """Returns what computes here as the model will where it is served."""
        return model

    def run(self, model: RunnableModel, feeds: Iterable[Feeds]) -> Iterator[Outputs]:
        # Written and read as what ships will be: OpenVINO 2026.4 ran a quantized LSTM right from memory and wrong
        # from its file. On the threads of a measurement: which kernels are fused depends on their number.
        with tempfile.TemporaryDirectory(dir=self._request.scratch) as folder:
            path = Path(folder) / "candidate.xml"
            try:
                self._openvino.save_model(self.as_shipped(model.model), path, compress_to_fp16=False)
                session = OpenvinoSession(
                    self._openvino,
                    self._core,
                    self._core.read_model(path),
                    self._request.signature,
                    RunSettings(),
                    model.hint,
                    model.options,
                )
                for inputs in feeds:
                    yield session.run(inputs)
            except RuntimeError as error:  # OpenVINO cannot run what NNCF made, as of some quantized LSTMs
                raise BuildFailedError(
                    f"OpenVINO cannot run {self._request.model_path.name} as NNCF quantizes it: {find_cause(error)}",
                    hint=NO_INT8_HINT,
                    detail=str(error),
                ) from error


def hash_operators(model: Any, digest: Any) -> str | None:
    """Returns a hash of what a model computes: its operators, what each reads, and its constants, whatever their names.

    None for one with loops, whose bodies are not looked into.

    Args:
        model: Of OpenVINO.
        digest: Of `hashlib`; what it has taken already counts too.
    """
    places: dict[str, int] = {}
    for node in iterate_operators(model):
        if node.get_type_name() in _LOOPS:
            return None
        sources = [(value.get_node().get_friendly_name(), value.get_index()) for value in node.input_values()]
        facts = (node.get_type_name(), sorted(map(repr, node.get_attributes().items())))
        digest.update(repr((facts, [(places.get(name), index) for name, index in sources])).encode())
        if node.get_type_name() == "Constant":
            digest.update(np.ascontiguousarray(node.data))
        places[node.get_friendly_name()] = len(places)
    return str(digest.hexdigest())


def choose_float_precision(
    quantizer: OpenvinoQuantizer[CandidateT],
    judge: Judge | None,
    found: Found[CandidateT, RunnableModel],
    request: BuildRequest,
) -> tuple[str, str, dict[str, Any] | None]:
    """Returns what the float rest of the model runs in, why, and how the model follows FP32 with it.

    BF16 makes the rest of an encoder 1.03 times faster here and more with AMX, and cost nothing measurable; it is
    still taken only where this host can show so.
    """
    before = found.figures
    described = None if before is None else before.to_dict()
    if not request.machine.instruction_sets & BF16_INSTRUCTION_SETS:
        return "f32", "the machine has no BF16", described
    if judge is None or before is None or not quantizer.host_has_bf16:
        return "f32", "BF16 could not be judged on this host", described
    with_bf16 = replace(found.model, hint="bf16")
    try:
        after = judge.judge(lambda feeds: quantizer.run(with_bf16, feeds))
    except BuildFailedError as error:
        after = Figures.broken(error.message)
    if not after.is_as_close(before):
        return "f32", f"BF16 would lose: {after.describe()}", described
    return "bf16", "the machine has BF16, and it loses nothing on the samples that choose", after.to_dict()
