"""A plan of precisions in TFLite: a rule for each planned operator, 4-bit weights among them; all else in float."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from modelwright.core.records.plan import ExecutedPlan, PlannedLayer
from modelwright.targets.contract import BuildRequest
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
from modelwright.targets.tflite.layers import QUANTIZER_NAMES, Spared
from modelwright.targets.tflite.order import Order
from modelwright.targets.tflite.quantize import QuantizedFile, TfliteQuantizer
from modelwright.targets.tflite.recipes import BETWEEN, Rule, TfliteCandidate

LACKING = "TFLite has no narrower kernel"
_MATRIX, _PRODUCT = "FULLY_CONNECTED", "BATCH_MATMUL"
_CONVOLUTION = "CONV_2D"
_BLOCKS = (256, 128, 64, 32)
_WEIGHT_NAME = re.compile(r"(.+?)_(?:conv|depthwise|fc|transpose_conv)\w*_?(?:filter|weights)$")
"""What the converter calls a weight: after the ONNX node, perhaps with a number behind it."""
_NUMBERED = re.compile(r"(.+)_\d+$")
_BITS = {"int8": 8, "int4": 4}


def make_quantizer(request: BuildRequest, converted: Mapping[str, Any], precision: str) -> TfliteQuantizer:
    """Returns what quantizes a converted file: by its plan, where there is one."""
    planned = PlannedModel.of_request(request)
    if planned is None:
        return TfliteQuantizer(request, converted, precision)
    return PlannedQuantizer(request, converted, precision, planned)


class PlannedQuantizer(TfliteQuantizer):
    """Builds candidates that compute each operator as planned; what is searched is which scales are fixed.

    Attributes:
        ways: Operator, by its output's tensor -> how it is to be computed, of those that are planned.
    """

    def __init__(
        self, request: BuildRequest, converted: Mapping[str, Any], precision: str, planned: PlannedModel
    ) -> None:
        super().__init__(request, converted, precision)
        assert request.plan is not None, "the plan was read from it"
        self._planned, self._repairs = planned, request.plan.repairs
        tensors = {entry["tensor"]: entry["name"] for entry in self._binding["outputs"]}
        self._layers = _match(self._outline, planned, tensors)
        operators = {each["name"]: each for each in self._outline}
        self.ways = {
            name: choose_way(layer, _list_ways(operators[name], layer)) for name, layer in self._layers.items()
        }
        self._describe(self.ways, ())  # raises where nothing of the plan can be executed
        rules = tuple(self._list_rules(operators))
        between = tuple(_list_between(self._outline, self.ways))
        self._group = [
            TfliteCandidate(name="as planned", rules=(*rules, *between)),
            TfliteCandidate(name="as planned, products dynamic", rules=(*map(_take_while_running, rules), *between)),
            TfliteCandidate(name="as planned, what lies between in float", rules=rules),
        ]
        names = tuple(candidate.name for candidate in self._group)
        self._order = Order(names=names, source="those with fixed scales first: nothing was measured of plans")
        self.order = {"for": self._cpus, **asdict(self._order)}

    def base(self, best: TfliteCandidate, *, as_fast: bool) -> TfliteCandidate:  # noqa: ARG002
        return best

    def works(self, model: QuantizedFile) -> Mapping[str, LayerWork]:
        if not self._repairs:
            return {}  # what the plan says is not for the search to change
        works = self._weighted.works(model.candidate)
        return {name: work for name, work in works.items() if self.ways.get(name, FLOAT) != FLOAT}

    def costs(self, model: QuantizedFile) -> Mapping[str, float]:
        shares = self._weighted.costs(model.candidate)
        return {name: shares[name] for name in self.works(model)}

    def spare(self, candidate: TfliteCandidate, kept: Collection[str]) -> Spared:  # noqa: ARG002
        return Spared(dynamic=[], in_float=list(kept))

    def explain_kept(self, candidate: TfliteCandidate, kept: Collection[str]) -> str | None:  # noqa: ARG002
        return None

    def describe_plan(self, model: QuantizedFile, kept: Collection[str]) -> ExecutedPlan:
        """Returns what became of the plan, read back from a file that was made."""
        found = {each["name"]: each for each in model.outline}
        return self._describe({name: _read_way(found[name]) for name in self.ways if name in found}, kept)

    def _describe(self, ways: Mapping[str, Way], kept: Collection[str]) -> ExecutedPlan:
        return self._planned.describe(
            {self._layers[name].output: way for name, way in ways.items()},
            repaired={self._layers[name].output for name in kept if name in self._layers},
            lacking=LACKING,
        )

    def _list_rules(self, operators: Mapping[str, Mapping[str, Any]]) -> Iterator[Rule]:
        for name, way in self.ways.items():
            operator = operators[name]["operator"]
            if way == FLOAT:
                continue
            yield Rule(
                mode="weights" if way.activation_bits is None else "static",
                operators=(QUANTIZER_NAMES.get(operator, operator),),
                tensorwise=operator == _PRODUCT,  # per-channel scales of BATCH_MATMUL gave a cosine of -0.77
                bits=way.weight_bits or 8,
                block=_find_block(operators[name], self._layers[name]) if way == NARROW else None,
                scope=_name_scope(name),
            )


def _take_while_running(rule: Rule) -> Rule:
    """Returns a rule whose scales of activations are taken while running, where the operator has such a kernel."""
    return replace(rule, mode="dynamic") if _is_fixed_matrix(rule) else rule


def _is_fixed_matrix(rule: Rule) -> bool:
    return rule.mode == "static" and rule.operators == (_MATRIX,)


def _name_scope(name: str) -> str:
    return f"^{re.escape(name)}(;|$)"


def _match(
    outline: Sequence[Mapping[str, Any]], planned: PlannedModel, outputs: Mapping[str, str]
) -> dict[str, PlannedLayer]:
    """Returns operator -> its planned layer: by what its result is called further on, else by its weight's name."""
    readers: dict[str, list[Mapping[str, Any]]] = {}
    for each in outline:
        for source in filter(None, each["sources"]):
            readers.setdefault(source, []).append(each)
    found = {}
    for each in outline:
        if "activation" not in each:
            continue
        names = [outputs.get(name, name) for name in _follow(each["name"], readers)]
        layer = planned.find(names) or planned.find_node(_list_nodes(each.get("stored", "")))
        if layer is not None:
            found[str(each["name"])] = layer
    return found


