"""Branches of If operators that no calibration sample takes: nothing is known of their values, so they stay in float.

NNCF calibrates each branch on the samples that take it, and gives up on the whole model where there are none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from modelwright.targets.contract import Feeds

BRANCHES_HINT = (
    "openvino-fp32 takes the model as it is; for INT8, export it with the branches that it takes in place of the If"
)
_IF = "If"
_BRANCHES = (("then", True), ("else", False))
"""In the order of the bodies of OpenVINO's operator: name, and the condition that takes it."""


@dataclass(frozen=True, kw_only=True)
class IdleBranches:
    """What is to stay in float.

    Attributes:
        has_branches: Whether there is an If at all.
        branches: For people: `the else branch of NAME`.
        layers: Names of their operators, which no other operator of the model has.
    """

    has_branches: bool = False
    branches: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


def set_idle_branches_apart(core: Any, model: Any, feeds: Iterable[Feeds]) -> IdleBranches:
    """Finds the branches that no sample takes, and gives their operators names of their own.

    Of an If inside a branch nobody sees the condition: both of its branches count as idle.

    Args:
        core: OpenVINO's device manager.
        model: Of OpenVINO; operators in idle branches are renamed.
        feeds: The calibration samples, in the types of the model's ports.
    """
    operators = list(_list_ifs(model))
    if not operators:
        return IdleBranches()
    taken = _find_taken(core, model, feeds)
    branches, layers = [], []
    for position, operator in enumerate(operators):
        name = str(operator.get_friendly_name())
        for index, (branch, condition) in enumerate(_BRANCHES):
            body, label = operator.get_function(index), f"the {branch} branch of {name}"
            if condition not in taken[position]:
                branches.append(label)
                layers += list(_rename(body, f"{name}/{branch}"))
                continue
            for inner in _list_ifs(body):
                branches.append(f"{inner.get_friendly_name()} inside {label}")
                for side, (inner_branch, _) in enumerate(_BRANCHES):
                    prefix = f"{name}/{branch}/{inner.get_friendly_name()}/{inner_branch}"
                    layers += list(_rename(inner.get_function(side), prefix))
    return IdleBranches(has_branches=True, branches=tuple(branches), layers=tuple(layers))


def iterate_operators(model: Any) -> Iterator[Any]:
    """Yields the operators of a model, and of the branches in it."""
    for operator in model.get_ordered_ops():
        yield operator
        for body in list_branches(operator):
            yield from iterate_operators(body)


def list_branches(operator: Any) -> list[Any]:
    """Returns the bodies of an If; none of other operators."""
    return [operator.get_function(index) for index in range(len(_BRANCHES))] if operator.get_type_name() == _IF else []


def _list_ifs(model: Any) -> Iterator[Any]:
    return (operator for operator in model.get_ordered_ops() if operator.get_type_name() == _IF)


def _find_taken(core: Any, model: Any, feeds: Iterable[Feeds]) -> list[set[bool]]:
    """Returns the values that the condition of each If of the main graph has on some samples."""
    probe = model.clone()
    before = len(probe.outputs)
    probe.add_outputs([operator.input_value(0) for operator in _list_ifs(probe)])
    count = len(probe.outputs) - before
    request = core.compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    taken: list[set[bool]] = [set() for _ in range(count)]
    for inputs in feeds:
        request.infer(dict(inputs))
        for position in range(count):
            taken[position].add(bool(request.get_output_tensor(before + position).data.reshape(-1)[0]))
    return taken


def _rename(body: Any, prefix: str) -> Iterator[str]:
    """Puts a prefix before the names of a branch's operators, and of those in branches inside it; yields the new."""
    for operator in body.get_ordered_ops():
        name = f"{prefix}/{operator.get_friendly_name()}"
        operator.set_friendly_name(name)
        yield name
        if operator.get_type_name() == _IF:
            for index, (branch, _) in enumerate(_BRANCHES):
                yield from _rename(operator.get_function(index), f"{name}/{branch}")
