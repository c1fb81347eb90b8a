"""A plan of precisions in OpenVINO: INT8 layers by NNCF, matrices of few bits by its weight compression, else float."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.plan import ExecutedPlan, PlannedLayer
from modelwright.targets.contract import BuildRequest
from modelwright.targets.openvino.branches import iterate_operators
from modelwright.targets.openvino.bypass import TRANSPARENT, bypass_layers, find_quantized
from modelwright.targets.openvino.candidates import NO_INT8_HINT, RunnableModel
from modelwright.targets.openvino.quantize import NncfQuantizer
from modelwright.targets.openvino.recipes import NncfCandidate
from modelwright.targets.openvino.session import ACTIVATIONS_IN_FLOATS, ACTIVATIONS_IN_INTEGERS, silence_vendor
from modelwright.targets.openvino.words import find_cause
from modelwright.targets.quantization.planned import (
    BYTE_WEIGHT,
    FLOAT,
    INTEGER,
    NARROW,
    NARROW_WEIGHT,
    PRODUCT,
    PlannedModel,
    Way,
    choose_way,
)
from modelwright.targets.quantization.savings import LayerWork

LACKING = "OpenVINO has no narrower kernel on the CPU"
_CONVOLUTIONS = frozenset(
    {"Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData"}
)
_LAYERS = _CONVOLUTIONS | {"MatMul"}
_MATRIX_WAYS = (NARROW, NARROW_WEIGHT, INTEGER, BYTE_WEIGHT)
# OpenVINO multiplies convolutions with weights of 4 bits in float, slower than those of 8 bits in integers.
_CONVOLUTION_WAYS = (INTEGER, BYTE_WEIGHT)
_PRODUCT_WAYS = (PRODUCT,)
_DYNAMIC_GROUP = 32
"""Weights of smaller groups are multiplied in float: activations are rounded in groups of so many."""
_BITS = {"i4": 4, "u4": 4, "i8": 8, "u8": 8}


def make_quantizer(openvino: Any, nncf: Any, model: Any, request: BuildRequest) -> NncfQuantizer:
    """Returns what quantizes a converted model: by its plan, where there is one."""
    nncf.set_log_level(logging.ERROR)
    planned = PlannedModel.of_request(request)
    if planned is None:
        return NncfQuantizer(openvino, nncf, model, request)
    return PlannedQuantizer(openvino, nncf, model, request, planned)


class PlannedQuantizer(NncfQuantizer):
    """Builds candidates that compute each layer as planned; what is searched is how the ranges are chosen.

    Attributes:
        ways: Operator -> how it is to be computed, of those that are planned.
    """

    def __init__(self, openvino: Any, nncf: Any, model: Any, request: BuildRequest, planned: PlannedModel) -> None:
        super().__init__(openvino, nncf, model, request)
        assert request.plan is not None, "the plan was read from it"
        self._planned, self._repairs = planned, request.plan.repairs
        graph = _Graph(model)
        self._layers = _match(graph, planned)
        self.ways = {name: choose_way(layer, _list_ways(graph, node)) for name, (node, layer) in self._layers.items()}
        # One setting of the whole model: where any layer is to multiply in float, all with weights of few bits do.
        in_floats = NARROW_WEIGHT in self.ways.values() or BYTE_WEIGHT in self.ways.values()
        compresses = in_floats or NARROW in self.ways.values()
        self._options = (ACTIVATIONS_IN_FLOATS if in_floats else ACTIVATIONS_IN_INTEGERS) if compresses else {}
        integers = [self._layers[name][1] for name, way in self.ways.items() if way == INTEGER]
        self.shares_weight_scales = bool(integers) and all(layer.granularity == "tensor" for layer in integers)
        self._describe(self.ways, kept=(), shared=())  # raises where nothing of the plan can be executed

    def build(self, candidate: NncfCandidate, kept: Collection[str]) -> RunnableModel:
        whole = super().build(candidate, ()).model
        spared = [*self._find_float(whole), *kept]
        model = bypass_layers(self._openvino, self._model, whole, spared) if spared else whole.clone()
        return RunnableModel(model=self._compress(model, kept), options=self._options)

    def works(self, model: RunnableModel) -> Mapping[str, LayerWork]:
        # What the plan says is not for the search to change, unless the user lets it.
        return super().works(model) if self._repairs else {}

    def describe_plan(self, model: RunnableModel, kept: Collection[str]) -> ExecutedPlan:
        """Returns what became of the plan, read back from a model that was built."""
        graph = _Graph(model.model)
        nodes = {str(node.get_friendly_name()): node for node in graph.nodes}
        quantized = find_quantized(nodes.values())
        ways = {
            name: _read_way(graph, nodes[name], layer, is_quantized=name in quantized, options=model.options)
            for name, (_, layer) in self._layers.items()
            if name in nodes
        }
        shared = [self._layers[name][1].output for name in ways if _has_one_scale(graph, nodes[name])]
        return self._describe(ways, kept=kept, shared=shared)

    def _describe(self, ways: Mapping[str, Way], *, kept: Collection[str], shared: Collection[str]) -> ExecutedPlan:
        return self._planned.describe(
            {self._layers[name][1].output: way for name, way in ways.items()},
            tensorwise=shared,
            repaired={self._layers[name][1].output for name in kept if name in self._layers},
            lacking=LACKING,
        )

    def _find_float(self, whole: Any) -> Iterator[str]:
        """Yields what NNCF quantizes and is not to be: layers that are planned otherwise, and what lies beside them."""
        graph = _Graph(whole)
        quantized = find_quantized(graph.nodes)
        in_integers: dict[str, bool] = {}
        for node in graph.nodes:
            name = str(node.get_friendly_name())
            if node.get_type_name() in _LAYERS:
                in_integers[name] = self.ways.get(name) in (INTEGER, PRODUCT)
            else:
                sources = [str(each.get_friendly_name()) for each in graph.find_computed(node)]
                in_integers[name] = bool(sources) and all(in_integers.get(source, False) for source in sources)
            if name in quantized and not in_integers[name]:
                yield name

    def _compress(self, model: Any, kept: Collection[str]) -> Any:
        """Stores weights in few bits: those of one mode and group size in each pass."""
        passes: dict[tuple[str, int | None], list[str]] = {}
        for name, way in self.ways.items():
            layer = self._layers[name][1]
            if name in kept or way in (FLOAT, INTEGER, PRODUCT):
                continue
            mode, size = ("INT8_SYM", None) if way == BYTE_WEIGHT else ("INT4_SYM", layer.group_size or -1)
            passes.setdefault((mode, size), []).append(name)
        for (mode, size), names in passes.items():
            model = self._compress_weights(model, mode, size, names)
        return model

    def _compress_weights(self, model: Any, mode: str, size: int | None, names: Collection[str]) -> Any:
        nncf = self._nncf
        from nncf.quantization import advanced_parameters as advanced

        options: dict[str, Any] = {}
        if size is not None:
            adjust = advanced.GroupSizeFallbackMode.ADJUST
            options = {
                "group_size": size,
                "all_layers": True,
                "advanced_parameters": advanced.AdvancedCompressionParameters(group_size_fallback_mode=adjust),
            }
        others = [
            str(node.get_friendly_name())
            for node in iterate_operators(model)
            if str(node.get_friendly_name()) not in names and node.get_type_name() not in ("Constant", "Parameter")
        ]
        try:
            with silence_vendor():
                return nncf.compress_weights(
                    model,
                    mode=nncf.CompressWeightsMode[mode],
                    ignored_scope=nncf.IgnoredScope(names=others, validate=False),
                    **options,
                )
        except Exception as error:
            raise BuildFailedError(
                f"NNCF cannot store weights of {self._request.model_path.name} in {mode}: {find_cause(error)}",
                hint=NO_INT8_HINT,
                detail=str(error),
            ) from error


class _Graph:
    """The operators of a model, and which of them compute something from its inputs.

    Args:
        model: Not changed while this is used.

    Attributes:
        nodes: In the order in which they run, those of branches too.
    """

    def __init__(self, model: Any) -> None:
        self.nodes = list(iterate_operators(model))
        self._computed = set[str]()
        for node in self.nodes:
            sources = [str(value.get_node().get_name()) for value in node.input_values()]
            reads = not sources or not self._computed.isdisjoint(sources)
            if reads and node.get_type_name() not in ("Constant", "ShapeOf"):
                self._computed.add(str(node.get_name()))

    def is_constant(self, node: Any) -> bool:
        """Whether a node depends on nothing but constants and sizes."""
        return str(node.get_name()) not in self._computed

    def find_computed(self, node: Any) -> list[Any]:
        """Returns the nodes that a node takes values from that depend on the inputs, but for their sizes."""
        return [source for value in node.input_values() if not self.is_constant(source := value.get_node())]


def _match(graph: _Graph, planned: PlannedModel) -> dict[str, tuple[Any, PlannedLayer]]:
    """Returns operator -> itself and its planned layer, found by the names of its result on the way to the next one."""
    found = {}
    for node in graph.nodes:
        if node.get_type_name() in _LAYERS:
            layer = planned.find(_list_result_names(graph, node))
            if layer is not None:
                found[str(node.get_friendly_name())] = (node, layer)
    return found


def _list_result_names(graph: _Graph, node: Any) -> Iterator[str]:
    """Yields the names of a layer's result, and of what is computed from that alone."""
    waiting, seen = [node], set[str]()
    while waiting:
        current = waiting.pop(0)
        for port in current.outputs():
            yield from sorted(port.get_names())
            for target in port.get_target_inputs():
                reader = target.get_node()
                name = str(reader.get_friendly_name())
                if name in seen or reader.get_type_name() in (*_LAYERS, "ShapeOf"):
                    continue
                seen.add(name)
                if len(graph.find_computed(reader)) == 1:
                    waiting.append(reader)


