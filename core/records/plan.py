"""A plan of precisions: how many bits each layer of an ONNX model gets. `mix` writes it, `build --plan` carries it out.

It may be written or edited by hand, so it carries no seal; what it says is checked against the model instead.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from modelwright.core.errors import BadInputError, suggest
from modelwright.core.files import write_json
from modelwright.core.records.codec import Line, Record, Sha256, encode, read_record

PLAN_FILE = "plan.json"
"""What `mix` calls it."""
MOST_LAYERS = 20_000
Bits = Annotated[int, Meta(ge=2, le=8, description="a whole number of bits from 2 to 8, or null for float")]
Granularity = Literal["channel", "tensor"]
_TOLD = 4
"""Kinds of layers that a note tells one by one."""
_Name = Annotated[str, Meta(min_length=1, max_length=1000, description="a name of 1 to 1000 characters")]
_GroupSize = Annotated[int, Meta(ge=2, le=2**20, description="a whole number of weights from 2 to 1048576")]


def describe_bits(weight_bits: int | None, activation_bits: int | None, *, has_weight: bool) -> str:
    """Returns for instance `4-bit weights, 8-bit activations`, or `float`."""
    if weight_bits is None and activation_bits is None:
        return "float"
    parts = [(weight_bits, "weights"), (activation_bits, "activations")]
    told = [f"{'float' if bits is None else f'{bits}-bit'} {of}" for bits, of in (parts if has_weight else parts[1:])]
    return ", ".join(told)


class PlannedLayer(Record):
    """How many bits one layer gets.

    Attributes:
        output: Name of the node's first output: nodes may have no name, or share one, and outputs never do.
        node: The node's name, for people; may be empty.
        operator: `Conv`, `MatMul`, ...
        weight: Name of the weight; None where both operands are computed, as are those of attention's products.
        weight_bits: Of the weight; None for float, and where there is no weight.
        activation_bits: Of what is computed and multiplied; None for float.
        granularity: Whether each channel of the weight has a scale of its own, or the whole tensor one.
        group_size: How many weights in a row of a channel share a scale; None for the whole row.
        simulated: Whether what is known of these bits comes from a simulation in float.
    """

    output: _Name
    node: Annotated[str, Meta(max_length=1000)] = ""
    operator: Line
    weight: _Name | None
    weight_bits: Bits | None
    activation_bits: Bits | None
    granularity: Granularity = "channel"
    group_size: _GroupSize | None = None
    simulated: bool = False

    @property
    def is_float(self) -> bool:
        return self.weight_bits is None and self.activation_bits is None

    def describe(self) -> str:
        """Returns for instance `4-bit weights, 8-bit activations`."""
        return describe_bits(self.weight_bits, self.activation_bits, has_weight=self.weight is not None)


class BitPlan(Record):
    """What `plan.json` holds.

    Attributes:
        onnx_sha256: Of the FP32 model that it is for, as records of exports and manifests say it.
        model: What that model is called, for people.
        origin: What made the plan: `modelwright mix`, a hand.
        method: How the bits were assigned, such as `sensitivity, by thirds` or `by hand`.
        granularity: What was asked for as a whole; layers may differ.
        rank_aware: Whether the scales were chosen to keep the order of attention's scores.
        layers: Those that get bits; those that are not listed stay in float.
    """

    schema: Annotated[
        Literal[1], Meta(extra={"hint": "it was made by another version of modelwright: run `modelwright mix` again"})
    ] = 1
    onnx_sha256: Sha256
    model: Line
    origin: Line
    method: Line
    granularity: Granularity = "channel"
    rank_aware: bool = False
    layers: Annotated[
        tuple[PlannedLayer, ...],
        Meta(min_length=1, max_length=MOST_LAYERS, description=f"an array of 1 to {MOST_LAYERS:,} layers"),
    ]

    def count_bits(self) -> Counter[str]:
        """Returns how many layers have which bits, in words, the most frequent first."""
        return Counter(layer.describe() for layer in self.layers)

    def summarize(self) -> str:
        """Returns a line for people: `12 layers: 8 with 8-bit weights, 8-bit activations, 4 with float`."""
        counted = "; ".join(f"{count} with {words}" for words, count in self.count_bits().most_common())
        return f"{len(self.layers)} layer{'s' if len(self.layers) != 1 else ''}: {counted}"


class PlanChoice(Record):
    """A plan that is to be executed.

    Attributes:
        plan: How many bits each layer gets.
        repairs: Whether layers of it may go back to float where it loses too much; without, such a plan is refused.
    """

    plan: BitPlan
    repairs: bool = False


class ExecutedLayer(Record):
    """What a runtime makes of one planned layer.

    Attributes:
        planned: What was planned for it.
        weight_bits: That its weight is stored with, and multiplied as; None for float, and where there is no weight.
        activation_bits: That it multiplies activations as; None for float.
        granularity: Of the weight's scales: a channel's may be the same everywhere where the whole tensor has one.
        reason: Why it is wider than planned; None where it is not.
    """

    planned: PlannedLayer
    weight_bits: Bits | None
    activation_bits: Bits | None
    granularity: Granularity
    reason: Line | None

    @property
    def is_widened(self) -> bool:
        return self.reason is not None

    def describe(self) -> str:
        """Returns for instance `8-bit weights, 8-bit activations`."""
        return describe_bits(self.weight_bits, self.activation_bits, has_weight=self.planned.weight is not None)


class ExecutedPlan(Record):
    """What a runtime makes of a plan; a manifest has it of an artifact that was built by one.

    Attributes:
        onnx_sha256: Of the model that the plan is for.
        origin: As in the plan.
        method: As in the plan.
        rank_aware: As in the plan.
        layers: Those of the plan, in its order.
    """

    onnx_sha256: Sha256
    origin: Line
    method: Line
    rank_aware: bool
    layers: Annotated[tuple[ExecutedLayer, ...], Meta(min_length=1, max_length=MOST_LAYERS)]

    @property
    def widened(self) -> tuple[ExecutedLayer, ...]:
        """The layers that the runtime executes wider than planned: what the plan gains there stays simulated."""
        return tuple(layer for layer in self.layers if layer.is_widened)

    def explain(self) -> str:
        """Returns a sentence for the user on what of the plan is executed, and what stays simulated."""
        total, wider = len(self.layers), len(self.widened)
        if not wider:
            what = "its one layer" if total == 1 else f"all {total} layers of it"
            whole = f"the plan ({self.method}) is executed as it is, {what}"
            return whole + self._explain_finer()
        reasons: dict[str, Counter[str]] = {}
        for layer in self.widened:
            words = f"with {layer.planned.describe()} as {layer.describe()}"
            reasons.setdefault(layer.reason or "", Counter())[words] += 1
        told = "; ".join(
            f"{reason}: {', '.join(f'{count} {words}' for words, count in counted.most_common(_TOLD))}"
            + (", and others" if len(counted) > _TOLD else "")
            for reason, counted in reasons.items()
        )
        return (
            f"{total - wider} of the plan's {total} layers are executed as planned, {wider} wider, whose bits stay "
            f"simulated; {told}{self._explain_finer()}"
        )

    def _explain_finer(self) -> str:
        """Says of how many layers the scales are finer than planned: those are closer to float than was simulated."""
        finer = sum(
            layer.weight_bits is not None and layer.planned.granularity == "tensor" and layer.granularity == "channel"
            for layer in self.layers
        )
        return f"; {finer} with a scale a channel, where one for the whole weight is planned" if finer else ""


def write_plan(path: Path, plan: BitPlan) -> None:
    """Writes a plan, whole or not at all.

    Raises:
        BuildFailedError: The disk is full.
        BadInputError: The folder is not writable.
    """
    write_json(path, encode(plan))


def read_plan(path: Path) -> BitPlan:
    """Reads a plan, by itself: whether it is for a model, `require_model` and `require_layers` say.

    Raises:
        BadInputError: No such file, not JSON, not a plan, a layer twice, or bits of a weight that is not there.
    """
    if (path / PLAN_FILE).is_file():
        raise BadInputError(f"{path} is a folder, and a plan is a file", hint=f"give {path / PLAN_FILE}")
    try:
        plan = read_record(BitPlan, path, what="a plan of precisions")
    except BadInputError as error:
        beside = path.with_name(PLAN_FILE)
        if path.name == PLAN_FILE or not beside.is_file():
            raise
        hint = "; ".join(filter(None, (error.hint, f"`modelwright mix` has written a plan beside it: {beside}")))
        raise BadInputError(error.message, hint=hint, detail=error.detail) from error
    twice = [output for output, count in Counter(layer.output for layer in plan.layers).items() if count > 1]
    if twice:
        raise BadInputError(
            f"{path}: layers: {_show(twice[0])} is there more than once",
            hint="keep one entry a layer",
        )
    for index, layer in enumerate(plan.layers):
        if layer.weight is None and layer.weight_bits is not None:
            raise BadInputError(
                f"{path}: layers[{index}].weight_bits: {_show(layer.output)} has no weight (its weight is null)",
                hint="make weight_bits null, or name the weight",
            )
    return plan


def require_model(plan: BitPlan, path: Path, onnx_sha256: str) -> None:
    """Refuses a plan that was made for another model.

    Args:
        plan: That is to be carried out.
        path: Its file.
        onnx_sha256: Of the FP32 model that is to be built.

    Raises:
        BadInputError: Names both.
    """
    if plan.onnx_sha256 != onnx_sha256:
        raise BadInputError(
            f"{path} is for another model: {plan.model} ({plan.onnx_sha256[:12]}...), not the one given "
            f"({onnx_sha256[:12]}...)",
            hint="run `modelwright mix` on this model, or give the model that the plan is for",
        )


def require_layers(plan: BitPlan, operators: Mapping[str, str], weights: Collection[str]) -> None:
    """Refuses a plan with a layer that the model does not have.

    Args:
        plan: That is to be carried out.
        operators: First output of each node of the model -> its operator.
        weights: Names of the model's constants.

    Raises:
        BadInputError: Names the layer, and one that it may have meant.
    """
    for index, layer in enumerate(plan.layers):
        where = f"plan: layers[{index}]"
        found = operators.get(layer.output)
        if found is None:
            raise BadInputError(
                f"{where}.output: the model has no node that gives {_show(layer.output)}",
                hint=suggest(layer.output, operators) or "run `modelwright mix` on this model again",
            )
        if found != layer.operator:
            raise BadInputError(
                f"{where}.operator: {_show(layer.output)} comes from {found}, not from {layer.operator}",
                hint=f"write {found}, or run `modelwright mix` on this model again",
            )
        if layer.weight is not None and layer.weight not in weights:
            raise BadInputError(
                f"{where}.weight: the model has no constant {_show(layer.weight)}",
                hint=suggest(layer.weight, weights) or "run `modelwright mix` on this model again",
            )


def _show(name: str) -> str:
    return repr(name) if len(name) <= 80 else f"{name[:77]!r}..."
