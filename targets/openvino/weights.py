"""Weights in 4 or 8 bits by NNCF and activations in float: for models that wait for memory, as language models do."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.targets.contract import BuildRequest
from modelwright.targets.openvino.candidates import OpenvinoQuantizer, RunnableModel, choose_float_precision
from modelwright.targets.openvino.session import silence_vendor
from modelwright.targets.openvino.words import find_cause
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.savings import LayerWork
from modelwright.targets.quantization.search import search

_WITH_WEIGHTS = frozenset({"Convolution", "Gather", "GroupConvolution", "MatMul"})
_LEAST_VALUES = 64
"""Smaller constants, such as the indices of a lookup, save nothing."""
_FLOAT_HINT = "openvino-fp32 and openvino-bf16 take the model as it is"


@dataclass(frozen=True, kw_only=True)
class WeightCandidate:
    """One way to call NNCF's `compress_weights`.

    Attributes:
        mode: Its name there: `INT4_SYM`, `INT8_ASYM`, ...
        group_size: Values of a row that share a scale; None for the whole row.
        scales_inputs: Whether weights are scaled by what activations they are likely to meet (AWQ, without data).
    """

    mode: str
    group_size: int | None = None
    scales_inputs: bool = False

    @property
    def name(self) -> str:
        parts = [self.mode.lower().replace("_", " ")]
        parts += [] if self.group_size is None else [f"in groups of {self.group_size}"]
        return " ".join([*parts, "with AWQ"] if self.scales_inputs else parts)


CANDIDATES: Mapping[int, Sequence[WeightCandidate]] = {
    8: (WeightCandidate(mode="INT8_SYM"), WeightCandidate(mode="INT8_ASYM")),
    4: (
        WeightCandidate(mode="INT4_SYM", group_size=64),
        WeightCandidate(mode="INT4_ASYM", group_size=32),
        WeightCandidate(mode="INT4_ASYM", group_size=32, scales_inputs=True),
    ),
}
"""By bits, the smallest file first. Lookup tables and the last layer have 8 bits in all of them."""


def compress_model(
    openvino: Any, nncf: Any, model: Any, request: BuildRequest, bits: int
) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """Compresses the weights of a converted model.

    Returns:
        The OpenVINO model, the recipe for the manifest, and notes for the user.

    Raises:
        BuildFailedError: The model has no weights to compress, or NNCF fails on it.
    """
    nncf.set_log_level(logging.ERROR)
    quantizer = WeightQuantizer(openvino, nncf, model, request, bits)
    if not quantizer.layers:
        raise BuildFailedError(
            f"{request.model_path.name} has no weights of a matrix, convolution or table to compress", hint=_FLOAT_HINT
        )
    judge = Judge.of_request(request)
    found = search(quantizer, judge, request.progress)
    hint, reason, figures = choose_float_precision(quantizer, judge, found, request)
    recipe = {
        "method": "NNCF weight compression",
        "search": found.describe(),
        "compile_options": {},
        "inference_precision": hint,
        "inference_precision_reason": reason,
        "inference_precision_figures": figures,
    }
    return found.model.model, recipe, tuple(found.notes(quantizer.explain_kept(found.kept)))


class WeightQuantizer(OpenvinoQuantizer[WeightCandidate]):
    """Compresses by NNCF.

    Attributes:
        layers: Name -> the number of weights, in the order of the graph.
    """

    def __init__(self, openvino: Any, nncf: Any, model: Any, request: BuildRequest, bits: int) -> None:
        super().__init__(openvino, model, request)
        self._nncf, self._bits = nncf, bits
        self.layers = {
            str(node.get_friendly_name()): size
            for node in model.get_ordered_ops()
            if node.get_type_name() in _WITH_WEIGHTS and (size := _count_weights(node)) >= _LEAST_VALUES
        }

    def candidates(self) -> Sequence[Sequence[WeightCandidate]]:
        return [[candidate] for candidate in CANDIDATES[self._bits]]

    def build(self, candidate: WeightCandidate, kept: Collection[str]) -> RunnableModel:
        model = self._compress(self._model.clone(), candidate, kept)
        if kept and self._bits == 4:
            model = self._compress(model, CANDIDATES[8][-1], ())
        return RunnableModel(model=model)

    def _compress(self, model: Any, candidate: WeightCandidate, spared: Collection[str]) -> Any:
        nncf = self._nncf
        from nncf.quantization import advanced_parameters as advanced

        options: dict[str, Any] = {}
        if candidate.group_size is not None:
            # A layer whose rows do not divide into such groups takes smaller ones, or 8 bits.
            adjust = advanced.GroupSizeFallbackMode.ADJUST
            options["group_size"] = candidate.group_size
            options["advanced_parameters"] = advanced.AdvancedCompressionParameters(group_size_fallback_mode=adjust)
        if candidate.scales_inputs:
            options["awq"] = True
        if spared:
            options["ignored_scope"] = nncf.IgnoredScope(names=list(spared), validate=False)
        try:
            with silence_vendor():
                return nncf.compress_weights(model, mode=nncf.CompressWeightsMode[candidate.mode], **options)
        except Exception as error:
            raise BuildFailedError(
                f"NNCF cannot compress {self._request.model_path.name} ({candidate.name}): {find_cause(error)}",
                hint=_FLOAT_HINT,
                detail=str(error),
            ) from error

    def works(self, model: RunnableModel) -> Mapping[str, LayerWork]:  # noqa: ARG002 - the float model says it
        return {name: LayerWork(products=0.0, weights=size) for name, size in self.layers.items()}

    def explain_kept(self, kept: Collection[str]) -> str | None:
        """Returns what the user has to know of the layers that could not have the few bits."""
        if not kept:
            return None
        instead = "8 bits" if self._bits == 4 else "float"
        layers = "1 layer has" if len(kept) == 1 else f"{len(kept)} layers have"
        return f"{self._bits} bits lose too much in places: {layers} weights in {instead}"


def _count_weights(node: Any) -> float:
    """Returns how many constant float weights a node reads; 0 where it reads none."""
    sizes = [0.0]
    for value in node.input_values():
        source = value.get_node()
        while source.get_type_name() in ("Convert", "Reshape"):
            source = source.input_value(0).get_node()
        if source.get_type_name() == "Constant" and source.get_element_type().is_real():
            sizes.append(float(source.data.size))
    return max(sizes)