def _list_ways(graph: _Graph, node: Any) -> Sequence[Way]:
    if len(graph.find_computed(node)) > 1:
        return _PRODUCT_WAYS
    return _CONVOLUTION_WAYS if node.get_type_name() in _CONVOLUTIONS else _MATRIX_WAYS


def _read_way(graph: _Graph, node: Any, layer: PlannedLayer, *, is_quantized: bool, options: Mapping[str, str]) -> Way:
    """Returns how a layer of a built model is computed: by what its weight is stored as, and what is done before it."""
    stored = [_find_stored(graph, value.get_node()) for value in node.input_values()]
    bits = next((_BITS[kind] for kind in stored if kind in _BITS), None)
    if _reads_rounded(graph, node) and (bits is not None or len(graph.find_computed(node)) > 1) and is_quantized:
        return Way(weight_bits=bits, activation_bits=8)
    rounds = (
        options.items() >= ACTIVATIONS_IN_INTEGERS.items()
        and (layer.group_size or _DYNAMIC_GROUP) % _DYNAMIC_GROUP == 0
    )
    is_dynamic = bits is not None and rounds and node.get_type_name() == "MatMul"
    return Way(weight_bits=bits, activation_bits=8 if is_dynamic else None)


def _reads_rounded(graph: _Graph, node: Any) -> bool:
    """Whether all activations that a node multiplies were rounded to fixed scales."""
    rounded = []
    for source in graph.find_computed(node):
        while source.get_type_name() in TRANSPARENT and len(found := graph.find_computed(source)) == 1:
            source = found[0]
        rounded.append(source.get_type_name() == "FakeQuantize")
    return bool(rounded) and all(rounded)


def _find_stored(graph: _Graph, node: Any) -> str | None:
    """Returns the type of the constant that a weight is made of; None of what is computed."""
    while node.get_input_size():
        if not graph.is_constant(node):
            return None
        node = node.input_value(0).get_node()
    return str(node.get_element_type().get_type_name()) if node.get_type_name() == "Constant" else None


def _has_one_scale(graph: _Graph, node: Any) -> bool:
    """Whether the weight of a layer is multiplied by a single factor."""
    for value in node.input_values():
        source = value.get_node()
        while source.get_input_size() and graph.is_constant(source):
            if source.get_type_name() == "Multiply":
                factor = source.input_value(1).get_node()
                return bool(factor.get_type_name() == "Constant" and factor.data.size == 1)
            source = source.input_value(0).get_node()
    return False