def _follow(name: str, readers: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[str]:
    """Yields the names of a result, and of what is computed from that alone."""
    waiting = [name]
    while waiting:
        current = waiting.pop(0)
        yield current
        waiting += [
            str(each["name"])
            for each in readers.get(current, ())
            if "activation" not in each and len(each["sources"]) == 1
        ]


def _list_nodes(stored: str) -> Iterator[str]:
    """Yields what the ONNX node of a weight may be called."""
    named = _WEIGHT_NAME.match(stored)
    if named is not None:
        yield named[1]
        numbered = _NUMBERED.match(named[1])
        if numbered is not None:
            yield numbered[1]


def _list_ways(operator: Mapping[str, Any], layer: PlannedLayer) -> Sequence[Way]:
    kind = operator["operator"]
    if kind == _PRODUCT:
        return (PRODUCT,)
    wide = (INTEGER, BYTE_WEIGHT)
    if kind not in (_MATRIX, _CONVOLUTION):
        return wide
    if layer.group_size is None or layer.group_size >= operator["shape"][-1]:
        return (NARROW, NARROW_WEIGHT, *wide)
    # Scales for longer groups than planned would be coarser than what was simulated.
    return (NARROW, *wide) if _find_block(operator, layer) is not None else wide


def _find_block(operator: Mapping[str, Any], layer: PlannedLayer) -> int | None:
    """Returns how many weights of a channel share a scale; None for all of them, or where no block fits."""
    length = operator["shape"][-1]
    if operator["operator"] != _MATRIX or layer.group_size is None or layer.group_size >= length:
        return None
    return next((size for size in _BLOCKS if layer.group_size % size == 0 and length % size == 0), None)


def _list_between(outline: Sequence[Mapping[str, Any]], ways: Mapping[str, Way]) -> Iterator[Rule]:
    """Yields rules for what lies between operators in integers: it reads nothing but what they make."""
    in_integers: dict[str, bool] = {}
    for each in outline:
        name, sources = str(each["name"]), each["sources"]
        if "activation" in each:
            in_integers[name] = ways.get(name) in (INTEGER, NARROW, PRODUCT)
            continue
        kind = QUANTIZER_NAMES.get(each["operator"], each["operator"])
        in_integers[name] = bool(sources) and all(in_integers.get(source or "", False) for source in sources)
        if in_integers[name] and kind in BETWEEN:
            yield Rule(mode="static", operators=(kind,), scope=_name_scope(name))


def _read_way(operator: Mapping[str, Any]) -> Way:
    """Returns how an operator of a made file is computed."""
    bits = _BITS.get(operator.get("weight", ""))
    if operator["activation"] == "int8":
        return Way(weight_bits=bits, activation_bits=8)
    # Weights that stay integers are multiplied with activations that are rounded as they come.
    takes = bits is not None and not operator["widens"]
    return Way(weight_bits=bits, activation_bits=8 if takes else None)
