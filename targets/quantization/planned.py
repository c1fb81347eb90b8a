"""A plan of precisions, held against what a runtime has: which of its ways to compute takes each planned layer.

A runtime makes another graph of a model than the one that was planned: batch norms are folded, results get the names of
what follows. So a layer is found by the names that its result has on its way to the next layer.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.facts import list_initializers
from modelwright.core.onnx.walk import read_names
from modelwright.core.records.plan import (
    BitPlan,
    ExecutedLayer,
    ExecutedPlan,
    Granularity,
    PlannedLayer,
    require_layers,
)
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.files import load_model

T = TypeVar("T")
PRODUCTS = frozenset({"Attention", "Conv", "ConvTranspose", "Einsum", "GRU", "Gemm", "LSTM", "MatMul", "RNN"})
"""Operators that multiply: what comes out of one is another layer's, whatever went in."""
_SIZES = frozenset({"Shape", "Size"})
_NOT_THERE = "it is no layer of its own in the runtime's graph"
_REPAIRED = "put back to float: the plan loses too much"


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a runtime can compute a layer; None is float.

    Attributes:
        weight_bits: That its weight is stored with.
        activation_bits: That activations are multiplied as.
    """

    weight_bits: int | None
    activation_bits: int | None

    def holds(self, layer: PlannedLayer) -> bool:
        """Whether it is nowhere narrower than planned."""
        has_room = _width(self.weight_bits) >= _width(layer.weight_bits) or layer.weight is None
        return has_room and _width(self.activation_bits) >= _width(layer.activation_bits)


FLOAT = Way(weight_bits=None, activation_bits=None)
INTEGER = Way(weight_bits=8, activation_bits=8)
NARROW = Way(weight_bits=4, activation_bits=8)
NARROW_WEIGHT = Way(weight_bits=4, activation_bits=None)
BYTE_WEIGHT = Way(weight_bits=8, activation_bits=None)
PRODUCT = Way(weight_bits=None, activation_bits=8)
"""Of two activations, as attention has them."""


def choose_way(layer: PlannedLayer, offered: Sequence[Way]) -> Way:
    """Returns the first way, the narrowest first, that is nowhere narrower than planned; float where none is."""
    return next((way for way in offered if way.holds(layer)), FLOAT)


class PlannedModel:
    """A plan, and the names by which its layers are found in what a runtime makes of the model.

    Args:
        plan: For this model.
        model: The FP32 model as it was exported; its weights are not looked at.

    Raises:
        BadInputError: The plan has a layer that the model has not.
    """

    def __init__(self, plan: BitPlan, model: Any) -> None:
        nodes = list(model.graph.node)
        operators = {node.output[0]: node.op_type for node in nodes if node.output}
        constants = _find_constants(model)
        require_layers(plan, operators, constants)
        self.plan = plan
        self._layers = {layer.output: layer for layer in plan.layers}
        self._names = _follow_results(nodes, constants, self._layers)
        times = Counter(node.name for node in nodes)
        self._nodes = {
            str(node.name): self._layers[node.output[0]]
            for node in nodes
            if node.output and node.output[0] in self._layers and node.name and times[node.name] == 1
        }

    def match(self, model: Any) -> dict[str, PlannedLayer]:
        """Returns node of another ONNX graph of the same model -> its planned layer; what is not planned is missing.

        Args:
            model: Normalized, so that every node has a name of its own.
        """
        nodes = list(model.graph.node)
        products = {node.output[0]: str(node.name) for node in nodes if node.op_type in PRODUCTS and node.output}
        found: dict[str, PlannedLayer] = {}
        for name, product in _follow_results(nodes, _find_constants(model), products).items():
            if name in self._names:
                found.setdefault(product, self._names[name])
        return found

    @staticmethod
    def of_request(request: BuildRequest) -> PlannedModel | None:
        """Reads the plan of a build; None where there is none."""
        if request.plan is None:
            return None
        return PlannedModel(request.plan.plan, load_model(request.model_path, weights=False))

    def find(self, names: Iterable[str]) -> PlannedLayer | None:
        """Returns the planned layer whose result has one of these names; None for what is not planned."""
        return next((self._names[name] for name in names if name in self._names), None)

    def find_node(self, names: Iterable[str]) -> PlannedLayer | None:
        """Returns the planned layer whose node has one of these names in the model, and no other node has."""
        return next((self._nodes[name] for name in names if name in self._nodes), None)

    def describe(
        self,
        ways: Mapping[str, Way],
        *,
        tensorwise: Collection[str] = (),
        repaired: Collection[str] = (),
        lacking: str,
    ) -> ExecutedPlan:
        """Returns what became of the plan.

        Args:
            ways: Planned layer, by its output -> how it is computed. Missing are those that the runtime does not have
                any more, as what is constant or unread is left out of its graph.
            tensorwise: Outputs of the layers whose weights share one scale.
            repaired: Outputs of the layers that went back to float because of what they lose.
            lacking: Why a layer is wider than planned, in the runtime's terms.

        Raises:
            BuildFailedError: Nothing of the plan is left: this would be a float artifact under another name.
        """
        layers = [
            _describe_layer(
                layer,
                FLOAT if layer.output in repaired else ways[layer.output],
                granularity="tensor" if layer.output in tensorwise else "channel",
                reason=_REPAIRED if layer.output in repaired else lacking,
            )
            if layer.output in ways
            else _describe_layer(layer, FLOAT, granularity="channel", reason=_NOT_THERE)
            for layer in self.plan.layers
        ]
        if all(layer.weight_bits is None and layer.activation_bits is None for layer in layers):
            raise BuildFailedError(
                f"nothing of the plan can be executed: all {len(layers)} layers of it are in float here ({lacking})",
                hint="plan 8 bits for weights and activations of some layers, or build the float target",
            )
        return ExecutedPlan(
            onnx_sha256=self.plan.onnx_sha256,
            origin=self.plan.origin,
            method=self.plan.method,
            rank_aware=self.plan.rank_aware,
            layers=tuple(layers),
        )


def _describe_layer(layer: PlannedLayer, way: Way, *, granularity: Granularity, reason: str) -> ExecutedLayer:
    wider = _width(way.activation_bits) > _width(layer.activation_bits) or (
        layer.weight is not None and _width(way.weight_bits) > _width(layer.weight_bits)
    )
    return ExecutedLayer(
        planned=layer,
        weight_bits=None if layer.weight is None else way.weight_bits,
        activation_bits=way.activation_bits,
        granularity=granularity,
        reason=reason if wider else None,
    )


def _width(bits: int | None) -> float:
    return math.inf if bits is None else bits


def _find_constants(model: Any) -> set[str]:
    """Returns the tensors whose values do not depend on the inputs, those that nodes make of constants too."""
    constants = set(list_initializers(model.graph))
    for node in model.graph.node:
        if constants.issuperset(read_names(node)):
            constants.update(node.output)
    return constants


def _follow_results(nodes: Iterable[Any], constants: Collection[str], starts: Mapping[str, T]) -> dict[str, T]:
    """Returns tensor -> what stands for the node that it is the result of, through what computes on that alone.

    Args:
        nodes: In topological order.
        constants: Tensors that do not depend on the inputs.
        starts: First output of a node -> what stands for it.
    """
    origin: dict[str, T] = {}
    sizes: set[str] = set()
    for node in nodes:
        computed = [name for name in read_names(node) if name not in constants and name not in sizes]
        if node.op_type in _SIZES or (node.input and not computed):
            sizes.update(node.output)
        elif node.output and node.output[0] in starts:
            origin.update(dict.fromkeys(filter(None, node.output), starts[node.output[0]]))
        elif node.op_type not in PRODUCTS and len(computed) == 1 and computed[0] in origin:
            origin.update(dict.fromkeys(filter(None, node.output), origin[computed[0]]))
    return origin
